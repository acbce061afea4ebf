"""Which images a model learned from, so that it can be said of a split that it is no test.

A model folder keeps the least hashes of its training pairs, `KEPT` at most: of up to so many pairs all of them, of more
a fair draw. A hash is of an image id and its text, so that ``0001.jpg`` of another folder is not taken for the same.
Names and texts cannot be read out of it.
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
_DIGITS = 12  # of a hash: two of a million pairs are alike with a probability of 0.002


def sketch(pairs: Pairs) -> list[str]:
    """The least hashes of ``pairs``, in rising order."""
    return _least(_hashes(pairs, range(len(pairs))))


def merged(one: Iterable[str], other: Iterable[str]) -> list[str]:
    """The sketch of what was learned from first and of what was learned from later."""
    return _least([*one, *other])


def images_learned(known: Sequence[str], pairs: Pairs, indices: Sequence[int] | None = None) -> int:
    """How many of ``pairs`` a model learned from; where its sketch is a draw, an estimate by the drawn share.

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
    """What `write_sketch` wrote; None where nothing is on record.

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
    raise DataError(f"{path} is damaged: it holds no hashes; remove it, or fetch the model again")


def _hashes(pairs: Pairs, indices: Iterable[int]) -> list[str]:
    ids, names = pairs.image_ids, pairs.names
    texts = (f"{ids[i]}\0{names[i]}".encode(errors="surrogatepass") for i in indices)
    return [hashlib.sha256(text).hexdigest()[:_DIGITS] for text in texts]


def _least(hashes: Iterable[str]) -> list[str]:
    return sorted(set(hashes))[:KEPT]
