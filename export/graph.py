r"""The neutral graph of the spiking branch: what every export format is written from, and nothing else.

A layer is a convolution with tdBN folded into it, followed by LIF neurons (eq. 2, 3):

    W' = γ·W/√(σ² + ε)        b' = β_bn − μ·γ/√(σ² + ε)
    h[t] = β·v[t−1] + (W' ∗ s[t] + b')      s'[t] = H(h[t] − θ)      v[t] = h[t]·(1 − s'[t])

Order of summation. Two libraries add the taps of a convolution in different orders, and in float arithmetic the last
bit then differs; a neuron at its threshold flips, and the flip spreads through deeper layers and later steps. The
inputs are spikes, so a layer only ever adds weights: if these are multiples of one step that is a power of two, and
no partial sum exceeds 2²⁴ steps, float32 adds them without rounding and every order gives the same bits.
:func:`on_lattice` rounds W' and b' to the finest such step (20 to 23 bits below the largest sum: the resolution that a
float32 sum has anyway). The rest of the recursion is one product and one sum for each neuron, which IEEE 754 fixes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, cast

import torch
from torch import nn
from torch.nn import functional as F

from ashnets import __version__
from ashnets.errors import ConfigurationError, InputError
from ashnets.model.abstract_encoder import AbstractEncoder
from ashnets.model.abstract_encoder import SpikingLayer as ModelLayer

State = tuple[torch.Tensor, ...]
EXACT = 1 << 24  # every integer up to 2²⁴ is a float32


@dataclass(frozen=True)
class SpikingLayer:
    """Folded convolution and its LIF neurons.

    Attributes:
        name: the layer's name in the model, ``conv1`` … ``concepts``.
        weight: W', (O, I/groups, kH, kW), float32, multiples of ``weight_step``.
        bias: b', (O,), float32, multiples of ``weight_step``.
        stride, padding, dilation: (rows, columns).
        groups: channel groups of the convolution.
        beta, theta: β and θ, float32 values.
        input_shape, output_shape: (C, H, W), without the batch.
        weight_step: the power of two that all weights and biases are multiples of.
    """

    name: str
    weight: torch.Tensor
    bias: torch.Tensor
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int
    beta: float
    theta: float
    input_shape: tuple[int, int, int]
    output_shape: tuple[int, int, int]
    weight_step: float

    @property
    def neurons(self) -> int:
        """Neurons of the layer, C·H·W."""
        return math.prod(self.output_shape)

    def current(self, spikes: torch.Tensor) -> torch.Tensor:
        """W' ∗ s + b' for (B, C, H, W) spikes."""
        return F.conv2d(spikes, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)

    def step(self, spikes: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """One step: input spikes and the membrane to output spikes and the new membrane."""
        h = self.beta * v + self.current(spikes)
        fired = h > self.theta
        return fired.to(h.dtype), torch.where(fired, 0.0, h)


@dataclass(frozen=True)
class InputEncoding:
    """How pictures become the graph's input; it stays outside every exported file.

    Attributes:
        kind: ``bernoulli``: a pixel channel fires at a step with its intensity in [0, 1] as probability.
        seed: of the sampler; the draw depends on (seed, image id, step) alone.
        normalised: False: intensities are taken before any normalisation.
    """

    kind: str = "bernoulli"
    seed: int = 0
    normalised: bool = False


@dataclass(frozen=True)
class SpikingGraph:
    """The spiking branch, free of any library's classes.

    Attributes:
        name: of the model.
        layers: in order; a spike passes through all of them within one step.
        time_steps: T, steps an image.
        carry: ``image``: the membranes are reset at each image; ``group``: carried over a group of φ images.
        group_size: φ.
        encoding: how the input spikes are drawn.
        provenance: model name, configuration and versions, as strings.
    """

    name: str
    layers: tuple[SpikingLayer, ...]
    time_steps: int
    carry: str
    group_size: int
    encoding: InputEncoding
    provenance: dict[str, str] = field(default_factory=dict)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the input spikes."""
        return self.layers[0].input_shape

    def rest(self, batch: int) -> State:
        """Membranes at rest: zeros, one tensor (B, C, H, W) a layer."""
        return tuple(torch.zeros(batch, *layer.output_shape) for layer in self.layers)

    @torch.no_grad()
    def run(self, spikes: torch.Tensor, state: State | None = None) -> tuple[dict[str, torch.Tensor], State]:
        """Reference execution, step by step on the CPU in float32.

        Args:
            spikes: (T', B, C, H, W), 0 and 1.
            state: membranes to start from; ``None`` starts at rest.

        Returns:
            Spikes of each layer by name, (T', B, C, H, W), and the membranes after the last step.

        Raises:
            InputError: a wrong shape, values other than 0 and 1, or a state that does not fit.
        """
        check_spikes(spikes, self.input_shape)
        membranes = list(self.check_state(state, spikes.shape[1]))
        fired: dict[str, list[torch.Tensor]] = {layer.name: [] for layer in self.layers}
        for x in spikes.float():
            for i, layer in enumerate(self.layers):
                x, membranes[i] = layer.step(x, membranes[i])
                fired[layer.name].append(x)
        return {name: torch.stack(steps) for name, steps in fired.items()}, tuple(membranes)

    def check_state(self, state: State | None, batch: int) -> State:
        """``state``, or membranes at rest; raises InputError where it does not fit."""
        if state is None:
            return self.rest(batch)
        shapes = [tuple(v.shape) for v in state]
        wanted = [(batch, *layer.output_shape) for layer in self.layers]
        if shapes != wanted:
            raise InputError(f"the state has shapes {shapes}; {self.name} needs {wanted}")
        return tuple(v.float() for v in state)


