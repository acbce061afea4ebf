"""The abstract encoder as a baseline: the same weights in layers of spikingjelly, and a readout over all steps."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import torch
from neurons import exact_spikes, spikingjelly_node
from spikingjelly.activation_based import functional, layer, surrogate
from torch import nn
from torch.nn import functional as F

from ashnets.configuration import AshNetsConfig
from ashnets.model.abstract_encoder import AbstractEncoder, as_sequence

# Rounding may move a membrane this close to θ across it: float32 sums of 1,728 products over a small deviation.
NEAR = 5e-5


class LoopLIF(nn.Module):
    """LIF as a loop in torch: plain backpropagation through time by autograd."""

    def __init__(self, config: AshNetsConfig) -> None:
        super().__init__()
        self.beta, self.theta = config.beta, config.threshold
        self.fire = surrogate.Sigmoid(alpha=2 * config.surrogate_k)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        v, fired = torch.zeros_like(x[0]), []
        for current in x.unbind(0):
            h = self.beta * v + current
            s = self.fire(h - self.theta)
            v = h * (1 - s.detach())
            fired.append(s)
        return torch.stack(fired)


def node_of(config: AshNetsConfig) -> nn.Module:
    return spikingjelly_node(config.beta, config.threshold, config.surrogate_k, config.detach_reset)


class BaselineEncoder(nn.Module):
    """conv → tdBN → LIF of spikingjelly, layer by layer, and the spike counts of the last layer.

    Args:
        ours: the encoder with the architecture and the weights.
        neuron: creates the neurons of a layer.
        channels_last: memory format of the input spikes; the layers may change it.
    """

    def __init__(
        self,
        ours: AbstractEncoder,
        neuron: Callable[[AshNetsConfig], nn.Module] = node_of,
        channels_last: bool = False,
    ) -> None:
        super().__init__()
        self.config, self.channels_last = ours.config, channels_last
        self.layers = nn.ModuleDict()
        for name, block in ours.layers.items():
            conv = block.conv
            parts = OrderedDict(
                conv=layer.Conv2d(
                    conv.in_channels,
                    conv.out_channels,
                    conv.kernel_size,
                    conv.stride,
                    conv.padding,
                    bias=False,
                    step_mode="m",
                ),
                norm=layer.ThresholdDependentBatchNorm2d(
                    ours.config.tdbn_alpha, ours.config.threshold, conv.out_channels
                ),
                lif=neuron(ours.config),
            )
            self.layers[name] = nn.Sequential(parts)
        self.load_state_dict(ours.state_dict())

    def sequence_of(self, spikes: torch.Tensor, group_size: int) -> torch.Tensor:
        """P_binary (T, B, 3, H, W) in the best form for the baseline, (φ·T, G, 3, H, W); this step is not timed."""
        frames = as_sequence(spikes, group_size)
        kind = torch.channels_last if self.channels_last else torch.contiguous_format
        return frames.flatten(0, 1).contiguous(memory_format=kind).unflatten(0, frames.shape[:2])

    def forward(self, sequence: torch.Tensor, group_size: int) -> torch.Tensor:
        """(φ·T, G, 3, H, W) to the response (B, N, R)."""
        functional.reset_net(self)
        x = sequence
        for block in self.layers.values():
            x = block(x)
        counts = x.unflatten(0, (group_size, -1)).sum(1)  # (φ, G, R, h, w)
        if self.config.readout == "shared":
            counts = counts.sum(0, keepdim=True).expand(group_size, -1, -1, -1, -1)
        return counts.transpose(0, 1).flatten(0, 1).flatten(2).transpose(1, 2)


def input_of(encoder: nn.Module, spikes: torch.Tensor, group_size: int) -> torch.Tensor:
    """P_binary in the form that an encoder needs; ours needs no change."""
    return encoder.sequence_of(spikes, group_size) if isinstance(encoder, BaselineEncoder) else spikes


def training_step(encoder: nn.Module, spikes: torch.Tensor, group_size: int, grad: torch.Tensor) -> tuple:
    """Forward and backward pass; ``grad`` is that of the response. Returns the response and all gradients."""
    response = encoder(spikes, group_size)
    response = response if isinstance(response, torch.Tensor) else response.response
    return response.detach(), torch.autograd.grad(response, list(encoder.parameters()), grad)


def inference(encoder: nn.Module, spikes: torch.Tensor, group_size: int) -> torch.Tensor:
    """The response of an encoder in evaluation mode."""
    with torch.no_grad():
        response = encoder(spikes, group_size)
    return response if isinstance(response, torch.Tensor) else response.response


@torch.no_grad()
def check_against_float64(
    ours: AbstractEncoder, baseline: BaselineEncoder, spikes: torch.Tensor, group_size: int
) -> dict[str, float]:
    """Compare both with float64; the input of each layer is the spikes of our previous layer.

    Our neurons must fire as in float64 unless a membrane comes within ``NEAR`` of θ. For spikingjelly, the error of the
    currents is measured first: torch's batch norm over many float32 values is less accurate, and a membrane sums the
    errors of its currents.

    Returns:
        The maximum error of its normalized currents; the share of neurons that are too near θ to be checked; the share
        of neurons that differ between the two.

    Raises:
        AssertionError: a neuron does not fire as in float64.
    """
    functional.reset_net(baseline)
    sequence = baseline.sequence_of(spikes, group_size)
    outputs, _ = ours.run(as_sequence(spikes, group_size))
    beta, theta = ours.config.beta, ours.config.threshold
    neurons = near = differ = 0
    worst = 0.0
    for name, block in baseline.layers.items():
        expected = exact_currents(block, sequence)
        currents = block.norm(block.conv(sequence))
        off = float((currents - expected).abs().max())
        fired = block.lif(currents)
        truth, closest = exact_spikes(expected, beta, theta)
        for who, found, least in (("ashnets", outputs[name], NEAR), ("baseline", fired, NEAR + off / (1 - beta))):
            wrong = int(((found != truth).any(0) & (closest > least)).sum())
            assert not wrong, f"layer {name}, {who}: {wrong} of {closest.numel()} neurons differ from float64"
        neurons, near, worst = neurons + closest.numel(), near + int((closest <= NEAR).sum()), max(worst, off)
        differ += int((fired != outputs[name]).any(0).sum())
        sequence = outputs[name]
    return {
        "baseline_currents_off_by": worst,
        "share_near_threshold": near / neurons,
        "share_different": differ / neurons,
    }


def exact_currents(block: nn.Module, sequence: torch.Tensor) -> torch.Tensor:
    """conv → tdBN of a layer in float64, with the statistics of its mode, (T, B, C, h, w)."""
    conv, norm = block.conv, block.norm
    x = F.conv2d(sequence.flatten(0, 1).double(), conv.weight.double(), None, conv.stride, conv.padding)
    mean, variance = norm.running_mean.double(), norm.running_var.double()
    if norm.training:
        variance, mean = torch.var_mean(x, (0, 2, 3), correction=0)
    scale = norm.weight.double() * torch.rsqrt(variance + norm.eps)
    shift = norm.bias.double() - mean * scale
    return x.mul_(scale.view(-1, 1, 1)).add_(shift.view(-1, 1, 1)).unflatten(0, sequence.shape[:2])
