"""The environment of a measurement: versions and hardware."""

from __future__ import annotations

import platform
from importlib.metadata import version
from pathlib import Path

import torch

from ashnets.version import __version__


def environment() -> dict[str, str | int]:
    """Versions and hardware, stored with every measured number."""
    return {
        "ashnets": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": version("transformers"),
        "spikingjelly": version("spikingjelly"),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else _processor(),
        "threads": torch.get_num_threads(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
