r"""An emulator of the chip's arithmetic in plain int64, to which the integer layers and the exports are compared.

    a[t] = W_int ∗ s[t]                                        u[t] = a[t]·64, wrapped to −2²³ … 2²³ − 1
    h[t] = clip(trunc(v[t−1]·(4096 − k)/4096) + u[t] + 64·b_int, ±(2²³ − 1))
    s'[t] = h[t] > 64·vThMant                                  v[t] = 0 where s'[t], else h[t]

At every step the layers run one after another; a convolution is a correlation by im2col. The emulator uses NumPy only,
and of the model only its integers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from ashnets.errors import ConfigurationError, InputError
from ashnets.export.folding import fold
from ashnets.export.graph import encoder_of
from ashnets.model.integer import IntegerConstants, integer_constants
from ashnets.model.spiking_layer import SpikingLayer

LARGEST = 2**23 - 1


@dataclass(frozen=True)
class IntegerLayer:
    """A convolution with its neurons in integers.

    Attributes:
        name: the layer's name in the model.
        constants: weights (O, I/groups, kH, kW), biases (O,), threshold and decay.
        stride, padding: (rows, columns).
        groups: channel groups of the convolution.
    """

    name: str
    constants: IntegerConstants
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    groups: int = 1


def integer_layers(model: nn.Module) -> tuple[IntegerLayer, ...]:
    """The spiking branch of a model of any precision, in integers; running statistics are folded into the weights.

    Args:
        model: an :class:`AbstractEncoder`, or a module that contains one.

    Raises:
        ConfigurationError: no spiking branch, or one that a chip's integers cannot hold.
    """
    layers = []
    for name, module in encoder_of(model).layers.items():
        block = cast(SpikingLayer, module)
        conv, lif = block.conv, block.lif
        try:
            constants = integer_constants(*fold(conv, block.norm), lif.v_threshold, round((1 - lif.beta) * 4096))
        except ConfigurationError as error:
            raise ConfigurationError(f"spiking layer {name}: {error}") from None
        layers.append(IntegerLayer(name, constants, conv.stride, conv.padding, conv.groups))
    return tuple(layers)


def emulate(
    layers: Sequence[IntegerLayer],
    spikes: np.ndarray | torch.Tensor,
    state: Sequence[np.ndarray] | None = None,
) -> tuple[dict[str, np.ndarray], tuple[np.ndarray, ...]]:
    """Run the layers step by step.

    Args:
        spikes: (T, B, C, H, W), 0 and 1.
        state: membranes to start from, int64 (B, O, h, w) a layer; ``None`` starts from a reset state.

    Returns:
        Spikes of each layer by name, (T, B, O, h, w), uint8, and the membranes after the last step, int64.

    Raises:
        InputError: values other than 0 and 1, or a state that does not fit.
    """
    inputs = np.asarray(spikes)
    if inputs.ndim != 5 or not np.isin(inputs, (0, 1)).all():
        raise InputError(f"the emulator takes spikes (T, B, C, H, W) of 0 and 1, got an array {inputs.shape}")
    if state is not None and len(state) != len(layers):
        raise InputError(f"the state holds {len(state)} membranes for {len(layers)} layers")
    membranes: list[Any] = [None] * len(layers) if state is None else [np.array(v, dtype=np.int64) for v in state]
    fired: dict[str, list[np.ndarray]] = {layer.name: [] for layer in layers}
    for x in inputs.astype(np.int64):
        for i, layer in enumerate(layers):
            x, membranes[i] = _step(layer, x, membranes[i])
            fired[layer.name].append(x.astype(np.uint8))
    return {name: np.stack(steps) for name, steps in fired.items()}, tuple(membranes)


def _step(layer: IntegerLayer, x: np.ndarray, v: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """One step of one layer: (B, C, H, W) spikes and its membranes to (B, O, h, w) spikes and new membranes."""
    held = layer.constants
    a = correlate(x, held.weight.numpy().astype(np.int64), layer.stride, layer.padding, layer.groups)
    if v is None:
        v = np.zeros_like(a)
    if v.shape != a.shape:
        raise InputError(f"membranes {v.shape} for layer {layer.name}, whose neurons are {a.shape}")
    u = (a * 64 + 2**23) % 2**24 - 2**23
    kept = np.sign(v) * (np.abs(v) * (4096 - held.decay) // 4096)
    bias = held.bias.numpy().astype(np.int64).reshape(-1, 1, 1) * 64
    h = np.clip(kept + u + bias, -LARGEST, LARGEST)
    out = h > held.threshold * 64
    return out.astype(np.int64), np.where(out, 0, h)


def correlate(
    x: np.ndarray, weight: np.ndarray, stride: tuple[int, int], padding: tuple[int, int], groups: int = 1
) -> np.ndarray:
    """(B, C, H, W) and (O, C/groups, kH, kW), int64, to (B, O, h, w), by im2col."""
    rows, columns = padding
    x = np.pad(x, ((0, 0), (0, 0), (rows, rows), (columns, columns)))
    patches: np.ndarray = np.lib.stride_tricks.sliding_window_view(x, weight.shape[2:], (2, 3))  # type: ignore[call-overload]
    patches = patches[:, :, :: stride[0], :: stride[1]]  # (B, C, h, w, kH, kW)
    batch, channels, height, width = patches.shape[:4]
    each = channels // groups
    found = []
    for g in range(groups):
        part = patches[:, g * each : (g + 1) * each].transpose(0, 2, 3, 1, 4, 5).reshape(batch * height * width, -1)
        kernels = weight[g * len(weight) // groups : (g + 1) * len(weight) // groups]
        found.append(part @ kernels.reshape(len(kernels), -1).T)  # (B·h·w, O/groups)
    return np.concatenate(found, 1).reshape(batch, height, width, -1).transpose(0, 3, 1, 2)
