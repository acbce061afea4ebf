"""The growth of the abstract encoder's training step with T, φ and pixels; an exponent of 1 means linear growth."""

from __future__ import annotations

from collections.abc import Callable

import torch
from images import spikes_of
from measuring import exponent, interleaved
from networks import training_step
from reporting import Report, Settings

from ashnets.model.abstract_encoder import AbstractEncoder
from ashnets.zoo import config_of

SECTION, EXPONENT = "growth", "exponent over"
POINT = {"T": 10, "φ": 4, "side": 128}  # the values of the other two while one grows
SWEEPS = {"T": [5, 10, 20, 40, 80], "φ": [1, 2, 4, 8, 16], "side": [64, 128, 192, 256]}
QUICK_POINT = {"T": 4, "φ": 2, "side": 64}
QUICK = {"T": [2, 4, 8], "φ": [1, 2, 4], "side": [32, 64, 96]}


def run(settings: Settings, report: Report) -> None:
    model, point, sweeps = "ashnets-r18", POINT, SWEEPS
    if settings.quick:
        model, point, sweeps = "ashnets-tiny", QUICK_POINT, QUICK
    torch.manual_seed(settings.seed)
    encoder = AbstractEncoder(config_of(model)).train()
    for axis, values in sweeps.items():
        report.progress(f"{SECTION}: {model}, {axis}")
        seconds = interleaved(
            {str(value): step_at({**point, axis: value}, encoder, settings.seed) for value in values}, settings.rounds
        )
        name, power = ("pixels", 2) if axis == "side" else (axis, 1)
        amounts = [value**power for value in values]
        for value, amount in zip(values, amounts, strict=True):
            held = ", ".join(f"{k} {v}" for k, v in {**point, axis: value}.items())
            what = f"time at {amount / amounts[0]:g} × {name}"
            first, here = seconds[str(values[0])], seconds[str(value)]
            report.add_ratio(SECTION, f"{model}: {held}", what, here, first)
        rounds = zip(*seconds.values(), strict=True)
        exponents = [exponent(amounts, costs) for costs in rounds]
        case = f"{model}: {axis} {values[0]} to {values[-1]}"
        report.add_ratio(SECTION, case, f"{EXPONENT} {name}", exponents, [1.0] * len(exponents), "")


def step_at(point: dict[str, int], encoder: AbstractEncoder, seed: int) -> Callable[[], object]:
    """A training step at T, φ and side."""
    spikes = spikes_of(encoder.config, point["φ"], point["T"], seed, point["side"])
    tokens = (point["side"] // encoder.config.stride) ** 2
    grad = torch.randn(point["φ"], tokens, encoder.config.response_size)
    return lambda: training_step(encoder, spikes, point["φ"], grad)
