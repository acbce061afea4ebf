"""NLVR2: accuracy, and consistency: the share of sentences that are judged correctly for all their image pairs.

A sentence is known by its set and its number: in ``dev-850-0-1``, that is ``dev-850-·-1``. It comes with up to four
pairs, some of which make it true, so a blind model has an accuracy of about one half and a consistency near 0.
Source: nlvr2/eval/metrics.py at https://github.com/lil-lab/nlvr, which calls the accuracy "precision".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ashnets.data.benchmarks.records import ImagePair
from ashnets.errors import InputError
from ashnets.files import JsonObject


def nlvr2_accuracy(pairs: Iterable[ImagePair], predictions: Mapping[str, bool]) -> JsonObject:
    """Accuracy and consistency in [0, 1].

    Args:
        predictions: whether the sentence is true, for each identifier.

    Returns:
        ``{"n", "accuracy", "sentences", "consistency"}``.

    Raises:
        InputError: no pairs, or one without prediction.
    """
    right: list[bool] = []
    sentences: dict[tuple[str, ...], bool] = {}
    for pair in pairs:
        if pair.id not in predictions:
            raise InputError(f"pair {pair.id} has no prediction: every pair needs one")
        right.append(predictions[pair.id] == pair.label)
        split, group, _, sentence = pair.id.split("-")
        key = (split, group, sentence)
        sentences[key] = sentences.get(key, True) and right[-1]
    if not right:
        raise InputError("there is nothing to score: give at least one pair")
    return {
        "n": len(right),
        "accuracy": sum(right) / len(right),
        "sentences": len(sentences),
        "consistency": sum(sentences.values()) / len(sentences),
    }
