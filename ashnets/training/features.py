"""The features of a frozen backbone, computed once and kept on disk.

A backbone that is never trained gives the same features for the same pixels. They are found by a hash of the pixels,
so that training, validation, regrouping and calibration share them, and a resumed or later run of the same backbone
too. Only fixed variants of an image come back: the recipe's ``views`` says how many there are.

    CACHE/features/WEIGHTS/NAME.keys       16 bytes an image
    CACHE/features/WEIGHTS/NAME.features   C·h·w float16 an image

Each process appends to files of its own and reads those of all. Features are rounded to float16 also when they are new,
so that results do not depend on what is kept.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import IO

import numpy as np
import torch
from torch import nn

from ashnets.files import cache_folder

_KEY = 16
_KEPT_S = 30 * 24 * 3600  # since the last use


class FeatureMemory:
    """Features (B, C, h, w) of pixels (B, 3, H, W): read where they are known, else computed and kept.

    Args:
        backbone: frozen; its weights are part of the features' place on disk.
        precision: that in which features are computed.
    """

    def __init__(self, backbone: nn.Module, precision: str) -> None:
        digest = hashlib.sha256(f"{precision} {getattr(backbone, 'config', '')}".encode())
        for name, tensor in backbone.state_dict().items():
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        self.folder = cache_folder("features") / digest.hexdigest()[:24]
        self.known: dict[bytes, tuple[Path, int]] = {}
        self.files: dict[Path, IO[bytes]] = {}
        self.own: dict[tuple[int, ...], tuple[Path, IO[bytes], IO[bytes], list[int]]] = {}
        _remove_old(self.folder)

    def __call__(self, pixels: torch.Tensor, compute: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        plain = pixels.detach().float().cpu().contiguous().numpy()
        keys = [hashlib.blake2b(image.tobytes(), digest_size=_KEY).digest() for image in plain]
        new = [place for place, key in enumerate(keys) if key not in self._index()]
        found: dict[int, np.ndarray] = {}
        if new:
            with torch.no_grad():
                computed = compute(pixels[new]).detach().half().cpu().numpy()  # (n, C, h, w)
            for place, features in zip(new, computed, strict=True):
                found[place] = features
                self._keep(keys[place], features)
        together = np.stack([found[i] if i in found else self._read(key) for i, key in enumerate(keys)])
        return torch.from_numpy(together).to(pixels.device, pixels.dtype)

    def _index(self) -> dict[bytes, tuple[Path, int]]:
        """Where each known image is; the files of earlier runs are read once."""
        if not self.known and self.folder.is_dir() and not self.own:
            for path in sorted(self.folder.glob("*.keys")):
                keys, features = path.read_bytes(), path.with_suffix(".features")
                size = _size(path)
                # a killed run may have left part of a record
                count = min(len(keys) // _KEY, features.stat().st_size // size) if features.is_file() else 0
                for row in range(count):
                    self.known.setdefault(keys[row * _KEY : (row + 1) * _KEY], (path, row))
        return self.known

    def _read(self, key: bytes) -> np.ndarray:
        path, row = self.known[key]
        if path not in self.files:
            self.files[path] = path.with_suffix(".features").open("rb")
        shape, size = _shape(path), _size(path)
        stream = self.files[path]
        stream.seek(row * size)
        return np.frombuffer(stream.read(size), np.float16).reshape(shape)

    def _keep(self, key: bytes, features: np.ndarray) -> None:
        if key in self.known:  # twice in one batch
            return
        if features.shape not in self.own:
            self.folder.mkdir(parents=True, exist_ok=True)
            path = self.folder / f"{'x'.join(map(str, features.shape))}-{uuid.uuid4().hex[:12]}.keys"
            self.own[features.shape] = (path, path.open("ab"), path.with_suffix(".features").open("ab"), [0])
        path, keys, values, count = self.own[features.shape]
        values.write(features.tobytes())
        values.flush()  # before the key, so that a key never stands without its features
        keys.write(key)
        keys.flush()
        self.known[key] = (path, count[0])
        count[0] += 1


def _shape(path: Path) -> tuple[int, ...]:
    """The file's name begins with the shape of a record: ``2048x4x4-…``."""
    return tuple(map(int, path.name.partition("-")[0].split("x")))


def _size(path: Path) -> int:
    return int(np.prod(_shape(path))) * np.dtype(np.float16).itemsize


def _remove_old(folder: Path) -> None:
    """Remove the features of backbones that were not used for 30 days; mark ``folder`` as used."""
    if not folder.parent.is_dir():
        return
    for other in folder.parent.iterdir():
        if other != folder and other.is_dir() and time.time() - other.stat().st_mtime > _KEPT_S:
            shutil.rmtree(other, ignore_errors=True)
    if folder.is_dir():
        os.utime(folder)
