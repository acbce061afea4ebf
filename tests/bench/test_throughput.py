"""The throughput benchmark: the meaning of a ratio, and the rows of other models after a second run."""

from __future__ import annotations

import csv
import statistics

import bench_throughput
import pytest
import torch


def test_a_ratio_compares_speeds(monkeypatch):
    """Given times: the model takes twice the time of its twin, and ResNet-18 takes half of the twin's time."""
    seconds = {"resnet18": [1.0, 1.0, 1.0], "ashnets-tiny": [4.0, 4.0, 4.0], "ashnets-tiny-ann": [2.0, 2.0, 2.0]}
    monkeypatch.setattr(bench_throughput, "interleaved", lambda calls, rounds: {name: seconds[name] for name in calls})
    model, twin = bench_throughput.benchmark(["ashnets-tiny"], batch=1, rounds=3, seed=0)
    assert (model["model"], model["ratio_resnet18"], model["ratio_ann"]) == ("ashnets-tiny", "0.25", "0.5")
    assert (twin["model"], twin["ratio_resnet18"], twin["ratio_ann"]) == ("ashnets-tiny-ann", "0.5", "1")


def test_all_candidates_get_the_same_images_and_the_models_get_texts():
    calls = bench_throughput.candidates(["ashnets-tiny", "ashnets-tiny-ann"], batch=2, seed=0)
    assert list(calls) == ["resnet18", "ashnets-tiny", "ashnets-tiny-ann"]
    assert calls["resnet18"]().logits.shape == (2, 1000)
    found = calls["ashnets-tiny"]()
    assert found.last_hidden_state.shape[0] == 2 and found.visual.layer_rates and not found.visual.output.requires_grad
    assert not calls["ashnets-tiny-ann"]().visual.layer_rates, "no spikes"
    again = bench_throughput.candidates(["ashnets-tiny"], batch=2, seed=0)["ashnets-tiny"]()
    assert torch.equal(found.last_hidden_state, again.last_hidden_state)


def test_rows_of_other_models_are_kept(tmp_path, capsys, monkeypatch):
    timed, plain = [], bench_throughput.interleaved
    monkeypatch.setattr(bench_throughput, "interleaved", lambda *given: timed.append(plain(*given)) or timed[-1])
    file = tmp_path / "throughput.csv"
    bench_throughput.main(["ashnets-tiny-t1", "--rounds", "2", "--batch", "1", "--output", str(file)])
    first = list(csv.DictReader(file.open()))
    assert [row["model"] for row in first] == ["ashnets-tiny-t1", "ashnets-tiny-ann"]
    bench_throughput.main(["ashnets-tiny", "--rounds", "2", "--batch", "1", "--output", str(file)])
    second = list(csv.DictReader(file.open()))
    assert [row["model"] for row in second] == ["ashnets-tiny-t1", "ashnets-tiny-ann", "ashnets-tiny"]
    assert second[0] == first[0] and "ashnets-tiny" in capsys.readouterr().out
    own, twin = (timed[1][name] for name in ("ashnets-tiny", "ashnets-tiny-ann"))
    expected = statistics.median(b / a for a, b in zip(own, twin, strict=True))
    assert float(second[2]["ratio_ann"]) == pytest.approx(expected, rel=1e-3)
