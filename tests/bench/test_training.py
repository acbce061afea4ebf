"""The benchmark of training runs from its start to its record, in small."""

import json

import bench_training


def test_each_phase_is_compared_with_plain_settings(tmp_path):
    shapes = ["changes.image_size=32", "changes.time_steps=2", "changes.num_hidden_layers=1"]
    small = ["batch_size=16", "fused_pairs=3", "precision=fp32", *shapes]
    words = ["--rounds", "1", "--output", str(tmp_path), *(word for one in small for word in ("--set", one))]

    bench_training.main(words)

    (record,) = tmp_path.glob("*/training.json")
    rows = json.loads(record.read_text())["rows"]
    phases = [row["case"].removeprefix("tiny-pictograms, 16 pairs: ") for row in rows]
    assert phases == ["concrete phase", "spiking phase"]
    for row in rows:
        assert row["ratio"] == row["over"] / row["under"]  # plain settings / recipe
