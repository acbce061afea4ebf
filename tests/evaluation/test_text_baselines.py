"""Text-only baselines against counts by hand."""

from __future__ import annotations

import math

import pytest

from ashnets.data.benchmarks import Question
from ashnets.data.pictograms.tasks import open_pictogram_task
from ashnets.errors import InputError
from ashnets.evaluation.text_baselines import BagOfWords, MajorityByText, baselines
from ashnets.tasks.registry import CLASSIFICATIONS


def question(text: str, answer: str, kind: str = "other") -> Question:
    return Question(0, "p.png", text, (answer,), answer, kind)


def test_the_most_frequent_label_of_a_text_and_of_its_beginning():
    texts = ["is it a cat?", "is it a cat?", "is it a cat?", "is it a dog?", "what color now?", "what color now?"]
    found = MajorityByText(texts, ["no", "no", "yes", "yes", "red", "blue"])
    assert found.answer("is it a cat?") == "no"
    assert found.answer("IS IT A CAT") == "no", "compared as words"
    assert found.answer("is it a bird?") == "no", "'is it a' has two no and two yes: the first in alphabetical order"
    assert found.answer("what color now?") == "blue"
    assert found.answer("what shape?") == "blue", "by the first word"
    assert found.answer("how many?") == "no", "by all texts: two no and two yes"


def test_a_bag_of_words_by_hand():
    bag = BagOfWords(["red red ball", "blue ball", "blue box"], ["A", "A", "B"])
    # W = {ball, blue, box, red}; A: ball 2, blue 1, red 1 (once in each text); B: blue 1, box 1; add one to each
    a = math.log(2 / 3) + math.log((1 + 1) / 8) + math.log((0 + 1) / 8)
    b = math.log(1 / 3) + math.log((1 + 1) / 6) + math.log((1 + 1) / 6)
    assert bag.answers(["blue box"]) == ["B"] and b > a
    scores = bag.prior + bag.of_word[[bag.place["blue"], bag.place["box"]]].sum(0)
    assert scores.tolist() == pytest.approx([a, b])
    assert bag.answers(["unheard", "red"]) == ["A", "A"]


def test_chance_depends_on_the_kind():
    task = CLASSIFICATIONS["vqa"](["yes", "no", "red", "blue", "green"])
    kinds = {"yes": "yes/no", "no": "yes/no", "red": "color", "blue": "color", "green": "color"}
    train = [question("a", answer, kind) for answer, kind in kinds.items()]
    test = [question("a", "yes", "yes/no"), question("b", "red", "color"), question("c", "red", "color")]
    found = baselines(task, train, test)
    assert found["chance"] == {"n": 3, "accuracy": pytest.approx((1 / 2 + 1 / 3 + 1 / 3) / 3)}
    assert found["majority by text"]["n"] == 3
    with pytest.raises(InputError, match="no training items"):
        baselines(task, [question("a", "purple", "color")], test)


def test_chance_of_soft_accuracy_counts_every_label_that_scores():
    """8 yes and 2 no give scores 1 and .6 (each annotator left out once); 6 no and 4 yes give 1 and 1."""
    given = [("yes",) * 8 + ("no",) * 2, ("no",) * 6 + ("Yes.",) * 4, ("maybe",) * 10]
    asked = [Question(number, "p.png", "a", answers, answers[0], "yes/no") for number, answers in enumerate(given)]
    task = CLASSIFICATIONS["vqa"](["yes", "no"])
    assert baselines(task, asked[:2], asked[:2])["chance"]["accuracy"] == pytest.approx((1 + 0.6 + 1 + 1) / 4)
    assert baselines(task, asked[:2], asked)["chance"]["accuracy"] == pytest.approx((1.6 + 2 + 0) / 6)


def test_blind_baselines_are_at_chance_on_the_derived_tasks(drawings):
    """The tasks are balanced: chance is exactly 1/2, 1/3, and 1/2 for yes/no questions."""
    for name, task, expected in (("pairs", "nlvr2", 1 / 2), ("entailment", "ve", 1 / 3)):
        data = open_pictogram_task(f"pictogram-{name}", drawings)
        train = data.records("train")
        found = baselines(CLASSIFICATIONS[task].of_training(train, 1), train, data.records("test-twitter-seen"))
        assert [found[key]["accuracy"] for key in found] == pytest.approx([expected] * 3), name
    data = open_pictogram_task("pictogram-questions", drawings)
    train = data.records("train")
    found = baselines(CLASSIFICATIONS["vqa"].of_training(train, 1), train, data.records("test-twitter-seen"))
    for key in ("majority by text", "bag of words"):
        assert found[key]["by answer type"]["yes/no"] == 0.5
