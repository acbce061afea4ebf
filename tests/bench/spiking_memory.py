"""The memory-saving path of the abstract encoder against plain backpropagation through time on one group.

Plain means the network of spikingjelly, with its own neurons or with a loop in torch. The targets compare with the
better of the two; the encoder's own path without memory saving is reported too.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from images import spikes_of
from measuring import interleaved
from networks import BaselineEncoder, LoopLIF, input_of, training_step
from reporting import Report, Settings
from resident import apart, peak_of
from torch import nn

from ashnets.model.abstract_encoder import AbstractEncoder
from ashnets.zoo import config_of

SECTION = "memory saving"
AIMED_AT, QUICK = "ashnets-r18", "ashnets-tiny"  # 256 px and 96 px, both with φ·T = 160
SHARE, TIMES = 1 / 8, 1.5
SAVING, OURS, BASELINE, LOOP = "ashnets, saving", "ashnets", "spikingjelly", "plain torch"


def run(settings: Settings, report: Report) -> None:
    model = QUICK if settings.quick else AIMED_AT
    config = config_of(model)
    case = f"{model}: φ·T {config.group_size * config.time_steps}, {config.image_size} px"
    report.progress(f"{SECTION}: {model}, memory")
    held = apart(peaks, model, settings.seed)
    report.progress(f"{SECTION}: {model}, time")
    spikes, grad, encoders = parts(model, settings.seed)
    seconds = interleaved(
        {n: step_of(encoder, spikes, config.group_size, grad) for n, encoder in encoders.items()}, settings.rounds
    )
    others = (BASELINE, LOOP, OURS)
    shares = {
        name: report.add_ratio(SECTION, case, f"memory, {SAVING} / {name}", [held[SAVING]], [held[name]], "B")
        for name in others
    }
    times = {
        name: report.add_ratio(SECTION, case, f"time, {SAVING} / {name}", seconds[SAVING], seconds[name])
        for name in others
    }
    if model == AIMED_AT:
        report.aim(f"{case}: memory, {SAVING} / plain", max(shares[BASELINE], shares[LOOP]), at_most=SHARE)
        report.aim(f"{case}: time, {SAVING} / plain", max(times[BASELINE], times[LOOP]), at_most=TIMES)


def parts(model: str, seed: int) -> tuple[torch.Tensor, torch.Tensor, dict[str, nn.Module]]:
    """Spikes of a group, a gradient of the response, and the candidates in training mode."""
    torch.manual_seed(seed)
    config = config_of(model)
    spikes = spikes_of(config, config.group_size, config.time_steps, seed)
    ours, saving = AbstractEncoder(config), AbstractEncoder(config)
    saving.load_state_dict(ours.state_dict())
    saving.memory_saving = True
    encoders = {
        SAVING: saving,
        OURS: ours,
        BASELINE: BaselineEncoder(ours),
        LOOP: BaselineEncoder(ours, neuron=LoopLIF),
    }
    grad = torch.randn(config.group_size, config.num_visual_tokens, config.response_size)
    return spikes, grad, {name: encoder.train() for name, encoder in encoders.items()}


def peaks(model: str, seed: int) -> dict[str, int]:
    """Peak bytes of a training step, besides spikes and weights; call it by `apart`."""
    spikes, grad, encoders = parts(model, seed)
    config, found = config_of(model), {}
    side = config.image_size // 2
    small = spikes[:2, :2, :, :side, :side]
    for name, encoder in encoders.items():
        step_of(encoder, small, 2, torch.ones(2, (side // config.stride) ** 2, config.response_size))()
        found[name] = peak_of(step_of(encoder, spikes, config.group_size, grad))
    return found


def step_of(encoder: nn.Module, spikes: torch.Tensor, group_size: int, grad: torch.Tensor) -> Callable[[], object]:
    return partial(training_step, encoder, input_of(encoder, spikes, group_size), group_size, grad)
