"""Integer neurons and bfloat16 currents: the kernels against plain torch and against a float32 copy."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from images import spikes_of
from measuring import interleaved
from networks import inference
from neurons import BOUND, five_passes
from reporting import Report, Settings

from ashnets.export.emulator import emulate, integer_layers
from ashnets.kernels import integer_reference
from ashnets.model.abstract_encoder import AbstractEncoder, as_sequence
from ashnets.model.integer import integer_lif
from ashnets.model.neuron import lif
from ashnets.model.tdbn import calibrate
from ashnets.zoo import config_of

SECTION = "integers and halves"
SIZES = [(10, 1 << 16), (160, 1 << 16)]  # (T, N)
QUICK = [(10, 1 << 16)]
MODEL = "ashnets-tiny"
BATCHES = [1, 8]
OURS, LOOP, FLOAT = "integer LIF", "plain loop", "float LIF"
HALF, COPY = "bfloat16 as it is", "bfloat16 by a float32 copy"
DECAY, THRESHOLD, STEP, K = 2048, 250, 1 / 250, 2.0  # θ = 1
BETA, THETA = 1 - DECAY / 4096, THRESHOLD * STEP
GRADIENT_ERROR = 1e-5


def run(settings: Settings, report: Report) -> None:
    for steps, neurons in QUICK if settings.quick else SIZES:
        benchmark(steps, neurons, settings, report)
    for batch in BATCHES:
        encoder(batch, settings, report)


def benchmark(steps: int, neurons: int, settings: Settings, report: Report) -> None:
    case = f"T {steps}, N {neurons:,}"
    report.progress(f"{SECTION}: {case}")
    generator = torch.Generator().manual_seed(settings.seed)
    # a firing rate of about 0.25
    x = torch.empty(steps, neurons).normal_(0.4, 0.8, generator=generator)
    grad = torch.empty(steps, neurons).normal_(generator=generator)
    a = (x / STEP).round().requires_grad_()
    halves, half_grad = x.bfloat16().requires_grad_(), grad.bfloat16()
    x.requires_grad_()
    rest = torch.zeros(neurons)
    threshold, step = (torch.tensor(one, dtype=torch.float64) for one in (THRESHOLD, STEP))

    def ours() -> tuple[torch.Tensor, torch.Tensor]:
        s, _ = integer_lif(a, rest, rest, threshold, DECAY, step, K)
        return s, torch.autograd.grad(s, a, grad)[0]

    def loop() -> tuple[torch.Tensor, torch.Tensor]:
        currents = a.detach()
        s, _ = integer_reference.lif_forward(currents, rest, rest, threshold, DECAY)
        found = integer_reference.lif_backward(currents, rest, rest, threshold, DECAY, step, grad, rest, K, True)
        return s, found[0]

    def single() -> tuple[torch.Tensor, torch.Tensor]:
        s, _ = lif(x, rest, BETA, THETA, K)
        return s, torch.autograd.grad(s, x, grad)[0]

    def half() -> tuple[torch.Tensor, torch.Tensor]:
        s, _ = lif(halves, rest, BETA, THETA, K)
        return s, torch.autograd.grad(s, halves, half_grad)[0]

    def copied() -> tuple[torch.Tensor, torch.Tensor]:
        s = lif(halves.float(), rest, BETA, THETA, K)[0].bfloat16()
        return s, torch.autograd.grad(s, halves, half_grad)[0]

    same(ours(), loop(), GRADIENT_ERROR)
    same(half(), copied(), 0.0)
    both = interleaved(
        {OURS: ours, LOOP: loop, FLOAT: single, HALF: half, COPY: copied, BOUND: five_passes(x, grad)}, settings.rounds
    )
    what = f"{case}: forward + backward"
    for over, under in ((LOOP, OURS), (OURS, FLOAT), (OURS, BOUND), (COPY, HALF), (HALF, FLOAT)):
        report.add_ratio(SECTION, what, f"{over} / {under}", both[over], both[under])
    with torch.no_grad():
        forward = interleaved(
            {
                OURS: lambda: integer_lif(a, rest, rest, threshold, DECAY, step, K),
                LOOP: lambda: integer_reference.lif_forward(a, rest, rest, threshold, DECAY),
                HALF: lambda: lif(halves, rest, BETA, THETA, K),
                COPY: lambda: lif(halves.float(), rest, BETA, THETA, K)[0].bfloat16(),
            },
            settings.rounds,
        )
    for over, under in ((LOOP, OURS), (COPY, HALF)):
        report.add_ratio(SECTION, f"{case}: forward", f"{over} / {under}", forward[over], forward[under])


def same(found: tuple[torch.Tensor, torch.Tensor], expected: tuple[torch.Tensor, torch.Tensor], error: float) -> None:
    """Check that spikes are equal and that gradients differ by at most ``error``, relative to the largest gradient.

    Raises:
        AssertionError: they are not.
    """
    assert torch.equal(found[0], expected[0])
    apart = float((found[1] - expected[1]).abs().max() / expected[1].abs().max())
    assert apart <= error, f"gradients differ by {apart:.1e}"


def encoder(batch: int, settings: Settings, report: Report) -> None:
    """The whole spiking branch, eager, in both precisions; int8 folds and checks its weights in each call."""
    report.progress(f"{SECTION}: {MODEL}, batch {batch}")
    torch.manual_seed(settings.seed)
    float_config, int_config = config_of(MODEL), config_of(MODEL)
    int_config.precision = "int8"
    spikes = spikes_of(float_config, batch, float_config.time_steps, settings.seed)
    encoders = {"float": AbstractEncoder(float_config), "int8": AbstractEncoder(int_config)}
    calibrate(encoders["float"], [spikes])
    encoders["int8"].load_state_dict(encoders["float"].state_dict())
    calls: dict[str, Callable[[], object]] = {
        name: partial(inference, one.eval(), spikes, 1) for name, one in encoders.items()
    }
    with torch.no_grad():
        outputs, _ = encoders["int8"].run(as_sequence(spikes, 1))
    emulated, _ = emulate(integer_layers(encoders["int8"]), as_sequence(spikes, 1).numpy())
    for name, fired in emulated.items():
        assert torch.equal(outputs[name].bool(), torch.from_numpy(fired).bool()), f"{name} differs from the emulator"
    seconds = interleaved(calls, settings.rounds)
    report.add_ratio(
        SECTION, f"{MODEL}: encoder, inference, batch {batch}", "int8 / float", seconds["int8"], seconds["float"]
    )
