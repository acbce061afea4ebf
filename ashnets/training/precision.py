"""``precision: auto``: bf16 where a short measurement finds it faster on this machine, else fp32.

Only training uses it, and the embedding of training images for ``similar`` groups. Evaluation, search and validation
compute in fp32 on every machine: a published number then does not depend on the processor, and ranks that differ by
less than bf16's three digits keep their order.
"""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import torch
from torch.nn import functional as F

from ashnets.configuration import AshNetsConfig
from ashnets.device import without_tf32
from ashnets.training.distributed import rank, world_size
from ashnets.training.recipe import AUTO, Recipe

WORTH = 1.1  # bf16 must be this many times as fast: fp32 is more exact
ROWS, IMAGES, ROUNDS = 256, 2, 3


def with_precision(recipe: Recipe, config: AshNetsConfig, device: torch.device) -> tuple[Recipe, str | None]:
    """The recipe with bf16 or fp32 in the place of ``auto``, the same on all ranks; and how it was chosen.

    From here on, this process computes fp32 in fp32 on GPUs too (`ashnets.device`).

    Returns:
        The recipe itself and None if it names a precision.
    """
    without_tf32(device)
    if recipe.precision != AUTO:
        return recipe, None
    found: list[Any] = [choose(config, device) if rank() == 0 else None]
    if world_size() > 1:
        torch.distributed.broadcast_object_list(found)
    precision, why = found[0]
    return dataclasses.replace(recipe, precision=precision), why


def choose(config: AshNetsConfig, device: torch.device) -> tuple[str, str]:
    """``bf16`` or ``fp32`` for a model on a device, and why."""
    if device.type == "cuda":
        able = torch.cuda.is_bf16_supported(including_emulation=False)
        return ("bf16", "because the GPU has it") if able else ("fp32", "because the GPU has no bf16")
    speedup = bf16_speedup(config)
    return "bf16" if speedup >= WORTH else "fp32", f"by measurement: bf16 is {speedup:.2f} times as fast as fp32"


def bf16_speedup(config: AshNetsConfig) -> float:
    """Time in fp32 over time in bf16 of one matrix product and one convolution, forward and backward, on the CPU.

    Both have the sizes of the model's widest layers. Each time is the shortest of ``ROUNDS`` after one that warms up,
    in processor time of one thread: on a busy machine, threads that wait for each other say nothing. No random number
    is drawn.
    """
    side = config.image_size // config.stride
    width = max(config.backbone_widths, default=512)
    x, matrix = _full(ROWS, config.hidden_size), _full(config.intermediate_size, config.hidden_size)
    images, kernel = _full(IMAGES, width, side, side), _full(width, width, 3, 3)

    def seconds(half: bool) -> float:
        start = time.thread_time()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
            product, maps = F.linear(x, matrix), F.conv2d(images, kernel, padding=1)
        torch.autograd.grad((product.sum(), maps.sum()), (x, matrix, images, kernel))
        return time.thread_time() - start

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        rounds = [(seconds(False), seconds(True)) for _ in range(1 + ROUNDS)][1:]
    finally:
        torch.set_num_threads(threads)
    single, half = map(min, zip(*rounds, strict=True))
    return single / half


def _full(*shape: int) -> torch.Tensor:
    return torch.full(shape, 0.01, requires_grad=True)
