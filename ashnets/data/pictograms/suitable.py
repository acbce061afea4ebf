"""Which words captions may contain; ``unsuitable_words.txt``, in the same folder, lists the others."""

from __future__ import annotations

import functools
from pathlib import Path

from ashnets.data.pictograms.splits import content_words


@functools.cache
def unsuitable_words() -> frozenset[str]:
    """The words of the list, in the singular."""
    lines = Path(__file__).with_name("unsuitable_words.txt").read_text(encoding="utf-8").splitlines()
    return content_words(" ".join(line for line in lines if not line.startswith("#")))


def suitable(text: str) -> bool:
    """Whether a text contains no unsuitable word: ``sexy`` is one, ``Essex`` is not."""
    return not unsuitable_words() & content_words(text)
