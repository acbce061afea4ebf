"""NLVR2's accuracy and consistency, by hand and on real annotations."""

from __future__ import annotations

from pathlib import Path

import pytest

from ashnets.data.benchmarks import ImagePair, open_benchmark
from ashnets.errors import InputError
from ashnets.metrics.nlvr2 import nlvr2_accuracy


def test_by_hand() -> None:
    labels = {"dev-1-0-0": True, "dev-1-1-0": False, "dev-1-0-1": True, "dev-2-0-0": True, "test1-1-0-0": False}
    pairs = [ImagePair(name, ("l", "r"), "s", label) for name, label in labels.items()]
    # dev-1-·-0 is half wrong; dev-1-·-1, dev-2-·-0 and test1-1-·-0 are other sentences.
    predictions = {**labels, "dev-1-1-0": True, "dev-9-0-0": True}
    assert nlvr2_accuracy(pairs, predictions) == {"n": 5, "accuracy": 0.8, "sentences": 4, "consistency": 0.75}


def test_on_real_annotations(repository: Path) -> None:
    pairs = open_benchmark("nlvr2", repository / "tests" / "data" / "nlvr2").records("dev")
    right = {pair.id: pair.label for pair in pairs}
    assert nlvr2_accuracy(pairs, right) == {"n": 24, "accuracy": 1, "sentences": 6, "consistency": 1}
    # Each of the six sentences holds for two of its four pairs, so one answer to all is half right and never whole.
    assert nlvr2_accuracy(pairs, dict.fromkeys(right, True)) == {
        "n": 24,
        "accuracy": 0.5,
        "sentences": 6,
        "consistency": 0,
    }
    one_wrong = {**right, "dev-850-0-0": not right["dev-850-0-0"]}
    found = nlvr2_accuracy(pairs, one_wrong)
    assert (found["accuracy"], found["consistency"]) == (pytest.approx(23 / 24), pytest.approx(5 / 6))


def test_what_cannot_be_scored_is_refused() -> None:
    with pytest.raises(InputError, match="pair dev-1-0-0 has no prediction"):
        nlvr2_accuracy([ImagePair("dev-1-0-0", ("l", "r"), "s", True)], {})
    with pytest.raises(InputError, match="nothing to score"):
        nlvr2_accuracy([], {})
