"""SNLI-VE: accuracy, overall and for each true label. Labels are balanced, so chance is one third.

Source: Xie et al., Visual Entailment, 2019, section 5.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ashnets.data.benchmarks.records import Entailment
from ashnets.errors import InputError
from ashnets.files import JsonObject
from ashnets.metrics.means import accuracy_by


def entailment_accuracy(pairs: Iterable[Entailment], predictions: Mapping[str, str]) -> JsonObject:
    """``{"n", "accuracy", "by label": {…}}``, accuracies in [0, 1].

    Args:
        predictions: the label for each ``pairID``.

    Raises:
        InputError: no pairs, or one without prediction.
    """
    pairs = list(pairs)
    for pair in pairs:
        if pair.id not in predictions:
            raise InputError(f"pair {pair.id} has no prediction: every pair needs one")
    right = [float(predictions[pair.id] == pair.label) for pair in pairs]
    return accuracy_by(right, {"by label": [pair.label for pair in pairs]})
