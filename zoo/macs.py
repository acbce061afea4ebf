"""Multiply-accumulates (MACs) of ordinary networks, by torch's own counter.

A MAC is two floating-point operations of that counter. It counts matrix products, attention and convolutions, with the
taps on padding. Element-wise operations, normalization and softmax are left out. For the estimate of memory traffic the
MACs are also given layer by layer, with the number of values that each layer reads and writes.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from ashnets.model.collector import SemanticCollector

PARTS = ("concrete_encoder", "collector", "summary_ratio", "transformer")


@dataclass(frozen=True)
class DenseLayer:
    """One layer of an ordinary network, for one image.

    Attributes:
        name: of the layer within its part.
        macs: multiply-accumulates.
        weights: trained numbers; 0 where both factors are activations, as in attention.
        inputs, outputs: numbers read and written.
    """

    name: str
    macs: int
    weights: int
    inputs: int
    outputs: int


def count_macs(call: Callable[[], object]) -> int:
    """MACs of everything that ``call`` computes; tensors may be on the meta device."""
    with torch.no_grad(), _counter() as counter:
        call()
    return counter.get_total_flops() // 2


@torch.no_grad()
def dense_macs(
    model: nn.Module, pixel_values: torch.Tensor, input_ids: torch.Tensor | None = None, **options: object
) -> dict[str, int]:
    """Multiply-accumulates of the artificial parts for one image, with a text where one is given.

    Args:
        model: ``AshNetsModel`` or a head on it.
        pixel_values: (B, 3, H, W).
        input_ids: (B, L); without it the transformer sees visual tokens alone.
        options: further arguments of the model's forward.

    Returns:
        MACs for one image, for each of the ``PARTS`` that the model has. The collector is counted dense, with all its
        inputs, zeros too.
    """
    base = getattr(model, "ashnets", model)
    with _evaluating(base), _counter() as counter:
        base(pixel_values=pixel_values, input_ids=input_ids, **options)
    found: dict[str, int] = {}
    for path, operations in counter.get_flop_counts().items():
        part = path.rpartition(".")[2]
        if part in PARTS:
            found[part] = sum(operations.values()) // 2 // len(pixel_values)
    return found


@torch.no_grad()
def dense_layers(
    model: nn.Module, pixel_values: torch.Tensor, input_ids: torch.Tensor | None = None, **options: object
) -> dict[str, tuple[DenseLayer, ...]]:
    """The same layer by layer: the MACs of a part's layers add up to those of :func:`dense_macs`.

    Attention's products belong to no layer. They are one entry, ``attention``, whose inputs are the widest activations
    of the part.
    """
    base = getattr(model, "ashnets", model)
    totals = dense_macs(model, pixel_values, input_ids, **options)
    found: dict[str, list[DenseLayer]] = {part: [] for part in totals}
    batch = len(pixel_values)
    hooks = []

    own = threading.get_ident()

    def watch(part: str, name: str, module: nn.Conv2d | nn.Linear | SemanticCollector) -> None:
        def note(_: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            if threading.get_ident() != own:  # another thread may be using the model
                return
            weight = module.concepts if isinstance(module, SemanticCollector) else module.weight
            products = math.prod(weight.shape[1:])
            read, written = inputs[0].numel() // batch, output.numel() // batch
            weights = sum(p.numel() for p in module.parameters(recurse=False))
            found[part].append(DenseLayer(name, written * products, weights, read, written))

        hooks.append(module.register_forward_hook(note))

    for path, module in base.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear | SemanticCollector):
            words = path.split(".")
            part = next((word for word in words if word in totals), None)
            if part is not None:
                watch(part, ".".join(words[words.index(part) + 1 :]) or part, module)
    try:
        with _evaluating(base):
            base(pixel_values=pixel_values, input_ids=input_ids, **options)
    finally:
        for hook in hooks:
            hook.remove()
    for part, layers in found.items():
        attention = totals[part] - sum(layer.macs for layer in layers)
        if attention:
            widest = max((layer.inputs for layer in layers), default=0)
            layers.append(DenseLayer("attention", attention, 0, widest, 0))
    return {part: tuple(layers) for part, layers in found.items()}


def _counter() -> FlopCounterMode:
    # torch's own table lacks the CPU's fused attention.
    mapping = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops}
    return FlopCounterMode(display=False, custom_mapping=mapping)


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(training)


def _attention_flops(query: torch.Size, key: torch.Size, value: torch.Size, *_: object, **__: object) -> int:
    return sdpa_flop_count(query, key, value)
