"""The machine of a benchmark: processor, memory, load, versions."""

from __future__ import annotations

import os
import platform
import re
from importlib.metadata import version
from pathlib import Path

import psutil
import torch

from ashnets.environment import processor as processor_name
from ashnets.files import JsonObject
from ashnets.kernels.choosing import kernels_for

OUTPUT = Path(__file__).resolve().parents[2] / "out" / "bench"  # of the machines' folders
DISTRIBUTIONS = ("ashnets", "torch", "numpy", "numba", "spikingjelly", "snntorch", "transformers")


def describe() -> JsonObject:
    """Everything that the results depend on."""
    return {
        "processor": processor_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "load_at_start": [round(load, 2) for load in os.getloadavg()],
        "system": platform.platform(),
        "python": platform.python_version(),
        "kernels": kernels_for("cpu").__name__,
        "versions": {name: version(name) for name in DISTRIBUTIONS},
    }


def folder(processor: str | None = None) -> str:
    """The name of this machine's folder: ``intel-xeon-6-207`` for Intel(R) Xeon(R) Processor (family 6, model 207)."""
    bare = re.sub(r"\((R|TM)\)|Processor|CPU|family|model|@.*GHz", " ", processor or processor_name())
    return "-".join(re.findall(r"[a-z0-9]+", bare.lower())) or "unknown"
