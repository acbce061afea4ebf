"""The benchmark of ONNX from its start to its record, with one round."""

import json

import bench_onnx
import pytest


def test_all_forms_of_the_published_model_fire_alike(tmp_path):
    record = tmp_path / "onnx.json"
    try:
        bench_onnx.main(["--models", "ashnets-tiny", "--precisions", "float", "--rounds", "1", "--json", str(record)])
    except SystemExit as end:  # a target of speed may be missed
        assert end.code is True or end.code == 1

    encoder, embedding = json.loads(record.read_text())["rows"]

    assert encoder["trained"] and encoder["spikes"] == 10 * 256 * 6 * 6  # T steps of M2 concepts at each token
    assert len(encoder["mismatches"]) == 6 and set(encoder["mismatches"].values()) == {0}
    costs = encoder["cost_milliseconds"]
    for base, ratios in encoder["times_faster_than"].items():
        assert ratios == pytest.approx({form: costs[base] / cost for form, cost in costs.items()})
    assert embedding["largest_difference"] < 1e-4  # of unit vectors, with given spikes
