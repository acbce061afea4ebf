"""Words of messages that are made, not written."""

from __future__ import annotations

import os
import shlex
from pathlib import Path


def command(*words: str | os.PathLike[str]) -> str:
    """A command line of ashnets to be copied into a shell: words with spaces or other special signs are quoted."""
    return shlex.join(["ashnets", *(os.fspath(word) for word in words)])


def without_place(name: str) -> str:
    """A folder by its last two names, since what is published tells no path of this machine; a name as it is."""
    path = Path(name)
    return "/".join(path.parts[-2:]) if path.is_absolute() else name