def check_spikes(spikes: torch.Tensor, input_shape: tuple[int, ...]) -> None:
    """Refuse anything but (T', B, *input_shape) of zeros and ones.

    Raises:
        InputError: with the shape or the values found.
    """
    if spikes.dim() != 5 or tuple(spikes.shape[2:]) != tuple(input_shape) or 0 in spikes.shape:
        raise InputError(
            f"spikes of shape {tuple(spikes.shape)}: the graph takes (T, B, {', '.join(map(str, input_shape))}), "
            "at least one step and one picture"
        )
    if not bool(((spikes == 0) | (spikes == 1)).all()):
        raise InputError("the input holds values other than 0 and 1: give spikes, as probabilistic_sampling draws them")


def fold(conv: nn.Conv2d, norm: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """W' and b' in float64: convolution and normalisation with running statistics as one convolution.

    Args:
        conv: with or without bias.
        norm: its tdBN; ``running_mean``, ``running_var``, ``eps``, ``weight`` (γ) and ``bias`` (β_bn) are read.
    """
    weight = conv.weight.detach().double().cpu()
    bias = torch.zeros(weight.shape[0], dtype=torch.float64) if conv.bias is None else conv.bias.detach().double().cpu()
    mean, variance, gamma, shift = (
        tensor.detach().double().cpu() for tensor in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    )
    scale = gamma / torch.sqrt(variance + norm.eps)
    return weight * scale.view(-1, 1, 1, 1), shift + (bias - mean) * scale


def on_lattice(weight: torch.Tensor, bias: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Round to multiples of the finest power of two for which float32 sums over spikes are exact in any order.

    Args:
        weight: W', (O, I/groups, kH, kW), float64.
        bias: b', (O,), float64.

    Returns:
        Weight and bias as float32, and the step.

    Raises:
        ConfigurationError: weights that are not finite.
    """
    if not bool(torch.isfinite(weight).all() & torch.isfinite(bias).all()):
        raise ConfigurationError("a folded weight is not finite: the checkpoint or its running statistics are damaged")
    terms = torch.cat([weight.flatten(1), bias[:, None]], dim=1)
    # No partial sum, in whatever order, leaves [Σ negative terms, Σ positive terms].
    largest = float(torch.maximum(terms.clamp_min(0).sum(1), terms.clamp_max(0).sum(1).abs()).max())
    # The terms of one sum move by at most half a step each.
    exponent = math.frexp(max(largest, 1e-30) / (EXACT - terms.shape[1]))[1]
    step = math.ldexp(1.0, exponent)
    return (weight / step).round().mul(step).float(), (bias / step).round().mul(step).float(), step


def from_model(model: nn.Module, name: str | None = None) -> SpikingGraph:
    """The neutral graph of a model's spiking branch, in evaluation mode.

    Args:
        model: an :class:`AbstractEncoder` or anything that holds one, such as ``AshNetsForPreTraining``.
        name: for the provenance; the model's own name by default.

    Raises:
        ConfigurationError: the model has no spiking branch (variant ``ann``), or more than one.
    """
    encoders = [m for m in model.modules() if isinstance(m, AbstractEncoder)]
    if len(encoders) != 1:
        raise ConfigurationError(
            f"{type(model).__name__} holds {len(encoders)} abstract encoders: only a model with one spiking branch can "
            "be exported, and the variant summary_ratio='ann' has none"
        )
    encoder = encoders[0]
    config = encoder.config
    name = name or getattr(config, "name_or_path", "") or "ashnets"
    shape: tuple[int, int, int] = (3, config.image_size, config.image_size)
    layers = []
    for layer_name, module in encoder.layers.items():
        block = cast(ModelLayer, module)
        conv, lif = block.conv, block.lif
        weight, bias, step = on_lattice(*fold(conv, block.norm))
        output = _output_shape(conv, shape)
        layers.append(
            SpikingLayer(
                name=layer_name,
                weight=weight,
                bias=bias,
                stride=tuple(conv.stride),
                padding=tuple(conv.padding),
                dilation=tuple(conv.dilation),
                groups=conv.groups,
                beta=_float32(lif.beta),
                theta=_float32(lif.v_threshold),
                input_shape=shape,
                output_shape=output,
                weight_step=step,
            )
        )
        shape = output
    return SpikingGraph(
        name=name,
        layers=tuple(layers),
        time_steps=config.time_steps,
        carry=config.carry,
        group_size=config.group_size,
        encoding=InputEncoding(seed=config.sampling_seed),
        provenance={
            "model": name,
            "image_size": str(config.image_size),
            "num_concepts": str(config.num_concepts),
            "decay_k": str(config.decay_k),
            "ashnets": __version__,
            "torch": torch.__version__,
            "transformers": version("transformers"),
            "spikingjelly": version("spikingjelly"),
        },
    )


def _output_shape(conv: nn.Conv2d, shape: tuple[int, int, int]) -> tuple[int, int, int]:
    with torch.device("meta"):
        probe = torch.empty(1, *shape)
        weight = torch.empty(conv.weight.shape)
    out = F.conv2d(probe, weight, None, conv.stride, conv.padding, conv.dilation, conv.groups)
    channels, height, width = out.shape[1:]
    return channels, height, width


def _float32(value: float) -> float:
    return float(torch.tensor(value, dtype=torch.float32))
