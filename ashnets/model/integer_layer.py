r"""A spiking layer whose forward is the chip's: integer weights, integer membranes (:mod:`ashnets.model.integer`).

    W' = γ·W/√(σ² + ε)      b' = β_bn − μ·γ/√(σ² + ε)      a[t] = W_int ∗ s[t]      integer LIF

The layer has the same tensors as the float layer, under the same names. The running statistics μ, σ² are constant: in
training and in inference tdBN is the folded affine map, and W, γ and β_bn are trainable. So a training step computes
the same spikes as the export, with any batch; statistics of the batch would give another network at each step. The
running statistics come from the float model, or from ``calibrate()``, during which the layer computes in floats.

A convolution of integers with zeros and ones is exact in float32 below 2²⁴, and float32 represents every 24-bit
membrane. The membranes are these integers in float32; the float membrane is v·s/64. Only the forward pass is in
integers. A training step costs as much as in floats, and is in float32 even under autocast.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional as F

from ashnets.configuration import AshNetsConfig
from ashnets.model.integer import (
    DECAY_ONE,
    IntegerConstants,
    Integers,
    check,
    integer_constants,
    integer_lif,
    integers,
    straight_through,
)
from ashnets.model.neuron import LIF
from ashnets.model.offloading import at_hand
from ashnets.model.spiking_layer import SpikingLayer


class IntegerLIF(LIF):
    """Integer LIF as a spikingjelly neuron; ``v`` contains integers in float32.

    With a, b_int and the layer's integers as inputs it is :func:`ashnets.model.integer.integer_lif`; with currents
    alone it is the float neuron, for calibration.
    """

    @property
    def decay(self) -> int:
        """k of β = 1 − k/4096."""
        return round((1 - self.beta) * DECAY_ONE)

    def single_step_functional_forward(self, inputs: Any, states: Any, **kwargs: Any) -> Any:
        spikes, states = self.multi_step_functional_forward((inputs[0].unsqueeze(0), *inputs[1:]), states)
        return (spikes[0].squeeze(0),), states  # (...), (...)

    def multi_step_functional_forward(self, inputs: Any, states: Any, **kwargs: Any) -> Any:
        if len(inputs) == 1:
            return super().multi_step_functional_forward(inputs, states, **kwargs)
        current, bias, found = inputs
        spikes, v = integer_lif(
            current, states[0], bias, found.threshold, self.decay, found.step, self.k, self.detach_reset
        )
        return (spikes,), (v,)  # (T, ...), (...)


class IntegerSpikingLayer(SpikingLayer):
    """conv → tdBN → LIF over (T, B, C, H, W), computed in integers."""

    lif: IntegerLIF

    def __init__(self, config: AshNetsConfig, inputs: int, outputs: int, kernel: int, stride: int) -> None:
        super().__init__(config, inputs, outputs, kernel, stride)
        self.lif = IntegerLIF(config.beta, config.threshold, config.surrogate_k, config.detach_reset)

    def folded(self) -> tuple[torch.Tensor, torch.Tensor]:
        """W' (O, I, kH, kW) and b' (O,) in float64, with gradients to W, γ and β_bn."""
        norm = self.norm
        scale = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
        weight = self.conv.weight.double() * scale.view(-1, 1, 1, 1)
        return weight, norm.bias.double() - norm.running_mean.double() * scale

    def constants(self) -> IntegerConstants:
        """The integers of this layer for a chip.

        Raises:
            ConfigurationError: the layer does not fit the chip's integers.
        """
        return integer_constants(*self.folded(), self.lif.v_threshold, self.lif.decay)

    def forward(
        self, spikes: torch.Tensor, v: torch.Tensor | None = None
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """As in :class:`SpikingLayer`; the returned spikes have the type of the given ones.

        Raises:
            ConfigurationError: the weights do not fit the chip's integers.
        """
        if self.norm.training and self.norm.momentum is None:  # inside calibrating()
            return super().forward(spikes, v)
        with torch.autocast(spikes.device.type, enabled=False):
            inputs = self._currents(spikes)
            if v is None:
                return self.lif(*inputs).to(spikes.dtype)  # (T, B, C', H', W')
            (fired,), (v,) = self.lif.multi_step_functional_forward(inputs, (v.to(spikes.device),))
            return fired.to(spikes.dtype), v  # (T, B, C', H', W'), (B, C', H', W')

    def _currents(self, spikes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, Integers]:
        with at_hand(self.conv, self.norm):
            weight, bias = self.folded()  # (C', C, kH, kW), (C',)
        found = integers(weight, bias, self.lif.v_threshold)
        if not torch.compiler.is_compiling():  # a compiled graph cannot raise
            check(found, bias, self.lif.v_threshold)
        weight, bias = straight_through(weight, bias, found)
        conv, steps = self.conv, spikes.shape[:-3]
        current = F.conv2d(
            spikes.float().flatten(0, -4), weight, None, conv.stride, conv.padding, conv.dilation, conv.groups
        )
        return current.unflatten(0, steps), bias.view(-1, 1, 1), found  # (T, B, C', H', W'), (C', 1, 1)
