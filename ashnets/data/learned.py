"""A record of a model's training items, to report when an evaluation split contains some of them.

A model folder stores the smallest hashes of its training pairs, at most `KEPT`: all of them for few pairs, a random
sample for many. A hash covers an image id and its text, so ``0001.jpg`` of another folder has another hash. Names and
texts cannot be recovered from it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from ashnets.data.pairs import Pairs
from ashnets.errors import DataError
from ashnets.files import write_json

FILE = "learned_from.json"  # in a model folder
KEPT = 1024
_DIGITS = 12  # of a hash: among a million pairs, two are equal with probability 0.002


def sketch(pairs: Pairs) -> list[str]:
    """The smallest hashes of ``pairs``, in ascending order."""
    return _least(_hashes(pairs, range(len(pairs))))


def merged(one: Iterable[str], other: Iterable[str]) -> list[str]:
    """The sketch of the training items of two trainings together."""
    return _least([*one, *other])


def images_learned(known: Sequence[str], pairs: Pairs, indices: Sequence[int] | None = None) -> int:
    """How many of ``pairs`` are training items of a model; an estimate if its sketch is a sample.

    Args:
        known: the model's sketch.
        indices: which of ``pairs``; all by default.
    """
    asked = _hashes(pairs, range(len(pairs)) if indices is None else indices)
    drawn = [one for one in asked if len(known) < KEPT or one <= known[-1]]
    return round(len(asked) * len({*known}.intersection(drawn)) / max(len(drawn), 1))


def write_sketch(folder: Path, known: Sequence[str]) -> Path:
    """Write ``learned_from.json`` into a model folder."""
    about = (
        f"the {KEPT} least hashes of the training pairs, {_DIGITS} hexadecimal digits each; see ashnets.data.learned"
    )
    return write_json(folder / FILE, {"about": about, "hashes": "".join(known)})


def read_sketch(folder: Path) -> list[str] | None:
    """The sketch of a model folder; None if there is none.

    Raises:
        DataError: the file is damaged.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        text = json.loads(path.read_text(encoding="utf-8"))["hashes"]
        found = [text[i : i + _DIGITS] for i in range(0, len(text), _DIGITS)]
        if all(int(one, 16) >= 0 and len(one) == _DIGITS for one in found):
            return found
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise DataError(f"{path} is damaged: it contains no hashes; remove it, or fetch the model again")


def _hashes(pairs: Pairs, indices: Iterable[int]) -> list[str]:
    ids, names = pairs.image_ids, pairs.names
    texts = (f"{ids[i]}\0{names[i]}".encode(errors="surrogatepass") for i in indices)
    return [hashlib.sha256(text).hexdigest()[:_DIGITS] for text in texts]


def _least(hashes: Iterable[str]) -> list[str]:
    return sorted(set(hashes))[:KEPT]
