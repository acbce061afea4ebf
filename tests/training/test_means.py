"""Means of figures against NumPy, in one piece and interrupted."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from ashnets.training.means import Means

NAMES = ("loss", "itc", "tau")


def figures(passes: int, seed: int = 0) -> np.ndarray:
    """(passes, 3), float32, whose sums are not exact in floats."""
    return np.random.default_rng(seed).lognormal(0, 2, (passes, len(NAMES))).astype(np.float32)


def add(means: Means, rows: np.ndarray) -> None:
    for row in rows:
        means.add(dict(zip(NAMES, torch.from_numpy(row).unbind(), strict=True)))


def test_windows_and_epoch_against_numpy():
    rows, means = figures(11), Means()
    for window in np.split(rows, [4, 5]):
        add(means, window)
        flushed = means.flush()
        expected = dict(zip(NAMES, window.astype(np.float64).mean(0), strict=True))
        assert means.last == pytest.approx(expected, rel=1e-14)
        assert flushed == {name: round(value, 6) for name, value in means.last.items()}
    assert means.means() == pytest.approx(dict(zip(NAMES, rows.astype(np.float64).mean(0), strict=True)), abs=6e-6)
    assert {name: count for name, (_, count) in means.sums.items()} == dict.fromkeys(NAMES, 11)


def test_a_sum_of_many_small_figures_is_not_lost():
    """2^24 + 1 is no float32: the sums are double."""
    means = Means()
    for value in (2.0**24, 1.0, 1.0, 1.0):
        means.add({"loss": torch.tensor(value)})
    means.flush()
    assert means.sums["loss"] == [2.0**24 + 3, 4]


def test_other_types_and_several_values_of_one_name():
    means = Means()
    for value in (torch.tensor(3), torch.tensor(0.5, dtype=torch.bfloat16), torch.tensor(2.0, dtype=torch.float64)):
        means.add({"count": value})
    assert means.flush() == {"count": round(5.5 / 3, 6)}


def test_what_is_added_may_change_afterwards():
    """A figure is taken as it is, though the tensor that held it goes on."""
    means, tau = Means(), torch.tensor(0.07, dtype=torch.float64)
    means.add({"tau": tau})
    tau.fill_(9.0)
    means.add({"tau": tau})
    means.flush()
    assert means.last["tau"] == pytest.approx((0.07 + 9) / 2, rel=1e-6)


@pytest.mark.parametrize("stop", [3, 6, 9])
def test_sums_that_went_through_json_give_the_same_bits(stop):
    rows, whole = figures(12, seed=1), Means()
    for window in np.split(rows, 4):
        add(whole, window)
        whole.flush()
    first = Means()
    for window in np.split(rows[:stop], stop // 3):
        add(first, window)
        first.flush()
    kept = json.loads(json.dumps(first.sums))
    second = Means(kept)
    for window in np.split(rows[stop:], 4 - stop // 3):
        add(second, window)
        second.flush()
    assert second.sums == whole.sums and second.means() == whole.means()
    assert kept == first.sums, "a checkpoint's sums are not written into"
