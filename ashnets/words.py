"""Words of messages that are made, not written."""

from __future__ import annotations

import os
import shlex


def command(*words: str | os.PathLike[str]) -> str:
    """A command line of ashnets to be copied into a shell: words with spaces or other special signs are quoted."""
    return shlex.join(["ashnets", *(os.fspath(word) for word in words)])
