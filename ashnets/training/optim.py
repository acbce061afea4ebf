"""An optimizer for each kind of parameters, and their common schedule (paper, section IV-A).

The paper has three. The collector with the summary ratio and their norms is a fourth here: at the transformer's rate it
moved by 0.5 % in a whole training, so that it stayed what it was at random.
"""

from __future__ import annotations

import bisect
import math

import torch
from torch import nn

from ashnets.model.tdbn import TdBN
from ashnets.training.recipe import BACKBONE, Optimizer, Recipe, Schedule


def part_of(name: str) -> str:
    """The part of a parameter.

    ``concrete`` (the CNN or ViT), ``spiking`` (the abstract encoder), ``collector`` (C, SR and the norms of eq. 6 to
    8), or ``transformer`` (everything else).
    """
    if ".concrete_encoder." in name:
        return "concrete"
    if ".abstract_encoder." in name:
        return "spiking"
    if ".collector." in name or ".summary_ratio." in name:
        return "collector"
    return "transformer"


def optimizer_doubts(recipe: Recipe, backbone: str) -> list[str]:
    """What is unusual about the optimizers for this kind of backbone, as sentences for the log.

    The paper trains its CNNs by SGD with a rate of 0.01, which destroys a pre-trained ViT.
    """
    trained = any(not {"concrete", BACKBONE} & {*phase.frozen} for phase in recipe.phases)
    if not (trained and backbone.startswith("vit") and recipe.optimizers["concrete"].kind == "sgd"):
        return []
    rate, usual = recipe.optimizers["concrete"].lr, recipe.optimizers["transformer"]
    return [
        f"optimizers.concrete is SGD with a rate of {rate:g}, but the backbone, {backbone}, is a transformer: those "
        f"are trained by AdamW. Set optimizers.concrete={{kind: {usual.kind}, lr: {usual.lr:g}, "
        f"weight_decay: {usual.weight_decay:g}}}"
    ]


def build_optimizers(model: nn.Module, recipe: Recipe) -> dict[str, torch.optim.Optimizer]:
    """One optimizer for each part that has parameters; no weight decay for norms, biases and tdBN's γ."""
    undecayed = {
        id(p) for m in model.modules() if isinstance(m, nn.LayerNorm | nn.BatchNorm2d | TdBN) for p in m.parameters()
    }
    groups: dict[str, tuple[list, list]] = {}
    for name, parameter in model.named_parameters():
        decayed, plain = groups.setdefault(part_of(name), ([], []))
        (plain if id(parameter) in undecayed or parameter.dim() < 2 else decayed).append(parameter)
    return {part: _build(recipe.optimizers[part], *lists) for part, lists in groups.items()}


def _build(settings: Optimizer, decayed: list, plain: list) -> torch.optim.Optimizer:
    """AdamW is fused: one pass over a parameter and its state, where torch's default on a CPU makes ten."""
    groups = [
        {"params": decayed, "weight_decay": settings.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if settings.kind == "sgd":
        return torch.optim.SGD(groups, lr=settings.lr, momentum=0.9)  # fused, it refuses gradients that begin later
    return torch.optim.AdamW(groups, lr=settings.lr, fused=True)


def warmup_steps(schedule: Schedule, total_steps: int) -> int:
    """Steps of the warm-up: those of the schedule, at most a tenth of the run's."""
    return min(schedule.warmup_steps, total_steps // 10)


def factor(schedule: Schedule, step: float, epoch: int, total_steps: int) -> float:
    """The factor on every learning rate at a step (from 0) of an epoch (from 0)."""
    warmup = min(1.0, (step + 1) / max(1, warmup_steps(schedule, total_steps)))
    if schedule.kind == "cosine":
        done = min(1.0, step / max(1, total_steps))
        return warmup * 0.5 * (1 + math.cos(math.pi * done))
    return warmup * schedule.gamma ** bisect.bisect_right(schedule.milestones, epoch)


def phase_factor(schedule: Schedule, step: float) -> float:
    """A further factor at a step (from 0) of a phase that is not the first."""
    return min(1.0, (step + 1) / max(1, schedule.phase_warmup_steps))


def set_learning_rates(optimizers: dict[str, torch.optim.Optimizer], recipe: Recipe, scale: float) -> None:
    """Set each optimizer to its recipe's rate times ``scale``."""
    for part, optimizer in optimizers.items():
        for group in optimizer.param_groups:
            group["lr"] = recipe.optimizers[part].lr * scale
