r"""Semantic abstract encoder E (eq. 5): a plain spiking stack over a group of similar images.

    S_b = AC_{i=1..b} | E(P_binary,i ; γ_i)

P_binary is (T, B, 3, H, W); the images of a group follow one another on the time axis, image-major, so that one
sequence has φ·T steps. Each layer is conv → tdBN → LIF; the response S counts the spikes of the last one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import nn

from ashnets.configuration import READOUTS, AshNetsConfig
from ashnets.errors import InputError
from ashnets.model.integer_layer import IntegerSpikingLayer
from ashnets.model.memory_saving import State, run_saving
from ashnets.model.spiking_layer import SpikingLayer


@dataclass
class SpikingResponse:
    """The output of the abstract encoder for B images.

    Attributes:
        response: S, (B, N, R), spikes of each token and concept, after the readout.
        counts: (B, N, R), an image's own spikes with either readout; None if they equal ``response``.
        layer_spikes: name → (B,), spikes of each layer over an image's own T steps.
        layer_neurons: name → neurons of the layer; spikes / (neurons·T) is the firing rate.
        state: membranes after the last step, one tensor a layer, for the next call of a stream.
        shared: (B/φ, N, R), the response of each group if its images share it; None if each has its own.
    """

    response: torch.Tensor
    counts: torch.Tensor | None
    layer_spikes: dict[str, torch.Tensor]
    layer_neurons: dict[str, int]
    state: State
    shared: torch.Tensor | None = None


class AbstractEncoder(nn.Module):
    """Stride-2 3×3 layers down to the backbone's grid, 3×3 layers on it, then a 1×1 layer to the response width R.

    ``config.response_size`` is R: M2 concepts, or M1 without a collector. There is no pooling and no residual sum,
    since neuromorphic formats have neither.
    """

    def __init__(self, config: AshNetsConfig) -> None:
        super().__init__()
        self.config = config
        self.memory_saving = False  # True trains with ashnets.model.memory_saving: less memory, more time
        widths = [3, *config.spiking_channels, *config.spiking_grid_channels]
        strides = [2] * len(config.spiking_channels) + [1] * len(config.spiking_grid_channels)
        kind = IntegerSpikingLayer if config.precision == "int8" else SpikingLayer
        self.layers = nn.ModuleDict(
            {f"conv{i + 1}": kind(config, widths[i], widths[i + 1], 3, stride) for i, stride in enumerate(strides)}
        )
        self.layers["concepts"] = kind(config, widths[-1], config.response_size, 1, 1)

    def run(self, spikes: torch.Tensor, state: State | None = None) -> tuple[dict[str, torch.Tensor], State]:
        """Run a sequence of any length from an explicit state.

        Args:
            spikes: (T', B', 3, H, W), 0 and 1.
            state: membranes, one tensor (B', C, h, w) a layer; ``None`` starts from a reset state.

        Returns:
            Spikes of each layer by name, (T', B', C, h, w), and the membranes after the last step. Running T' steps
            at once or one by one from the returned state gives the same spikes.
        """
        blocks = self._blocks()
        spikes = spikes.to(blocks[0][1].conv.weight.dtype)
        # Converted once: all layers then keep channels last, the fastest format for convolutions of few channels.
        spikes = spikes.flatten(0, 1).contiguous(memory_format=torch.channels_last).unflatten(0, spikes.shape[:2])
        outputs, membranes = {}, []
        for v, (name, block) in zip(self._membranes(spikes.shape[1], spikes, state), blocks, strict=True):
            outputs[name], v = block.run(spikes, v)  # (T', B', C, h, w), (B', C, h, w)
            spikes = outputs[name]
            membranes.append(v)
        return outputs, tuple(membranes)

    def _blocks(self) -> list[tuple[str, SpikingLayer]]:
        return cast("list[tuple[str, SpikingLayer]]", list(self.layers.items()))

    def _membranes(self, batch: int, spikes: torch.Tensor, state: State | None) -> State:
        """``state``, or reset membranes for ``batch`` sequences of spikes (..., H, W).

        Raises:
            InputError: the state has another number of layers or another shape.
        """
        if state is not None and len(state) != len(self.layers):
            raise InputError(
                f"the state has {len(state)} membranes for {len(self.layers)} spiking layers: "
                "give the state that this model returned"
            )
        (height, width), found = spikes.shape[3:], []
        for i, (name, block) in enumerate(self._blocks()):
            conv = block.conv
            height, width = (
                (side + 2 * pad - kernel) // stride + 1
                for side, pad, kernel, stride in zip(
                    (height, width), conv.padding, conv.kernel_size, conv.stride, strict=True
                )
            )
            shape = (batch, conv.out_channels, height, width)
            if state is None:
                found.append(torch.zeros(shape, dtype=torch.float32, device=spikes.device))
            elif tuple(state[i].shape) == shape:
                found.append(state[i])
            else:
                raise InputError(
                    f"membranes of shape {tuple(state[i].shape)} for layer {name}, whose neurons have shape {shape}: "
                    "the state comes from another batch size or grouping"
                )
        return tuple(found)

    def forward(
        self, spikes: torch.Tensor, group_size: int = 1, readout: str | None = None, state: State | None = None
    ) -> SpikingResponse:
        """Respond to B images in groups of ``group_size`` consecutive ones.

        Args:
            spikes: P_binary, (T, B, 3, H, W).
            group_size: φ; B must be a multiple of it. 1 is the single-image form, which starts from a reset state.
            readout: ``shared`` or ``per_image``; the configuration's by default.
            state: membranes to start from, (B/φ, C, h, w) each, (B, C, h, w) without carry; ``None`` starts from a
                reset state.

        Raises:
            InputError: B is not a multiple of φ, the readout is unknown, or the state has another shape.
        """
        steps, images = spikes.shape[:2]
        if group_size < 1 or images % group_size:
            raise InputError(f"{images} images do not divide into groups of φ = {group_size}")
        readout = readout or self.config.readout
        if readout not in READOUTS:
            raise InputError(f"readout={readout!r} is not one of {', '.join(READOUTS)}")
        carry = self.config.carry == "group"
        groups = images // group_size
        if self.memory_saving and self.config.precision == "float" and torch.is_grad_enabled():
            blocks = [block for _, block in self._blocks()]
            carried = group_size if carry else 1
            membranes = self._membranes(images // carried, spikes, state)
            counted, fired, state = run_saving(blocks, spikes, membranes, carried)  # counted as below
        else:
            outputs, state = self.run(as_sequence(spikes, group_size) if carry else spikes, state)
            # (φ·T, G, ...) or (T, B, ...) to sums over an image's T steps, in the order of memory: 20 times as fast
            *below, last = (out.movedim(2, -1) for out in outputs.values())
            counted = last.float().unflatten(0, (-1, steps)).sum(1).movedim(-1, 2)  # (φ, G, R, h, w), or φ = 1, G = B
            with torch.no_grad():
                fired = [out.flatten(2).sum(-1, dtype=torch.float32).unflatten(0, (-1, steps)).sum(1) for out in below]
                fired.append(counted.sum((2, 3, 4)))  # (φ, G) of each layer

        def per_image(x: torch.Tensor) -> torch.Tensor:  # (φ, G, ...) to (B, ...)
            return x.transpose(0, 1).flatten(0, 1)

        counts = per_image(counted).flatten(2).transpose(1, 2)  # (B, N, R)
        response, shared = counts, None
        if readout == "shared" and group_size > 1:
            shared = counts.unflatten(0, (groups, group_size)).sum(1)  # (B/φ, N, R)
            response = for_each(shared, group_size)  # (B, N, R)
        return SpikingResponse(
            response=response,
            counts=None if shared is None else counts,
            layer_spikes={name: per_image(x) for name, x in zip(self.layers, fired, strict=True)},
            layer_neurons={name: v.shape[1:].numel() for name, v in zip(self.layers, state, strict=True)},
            state=state,
            shared=shared,
        )


def for_each(of_groups: torch.Tensor, group_size: int) -> torch.Tensor:
    """Repeat (B/φ, ...), which all φ images of a group share, to (B, ...)."""
    return of_groups.unsqueeze(1).expand(-1, group_size, *[-1] * (of_groups.dim() - 1)).flatten(0, 1)


def as_sequence(spikes: torch.Tensor, group_size: int) -> torch.Tensor:
    """(T, G·φ, C, H, W) to (φ·T, G, C, H, W), channels last: a group's images one after another on the time axis."""
    grouped = spikes.permute(0, 1, 3, 4, 2).unflatten(1, (-1, group_size))  # (T, G, φ, H, W, C)
    return grouped.permute(2, 0, 1, 3, 4, 5).flatten(0, 1).permute(0, 1, 4, 2, 3)
