"""COCO-QA's accuracy and WUPS, by hand."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ashnets.data.benchmarks import Question
from ashnets.errors import InputError
from ashnets.metrics.coco_qa import coco_qa_accuracy, wups
from ashnets.metrics.wordnet import WordNet

sys.path.insert(0, str(Path(__file__).parent))
from small_wordnet import write_wordnet


@pytest.fixture(scope="module")
def wordnet(tmp_path_factory: pytest.TempPathFactory) -> WordNet:
    return WordNet(write_wordnet(tmp_path_factory.mktemp("wordnet")))


@pytest.mark.parametrize(
    ("answer", "truth", "strict", "lenient"),
    [
        ("cat", "cat", 1, 1),
        ("unicorn", "unicorn", 1, 1),  # equal words need no WordNet
        ("unicorn", "cat", 0, 0),
        ("sofa", "couch", 1, 1),
        ("cat", "dog", 0.05, 0.5),
        ("cats", "dog", 0.05, 0.5),
        ("mongrel", "domestic_dog", 0.1 * 8 / 9, 8 / 9),  # just below 0.9
        ("einstein", "man", 10 / 11, 10 / 11),  # just above
        ("cat, sofa", "couch,cat", 1, 1),
        ("cat", "cat, dog", 0.05, 0.5),  # dog is only half met
        ("cat, dog", "cat", 0.05, 0.5),
    ],
)
def test_wups_by_hand(answer: str, truth: str, strict: float, lenient: float, wordnet: WordNet) -> None:
    assert wups(answer, truth, wordnet, 0.9) == pytest.approx(strict)
    assert wups(answer, truth, wordnet, 0.0) == pytest.approx(lenient)


def test_overall_and_by_type(wordnet: WordNet) -> None:
    truths = [("cat", "object"), ("two", "number"), ("dog", "object"), ("red", "color")]
    questions = [Question(i, "p", "?", (a,), a, kind) for i, (a, kind) in enumerate(truths, start=1)]
    answers = ["cat", "three", "cat", " red "]
    found = coco_qa_accuracy(questions, answers)
    assert found == {"n": 4, "accuracy": 0.5, "by answer type": {"color": 1, "number": 0, "object": 0.5}}
    found = coco_qa_accuracy(questions, ["cat", "three", "cat", "red"], wordnet)
    assert found["WUPS 0.9"] == pytest.approx((1 + 0.1 * 2 / 3 + 0.05 + 1) / 4)
    assert found["WUPS 0.0"] == pytest.approx((1 + 2 / 3 + 0.5 + 1) / 4)
    with pytest.raises(InputError, match="1 answers for 4 questions"):
        coco_qa_accuracy(questions, ["cat"])
