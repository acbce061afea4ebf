"""Gauges of the spiking branch: whether a run uses it, and which objective trains which part.

A branch can be healthy, with no silent layer and exact exports, and still do nothing: its features may be too short,
compared with F_CNN, or equal for all images. These values show it in each epoch.

    branch_ratio              ‖SR·F_SNN‖/‖F_CNN‖, the mean over tokens of both norms
    branch_concepts           effective number of concepts of a token: exp of the entropy of its spikes over concepts
    branch_moved              ‖C − C₀‖/‖C₀‖ since the start of the phase
    branch_effect             1 − cosine of the ITC embeddings with an image's own spikes and with another image's
    branch_R@1_…              validation R@1, text to image, of the variants of ``ashnets evaluate --ablate``
    grad_OBJECTIVE_PART       norm of an objective's gradient in a part of the model, weighted as in the loss; with
                              several ranks, of their mean gradient
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from ashnets.evaluation.options import EvaluationOptions, Variant
from ashnets.evaluation.retrieval import Ranked, RetrievalSet, rank
from ashnets.model.collector import SemanticCollector
from ashnets.model.heads import AshNetsForPreTraining
from ashnets.model.sampling import ImageKeys
from ashnets.training.distributed import mean_over_ranks
from ashnets.training.optim import part_of

EFFECT, RATIO = 1e-3, 0.05  # a branch below one of these is inert


class Start(nn.Module):
    """C₀, the columns of the collector at the start of a phase; a module, so that checkpoints contain it."""

    concepts: torch.Tensor

    def __init__(self, collector: SemanticCollector) -> None:
        super().__init__()
        self.register_buffer("concepts", collector.concepts.detach().clone())

    @torch.no_grad()
    def moved(self, concepts: torch.Tensor) -> float:
        """‖C − C₀‖/‖C₀‖."""
        return float((concepts - self.concepts).norm() / self.concepts.norm())


@torch.inference_mode()
def feature_gauges(model: AshNetsForPreTraining, batches: Iterable[tuple[torch.Tensor, ImageKeys]]) -> dict[str, float]:
    """``branch_ratio`` and ``branch_concepts`` over images (B, 3, H, W) with their keys; without F_CNN no ratio."""
    abstract = concrete = entropy = 0.0
    tokens = spiking_tokens = 0
    for pixels, keys in batches:
        visual = model.ashnets.vision(pixels.to(model.device), image_keys=keys)
        if visual.concrete is not None:
            abstract += float((visual.summary_ratio * visual.abstract).norm(dim=-1).double().sum())
            concrete += float(visual.concrete.norm(dim=-1).double().sum())
        counts = visual.concept_counts.double()  # (B, N, R)
        shares = counts / counts.sum(-1, keepdim=True).clamp_min(1)  # (B, N, R)
        entropy += float(torch.special.entr(shares).sum(-1).exp()[counts.sum(-1) > 0].sum())
        tokens += counts[..., 0].numel()
        spiking_tokens += int((counts.sum(-1) > 0).sum())
    if not tokens:
        return {}
    ratio = {"branch_ratio": abstract / concrete} if concrete else {}
    return {**ratio, "branch_concepts": entropy / max(spiking_tokens, 1)}


def ablation_gauges(
    model: AshNetsForPreTraining,
    tokenizer: PreTrainedTokenizerBase,
    measured: RetrievalSet,
    main: Ranked,
    shown: Iterable[Variant],
    options: EvaluationOptions,
) -> dict[str, float]:
    """``branch_R@1_…`` of some variants, and ``branch_effect`` if another image's spikes are one of them.

    Args:
        main: the ranking with the branch as it is, of the same images.
    """
    found = {}
    for variant in shown:
        one = rank(model, tokenizer, measured, variant, options)
        found[f"branch_R@1_{variant.name.replace(' ', '_')}"] = one.main.recalls["text_to_image"]["R@1"]
        if variant.spikes == "another":
            found["branch_effect"] = 1 - float((one.embeds.double() * main.embeds.double()).sum(1).mean())
    return found


def gradient_norms(
    model: nn.Module, losses: Mapping[str, torch.Tensor], weights: Mapping[str, float]
) -> dict[str, torch.Tensor]:
    """``grad_OBJECTIVE_PART`` of one step, before the backward pass; its graph is kept.

    With several ranks, all take part, and the norm is that of the mean gradient, which the optimizers get.
    """
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    found: dict[str, torch.Tensor] = {}
    for objective, loss in losses.items():
        grads = torch.autograd.grad(
            weights[objective] * loss, [p for _, p in named], retain_graph=True, allow_unused=True
        )
        squares: dict[str, torch.Tensor] = {}
        for (name, _), grad in zip(named, grads, strict=True):
            if grad is not None:
                part, grad = part_of(name), mean_over_ranks(grad.float())
                squares[part] = squares.get(part, torch.zeros((), device=grad.device)) + grad.square().sum()
        found.update({f"grad_{objective}_{part}": square.sqrt() for part, square in squares.items()})
    return found


def inert_warnings(gauges: Mapping[str, float]) -> list[str]:
    """A sentence if the gauges show a spiking branch that does nothing."""
    remedy = (
        "results with and without it will be equal; train it with abstract_scale='normalized', a greater "
        "optimizers.collector.lr, or a greater weight of stua"
    )
    if gauges.get("branch_effect", 1.0) < EFFECT:
        return [
            f"the spiking branch is inert: with the spikes of another image, the embeddings of the validation images "
            f"keep a cosine of {1 - gauges['branch_effect']:.5f}; {remedy}"
        ]
    if gauges.get("branch_ratio", 1.0) < RATIO:
        return [
            f"the spiking branch is nearly inert: ‖SR·F_SNN‖ is {gauges['branch_ratio']:.3f} of ‖F_CNN‖, below "
            f"{RATIO}; {remedy}"
        ]
    return []
