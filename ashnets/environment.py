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
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else processor(),
        "threads": torch.get_num_threads(),
    }


def processor() -> str:
    """``AMD EPYC (family 26, model 2)``: different generations have the same name."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    split = [line.split(":", 1) for line in lines if ":" in line]
    fields = {key.strip(): value.strip() for key, value in split}
    name, family, model = (fields.get(key, "") for key in ("model name", "cpu family", "model"))
    if not name:
        return platform.processor() or platform.machine()
    return f"{name} (family {family}, model {model})" if family and model else name
