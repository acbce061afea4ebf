"""Retrieval on a split: text → image and image → text by ITC similarity, optionally reranked by ITM."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

import ashnets
from ashnets.data.pairs import Pairs
from ashnets.data.sources import open_source
from ashnets.errors import DataError
from ashnets.metrics.retrieval import chance_at, recall_at, rerank
from ashnets.model.heads import AshNetsForRetrieval
from ashnets.model.sampling import image_key

KS = (1, 5, 10)
TRAINING_RECORD = "training.json"


@torch.inference_mode()
def embed_pictures(
    model: AshNetsForRetrieval,
    pairs: Pairs,
    indices: Sequence[int] | np.ndarray | None = None,
    batch: int = 64,
    progress: bool = True,
    keep_tokens: bool = True,
    unreadable: dict[str, str] | None = None,
    **options: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Embeddings (n, 256) and visual tokens (n, N, M1) of pictures, each from a reset state.

    Args:
        indices: which of ``pairs``; all by default.
        keep_tokens: with False the tokens are empty, (0,).
        unreadable: where given, pictures that cannot be read are noted here, name → why, and embedded as blank.

    Raises:
        DataError: a picture cannot be read, and ``unreadable`` is not given.
    """
    chosen = range(len(pairs)) if indices is None else indices
    embeds, tokens = [torch.empty(0, model.config.projection_size, device=model.device)], []
    starts = range(0, len(chosen), batch)
    for start in tqdm(starts, desc="embedding pictures", unit="batch", leave=False, disable=not progress or None):
        part = [int(i) for i in chosen[start : start + batch]]
        pixels = torch.stack([_on_white(pairs, i, unreadable) for i in part]).to(model.device)
        keys = [image_key(pairs.image_ids[i]) for i in part]
        embed, visual = model.encode_image(pixels, image_ids=keys, **options)
        embeds.append(embed)
        if keep_tokens:
            tokens.append(visual.output)
    return torch.cat(embeds), torch.cat(tokens) if tokens else torch.empty(0)


def _on_white(pairs: Pairs, index: int, unreadable: dict[str, str] | None) -> torch.Tensor:
    try:
        return pairs.on_white([index])[0]
    except DataError as error:
        if unreadable is None:
            raise
        unreadable[pairs.image_ids[index]] = str(error)
        return torch.ones(3, pairs.side, pairs.side)


@torch.inference_mode()
def embed_texts(model: AshNetsForRetrieval, tokenizer: Any, texts: list[str], batch: int = 256) -> torch.Tensor:
    """Embeddings (n, 256) of texts."""
    embeds = []
    for start in range(0, len(texts), batch):
        tokens = tokenize(tokenizer, texts[start : start + batch], model.config.max_text_length)
        tokens = tokens.to(model.device)
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
    model: AshNetsForRetrieval,
    tokenizer: Any,
    pairs: Pairs,
    rerank_top: int = 0,
    progress: bool = True,
    indices: Sequence[int] | None = None,
    **options: Any,
) -> dict[str, Any]:
    """R@K both ways over the pictures of a split; a text is the bare name of a concept, or a first caption.

    Args:
        indices: which of ``pairs``; all by default.
        rerank_top: candidates of each query that ITM scores again; 0 ranks by ITC alone.

    Returns:
        ``{"pictures", "texts", "ranking", "text_to_image": {"R@1", ...}, "image_to_text", "chance"}``, shares in
        [0, 1].
    """
    names = pairs.names if indices is None else [pairs.names[i] for i in indices]
    texts = list(dict.fromkeys(names))
    place = {text: i for i, text in enumerate(texts)}
    gold_text = [{place[name]} for name in names]
    gold_image: list[set[int]] = [set() for _ in texts]
    for i, name in enumerate(names):
        gold_image[place[name]].add(i)
    image_embeds, tokens = embed_pictures(
        model, pairs, indices, progress=progress, keep_tokens=rerank_top > 0, **options
    )
    to_image = embed_texts(model, tokenizer, texts) @ image_embeds.T  # (texts, pictures)
    to_text = to_image.T
    if rerank_top:
        score = matching_score(model, tokenizer, texts, tokens, progress)
        to_image = rerank(to_image, rerank_top, score)
        to_text = rerank(to_text, rerank_top, lambda pictures, sentences: score(sentences, pictures))
    return {
        "pictures": len(names),
        "texts": len(texts),
        "ranking": f"ITC, then ITM on the best {rerank_top}" if rerank_top else "ITC",
        "text_to_image": recall_at(to_image, gold_image, KS),
        "image_to_text": recall_at(to_text, gold_text, KS),
        "chance": {
            "text_to_image": chance_at(gold_image, len(names), KS),
            "image_to_text": chance_at(gold_text, len(texts), KS),
        },
    }


