"""The device of a process, and what fp32 means on it."""

from __future__ import annotations

import os

import torch


def own_device(wanted: str | torch.device | None = None) -> str | torch.device:
    """``wanted``, by default the GPU of this process (under torchrun by ``LOCAL_RANK``), or the CPU if there is no GPU.

    On a GPU, the process then computes fp32 in fp32: see :func:`without_tf32`.
    """
    if wanted is None:
        wanted = torch.device("cpu")
        if torch.cuda.is_available():
            wanted = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    without_tf32(wanted)
    return wanted


def without_tf32(device: str | torch.device) -> None:
    """If ``device`` is a GPU, stop cuDNN from rounding the inputs of fp32 convolutions to TF32, with 10 bits.

    It does so by default, unlike matrix products. This is a setting of the whole process.
    """
    if str(device).startswith("cuda"):
        torch.backends.cudnn.allow_tf32 = False
