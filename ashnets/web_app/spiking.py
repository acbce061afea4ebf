"""The spiking branch of one image: spikes, rates, summary ratio, and the texts that its spikes alone find."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from ashnets.errors import InputError
from ashnets.evaluation.embedding import embed_texts
from ashnets.export.graph import SpikingGraph
from ashnets.export.onnx.reading import SpikingReading, has_reading
from ashnets.model.ashnets import VisualSemanticModule
from ashnets.processor import AshNetsProcessor
from ashnets.ties import best, products


@dataclass(frozen=True)
class Texts:
    """Texts and their embeddings for spikes, (n, D)."""

    texts: list[str]
    embeds: torch.Tensor


@dataclass(frozen=True)
class SpikingView:
    """The spiking branch of one image, from a reset state.

    Attributes:
        spikes: layer → (T, C, h, w), 0 and 1, of the exported graph.
        rates: layer → spikes for each neuron and step.
        summary_ratio: SR of each visual token on its grid, (h, w).
        nearest: texts with the cosine of their embedding to that of the spikes, best first; empty if the model does
            not read texts from spikes.
    """

    spikes: dict[str, torch.Tensor]
    rates: dict[str, float]
    summary_ratio: torch.Tensor
    nearest: list[tuple[str, float]]


def embed_for_spikes(model: Any, processor: AshNetsProcessor, texts: list[str]) -> Texts:
    """Embed texts for the comparison with spikes, each text once.

    Raises:
        InputError: there is no text.
    """
    kept = list(dict.fromkeys(text.strip() for text in texts if text.strip()))
    if not kept:
        raise InputError("there is no text to compare the spikes with: give at least one")
    return Texts(kept, embed_texts(model, processor.tokenizer, kept, for_spikes=True))


@torch.inference_mode()
def view_spikes(
    model: Any, graph: SpikingGraph, pixels: torch.Tensor, key: int, texts: Texts | None = None, top: int = 5
) -> SpikingView:
    """Run the spiking branch on one image.

    Args:
        model: with a spiking branch, on the CPU.
        graph: its graph, of `ashnets.export.from_model`.
        pixels: (1, 3, S, S) in [0, 1].
        key: of the image, for the sampler.
        texts: candidates for the nearest texts; the spikes are read without the summary ratio, that is with ones.
        top: number of nearest texts.
    """
    vision = next(module for module in model.modules() if isinstance(module, VisualSemanticModule))
    drawn = vision.sample(pixels, [key])  # (T, 1, 3, S, S)
    fired, _ = graph.run(drawn)
    ratio = vision(pixels, spikes=drawn).summary_ratio  # (1, N, 1)
    side = round(ratio.shape[1] ** 0.5)
    nearest: list[tuple[str, float]] = []
    if texts is not None and has_reading(model):
        counts = fired[graph.layers[-1].name].sum(0).flatten(2).transpose(1, 2)  # (1, N, R)
        embeds = SpikingReading(model)(counts, torch.ones(*counts.shape[:2], 1))  # (1, D)
        scores = products(embeds, texts.embeds)  # (1, n)
        order = best(scores, min(top, len(texts.texts)))[0].tolist()
        nearest = [(texts.texts[i], float(scores[0, i])) for i in order]
    return SpikingView(
        spikes={name: spikes[:, 0] for name, spikes in fired.items()},
        rates={name: float(spikes.mean()) for name, spikes in fired.items()},
        summary_ratio=ratio[0, :, 0].float().unflatten(0, (side, side)),
        nearest=nearest,
    )
