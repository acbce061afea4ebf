r"""Two-stage retrieval: embeddings select candidates, the matching head re-ranks them (Li et al., ALBEF, 2021).

    candidates(q) = the k items with the largest ⟨f_q, f_i⟩         ITC: encodes each image and each text once
    ITM(q, i)     = log p(matching | q, i)/p(not matching | q, i)   one joint forward pass for each candidate pair

The candidates are ranked by ITM, or, at the same cost, by ⟨f_q, f_i⟩/τ + ITM(q, i). In training, ITC draws the
negatives of ITM. The log-odds of ITM therefore learn the difference between the data and the pairs that ITC considers
likely, so adding them to the scores of ITC is correct (noise-contrastive estimation; Deng et al., Residual energy-based
models, 2020; BLIP adds the two as well). Candidates rank above all other items, which keep the order of ITC. Both
directions need many of the same pairs; each pair is scored once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from ashnets.data.vocabulary import tokenize
from ashnets.metrics.retrieval import KS, Gold, recall_at, rerank
from ashnets.model.heads import AshNetsForRetrieval
from ashnets.ties import COSINES, LOG_ODDS, best, products

# k of Li et al. (2021) for two benchmarks of the paper, which does not give its k.
CANDIDATES = {"coco-captions": 256, "flickr30k": 128}
ITM_ON_ALL, BOTH_ON_ALL = "ITM on all pairs", "ITC + ITM on all pairs"
WAYS = ("text_to_image", "image_to_text")

Match = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
_CHUNK = 8192  # pairs between two updates of the progress bar


@dataclass(frozen=True)
class Cost:
    """The cost of a ranking.

    Attributes:
        pairs: number of pairs that the matching head scored.
        of: number of all pairs.
        seconds: for candidates and matching, without embedding.
    """

    pairs: int
    of: int
    seconds: float


@dataclass(frozen=True)
class Ranking:
    """Rankings in both directions, given by similarities (T, G) and (G, T), and their common cost.

    Attributes:
        scale: of the similarities, for their ties (:func:`ashnets.metrics.retrieval.ranks`).
    """

    text_to_image: torch.Tensor
    image_to_text: torch.Tensor
    cost: Cost
    scale: float

    def recalls(self, images: Gold, texts: Gold, ks: Sequence[int] = KS) -> dict[str, dict[str, float]]:
        """R@K in both directions, ``{"text_to_image": {"R@1": …}, "image_to_text": {…}}``.

        Args:
            images, texts: the correct images of each text, and the correct texts of each image.
        """
        tables, golds = (self.text_to_image, self.image_to_text), (images, texts)
        both = zip(WAYS, tables, golds, strict=True)
        return {way: recall_at(table, gold, ks, self.scale) for way, table, gold in both}


def rank_every_way(
    text_embeds: torch.Tensor,
    image_embeds: torch.Tensor,
    match: Match | None,
    tau: float,
    k: int = 0,
    exhaustive: bool = False,
    progress: bool = True,
) -> dict[str, Ranking]:
    """Rankings by name: ITC; with k > 0, two stages; with ``exhaustive``, all pairs.

    Two stages and all pairs are ranked both by ITM and by ITC + ITM.

    Args:
        text_embeds, image_embeds: (T, D) and (G, D), of unit length.
        match: (P,) text and (P,) image indices to (P,) finite log-odds of matching; None for ITC alone.
        tau: τ of ITC.
        k: number of candidates of each query.
    """
    found = {"ITC": rank_by_embeddings(text_embeds, image_embeds)}
    first = found["ITC"].text_to_image
    if match and k:
        start = time.perf_counter()
        candidates = best(first, min(k, len(image_embeds))), best(first.T, min(k, len(text_embeds)))
        asked = _asked(first, *candidates)
        table = _scores(asked, match, progress)
        cost = Cost(int(asked.sum()), asked.numel(), time.perf_counter() - start)
        found[f"ITC, then ITM on the best {k}"] = _reordered(first, *candidates, table, cost, LOG_ODDS)
        both = table + first / tau
        found[f"ITC, then ITC + ITM on the best {k}"] = _reordered(first, *candidates, both, cost, LOG_ODDS + 1 / tau)
    if match and exhaustive:
        itm = rank_exhaustively(len(text_embeds), len(image_embeds), match, progress)
        both = itm.text_to_image + first.to(itm.text_to_image) / tau
        found |= {ITM_ON_ALL: itm, BOTH_ON_ALL: Ranking(both, both.T, itm.cost, LOG_ODDS + 1 / tau)}
    return found


def rank_by_embeddings(text_embeds: torch.Tensor, image_embeds: torch.Tensor) -> Ranking:
    """ITC alone: inner products of texts (T, D) and images (G, D)."""
    start = time.perf_counter()
    table = products(text_embeds, image_embeds)  # (T, G)
    return Ranking(table, table.T, Cost(0, table.numel(), time.perf_counter() - start), COSINES)


def rank_exhaustively(texts: int, images: int, match: Match, progress: bool = True) -> Ranking:
    """ITM on all T·G pairs."""
    start = time.perf_counter()
    table = _scores(torch.ones(texts, images, dtype=torch.bool), match, progress)
    return Ranking(table, table.T, Cost(table.numel(), table.numel(), time.perf_counter() - start), LOG_ODDS)


def _asked(first: torch.Tensor, of_texts: torch.Tensor, of_images: torch.Tensor) -> torch.Tensor:
    """(T, G), True if a pair is a candidate in at least one direction."""
    wanted = torch.zeros_like(first, dtype=torch.bool)
    wanted.scatter_(1, of_texts, True)
    wanted.T.scatter_(1, of_images, True)
    return wanted


def _reordered(
    first: torch.Tensor,
    of_texts: torch.Tensor,
    of_images: torch.Tensor,
    table: torch.Tensor,
    cost: Cost,
    scale: float,
) -> Ranking:
    return Ranking(
        rerank(first, of_texts, lambda text, image: table[text, image]),
        rerank(first.T, of_images, lambda image, text: table[text, image]),
        cost,
        scale,
    )


def _scores(wanted: torch.Tensor, match: Match, progress: bool) -> torch.Tensor:
    """Scores (T, G) of the wanted pairs; NaN for all other pairs."""
    table = torch.full(wanted.shape, torch.nan, device=wanted.device)
    rows = max(1, _CHUNK * len(wanted) // max(1, int(wanted.sum())))
    with tqdm(total=int(wanted.sum()), desc="ITM", unit="pair", leave=False, disable=not progress or None) as bar:
        for start in range(0, len(wanted), rows):
            text, image = wanted[start : start + rows].nonzero(as_tuple=True)
            table[text + start, image] = match(text + start, image).to(table)
            bar.update(len(text))
    return table


def log_odds(logits: torch.Tensor) -> torch.Tensor:
    """ITM's logits (B, 2) to log p(matching)/p(not matching), (B,), float32."""
    return logits.float().diff(dim=1).squeeze(1)


def matching_score(
    model: AshNetsForRetrieval,
    tokenizer: PreTrainedTokenizerBase,
    texts: list[str],
    tokens: torch.Tensor,
    batch: int = 128,
) -> Match:
    """ITM as a function of (P,) text and (P,) image indices: log-odds of matching.

    Args:
        tokens: (G, N, M1), visual tokens of the images.
    """
    encoded = tokenize(tokenizer, texts, model.config.max_text_length)
    ids, masks = encoded["input_ids"], encoded["attention_mask"]
    lengths = masks.sum(1)

    @torch.inference_mode()
    def score(sentences: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        sentences, images = sentences.cpu(), images.to(tokens.device)
        order = lengths[sentences].argsort(stable=True)  # texts of equal length need no padding
        found = torch.empty(len(sentences), device=model.device)
        for chosen in order.split(batch):
            text = sentences[chosen]
            length = int(lengths[text].max())
            logits = model.match(
                tokens[images[chosen.to(tokens.device)]].to(model.device),
                ids[text, :length].to(model.device),
                masks[text, :length].to(model.device),
            )
            found[chosen.to(model.device)] = log_odds(logits)
        return found

    return score
