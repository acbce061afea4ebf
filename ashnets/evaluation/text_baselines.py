r"""Baselines without an image: chance, the most frequent answer, and a bag of words.

    majority by text    the most frequent label of the text in training; for a new text, that of its first three words,
                        else of its first word, else of all texts
    bag of words        argmax_y log p(y) + Σ_w log p(w | y),   p(w | y) = (n_wy + 1) / (n_y + |W|)

Both are trained only on the texts and labels of the training split, and scored on the same items with the same metric
as the model. The second is naive Bayes on the distinct words of a text (McCallum and Nigam, 1998).
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

from ashnets.data.benchmarks.records import Record
from ashnets.errors import InputError
from ashnets.files import JsonObject
from ashnets.tasks.task import Classification


def baselines(task: Classification, train: Sequence[Record], test: Sequence[Record]) -> dict[str, JsonObject]:
    """The metrics of each baseline on ``test``, by the name of the baseline; ``chance`` has only its accuracy.

    Chance is the expected accuracy of a uniform choice among the training labels of the same kind of items: 1/2 for
    yes/no, 1/13 for 13 answers. Where annotators differ, several labels score; a label that training does not have is
    never chosen.

    Raises:
        InputError: ``train`` contains no usable item.
    """
    train = [record for record in train if task.can_learn(record)]
    if not train:
        raise InputError("the baselines have no training items: give training items whose labels the task knows")
    texts, truths = [task.text(r) for r in train], [task.truth(r) for r in train]
    asked = [task.text(r) for r in test]
    kinds = [task.kind_of(r) for r in test]
    choices: dict[str, set[str]] = defaultdict(set)
    for record, truth in zip(train, truths, strict=True):
        choices[task.kind_of(record)].add(truth)
    even = [_by_chance(task, record, choices[kind]) for record, kind in zip(test, kinds, strict=True)]
    by_text = MajorityByText(texts, truths)
    return {
        "chance": {"n": len(test), "accuracy": sum(even) / len(even)},
        "majority by text": task.metrics(test, [by_text.answer(text) for text in asked]),
        "bag of words": task.metrics(test, BagOfWords(texts, truths).answers(asked)),
    }


def _by_chance(task: Classification, record: Record, choices: set[str]) -> float:
    scoring = sorted(task.acceptable(record) & choices)
    return sum(task.scores([record] * len(scoring), scoring)) / len(choices) if scoring else 0.0


def words(text: str) -> list[str]:
    """Lower-case words of a text, in order."""
    return re.findall(r"\w+", text.lower())


class MajorityByText:
    """The most frequent label of the text or of its beginning; ties are in alphabetical order."""

    def __init__(self, texts: Sequence[str], truths: Sequence[str]) -> None:
        counts: dict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
        for text, truth in zip(texts, truths, strict=True):
            for key in _keys(text):
                counts[key][truth] += 1
        self.best = {key: min(found, key=lambda truth: (-found[truth], truth)) for key, found in counts.items()}

    def answer(self, text: str) -> str:
        """The label of a text."""
        return next(self.best[key] for key in _keys(text) if key in self.best)


def _keys(text: str) -> Iterator[tuple[str, ...]]:
    said = words(text)
    yield ("whole", *said)
    yield ("three", *said[:3])
    yield ("one", *said[:1])
    yield ()


class BagOfWords:
    """Naive Bayes on the distinct words of a text; unknown words are ignored."""

    def __init__(self, texts: Sequence[str], truths: Sequence[str]) -> None:
        self.labels = sorted(set(truths))
        vocabulary = sorted({word for text in texts for word in words(text)})
        self.place = {word: number for number, word in enumerate(vocabulary)}
        number = {label: i for i, label in enumerate(self.labels)}
        counts = np.ones((len(vocabulary), len(self.labels)), dtype=np.float64)  # Laplace smoothing
        of_label = np.zeros(len(self.labels))
        for text, truth in zip(texts, truths, strict=True):
            of_label[number[truth]] += 1
            for word in set(words(text)):
                counts[self.place[word], number[truth]] += 1
        self.of_word = np.log(counts) - np.log(counts.sum(0))  # (W, labels)
        self.prior = np.log(of_label / of_label.sum())

    def answers(self, texts: Sequence[str]) -> list[str]:
        """The label of each text; ties are in alphabetical order."""
        found: dict[str, str] = {}
        for text in dict.fromkeys(texts):
            known = [self.place[word] for word in sorted(set(words(text))) if word in self.place]
            found[text] = self.labels[int((self.prior + self.of_word[known].sum(0)).argmax())]
        return [found[text] for text in texts]
