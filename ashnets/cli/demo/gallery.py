"""The bundled gallery, ranked both ways by a model."""

from __future__ import annotations

import random
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from ashnets.cli.demo.terminal import Terminal
from ashnets.data.corpus import Gallery, open_gallery
from ashnets.data.images import load_image
from ashnets.metrics.retrieval import chance_at, recall_at, rerank

BATCH = 64
KS = (1, 5, 10)
PARTS = ("seen", "new")
DIRECTIONS = {"text_to_image": "text → image", "image_to_text": "image → text"}


def bundled_gallery() -> Gallery:
    """The gallery that comes with the package."""
    return open_gallery(Path(str(resources.files("ashnets.zoo") / "gallery")))


def sentence_of(row: dict[str, Any]) -> str:
    """The picture's first full sentence; its first caption is the bare name."""
    return row["captions"][min(1, len(row["captions"]) - 1)]


@dataclass
class Ranking:
    """A gallery of G pictures and their G sentences, ranked.

    Attributes:
        gallery: the pictures.
        sentences: one for each picture.
        gold: for each item the right items of the other kind; more than one where sentences are equal.
        scores: ranking → direction → (G queries, G items); the rankings are ITC, and ITC with ITM on its best.
        pixels: (G, 3, H, W).
        spikes: P_binary, (T, G, 3, H, W).
        tokens: (G, N, M1).
        summary_ratio: (G, N).
        rates: layer → (G,), spikes for each neuron and step.
    """

    gallery: Gallery
    sentences: list[str]
    gold: list[set[int]]
    scores: dict[str, dict[str, torch.Tensor]]
    pixels: torch.Tensor
    spikes: torch.Tensor
    tokens: torch.Tensor
    summary_ratio: torch.Tensor
    rates: dict[str, torch.Tensor]

    @property
    def best(self) -> str:
        """The ranking with the higher R@1 over all queries, both directions together."""

        def score(name: str) -> float:
            return sum(recall_at(self.scores[name][direction], self.gold, (1,))["R@1"] for direction in DIRECTIONS)

        return max(self.scores, key=score)

    def part(self, name: str) -> list[int]:
        """Indices of the pictures of one part, ``seen`` or ``new``."""
        return [i for i, row in enumerate(self.gallery.rows) if row["split"] == name]

    def choose(self, part: str, number: int, seed: int) -> list[int]:
        """Pictures to show, drawn by chance and not picked for their results."""
        return sorted(random.Random(seed).sample(self.part(part), number))

    def picture(self, index: int) -> Image.Image:
        """The drawing itself."""
        return load_image(self.gallery[index]["path"])

    def recalls(self) -> list[dict[str, Any]]:
        """R@K of every ranking, direction and part, over all G items."""
        found = []
        for direction in DIRECTIONS:
            for name, scores in self.scores.items():
                for part in PARTS:
                    queries = self.part(part)
                    gold = [self.gold[i] for i in queries]
                    found.append(
                        {
                            "direction": direction, "ranking": name, "concepts": part, "n": len(queries),
                            "candidates": len(self.gallery), **recall_at(scores[direction][queries], gold, KS),
                            "chance": chance_at(gold, len(self.gallery), KS),
                        }
                    )  # fmt: skip
        return found


@torch.inference_mode()
def rank_gallery(model: Any, processor: Any, gallery: Gallery, top: int, terminal: Terminal) -> Ranking:
    """Embed and rank a gallery.

    Args:
        model: ``AshNetsForRetrieval`` or ``AshNetsForPreTraining`` with a spiking branch.
        processor: its processor.
        gallery: each picture is encoded on its own, from membranes at rest.
        top: of ITC's ranking, the items that ITM scores again for each query.
        terminal: shows the progress.
    """
    sentences = [sentence_of(row) for row in gallery.rows]
    texts = processor(text=sentences)
    text = model.encode_text(texts["input_ids"], texts["attention_mask"])  # (G, 256)

    embeds, visuals, pixels, spikes = [], [], [], []
    starts = range(0, len(gallery), BATCH)
    for start in terminal.track(starts, "pictures"):
        rows = gallery.rows[start : start + BATCH]
        batch = processor(images=[row["path"] for row in rows], image_ids=[row["image_id"] for row in rows])
        drawn = model.ashnets.vision.sample(batch["pixel_values"], batch["image_ids"])
        embed, visual = model.encode_image(batch["pixel_values"], spikes=drawn)
        embeds.append(embed)
        visuals.append(visual)
        pixels.append(batch["pixel_values"])
        spikes.append(drawn)
    tokens = torch.cat([v.output for v in visuals])
    itc = text @ torch.cat(embeds).T  # (sentences, pictures)

    # Both directions ask for many of the same pairs: score each once.
    wanted = torch.zeros_like(itc, dtype=torch.bool)
    best = min(top, len(gallery))
    wanted.scatter_(1, itc.topk(best, dim=1).indices, True)
    wanted.T.scatter_(1, itc.T.topk(best, dim=1).indices, True)
    itm = _match(model, texts, tokens, wanted, terminal)
    return Ranking(
        gallery=gallery,
        sentences=sentences,
        gold=[{j for j, other in enumerate(sentences) if other == sentence} for sentence in sentences],
        scores={
            "ITC": {"text_to_image": itc, "image_to_text": itc.T},
            f"ITC, ITM on {best}": {
                "text_to_image": rerank(itc, best, lambda query, item: itm[query, item]),
                "image_to_text": rerank(itc.T, best, lambda query, item: itm[item, query]),
            },
        },
        pixels=torch.cat(pixels),
        spikes=torch.cat(spikes, dim=1),
        tokens=tokens,
        summary_ratio=torch.cat([v.summary_ratio for v in visuals]).squeeze(-1),
        rates={name: torch.cat([v.layer_rates[name] for v in visuals]) for name in visuals[0].layer_rates},
    )


def _match(model: Any, texts: Any, tokens: torch.Tensor, wanted: torch.Tensor, terminal: Terminal) -> torch.Tensor:
    """ITM's logit of "matching" over "not matching" at the wanted (sentence, picture) pairs."""
    lengths = texts["attention_mask"].sum(1)
    sentence, picture = wanted.nonzero(as_tuple=True)
    order = lengths[sentence].argsort(stable=True)  # sentences of one length need no padding
    scores = torch.full(wanted.shape, float("nan"))
    for batch in terminal.track(order.split(2 * BATCH), "matching"):
        s, p = sentence[batch], picture[batch]
        length = int(lengths[s].max())
        logits = model.match(tokens[p], texts["input_ids"][s, :length], texts["attention_mask"][s, :length])
        scores[s, p] = (logits[:, 1] - logits[:, 0]).float()
    return scores
