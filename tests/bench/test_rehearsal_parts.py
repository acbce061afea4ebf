"""Parts of the rehearsals: generated folders, the growth of memory, the comparison of two runs."""

from __future__ import annotations

import os
from pathlib import Path

import bench_features
import published_sets
import pytest
import rehearsed_run


def files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_an_interrupted_call_goes_on(tmp_path):
    whole = files(published_sets.write_sets(tmp_path / "a", 6, 4))
    published_sets.write_sets(tmp_path / "b", 6, 4)
    photographs = sorted((tmp_path / "b").rglob("*.jpg"))
    for path in photographs[::2]:
        path.unlink()
    assert files(published_sets.write_sets(tmp_path / "b", 6, 4)) == whole
    assert len(photographs) == 10


def test_further_photographs_are_links_to_the_first(tmp_path):
    root = published_sets.write_sets(tmp_path, 6, 4, distinct=3)
    photographs = list(root.rglob("*.jpg"))
    assert len(photographs) == 10 and len({os.stat(path).st_ino for path in photographs}) == 3


def test_growth_compares_the_last_two_quarters():
    samples = [{"step": n, "resident_mb": {"0": 100.0, "1": 100.0 + 10 * n}} for n in range(8)]
    found = rehearsed_run.memory(samples)
    assert found["rank 0"]["growth"] == 1
    assert found["rank 1"]["growth"] == pytest.approx(165 / 145, abs=1e-4)
    assert found["steps"] == list(range(8))
    assert rehearsed_run.thinned(list(range(100)))[-1] == 99


def test_the_largest_differences_of_two_runs():
    recalls = {"text_to_image": {"R@1": 0.5}, "image_to_text": {"R@1": 0.25}}
    kept = {"core_seconds": 2.0, "losses": {"concrete": [1.1, 2.0]}, **recalls}
    without = {"core_seconds": 5.0, "losses": {"concrete": [1.0, 2.5]}, **recalls, "image_to_text": {"R@1": 0.5}}
    found = bench_features.compared(kept, without)
    assert found["core seconds, without / with kept features"] == 2.5
    assert found["largest relative difference of a loss"] == {"concrete": 0.2}
    assert found["largest difference of a recall"] == 0.25
