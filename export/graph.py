r"""The neutral graph of the spiking branch; all export formats are written from it.

A layer is a convolution with tdBN folded into it (``folding.py``), followed by LIF neurons (eq. 2, 3):

    h[t] = β·v[t−1] + (W' ∗ s[t] + b')      s'[t] = H(h[t] − θ)      v[t] = h[t]·(1 − s'[t])

Float graph: W' and b' are multiples of a power of two for which float32 sums are exact in every order; what remains is
one product and one sum for each neuron, which IEEE 754 defines. Integer graph: the constants and the recursion of
:mod:`ashnets.model.integer`, which are exact. In both cases, any tool that follows the graph gives the same bits.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import cast

import torch
from torch import nn
from torch.nn import functional as F

from ashnets.errors import ConfigurationError, InputError
from ashnets.export.folding import float32, fold, on_lattice
from ashnets.model.abstract_encoder import AbstractEncoder
from ashnets.model.integer import IntegerConstants, integer_constants, integer_lif
from ashnets.model.spiking_layer import SpikingLayer
from ashnets.version import __version__

NO_BRANCH = "has no spiking branch: give a model that has one; those whose names end in -ann have none"

State = tuple[torch.Tensor, ...]
DT = 1e-4  # seconds; the value that tools for NIR assume


@dataclass(frozen=True)
class GraphLayer:
    """Folded convolution and its LIF neurons.

    Attributes:
        name: the layer's name in the model, ``conv1`` … ``concepts``.
        weight: W', (O, I/groups, kH, kW), float32, multiples of ``weight_step``.
        bias: b', (O,), float32, multiples of ``weight_step``.
        stride, padding, dilation: (rows, columns).
        groups: channel groups of the convolution.
        beta, theta: β and θ, float32 values.
        input_shape, output_shape: (C, H, W), without the batch.
        weight_step: all weights and biases are multiples of it; a power of two in a float graph.
        integer: the constants of a chip, in an integer graph. They then define the layer, and ``weight``, ``bias`` and
            ``theta`` are their values times the step, for tools that support only floats.
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
    integer: IntegerConstants | None = None

    @property
    def neurons(self) -> int:
        """Neurons of the layer, C·H·W."""
        return math.prod(self.output_shape)

    def current(self, spikes: torch.Tensor) -> torch.Tensor:
        """W' ∗ s + b' for (B, C, H, W) spikes, as floats."""
        return self._convolve(spikes, self.weight, self.bias)

    def step(self, spikes: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """One step: input spikes and the membrane to output spikes and the new membrane.

        The membrane is float32 in both forms; in an integer layer its values are integers in units of ``step``/64.
        """
        if self.integer is not None:
            c = self.integer
            a = self._convolve(spikes, c.weight.float(), None)
            fired, v = integer_lif(a[None], v, c.bias.view(-1, 1, 1), c.threshold, c.decay, c.step, k=1.0)
            return fired[0], v
        h = self.beta * v + self.current(spikes)
        over = h > self.theta
        return over.to(h.dtype), torch.where(over, 0.0, h)

    def _convolve(self, spikes: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        return F.conv2d(spikes, weight, bias, self.stride, self.padding, self.dilation, self.groups)


@dataclass(frozen=True)
class InputEncoding:
    """How images become the input of the graph; no exported file contains it.

    Attributes:
        kind: ``bernoulli``: a pixel channel fires at a step with its intensity in [0, 1] as probability.
        seed: of the sampler; the draw depends only on (seed, image key, step).
        normalized: False: intensities before any normalization.
    """

    kind: str = "bernoulli"
    seed: int = 0
    normalized: bool = False


@dataclass(frozen=True)
class SpikingGraph:
    """The spiking branch, independent of any library.

    Attributes:
        name: of the model.
        layers: in order; a spike passes through all of them within one step.
        time_steps: T, steps an image.
        carry: ``image``: the membranes are reset at each image; ``group``: carried over a group of φ images.
        group_size: φ.
        encoding: how the input spikes are drawn.
        dt: seconds of a step, for formats that count in seconds.
        provenance: model name, configuration and versions, as strings.
    """

    name: str
    layers: tuple[GraphLayer, ...]
    time_steps: int
    carry: str
    group_size: int
    encoding: InputEncoding
    dt: float = DT
    provenance: dict[str, str] = field(default_factory=dict)

    @property
    def precision(self) -> str:
        """``int8`` for an integer graph, else ``float``."""
        return "float" if any(layer.integer is None for layer in self.layers) else "int8"

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the input spikes."""
        return self.layers[0].input_shape

    def rest(self, batch: int) -> State:
        """Reset membranes: zeros, one tensor (B, C, H, W) a layer."""
        return tuple(torch.zeros(batch, *layer.output_shape) for layer in self.layers)

    @torch.no_grad()
    def run(self, spikes: torch.Tensor, state: State | None = None) -> tuple[dict[str, torch.Tensor], State]:
        """Reference execution, step by step on the CPU.

        Args:
            spikes: (T', B, C, H, W), 0 and 1.
            state: membranes to start from; ``None`` starts from a reset state.

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
        """``state``, or reset membranes; raises InputError where it does not fit."""
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
            "at least one step and one image"
        )
    if not bool(((spikes == 0) | (spikes == 1)).all()):
        raise InputError(
            "the input contains values other than 0 and 1: give spikes, as probabilistic_sampling draws them"
        )


def encoder_of(model: nn.Module, name: str | None = None) -> AbstractEncoder:
    """The spiking branch of a model. Raises ConfigurationError if there is none, or more than one."""
    encoders = [module for module in model.modules() if isinstance(module, AbstractEncoder)]
    if len(encoders) != 1:
        found = f"has {len(encoders)} spiking branches: give one of them" if encoders else NO_BRANCH
        raise ConfigurationError(f"{name or type(model).__name__} {found}")
    return encoders[0]


def from_model(model: nn.Module, name: str | None = None) -> SpikingGraph:
    """The neutral graph of a model's spiking branch, in evaluation mode; in integers for ``precision="int8"``.

    Args:
        model: an :class:`AbstractEncoder` or a module that contains one, such as ``AshNetsForPreTraining``.
        name: for the provenance; the model's own name by default.

    Raises:
        ConfigurationError: the model has no spiking branch (variant ``ann``) or more than one, or weights
            that are not finite or do not fit into integers.
    """
    encoder = encoder_of(model, name)
    config = encoder.config
    name = name or getattr(config, "name_or_path", "") or "ashnets"
    shape: tuple[int, int, int] = (3, config.image_size, config.image_size)
    layers = []
    for layer_name, module in encoder.layers.items():
        block = _plain(layer_name, module)
        folded = fold(block.conv, block.norm)
        weight, bias, step = on_lattice(*folded)
        layer = GraphLayer(
            name=layer_name,
            weight=weight,
            bias=bias,
            stride=block.conv.stride,
            padding=block.conv.padding,
            dilation=block.conv.dilation,
            groups=block.conv.groups,
            beta=float32(config.beta),
            theta=float32(config.threshold),
            input_shape=shape,
            output_shape=_output_shape(block.conv, shape),
            weight_step=step,
        )
        if config.precision == "int8":
            layer = _in_integers(layer, _named(layer_name, *folded, config.threshold, config.decay_k))
        layers.append(layer)
        shape = layer.output_shape
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
            "quantization": "in training" if config.precision == "int8" else "none",
            "ashnets": __version__,
            "torch": torch.__version__,
            "transformers": version("transformers"),
            "spikingjelly": version("spikingjelly"),
        },
    )


