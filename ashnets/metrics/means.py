"""Mean scores, overall and for each kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ashnets.errors import InputError
from ashnets.files import JsonObject


def accuracy_by(scores: Sequence[float], kinds: Mapping[str, Sequence[str]] | None = None) -> JsonObject:
    """``{"n", "accuracy", name: {kind: accuracy}}``, for each ``name`` of ``kinds``; one kind for each score.

    Raises:
        InputError: no scores, or not one kind for each score.
    """
    if not scores:
        raise InputError("there is nothing to score: give at least one item")
    found: JsonObject = {"n": len(scores), "accuracy": sum(scores) / len(scores)}
    for name, of_each in (kinds or {}).items():
        if len(of_each) != len(scores):
            raise InputError(f"{name}: {len(of_each)} kinds for {len(scores)} scores")
        groups: dict[str, list[float]] = {}
        for kind, score in zip(of_each, scores, strict=True):
            groups.setdefault(kind, []).append(score)
        found[name] = {kind: sum(group) / len(group) for kind, group in sorted(groups.items())}
    return found
