"""Binary inputs: is it faster to sum rows of weights at the spikes than to compute a dense product?

The last layer is 1×1, so the output at each position is the sum of the weight rows of the channels that fired
(embedding_bag). The time includes finding the spikes. This section shows why the encoder uses the dense product.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from measuring import interleaved
from reporting import Report, Settings
from torch import nn
from torch.nn import functional as F

from ashnets.zoo import config_of

SECTION = "binary inputs"
RATES = [0.02, 0.05, 0.1, 0.2]
QUICK = ["ashnets-tiny"]
MODELS = ["ashnets-tiny", "ashnets-r18"]
IMAGES = 4
NEAR = 1e-4


def run(settings: Settings, report: Report) -> None:
    for name in QUICK if settings.quick else MODELS:
        config = config_of(name)
        shape = (config.time_steps * IMAGES, config.spiking_channels[-1], config.grid, config.grid)
        generator = torch.Generator().manual_seed(settings.seed)
        conv = nn.Conv2d(shape[1], config.response_size, 1).requires_grad_(False)
        for rate in RATES:
            case = f"{name}: 1×1 layer, {shape[1]} channels, rate {rate:g}"
            report.progress(f"{SECTION}: {case}")
            spikes = (torch.rand(shape, generator=generator) < rate).float()
            spikes = spikes.contiguous(memory_format=torch.channels_last)
            dense, gathered = (form(conv, spikes) for form in (dense_product, gather))
            torch.testing.assert_close(gathered(), dense().permute(0, 2, 3, 1).flatten(0, 2), rtol=NEAR, atol=NEAR)
            seconds = interleaved({"dense": dense, "gather": gathered}, settings.rounds)
            report.add_ratio(
                SECTION, case, "gather of weight rows / dense product", seconds["gather"], seconds["dense"]
            )


def dense_product(conv: nn.Conv2d, spikes: torch.Tensor) -> Callable[[], torch.Tensor]:
    return lambda: conv(spikes)


def gather(conv: nn.Conv2d, spikes: torch.Tensor) -> Callable[[], torch.Tensor]:
    """(T·B·h·w, M2): for each position, the sum of the rows of the channels that fired."""
    rows = conv.weight.flatten(1).t().contiguous()
    positions = spikes.permute(0, 2, 3, 1).flatten(0, 2)

    def call() -> torch.Tensor:
        place, channel = positions.nonzero(as_tuple=True)
        starts = torch.searchsorted(place, torch.arange(len(positions)))
        return F.embedding_bag(channel, rows, starts, mode="sum") + conv.bias

    return call
