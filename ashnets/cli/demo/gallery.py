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
from ashnets.evaluation.two_stage import matching_score, rank_every_way
from ashnets.files import JsonObject
from ashnets.metrics.retrieval import KS, chance_at, ranks
from ashnets.processor import AshNetsProcessor

BATCH = 64
PARTS = ("seen", "new")
DIRECTIONS = {"text_to_image": "text → image", "image_to_text": "image → text"}


def bundled_gallery() -> Gallery:
    """The gallery that comes with the package."""
    return open_gallery(Path(str(resources.files("ashnets.zoo") / "gallery")))


def sentence_of(row: JsonObject) -> str:
    """The image's first full sentence; its first caption is the bare name."""
    return row["captions"][min(1, len(row["captions"]) - 1)]


@dataclass
class Ranking:
    """A gallery of G images and their G sentences, ranked.

    Attributes:
        gallery: the images.
        sentences: one for each image.
        gold: for each item the right items of the other kind; more than one where sentences are equal.
        scores: ranking → direction → (G queries, G items), of `ashnets.evaluation.two_stage.rank_every_way`.
        scales: ranking → scale of its scores.
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
    scales: dict[str, float]
    pixels: torch.Tensor
    spikes: torch.Tensor
    tokens: torch.Tensor
    summary_ratio: torch.Tensor
    rates: dict[str, torch.Tensor]

    @property
    def best(self) -> str:
        """The ranking with the higher R@1 over all queries, both directions together."""

        def score(name: str) -> float:
            return sum(float((self.ranks(name, direction) <= 1).double().mean()) for direction in DIRECTIONS)

        return max(self.scores, key=score)

    def ranks(self, name: str, direction: str) -> torch.Tensor:
        """Of each query's best right item, (G,), from 1."""
        return ranks(self.scores[name][direction], self.gold, self.scales[name])

    def part(self, name: str) -> list[int]:
        """Indices of the images of one part, ``seen`` or ``new``."""
        return [i for i, row in enumerate(self.gallery.rows) if row["split"] == name]

    def choose(self, part: str, number: int, seed: int) -> list[int]:
        """Images to show, selected at random and not by their results."""
        return sorted(random.Random(seed).sample(self.part(part), number))

    def image(self, index: int) -> Image.Image:
        """The drawing itself."""
        return load_image(self.gallery[index]["path"])

    def recalls(self) -> list[JsonObject]:
        """R@K of every ranking, direction and part, over all G items."""
        found = []
        for direction in DIRECTIONS:
            for name in self.scores:
                places = self.ranks(name, direction)
                for part in PARTS:
                    queries = self.part(part)
                    gold = [self.gold[i] for i in queries]
                    hits = {f"R@{k}": float((places[queries] <= k).double().mean()) for k in KS}
                    found.append(
                        {
                            "direction": direction,
                            "ranking": name,
                            "concepts": part,
                            "n": len(queries),
                            "candidates": len(self.gallery),
                            **hits,
                            "chance": chance_at(gold, len(self.gallery)),
                        }
                    )
        return found


@torch.inference_mode()
def rank_gallery(model: Any, processor: AshNetsProcessor, gallery: Gallery, top: int, terminal: Terminal) -> Ranking:
    """Embed and rank a gallery.

    Args:
        model: ``AshNetsForRetrieval`` or ``AshNetsForPreTraining`` with a spiking branch.
        processor: its processor.
        gallery: each image is encoded separately, from the reset state.
        top: number of best items by ITC that ITM re-ranks for each query, alone and together with ITC.
        terminal: shows the progress.
    """
    sentences = [sentence_of(row) for row in gallery.rows]
    texts = processor(text=sentences)
    text = model.encode_text(texts["input_ids"], texts["attention_mask"])  # (G, 256)

    embeds, visuals, pixels, spikes = [], [], [], []
    starts = range(0, len(gallery), BATCH)
    for start in terminal.track(starts, "images"):
        rows = gallery.rows[start : start + BATCH]
        batch = processor(images=[row["path"] for row in rows], image_ids=[row["image_id"] for row in rows])
        drawn = model.ashnets.vision.sample(batch["pixel_values"], batch["image_keys"])
        embed, visual = model.encode_image(batch["pixel_values"], spikes=drawn)
        embeds.append(embed)
        visuals.append(visual)
        pixels.append(batch["pixel_values"])
        spikes.append(drawn)
    tokens = torch.cat([v.output for v in visuals])
    match = matching_score(model, processor.tokenizer, sentences, tokens)
    rankings = rank_every_way(text, torch.cat(embeds), match, float(model.temperature()), top)
    return Ranking(
        gallery=gallery,
        sentences=sentences,
        gold=[{j for j, other in enumerate(sentences) if other == sentence} for sentence in sentences],
        scores={
            name: {direction: getattr(ranked, direction) for direction in DIRECTIONS}
            for name, ranked in rankings.items()
        },
        scales={name: ranked.scale for name, ranked in rankings.items()},
        pixels=torch.cat(pixels),
        spikes=torch.cat(spikes, dim=1),
        tokens=tokens,
        summary_ratio=torch.cat([v.summary_ratio for v in visuals]).squeeze(-1),
        rates={name: torch.cat([v.layer_rates[name] for v in visuals]) for name in visuals[0].layer_rates},
    )
