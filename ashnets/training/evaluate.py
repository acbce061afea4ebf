"""Retrieval on a split: text → image and image → text by ITC similarity, optionally reranked by ITM."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

import ashnets
from ashnets.data.corpus import open_corpus
from ashnets.data.pairs import Pairs
from ashnets.metrics.retrieval import recall_at
from ashnets.model.heads import AshNetsForRetrieval
from ashnets.model.sampling import image_key

KS = (1, 5, 10)


@torch.inference_mode()
def embed_pictures(
    model: AshNetsForRetrieval, pairs: Pairs, batch: int = 64, progress: bool = True, **options: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """Embeddings (n, 256) and visual tokens (n, N, M1) of all pictures, each from a reset state."""
    embeds, tokens = [], []
    starts = range(0, len(pairs), batch)
    for start in tqdm(starts, desc="embedding pictures", unit="batch", leave=False, disable=not progress or None):
        indices = range(start, min(start + batch, len(pairs)))
        keys = [image_key(pairs.image_ids[i]) for i in indices]
        embed, visual = model.encode_image(pairs.on_white(list(indices)), image_ids=keys, **options)
        embeds.append(embed)
        tokens.append(visual.output)
    return torch.cat(embeds), torch.cat(tokens)


@torch.inference_mode()
def embed_texts(model: AshNetsForRetrieval, tokenizer: Any, texts: list[str], batch: int = 256) -> torch.Tensor:
    """Embeddings (n, 256) of texts."""
    embeds = []
    for start in range(0, len(texts), batch):
        tokens = tokenize(tokenizer, texts[start : start + batch], model.config.max_text_length)
        embeds.append(model.encode_text(tokens["input_ids"], tokens["attention_mask"]))
    return torch.cat(embeds)


def tokenize(tokenizer: Any, texts: list[str], max_length: int) -> Any:
    """Token ids and masks of texts, (B, L), and which tokens are special."""
    return tokenizer(
        texts,
        padding=True,
        truncation=True,
        max_length=max_length,
        return_tensors="pt",
        return_special_tokens_mask=True,
        return_token_type_ids=False,
    )


@torch.inference_mode()
def retrieval(
    model: AshNetsForRetrieval, tokenizer: Any, pairs: Pairs, rerank: int = 0, progress: bool = True, **options: Any
) -> dict[str, Any]:
    """R@K both ways over the pictures of a split; a text is the bare name of a concept.

    Args:
        rerank: texts and pictures that ITM scores again for each query; 0 ranks by ITC alone.

    Returns:
        ``{"pictures", "texts", "text_to_image": {"R@1", ...}, "image_to_text": ..., "chance": ...}``; shares in [0, 1].
    """
    texts = list(dict.fromkeys(pairs.names))
    place = {text: i for i, text in enumerate(texts)}
    gold_text = [{place[name]} for name in pairs.names]
    gold_image: list[set[int]] = [set() for _ in texts]
    for i, name in enumerate(pairs.names):
        gold_image[place[name]].add(i)
    image_embeds, tokens = embed_pictures(model, pairs, progress=progress, **options)
    similarity = embed_texts(model, tokenizer, texts) @ image_embeds.T  # (texts, pictures)
    to_image, to_text = similarity, similarity.T
    if rerank:
        to_image = _reranked(model, tokenizer, texts, tokens, similarity, rerank, progress)
        to_text = _reranked(model, tokenizer, texts, tokens, similarity.T, rerank, progress, by_picture=True)
    return {
        "pictures": len(pairs),
        "texts": len(texts),
        "ranking": f"ITC, then ITM on the first {rerank}" if rerank else "ITC",
        "text_to_image": recall_at(to_image, gold_image, KS),
        "image_to_text": recall_at(to_text, gold_text, KS),
        "chance": {f"R@{k}": min(1.0, k / len(pairs)) for k in KS},
    }


def _reranked(model, tokenizer, texts, tokens, similarity, first, progress, by_picture=False):
    """Put the ``first`` best of each row in the order of ITM; the rest keep theirs, below."""
    scores = similarity.clone()
    best = similarity.topk(min(first, similarity.shape[1]), dim=1).indices
    for row in tqdm(range(len(scores)), desc="ITM", unit="query", leave=False, disable=not progress or None):
        candidates = best[row]
        sentences = [texts[int(c)] for c in candidates] if by_picture else [texts[row]] * len(candidates)
        visual = tokens[row].expand(len(candidates), -1, -1) if by_picture else tokens[candidates]
        encoded = tokenize(tokenizer, sentences, model.config.max_text_length)
        logits = model.match(visual, encoded["input_ids"], encoded["attention_mask"])
        # similarity lies in [−1, 1]: 2 + probability stays above every candidate that was not reranked
        scores[row, candidates] = 2 + logits.softmax(1)[:, 1]
    return scores


def evaluate_retrieval(
    name: str | Path,
    corpus: Path,
    splits: list[str],
    rerank: int = 0,
    ablate: bool = False,
    progress: bool = True,
) -> dict[str, Any]:
    """Evaluate a model by name or folder on splits of a corpus.

    Args:
        ablate: also rank by the concrete branch alone, the same weights with the spiking branch switched off.

    Returns:
        For each split what :func:`retrieval` gives, with versions and hardware.
    """
    opened = open_corpus(corpus)
    for split in splits:
        opened.split(split)
    model = ashnets.from_pretrained(name, task="retrieval")
    processor = ashnets.AshNetsProcessor.from_pretrained(name)
    results: dict[str, Any] = {"model": str(name), "corpus": opened.manifest.get("name", "pictograms"), "splits": {}}
    for split in splits:
        pairs = Pairs(opened, [split], model.config.image_size, progress)
        entry = retrieval(model, processor.tokenizer, pairs, rerank, progress)
        if ablate and model.config.has_spiking_branch:
            entry["spiking_branch_off"] = retrieval(
                model, processor.tokenizer, pairs, rerank, progress, concrete_only=True
            )
        results["splits"][split] = entry
    results["environment"] = environment()
    return results


def environment() -> dict[str, Any]:
    """Versions and hardware, for every number that is written down."""
    import spikingjelly
    import transformers

    return {
        "ashnets": ashnets.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "spikingjelly": getattr(spikingjelly, "__version__", "unknown"),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else _processor(),
        "threads": torch.get_num_threads(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
