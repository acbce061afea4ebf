"""What is stored with every measured number."""

from __future__ import annotations

import re
from pathlib import Path

from ashnets.environment import processor

INFO = Path("/proc/cpuinfo")


def test_two_generations_of_a_processor_have_different_names():
    """AMD EPYC alone may be any of five generations. Processors that are not x86, and other systems, tell no family."""
    told = INFO.read_text(encoding="utf-8") if INFO.exists() else ""
    family, model = (re.search(rf"^{key}\s*: (\d+)$", told, re.MULTILINE) for key in ("cpu family", "model"))
    if family and model:
        assert processor().endswith(f" (family {family[1]}, model {model[1]})")
    assert processor()
