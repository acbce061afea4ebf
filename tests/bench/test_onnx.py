"""The benchmark of ONNX from its start to its record, with one round."""

import json

import bench_onnx


def test_all_forms_of_the_published_model_fire_alike(tmp_path):
    bench_onnx.main(["--models", "ashnets-tiny", "--precisions", "float", "--rounds", "1", "--output", str(tmp_path)])

    (path,) = tmp_path.glob("*/onnx.json")
    record = json.loads(path.read_text())
    encoder, embedding = "ashnets-tiny, float: encoder, one image", "ashnets-tiny, float: embedding, one image"
    spikes = record["notes"][f"{encoder}: spikes"]
    assert record["trained"]["ashnets-tiny"]
    assert spikes["all"] == 10 * 256 * 6 * 6  # T steps of M2 concepts at each token
    assert len(spikes["unlike the graph's"]) == 6 and set(spikes["unlike the graph's"].values()) == {0}
    assert record["notes"][f"{embedding}: largest difference"] < 1e-4  # of unit vectors, with given spikes
    compared = {(row["case"], row["what"]): row for row in record["rows"]}
    assert {what for case, what in compared if case == embedding} == {"eager / onnxruntime"}
    assert len(compared) == 3 + 3 + 1  # three eager forms; two slower ONNX forms and the convolutions; the embedding
    for row in compared.values():
        assert row["ratio"] == row["over"] / row["under"]
