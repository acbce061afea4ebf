"""Identify the model of an embedding: its name, and the SHA-256 of every file that affects image embeddings.

Embeddings of different weights must never be in one index: their inner products have no meaning.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ashnets.digests import sha256_of
from ashnets.hub.resolving import resolve

_DECISIVE = ("*.safetensors", "config.json", "processor_config.json")


@dataclass(frozen=True)
class ModelIdentity:
    """A model by its name and its files.

    Attributes:
        name: as given; a folder by its absolute path.
        files: name → SHA-256 of the weights, the configuration and the image processor.
    """

    name: str
    files: Mapping[str, str]

    @cached_property
    def digest(self) -> str:
        """One SHA-256 of all files; the name does not matter."""
        lines = "".join(f"{self.files[name]}  {name}\n" for name in sorted(self.files))
        return hashlib.sha256(lines.encode()).hexdigest()

    def difference(self, other: ModelIdentity) -> str:
        """A readable difference: the first file with different digests; empty if there is none."""
        for name in sorted({*self.files, *other.files}, key=lambda name: (not name.endswith(".safetensors"), name)):
            mine, others = (one.files.get(name, "none")[:12] for one in (self, other))
            if mine != others:
                return f"SHA-256 of {name}: {mine} instead of {others}"
        return ""


def identify(name: str | os.PathLike) -> ModelIdentity:
    """The identity of what ``ashnets.from_pretrained(name)`` loads.

    Raises:
        UnknownModelError, WeightsError: as ``ashnets.resolve``.
    """
    folder = Path(resolve(name))
    files = sorted(path for pattern in _DECISIVE for path in folder.glob(pattern))
    text = os.fspath(name)
    return ModelIdentity(str(folder.resolve()) if Path(text).is_dir() else text, {f.name: sha256_of(f) for f in files})
