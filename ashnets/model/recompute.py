"""Activation checkpointing (Chen et al., 2016): keep a layer's input, recompute the rest in the backward pass."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from types import MethodType, TracebackType
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.models.resnet.modeling_resnet import ResNetBasicLayer, ResNetBottleNeckLayer

from ashnets.model.neuron import LIF
from ashnets.model.spiking_layer import SpikingLayer

UNITS = (GradientCheckpointingLayer, ResNetBasicLayer, ResNetBottleNeckLayer, SpikingLayer)


def recompute_activations(model: nn.Module, every: int = 1) -> int:
    """Checkpoint every block, or every n-th, of the backbone, the spiking stack and the transformer; returns how many.

    The results equal those without checkpointing to the bit: dropout repeats its draws, a spiking layer starts again
    from the same membranes, and running statistics are updated once. Blocks whose ``forward`` something else has
    replaced, such as accelerate's offloading, are left as they are.
    """
    units = [module for module in model.modules() if isinstance(module, UNITS)]
    for unit in units[::every]:
        if "forward" not in vars(unit):
            unit.forward = partial(_recomputed, unit)  # type: ignore[method-assign]
    return sum(map(_recomputes, units))


def keep_activations(model: nn.Module) -> None:
    """Undo :func:`recompute_activations`."""
    for unit in filter(_recomputes, model.modules()):
        del unit.forward  # the method of the class is there again


def recomputes(model: nn.Module) -> bool:
    """Whether any block of ``model`` recomputes its activations."""
    return any(map(_recomputes, model.modules()))


def _recomputes(unit: nn.Module) -> bool:
    return getattr(vars(unit).get("forward"), "func", None) is _recomputed


def _recomputed(unit: nn.Module, *inputs: Any, **options: Any) -> Any:
    """The ``forward`` of a block; a copy of a partial function copies its block, and so runs its own layers."""
    forward = MethodType(type(unit).forward, unit)
    if not (unit.training and torch.is_grad_enabled()):
        return forward(*inputs, **options)
    membranes = [(lif, lif.v) for lif in unit.modules() if isinstance(lif, LIF)]

    def contexts() -> tuple[AbstractContextManager, AbstractContextManager]:
        return nullcontext(), _Again(unit, membranes)

    return checkpoint(forward, *inputs, use_reentrant=False, context_fn=contexts, **options)


class _Again(AbstractContextManager):
    """:func:`_second_pass`, entered anew by each backward pass over the same graph."""

    def __init__(self, unit: nn.Module, membranes: list[tuple[LIF, Any]]) -> None:
        self.unit, self.membranes = unit, membranes

    def __enter__(self) -> None:
        self.entered = _second_pass(self.unit, self.membranes)
        self.entered.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return self.entered.__exit__(kind, error, trace)


@contextmanager
def _second_pass(unit: nn.Module, membranes: list[tuple[LIF, Any]]) -> Iterator[None]:
    """A second forward pass without side effects: it starts from ``membranes`` and updates no running statistic."""
    norms = [module for module in unit.modules() if isinstance(module, _BatchNorm)]
    counts = [(count, count.clone()) for norm in norms if (count := norm.num_batches_tracked) is not None]
    momenta = [(norm, norm.momentum) for norm in norms]
    after = [(lif, lif.v) for lif, _ in membranes]
    for norm in norms:
        norm.momentum = 0.0
    for lif, v in membranes:
        lif.v = v
    try:
        yield
    finally:
        for norm, momentum in momenta:
            norm.momentum = momentum
        for count, before in counts:
            count.copy_(before)
        for lif, v in after:
            lif.v = v
