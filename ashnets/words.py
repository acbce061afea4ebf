"""Parts of messages that are computed."""

from __future__ import annotations

import os
import shlex
from pathlib import Path


def command(*words: str | os.PathLike[str]) -> str:
    """A command line of ashnets to copy into a shell; words with spaces or special characters are quoted."""
    return shlex.join(["ashnets", *(os.fspath(word) for word in words)])


def install(extra: str) -> str:
    """How to install an extra, as the end of a message. No package index has ashnets, so it is done in a checkout."""
    return f'in a checkout of ashnets, run `pip install -e ".[{extra}]"`'


def counted(count: int, thing: str) -> str:
    """``1 step``, ``1,200 steps``."""
    return f"{count:,} {thing}" + ("" if count == 1 else "s")


def without_place(name: str) -> str:
    """The last two parts of an absolute path, since published files must show no local path; other names unchanged."""
    path = Path(name)
    return "/".join(path.parts[-2:]) if path.is_absolute() else name
