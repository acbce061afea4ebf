"""Images that a model learned from: exact for few, a good estimate for many."""

from __future__ import annotations

import pytest

from ashnets.data.learned import KEPT, images_learned, merged, read_sketch, sketch, write_sketch


class Named:
    """Only the ids and names of `Pairs`."""

    def __init__(self, numbers: range, word: str = "a thing") -> None:
        self.image_ids = [f"{number:05}.jpg" for number in numbers]
        self.names = [word] * len(numbers)

    def __len__(self) -> int:
        return len(self.image_ids)


def test_few_are_told_exactly(tmp_path):
    known = sketch(Named(range(KEPT - 1)))
    assert write_sketch(tmp_path, known).name == "learned_from.json" and read_sketch(tmp_path) == known
    assert images_learned(known, Named(range(1000, 1100))) == 23
    assert images_learned(known, Named(range(1000, 1100)), [0, 22, 23]) == 2
    assert images_learned(known, Named(range(100), "another thing")) == 0, "a name that many folders have"
    assert images_learned([], Named(range(100))) == 0


def test_of_many_the_share_is_estimated():
    known = sketch(Named(range(20_000)))
    assert len(known) == KEPT and merged(known[:700], known[300:]) == known
    assert (
        images_learned(known, Named(range(2000))) == 2000 and images_learned(known, Named(range(30_000, 32_000))) == 0
    )
    # a twentieth of 4,000 is drawn: 200, of which half are known; the binomial deviation is 7
    assert images_learned(known, Named(range(18_000, 22_000))) == pytest.approx(2000, abs=4 * 140)