def matching_score(
    model: AshNetsForRetrieval, tokenizer: Any, texts: list[str], tokens: torch.Tensor, progress: bool, batch: int = 128
) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """ITM as a function of (P,) text and (P,) picture indices: log p(matching)."""

    def score(sentences: torch.Tensor, pictures: torch.Tensor) -> torch.Tensor:
        found = []
        starts = range(0, len(sentences), batch)
        for start in tqdm(starts, desc="ITM", unit="batch", leave=False, disable=not progress or None):
            chosen = [texts[int(i)] for i in sentences[start : start + batch]]
            encoded = tokenize(tokenizer, chosen, model.config.max_text_length).to(model.device)
            visual = tokens[pictures[start : start + batch]]
            logits = model.match(visual, encoded["input_ids"], encoded["attention_mask"])
            found.append(logits.log_softmax(1)[:, 1])
        return torch.cat(found)

    return score


def evaluate_retrieval(
    names: Sequence[str | Path],
    corpus: Path,
    splits: Sequence[str],
    rerank_top: int = 0,
    ablate: bool = False,
    progress: bool = True,
) -> dict[str, Any]:
    """Evaluate models, by name or folder, on splits of a corpus.

    Args:
        rerank_top: also rank with ITM on that many candidates; 0 leaves it at ITC.
        ablate: also rank by the concrete branch alone, the same weights with the spiking branch switched off.

    Returns:
        ``{"models": {name: {"training": ..., "splits": {split: [entry, ...]}}}, "environment": ...}``; an entry is what
        :func:`retrieval` gives and the ``branch`` that it used.

    Raises:
        DataError: before anything is loaded, if the corpus or a split is missing or damaged.
        UnknownModelError, WeightsError: as ``from_pretrained``.
    """
    opened = open_source(corpus)
    for split in splits:
        opened.split(split)
    models: dict[str, Any] = {}
    for name in names:
        model = ashnets.from_pretrained(name, task="retrieval")
        tokenizer = ashnets.AshNetsProcessor.from_pretrained(name).tokenizer
        record = _training_record(name)
        if record is not None and "hold_out" in record:
            opened = open_source(corpus, record["hold_out"])  # the validation pictures of that training, and no others
        entry: dict[str, Any] = {"training": record, "splits": {}}
        spiking = model.config.has_spiking_branch
        branches: list[tuple[str, dict[str, bool]]] = [("both" if spiking else "concrete", {})]
        if ablate and spiking:
            branches.append(("concrete alone", {"concrete_only": True}))
        for split in splits:
            pairs = Pairs(opened, [split], model.config.image_size)
            entry["splits"][split] = [
                {"branch": branch, **retrieval(model, tokenizer, pairs, top, progress, **options)}
                for branch, options in branches
                for top in sorted({0, rerank_top})
            ]
        models[str(name)] = entry
    return {"models": models, "environment": environment()}


def as_rows(results: dict[str, Any]) -> list[dict[str, Any]]:
    """What :func:`evaluate_retrieval` gives as flat rows, one a direction, for a CSV file."""
    rows = []
    for name, model in results["models"].items():
        training = model["training"] or {}
        for split, entries in model["splits"].items():
            for entry in entries:
                for direction in ("text_to_image", "image_to_text"):
                    rows.append({
                        "model": training.get("model", name),
                        "recipe": training.get("recipe", ""),
                        "seed": training.get("seed", ""),
                        "split": split,
                        "direction": direction,
                        "branch": entry["branch"],
                        "ranking": entry["ranking"],
                        "pictures": entry["pictures"],
                        "texts": entry["texts"],
                        **{key: round(share, 4) for key, share in entry[direction].items()},
                        **{f"chance {key}": round(share, 5) for key, share in entry["chance"][direction].items()},
                        "pairs_seen": training.get("pairs_seen", ""),
                        "training_seconds": training.get("seconds", ""),
                        "device": results["environment"]["device"],
                        "torch": results["environment"]["torch"],
                    })  # fmt: skip
    return rows


def _training_record(name: str | Path) -> dict[str, Any] | None:
    path = Path(ashnets.resolve(name)) / TRAINING_RECORD
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def environment() -> dict[str, Any]:
    """Versions and hardware, for every number that is written down."""
    return {
        "ashnets": ashnets.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": version("transformers"),
        "spikingjelly": version("spikingjelly"),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else _processor(),
        "threads": torch.get_num_threads(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
