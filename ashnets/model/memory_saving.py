r"""Training of the abstract encoder with little memory: one bit per spike is kept, everything else is recomputed.

Plain BPTT keeps currents, membranes and spikes of all layers over all φ·T steps: at least 12 bytes per neuron and step.
Here each layer keeps its input spikes packed (1/8 byte), its statistics, and the membranes at the start of each piece
of the sequence. tdBN's statistics are those of the whole sequence, as in plain BPTT, so a layer makes these passes:

    forward     conv → moments;  conv → LIF → spikes, packed          one convolution if its output fits the budget
    backward    from the last piece to the first: conv → LIF again → ȳ and its sums Σȳ, Σȳ(x − μ)
                conv → x̄ from ȳ and the sums → gradient of the weights

Between two layers, x̄ of the upper layer is stored, not the gradient of the spikes: x̄ is smaller when each layer is
smaller than the one below, and a transposed convolution of one piece computes the other from it. For the largest layers
(the first two, if each layer is half as large as the one below) not even ȳ is stored: each pass that needs it starts
from the packed spikes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.nn.grad import conv2d_input, conv2d_weight

from ashnets.kernels import buffers, operators
from ashnets.model.packed_spikes import PackedSpikes
from ashnets.model.rows import Rows
from ashnets.model.spiking_layer import SpikingLayer
from ashnets.model.tdbn import moments

PIECES = 20  # of a sequence: more pieces need smaller buffers, but more stored membranes

State = tuple[torch.Tensor, ...]  # membranes, one tensor for each layer
Pass = Callable[[int], torch.Tensor]  # piece → a gradient, (T', N); called from the last piece to the first
Upstream = Callable[[], Pass]  # starts a pass over the gradient of a layer's spikes


def run_saving(
    blocks: list[SpikingLayer], spikes: torch.Tensor, state: State, group_size: int
) -> tuple[torch.Tensor, list[torch.Tensor], State]:
    """Run groups of images, one after another on the time axis; the gradients equal those of plain BPTT.

    Args:
        blocks: the encoder's layers.
        spikes: (T, G·φ, 3, H, W), 0 and 1; no gradient flows into them.
        state: membranes at the start, (G, C, h, w) each.
        group_size: φ.

    Returns:
        Spikes of the last layer counted over each image's steps, (φ, G, C, h, w), float32; the total spikes of each
        layer, (φ, G); and the membranes after the last step.
    """
    time_steps = spikes.shape[0]
    steps = time_steps * group_size
    pieces = min(PIECES, steps)
    kind = spikes.device.type
    plan = _Plan(
        blocks=blocks,
        bounds=[(steps * i // pieces, steps * (i + 1) // pieces) for i in range(pieces)],
        time_steps=time_steps,
        images=group_size,
        dtype=torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else blocks[0].conv.weight.dtype,
        budget=steps * max(v.numel() for v in state) // 2,
    )
    parameters = [p for block in blocks for p in (block.conv.weight, block.norm.weight, block.norm.bias)]
    counts, *rest = _Saving.apply(plan, spikes, *parameters, *state)
    return counts, rest[: len(blocks)], tuple(rest[len(blocks) :])


@dataclass(frozen=True)
class _Plan:
    """A sequence of ``images`` times T steps in pieces.

    ``budget`` is how many values of a layer's sequence may be stored at once; ``dtype`` is that of the convolutions.
    """

    blocks: list[SpikingLayer]
    bounds: list[tuple[int, int]]
    time_steps: int
    images: int
    dtype: torch.dtype
    budget: int

    def images_of(self, piece: int) -> list[int]:
        """The image that each step of a piece belongs to."""
        return [t // self.time_steps for t in range(*self.bounds[piece])]


@dataclass
class _Layer:
    """What one layer stores, and from which it recomputes everything else."""

    plan: _Plan
    block: SpikingLayer
    source: PackedSpikes
    rows: Rows
    weight: torch.Tensor
    membranes: list[torch.Tensor] = field(default_factory=list)  # at the start of each piece
    scale: torch.Tensor = field(init=False)
    shift: torch.Tensor = field(init=False)
    mean: torch.Tensor = field(init=False)
    inverse: torch.Tensor = field(init=False)  # 1/√(σ² + ε)
    count: torch.Tensor | None = None  # number of values in the statistics; None for running statistics

    def give_tensors(self) -> list[torch.Tensor]:
        """All stored tensors, for autograd to save; :meth:`take_tensors` takes them back."""
        vectors = [self.scale, self.shift, self.mean, self.inverse]
        membranes, self.membranes = self.membranes, []
        return [*vectors, *membranes, *self.source.give_bits()]

    def take_tensors(self, tensors: Iterator[torch.Tensor]) -> None:
        """Take the tensors back, in the order of :meth:`give_tensors`."""
        self.scale, self.shift, self.mean, self.inverse = islice(tensors, 4)
        self.membranes = list(islice(tensors, len(self.plan.bounds)))
        self.source.take_bits(list(islice(tensors, len(self.plan.bounds))))

    @property
    def size(self) -> int:
        """Number of values in its sequence."""
        return self.plan.bounds[-1][1] * self.rows.shape[1:].numel()

    @property
    def held(self) -> bool:
        """Whether x̄ of the whole sequence is stored; otherwise each pass that needs it recomputes it."""
        return self.size < self.plan.budget

    @property
    def constants(self) -> tuple[float, float, float, bool]:
        lif = self.block.lif
        return lif.beta, lif.v_threshold, lif.k, lif.detach_reset

    def currents(self, piece: int) -> torch.Tensor:
        """(T', N) of a piece, before normalization."""
        conv = self.block.conv
        frames = self.source.frames(piece, self.plan.dtype)
        x = F.conv2d(frames, self.weight, None, conv.stride, conv.padding, conv.dilation, conv.groups)
        return x.float().permute(0, 2, 3, 1).reshape(len(self.plan.images_of(piece)), -1)

    def frames(self, rows: torch.Tensor) -> torch.Tensor:
        """(T', N) as (T'·B, C, h, w)."""
        return self.rows.like_steps(rows).flatten(0, 1).to(self.plan.dtype)

    def input_gradient(self, grad: torch.Tensor) -> torch.Tensor:
        """Gradient of the currents (T', N) to that of the spikes of the layer below, (T', N')."""
        conv, frames = self.block.conv, self.frames(grad)
        shape = (len(frames), *self.source.frame[1:])
        # The result takes the weight's format; another format would be copied on both sides.
        weight = self.weight.contiguous(memory_format=torch.channels_last)
        found = conv2d_input(shape, weight, frames, conv.stride, conv.padding, conv.dilation, conv.groups)
        return found.float().permute(0, 2, 3, 1).reshape(grad.shape[0], -1)

    def weight_gradient(self, piece: int, grad: torch.Tensor) -> torch.Tensor:
        conv = self.block.conv
        return conv2d_weight(
            self.source.frames(piece, self.plan.dtype),
            self.weight.shape,
            self.frames(grad),
            conv.stride,
            conv.padding,
            conv.dilation,
            conv.groups,
        ).float()


class _Saving(torch.autograd.Function):
    @staticmethod
    @buffers.unkept()
    def forward(ctx: Any, plan: _Plan, spikes: torch.Tensor, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        parameters, state = tensors[: 3 * len(plan.blocks)], tensors[3 * len(plan.blocks) :]
        grouped = spikes.unflatten(1, (-1, plan.images))  # (T, G, φ, 3, H, W)
        source = PackedSpikes(torch.Size((grouped.shape[1], *spikes.shape[2:])))
        for low, high in plan.bounds:
            steps = torch.arange(low, high, device=spikes.device)
            source.append(grouped[steps % plan.time_steps, :, steps // plan.time_steps])
        layers, per_layer, last = [], [], []
        counts = spikes.new_empty(0)
        with torch.autocast(spikes.device.type, enabled=False):
            for i, block in enumerate(plan.blocks):
                weight, gamma, bias = parameters[3 * i : 3 * i + 3]
                rows = Rows(state[i].new_empty((1, *_last(state[i].shape)), device="meta").permute(0, 1, 4, 2, 3))
                layer = _Layer(plan, block, source, rows, weight.to(plan.dtype))
                source, fired, v = _forward(layer, gamma.float(), bias.float(), rows.neurons(state[i].float()))
                if block is plan.blocks[-1]:
                    counts = rows.like_steps(fired)  # (φ, G, C, h, w)
                layers.append(layer)
                per_layer.append(fired.view(plan.images, rows.shape[1], -1).sum(-1))  # (φ, G)
                last.append(rows.like_neurons(v))  # (G, C, h, w)
        ctx.save_for_backward(*parameters, *(t for layer in layers for t in layer.give_tensors()))
        ctx.plan, ctx.layers = plan, layers
        ctx.mark_non_differentiable(*per_layer)
        return counts, *per_layer, *last

    @staticmethod
    @once_differentiable
    @buffers.unkept()
    def backward(ctx: Any, grad_counts: torch.Tensor, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        plan, layers = ctx.plan, ctx.layers
        n = len(layers)
        parameters, kept = ctx.saved_tensors[: 3 * n], iter(ctx.saved_tensors[3 * n :])
        for layer in layers:
            layer.take_tensors(kept)
        by_image = layers[-1].rows.steps(grad_counts.float())
        upstream: Upstream = lambda: lambda piece: by_image[plan.images_of(piece)]  # noqa: E731
        asked = [1]  # passes over x̄ of each layer: one for its weights, and those that the layer below makes
        for layer in layers[:-1]:
            asked.append(1 if layer.held else 1 + asked[-1])
        adjoints: list[_Adjoint] = []
        with torch.autocast(grad_counts.device.type, enabled=False):
            for i in reversed(range(n)):
                adjoint = _Adjoint(layers[i], upstream, layers[i].rows.neurons(grads[n + i].float()), asked[i])
                adjoints.insert(0, adjoint)
                upstream = adjoint.below
            currents = adjoints[0].currents()
            for piece in reversed(range(len(plan.bounds))):
                currents(piece)
        found = [grad for adjoint in adjoints for grad in (adjoint.weight, adjoint.gamma, adjoint.bias)]
        found = [grad.to(parameter.dtype) for grad, parameter in zip(found, parameters, strict=True)]
        return None, None, *found, *(adjoint.state for adjoint in adjoints)


def _last(shape: torch.Size) -> tuple[int, ...]:
    batch, channels, height, width = shape
    return batch, height, width, channels


def _forward(
    layer: _Layer, gamma: torch.Tensor, bias: torch.Tensor, v: torch.Tensor
) -> tuple[PackedSpikes, torch.Tensor, torch.Tensor]:
    """Packed spikes, the spikes of each neuron in each image (φ, N), and the last membrane (N,)."""
    plan, norm, rows = layer.plan, layer.block.norm, layer.rows
    pieces = range(len(plan.bounds))
    kept: list[torch.Tensor | None] = [None] * len(pieces)
    if norm.training:
        keep = layer.size <= plan.budget
        parts = []
        for piece in pieces:
            x = layer.currents(piece)
            parts.append(moments(x, rows))
            kept[piece] = x if keep else None
        layer.mean, variance, layer.count = norm.statistics(parts)
    else:
        layer.mean, variance = norm.running_mean.float(), norm.running_var.float()
    layer.inverse = torch.rsqrt(variance + norm.eps)  # (C,)
    layer.scale = gamma * layer.inverse
    layer.shift = bias - layer.mean * layer.scale
    scale, shift = rows.spread(layer.scale), rows.spread(layer.shift)
    beta, theta, *_ = layer.constants
    packed = PackedSpikes(rows.shape[1:])
    fired = v.new_zeros((plan.images, v.numel()))
    for piece in pieces:
        held, kept[piece] = kept[piece], None
        layer.membranes.append(v)
        s, v = operators.lif_forward(layer.currents(piece) if held is None else held, v, scale, shift, beta, theta)
        packed.append(s)
        fired.index_add_(0, torch.tensor(plan.images_of(piece), device=s.device), s)
        del s, held
    return packed, fired, v  # (φ·T, N) in bits, (φ, N), (N,)


class _Adjoint:
    """The backward pass of one layer. The constructor computes the sums Σȳ and Σȳ(x − μ), which x̄ needs.

    Args:
        upstream: gives the gradient of the layer's spikes.
        grad_v: gradient of the last membrane, (N,).
        asked: how often :meth:`currents` will be called; the first pass also computes the gradient of the weights.

    Attributes:
        weight, gamma, bias, state: gradients of the weights, γ, β_bn and the first membrane.
    """

    def __init__(self, layer: _Layer, upstream: Upstream, grad_v: torch.Tensor, asked: int) -> None:
        plan, rows = layer.plan, layer.rows
        self.layer, self.upstream, self.grad_v = layer, upstream, grad_v
        self.asked = self.left = asked
        self.weight = torch.zeros_like(layer.weight, dtype=torch.float32)
        self._grads: list[torch.Tensor | None] = [None] * len(plan.bounds)  # ȳ, then x̄
        self._kept: list[torch.Tensor | None] = [None] * len(plan.bounds)  # x, until ȳ is x̄
        keep = layer.held and 2 * layer.size <= plan.budget
        total = product = torch.zeros_like(layer.mean, dtype=torch.float64)
        through_neurons, v = self._through_neurons(), grad_v
        for piece in reversed(range(len(plan.bounds))):
            x, grad, v, sums, products = through_neurons(piece, v)
            total, product = total + rows.total(sums), product + rows.total(products)
            if layer.held:
                self._grads[piece], self._kept[piece] = grad, x if keep else None
            del x, grad  # before those of the next piece are allocated
        self.gamma, self.bias, self.state = product * layer.inverse, total, rows.like_neurons(v)
        if layer.count is None:
            self._means = torch.stack([torch.zeros_like(total)] * 2)
        else:
            self._means = layer.block.norm.sum_over_ranks(torch.stack([total, product])) / layer.count

    def below(self) -> Pass:
        """Start a pass over the gradient of the spikes of the layer below."""
        currents = self.currents()
        return lambda piece: self.layer.input_gradient(currents(piece))

    def currents(self) -> Pass:
        """Start a pass over x̄."""
        layer, spread = self.layer, self.layer.rows.spread
        center, scale, grad_mean = spread(layer.mean), spread(layer.scale), spread(self._means[0].float())
        factor = spread((layer.scale * layer.inverse.square() * self._means[1]).float())
        if not layer.held:
            through_neurons = self._through_neurons()
        v, first, last = self.grad_v, self.left == self.asked, self.left == 1
        self.left -= 1

        def of(piece: int) -> torch.Tensor:
            nonlocal v
            x, grad = self._kept[piece], self._grads[piece]
            self._kept[piece] = None
            if grad is None:
                x, grad, v, *_ = through_neurons(piece, v)
            elif first and x is None:
                x = layer.currents(piece)
            if x is not None:
                operators.norm_backward(grad, x, center, scale, grad_mean, factor)
            del x
            if first:
                self.weight += layer.weight_gradient(piece, grad)
            if last:
                self._grads[piece] = None
            return grad

        return of

    def _through_neurons(self) -> Callable[[int, torch.Tensor], tuple[torch.Tensor, ...]]:
        """Start a pass over x, ȳ, the gradient of a piece's first membrane (from that of its last), and both sums."""
        layer, spread = self.layer, self.layer.rows.spread
        scale, shift, center = spread(layer.scale), spread(layer.shift), spread(layer.mean)
        upstream = self.upstream()

        def of(piece: int, v: torch.Tensor) -> tuple[torch.Tensor, ...]:
            x = layer.currents(piece)
            return x, *operators.lif_backward(
                x, layer.membranes[piece], scale, shift, center, upstream(piece), v, *layer.constants
            )

        return of
