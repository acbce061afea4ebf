"""LIF alone, forward and backward: against baselines and against the minimum memory traffic of any LIF."""

from __future__ import annotations

from functools import partial

import torch
from measuring import interleaved
from neurons import BOUND, NEAR, OURS, PASSES, REFERENCE, SNNTORCH, SPIKINGJELLY, exact_spikes, five_passes
from operator_profile import of_torch
from reporting import Report, Settings
from resident import apart, peak_of

SECTION = "LIF alone"
SIZES = {10: [1 << 12, 1 << 16, 1 << 20, 1 << 22], 160: [1 << 12, 1 << 16, 1 << 18, 1 << 20]}  # T → N
QUICK = {10: [1 << 12, 1 << 16], 160: [1 << 12, 1 << 16]}
AIMED_AT = (160, 1 << 16)
TIMES_BASELINE = 8
OF_BOUND = {AIMED_AT: 2.2, (10, 1 << 16): 5}
GRADIENT_ERROR = 1e-5


def run(settings: Settings, report: Report) -> None:
    report.progress("LIF alone: memory")
    held = apart(peaks, 160, 1 << 14)  # bytes for each neuron and step
    report.note("lif_bytes_a_neuron_step", held)
    for steps, sizes in (QUICK if settings.quick else SIZES).items():
        check(*inputs(steps, 1 << 12, settings.seed))
        for neurons in sizes:
            benchmark(steps, neurons, held, settings, report)


def inputs(steps: int, neurons: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Currents (T, N) with a firing rate of about 0.25, and a gradient of the spikes."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.empty(steps, neurons).normal_(0.4, 0.8, generator=generator)
    return x.requires_grad_(), torch.empty(steps, neurons).normal_(generator=generator)


def peaks(steps: int, neurons: int) -> dict[str, float]:
    """Peak bytes for each neuron and step, besides x and the gradient of the spikes; call it by `apart`."""
    x, grad = inputs(steps, neurons, 0)
    small = inputs(2, 64, 0)
    found = {}
    for name, forward_backward in PASSES.items():
        forward_backward(*small)
        found[name] = peak_of(partial(forward_backward, x, grad)) / x.numel()
    return found


def check(x: torch.Tensor, grad: torch.Tensor) -> None:
    """Check that all candidates fire as in float64, except for membranes near θ, and that gradients agree.

    Raises:
        AssertionError: they differ.
    """
    truth, closest = exact_spikes(x.detach())
    clear = closest > NEAR
    expected = PASSES[REFERENCE](x, grad)[1]
    for name, forward_backward in PASSES.items():
        spikes, grad_x = forward_backward(x, grad)
        assert torch.equal(spikes[:, clear].bool(), truth[:, clear]), f"{name} does not fire as in float64"
        error = float((grad_x - expected)[:, clear].abs().max() / expected.abs().max())
        assert error < GRADIENT_ERROR, f"{name}'s gradient is {error:.1e} away from that of {REFERENCE}"


def benchmark(steps: int, neurons: int, held: dict[str, float], settings: Settings, report: Report) -> None:
    report.progress(f"LIF alone: T {steps}, N {neurons:,}")
    x, grad = inputs(steps, neurons, settings.seed)
    room = settings.memory - 16 * x.numel()  # x, its gradient, and the buffers of the memory bound
    candidates = {
        name: partial(forward_backward, x, grad)
        for name, forward_backward in PASSES.items()
        if held[name] * x.numel() <= room
    }
    if OURS not in candidates:
        report.progress("LIF alone: left out, it needs more than --memory")
        return
    seconds = interleaved({**candidates, BOUND: five_passes(x, grad)}, settings.rounds)
    case = f"T {steps}, N {neurons:,}"
    of_bound = report.add_ratio(SECTION, case, f"{OURS} / {BOUND}", seconds[OURS], seconds[BOUND])
    times = {
        name: report.add_ratio(SECTION, case, f"{name} / {OURS}", seconds[name], seconds[OURS])
        for name in (SPIKINGJELLY, SNNTORCH, REFERENCE)
        if name in seconds
    }
    if (steps, neurons) in OF_BOUND:
        report.aim(f"LIF, {case}: {OURS} / {BOUND}", of_bound, at_most=OF_BOUND[steps, neurons])
    if (steps, neurons) == AIMED_AT:
        report.aim(f"LIF, {case}: {SPIKINGJELLY} / {OURS}", times[SPIKINGJELLY], at_least=TIMES_BASELINE)
        for name in (OURS, SPIKINGJELLY):
            report.profile(f"{name}, {case}", of_torch(candidates[name], 3))
