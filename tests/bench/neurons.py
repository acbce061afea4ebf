"""LIF neurons of ashnets and its baselines, forward and backward, for the same currents (T, N) from a reset state.

All have β = 0.5, θ = 1, a hard reset without gradient and the surrogate derivative (k/2)·sech²(k·(h − θ)) with k = 2,
which is the sigmoid with slope 2k in spikingjelly and snntorch. spikingjelly fires for h ≥ θ, the others for h > θ.
"""

from __future__ import annotations

from collections.abc import Callable

import snntorch
import torch
from snntorch import surrogate as snntorch_surrogate
from spikingjelly.activation_based import neuron, surrogate

from ashnets.kernels import reference
from ashnets.model.neuron import lif

BETA, THETA, K = 0.5, 1.0, 2.0
NEAR = 1e-5  # rounding may move a membrane this close to θ across it

OURS, BOUND = "ashnets", "memory bound"
SPIKINGJELLY, SNNTORCH, REFERENCE = "spikingjelly LIFNode", "snntorch Leaky", "plain torch"

Pass = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


def ashnets_lif(x: torch.Tensor, grad: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Spikes, and the gradient of x; ``grad`` is the gradient of the spikes."""
    spikes, _ = lif(x, x.new_zeros(x.shape[1:]), BETA, THETA, K)
    return spikes, torch.autograd.grad(spikes, x, grad)[0]


def spikingjelly_lif(x: torch.Tensor, grad: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The multi-step operator of spikingjelly, its fastest path on a CPU for this surrogate."""
    spikes = spikingjelly_node()(x)
    return spikes, torch.autograd.grad(spikes, x, grad)[0]


def spikingjelly_node(beta: float = BETA, theta: float = THETA, k: float = K, detach_reset: bool = True):
    return neuron.LIFNode(
        tau=1 / (1 - beta),
        decay_input=False,
        v_threshold=theta,
        v_reset=0.0,
        surrogate_function=surrogate.Sigmoid(alpha=2 * k),
        detach_reset=detach_reset,
        step_mode="m",
    )


def snntorch_lif(x: torch.Tensor, grad: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    node = snntorch.Leaky(
        beta=BETA, threshold=THETA, spike_grad=snntorch_surrogate.sigmoid(slope=2 * K), reset_mechanism="zero"
    )
    membrane, fired = x.new_zeros(x.shape[1:]), []
    for current in x.unbind(0):
        s, membrane = node(current, membrane)
        fired.append(s)
    snntorch.SpikingNeuron.instances.clear()  # else its registry would keep every node with its graph
    spikes = torch.stack(fired)
    return spikes, torch.autograd.grad(spikes, x, grad)[0]


def reference_lif(x: torch.Tensor, grad: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The definitions in ``ashnets.kernels.reference``, which also recompute the membrane."""
    x, rest = x.detach(), x.new_zeros(x.shape[1:])
    spikes, _ = reference.lif_forward(x, rest, None, None, BETA, THETA)
    found = reference.lif_backward(x, rest, None, None, None, grad, torch.zeros_like(rest), BETA, THETA, K, True)
    return spikes, found[0]


PASSES: dict[str, Pass] = {
    OURS: ashnets_lif,
    SPIKINGJELLY: spikingjelly_lif,
    REFERENCE: reference_lif,
    SNNTORCH: snntorch_lif,
}


def five_passes(x: torch.Tensor, grad: torch.Tensor) -> Callable[[], object]:
    """The minimum memory traffic of any LIF: x → s forward, x and s̄ → x̄ backward, into existing buffers."""
    x, spikes, grad_x = x.detach(), torch.zeros_like(x), torch.zeros_like(x)

    def run() -> None:
        spikes.copy_(x)
        torch.add(x, grad, out=grad_x)

    return run


@torch.no_grad()
def exact_spikes(currents: torch.Tensor, beta: float = BETA, theta: float = THETA) -> tuple[torch.Tensor, torch.Tensor]:
    """Spikes (T, ...) in float64, and the minimum distance of each neuron's membrane from θ, (...)."""
    v = torch.zeros_like(currents[0], dtype=torch.float64)
    closest, fired = torch.full_like(v, torch.inf), []
    for current in currents.unbind(0):
        h = beta * v + current
        closest = torch.minimum(closest, (h - theta).abs())
        fired.append(h > theta)
        v = h.masked_fill(h > theta, 0.0)
    return torch.stack(fired), closest
