"""Digest of a model's weights: results, energy reports and exports contain it as ``weights_sha256``."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

WEIGHTS_SHA256 = "weights_sha256"  # column of a results file, key of a report
_WHOLE, _SHARD = "model.safetensors", re.compile(r"model-\d+-of-\d+\.safetensors")


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def weights_digest(folder: Path) -> str | None:
    """The digest of the weights in a model folder; None without weights. See :func:`combined`."""
    names = [path.name for path in folder.glob("model*.safetensors")]
    needed = [_WHOLE] if _WHOLE in names else [name for name in names if _SHARD.fullmatch(name)]
    return combined({name: sha256_of(folder / name) for name in needed})


def combined(digests: Mapping[str, str]) -> str | None:
    """Combine file name → SHA-256 into one digest of the weights; other files are ignored.

    It is the SHA-256 of ``model.safetensors``. For shards it is the SHA-256 of the lines that ``sha256sum`` prints for
    them, sorted by name. None without weights.
    """
    if _WHOLE in digests:
        return digests[_WHOLE]
    lines = [f"{digests[name]}  {name}\n" for name in sorted(digests) if _SHARD.fullmatch(name)]
    return hashlib.sha256("".join(lines).encode()).hexdigest() if lines else None
