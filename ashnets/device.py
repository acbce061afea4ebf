"""Where a process computes."""

from __future__ import annotations

import os

import torch


def own_device() -> torch.device:
    """The GPU of this process, or the CPU; under torchrun a GPU each, by ``LOCAL_RANK``."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
