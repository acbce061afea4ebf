"""The device of a process."""

from __future__ import annotations

import os

import torch


def own_device() -> torch.device:
    """The GPU of this process (under torchrun by ``LOCAL_RANK``), or the CPU if there is no GPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
