"""What every test shares."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import settings

# Before any library reads them: no network, no telemetry, no window.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("MPLBACKEND", "Agg")

# A busy machine is no failure, and every run draws the same examples.
settings.register_profile("ashnets", deadline=None, derandomize=True)
settings.load_profile("ashnets")


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the repository."""
    return Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def repository_files(repository: Path) -> list[Path]:
    """Every file and link that git tracks or would track, relative to the root."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listing = subprocess.run(command, cwd=repository, check=True, capture_output=True).stdout
    paths = {Path(os.fsdecode(name)) for name in listing.split(b"\0") if name}
    return sorted(path for path in paths if (repository / path).is_symlink() or (repository / path).is_file())