def _plain(name: str, module: nn.Module) -> SpikingLayer:
    """The layer, if a graph can represent it."""
    found = {part: type(inner).__name__ for part, inner in module.named_children()}
    if list(found) != ["conv", "norm", "lif"]:
        raise ConfigurationError(
            f"layer {name} consists of {', '.join(found.values()) or type(module).__name__}: a graph supports only "
            "convolution, tdBN and LIF in this order. netx and the other formats have no pooling and no sum of two "
            "branches; use a stride instead"
        )
    block = cast(SpikingLayer, module)
    if block.conv.padding_mode != "zeros" or isinstance(block.conv.padding, str):
        raise ConfigurationError(
            f"layer {name}: padding={block.conv.padding!r}, padding_mode={block.conv.padding_mode!r}: a graph "
            "supports only padding with zeros, given as a number"
        )
    return block


def quantized(graph: SpikingGraph) -> SpikingGraph:
    """Round a float graph to an integer graph after training.

    Its spikes differ from those of the float graph, more in each deeper layer. A model that was trained with
    ``precision="int8"`` gives an integer graph with exactly the spikes of the model.

    Raises:
        ConfigurationError: the graph is an integer graph already, its decay is not a multiple of 1/4096, or it does not
            fit into integers.
    """
    if graph.precision == "int8":
        raise ConfigurationError(f"{graph.name} is an integer graph already: export it as it is")
    layers = []
    for layer in graph.layers:
        decay = (1 - layer.beta) * 4096
        if decay != round(decay):
            raise ConfigurationError(f"{layer.name}: β={layer.beta} is not 1 − k/4096 for a whole k, as integers need")
        constants = _named(layer.name, layer.weight, layer.bias, layer.theta, round(decay))
        layers.append(_in_integers(layer, constants))
    provenance = {**graph.provenance, "quantization": "after training"}
    return dataclasses.replace(graph, layers=tuple(layers), provenance=provenance)


def cropped(graph: SpikingGraph, height: int, width: int) -> SpikingGraph:
    """The same layers over smaller images, which slow simulators need; a convolution does not depend on their size."""
    shape: tuple[int, int, int] = (graph.input_shape[0], height, width)
    layers = []
    for layer in graph.layers:
        output = _output_shape(layer, shape)
        layers.append(dataclasses.replace(layer, input_shape=shape, output_shape=output))
        shape = output
    return dataclasses.replace(graph, layers=tuple(layers))


def _named(name: str, weight: torch.Tensor, bias: torch.Tensor, theta: float, decay_k: int) -> IntegerConstants:
    try:
        return integer_constants(weight, bias, theta, decay_k)
    except ConfigurationError as error:
        raise ConfigurationError(f"layer {name}: {error}") from error


def _in_integers(layer: GraphLayer, constants: IntegerConstants) -> GraphLayer:
    return dataclasses.replace(
        layer,
        weight=constants.weight.double().mul(constants.step).float(),
        bias=constants.bias.double().mul(constants.step).float(),
        theta=float32(constants.threshold * constants.step),
        weight_step=constants.step,
        integer=constants,
    )


def _output_shape(conv: nn.Conv2d | GraphLayer, shape: tuple[int, int, int]) -> tuple[int, int, int]:
    with torch.device("meta"):
        probe = torch.empty(1, *shape)
        weight = torch.empty(conv.weight.shape)
    padding = cast(tuple[int, int], conv.padding)
    out = F.conv2d(probe, weight, None, conv.stride, padding, conv.dilation, conv.groups)
    channels, height, width = out.shape[1:]
    return channels, height, width
