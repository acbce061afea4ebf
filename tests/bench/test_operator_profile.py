"""Times by operator: the time of a Scan excludes its body, and shares refer to the total."""

from __future__ import annotations

import operator_profile
import torch


def event(kind: str, start: float, length: float) -> dict:
    return {"ts": start, "dur": length, "args": {"op_name": kind}}


def test_the_time_of_an_operator_excludes_inner_operators() -> None:
    """Conv 0–10; a Scan 10–40 with Mul 12–15, Add 15–20 and, again, Mul 30–40; Conv 40–45."""
    events = [
        event("Mul", 12, 3),
        event("Add", 15, 5),
        event("Mul", 30, 10),
        event("Scan", 10, 30),
        event("Conv", 0, 10),
        event("Conv", 40, 5),
    ]
    assert operator_profile.own_times(events) == {"Conv": 15, "Scan": 12, "Mul": 13, "Add": 5}
    said = operator_profile.largest(operator_profile.own_times(events), least=0.2)
    assert said == "Conv 33%, Mul 29%, Scan 27%, the rest 11%"


def test_operators_of_torch_are_separate() -> None:
    a = torch.ones(100, 100)
    found = operator_profile.of_torch(lambda: a @ a + a, runs=5)
    assert {"aten::mm", "aten::add"} <= set(found)
    assert all(time > 0 for time in found.values())
