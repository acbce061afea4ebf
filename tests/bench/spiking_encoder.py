"""The abstract encoder on one group of φ images: training step and inference against a network of spikingjelly.

The convolutions alone, with their real input spikes, show how fast any implementation of the neurons could become.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from images import spikes_of
from measuring import interleaved
from networks import BaselineEncoder, check_against_float64, inference, input_of, training_step
from reporting import Report, Settings
from torch import nn

from ashnets.configuration import AshNetsConfig
from ashnets.model.abstract_encoder import AbstractEncoder
from ashnets.model.tdbn import calibrate
from ashnets.zoo import config_of

SECTION = "abstract encoder"
MODELS = ["ashnets-tiny", "ashnets-r18", "ashnets-r152"]
QUICK = ["ashnets-tiny"]
TIMES_BASELINE = {"ashnets-tiny": 3.5}  # of a training step
TIMES_OTHERS = 2.2
OURS, BASELINE, BASELINE_LAST = "ashnets", "spikingjelly", "spikingjelly, channels-last"
CONVOLUTIONS = "its convolutions alone"
SHAPE = (
    "spiking_channels",
    "spiking_grid_channels",
    "response_size",
    "image_size",
    "time_steps",
    "group_size",
    "carry",
    "readout",
    "beta",
    "threshold",
    "surrogate_k",
    "detach_reset",
    "tdbn_alpha",
)


def run(settings: Settings, report: Report) -> None:
    for names in alike(QUICK if settings.quick else MODELS):
        benchmark(", ".join(names), config_of(names[0]), settings, report)


def alike(names: list[str]) -> list[list[str]]:
    """Models grouped by abstract encoder; models that differ only in their backbone have the same one."""
    groups: dict[str, list[str]] = {}
    for name in names:
        config = config_of(name)
        groups.setdefault(str([getattr(config, field) for field in SHAPE]), []).append(name)
    return list(groups.values())


def benchmark(name: str, config: AshNetsConfig, settings: Settings, report: Report) -> None:
    torch.manual_seed(settings.seed)
    group = config.group_size
    spikes = spikes_of(config, group, config.time_steps, settings.seed)
    ours = AbstractEncoder(config)
    calibrate(ours, [spikes], lambda x: ours(x, group))
    encoders = {OURS: ours, BASELINE: BaselineEncoder(ours), BASELINE_LAST: BaselineEncoder(ours, channels_last=True)}
    given = {n: input_of(encoder, spikes, group) for n, encoder in encoders.items()}
    for train in (True, False):
        what = "training step" if train else "inference"
        report.progress(f"{SECTION}: {name}, {what}")
        for encoder in encoders.values():
            encoder.train(train)
            for name_of, block in ours.layers.items():  # training steps have changed the statistics of each
                encoder.layers[name_of].norm.load_state_dict(block.norm.state_dict())
        agreement = check_against_float64(ours, encoders[BASELINE], spikes, group)
        call: Callable = partial(inference, group_size=group)
        if train:
            grad = torch.randn_like(inference(ours, spikes, group))
            call = partial(training_step, group_size=group, grad=grad)
            agreement["gradients_differ_by"] = distance(
                call(ours, spikes)[1], call(encoders[BASELINE], given[BASELINE])[1]
            )
        report.note(f"{name}, {what}: agreement", agreement)
        candidates = {n: partial(call, encoder, given[n]) for n, encoder in encoders.items()}
        seconds = interleaved({**candidates, CONVOLUTIONS: convolutions(ours, spikes, group, train)}, settings.rounds)
        case = f"{name}: {what}"
        times = [
            report.add_ratio(SECTION, case, f"{baseline} / {OURS}", seconds[baseline], seconds[OURS])
            for baseline in (BASELINE, BASELINE_LAST)
        ]
        for baseline in (BASELINE, BASELINE_LAST):
            report.add_ratio(SECTION, case, f"{baseline} / {CONVOLUTIONS}", seconds[baseline], seconds[CONVOLUTIONS])
        if train:
            least = TIMES_BASELINE.get(name, TIMES_OTHERS)
            report.aim(f"{SECTION}, {case}: faster {BASELINE} / {OURS}", min(times), at_least=least)


def convolutions(
    encoder: AbstractEncoder, spikes: torch.Tensor, group_size: int, train: bool
) -> Callable[[], tuple[torch.Tensor, ...]]:
    """A call of all convolutions for the inputs that they have in the encoder; in training also their gradients.

    The first layer needs no gradient of its input.
    """
    seen: list[tuple[nn.Conv2d, torch.Tensor]] = []

    def see(convolution: nn.Module, given: tuple[torch.Tensor], _: torch.Tensor) -> None:
        seen.append((convolution, given[0].detach().requires_grad_(train and bool(seen))))

    hooks = [block.conv.register_forward_hook(see) for block in encoder.layers.values()]
    inference(encoder, spikes, group_size)
    for hook in hooks:
        hook.remove()

    def run() -> tuple[torch.Tensor, ...]:
        outputs = [convolution(x) for convolution, x in seen]
        if not train:
            return tuple(outputs)
        leaves = [leaf for convolution, x in seen for leaf in (x, convolution.weight) if leaf.requires_grad]
        return torch.autograd.grad(outputs, leaves, outputs)

    return run


def distance(found: tuple[torch.Tensor, ...], expected: tuple[torch.Tensor, ...]) -> float:
    """The maximum over all parameters of the relative distance of their gradients.

    It is larger than rounding: a membrane near θ may fire in only one of the two networks and change what follows.
    """
    return max(float((a - b).norm() / b.norm()) for a, b in zip(found, expected, strict=True))
