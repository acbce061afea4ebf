r"""WordNet's nouns, read from its own database files, and the similarity of Wu and Palmer.

    sim(x, y) = 2·depth(s) / (depth(x) + depth(y))        s: the deepest common hypernym

Depths count from 1 at the root, *entity*. A word's senses lie in ``index.noun`` as offsets of bytes into ``data.noun``;
plurals are led back by ``noun.exc`` or by nine endings, which are tried again while no form is known. Where several
hypernyms are equally deep, and in how paths are measured, this follows NLTK's ``wup_similarity``, which the published
scores come from: s has the greatest *shortest* way to the root, of several the first by name; its depth is its
*longest* way plus 1; depth(x) adds the shortest way from x to s.

Sources: Wu and Palmer, Verb Semantics and Lexical Selection, 1994; the formats of wndb(5WN) and morphy(7WN),
https://wordnet.princeton.edu/documentation. The files of WordNet 3.0, which NLTK's corpus contains too, are in
Debian's wordnet-base (``/usr/share/wordnet``) and in WNdb-3.0.tar.gz at https://wordnet.princeton.edu.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from ashnets.errors import DataError

FILES = ("index.noun", "data.noun", "noun.exc")
_ENDINGS = (
    ("s", ""),
    ("ses", "s"),
    ("ves", "f"),
    ("xes", "x"),
    ("zes", "z"),
    ("ches", "ch"),
    ("shes", "sh"),
    ("men", "man"),
    ("ies", "y"),
)


@dataclass(frozen=True)
class _Sense:
    name: str
    hypernyms: tuple[int, ...]


class WordNet:
    """The noun part of WordNet; a sense is known by its offset in ``data.noun``."""

    def __init__(self, folder: str | os.PathLike) -> None:
        """
        Args:
            folder: contains `FILES`, or a subfolder ``dict`` with them.

        Raises:
            DataError: a file is missing or not in WordNet's form.
        """
        place = Path(folder)
        place = place / "dict" if not (place / FILES[0]).is_file() and (place / "dict").is_dir() else place
        absent = [name for name in FILES if not (place / name).is_file()]
        if absent:
            raise DataError(
                f"{place}: {', '.join(absent)} missing. WordNet 3.0 comes from https://wordnet.princeton.edu "
                "(WNdb-3.0.tar.gz; noun.exc from WordNet-3.0.tar.gz) or Debian's package wordnet-base; give its folder."
            )
        self.folder = place
        self._data = (place / "data.noun").read_bytes()
        self._index = _read_index(place / "index.noun")
        self._exceptions = _read_exceptions(place / "noun.exc")
        self._sense = lru_cache(maxsize=None)(self._read_sense)
        self._ways = lru_cache(maxsize=None)(self._shortest_ways)
        self._longest = lru_cache(maxsize=None)(lambda offset: self._depth(offset, max))
        self._shortest = lru_cache(maxsize=None)(lambda offset: self._depth(offset, min))
        self.similarity = lru_cache(maxsize=1 << 18)(self._similarity)

    def senses(self, word: str) -> list[int]:
        """The senses of a noun, in singular or plural, most frequent first; none if WordNet does not know it."""
        word = word.lower()
        irregular = self._exceptions.get(word)
        forms = [word, *(irregular or _shortened([word]))]
        while not (known := dict.fromkeys(form for form in forms if form in self._index)) and not irregular and forms:
            forms = _shortened(forms)
        return [offset for form in known for offset in self._index[form]]

    def _similarity(self, one: int, other: int) -> float:
        """Wu and Palmer's similarity of two senses, in (0, 1]; 0 if they have no hypernym in common."""
        ways, others = self._ways(one), self._ways(other)
        common = ways.keys() & others.keys()
        if not common:
            return 0.0
        lowest = max(self._shortest(offset) for offset in common)
        deepest = [offset for offset in common if self._shortest(offset) == lowest]
        subsumer = one if one in deepest else min(deepest, key=lambda offset: self._sense(offset).name)
        depth = self._longest(subsumer) + 1
        return 2 * depth / (self._distance(one, subsumer) + self._distance(other, subsumer) + 2 * depth)

    def _distance(self, below: int, above: int) -> int:
        """The shortest way from one sense to another by way of hypernyms: usually, but not always, straight up."""
        ways, others = self._ways(below), self._ways(above)
        return min(ways[offset] + others[offset] for offset in ways.keys() & others.keys())

    def _shortest_ways(self, offset: int) -> dict[int, int]:
        ways: dict[int, int] = {}
        queue = deque([(offset, 0)])
        while queue:
            sense, way = queue.popleft()
            if sense not in ways:
                ways[sense] = way
                queue.extend((above, way + 1) for above in self._sense(sense).hypernyms)
        return ways

    def _depth(self, offset: int, choose: Callable[[Iterable[int]], int]) -> int:
        above = self._sense(offset).hypernyms
        deeper = self._longest if choose is max else self._shortest
        return 1 + choose([deeper(sense) for sense in above]) if above else 0

    def _read_sense(self, offset: int) -> _Sense:
        end = self._data.find(b"\n", offset)
        fields = self._data[offset : end if end >= 0 else None].partition(b"|")[0].decode("ascii", "replace").split()
        try:
            if int(fields[0]) != offset:
                raise ValueError
            words = int(fields[3], 16)
            pointers = 5 + 2 * words
            found = [
                (fields[at], int(fields[at + 1]), fields[at + 2])
                for at in range(pointers, pointers + 4 * int(fields[pointers - 1]), 4)
            ]
            lemma = fields[4].lower()
            # The order in which NLTK lists a sense's hypernyms does not matter; its name decides between equals.
            number = self._index[lemma].index(offset) + 1
        except (ValueError, IndexError, KeyError):
            raise DataError(
                f"{self.folder / 'data.noun'}, byte {offset}: no sense begins here. Use data.noun and index.noun of "
                "the same release."
            ) from None
        above = tuple(to for symbol, to, part in found if symbol in ("@", "@i") and part == "n")
        return _Sense(f"{lemma}.n.{number:02d}", above)


def _shortened(words: Iterable[str]) -> list[str]:
    return [word[: -len(old)] + new for word in words for old, new in _ENDINGS if word.endswith(old)]


def _read_index(path: Path) -> dict[str, tuple[int, ...]]:
    """``lemma pos synsets pointers [pointer…] senses tagged offset…``; the license's lines begin with a space."""
    index: dict[str, tuple[int, ...]] = {}
    for number, line in enumerate(path.read_text(encoding="ascii", errors="replace").split("\n"), start=1):
        if line.startswith(" ") or not line:
            continue
        fields = line.split()
        try:
            offsets = tuple(map(int, fields[-int(fields[2]) :]))
            if fields[1] != "n" or len(offsets) != int(fields[2]):
                raise ValueError
        except (ValueError, IndexError):
            raise DataError(f"{path}, line {number} is {line[:60]!r}; this is not a line of WordNet's index.") from None
        index[fields[0]] = offsets
    return index


def _read_exceptions(path: Path) -> dict[str, list[str]]:
    lines = (line.split() for line in path.read_text(encoding="ascii", errors="replace").split("\n"))
    return {fields[0]: fields[1:] for fields in lines if len(fields) > 1}
