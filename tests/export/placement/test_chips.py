"""Chip files: the bundled figures against what was written down apart from the file, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from ashnets.errors import ConfigurationError
from ashnets.export.placement.chips import FOLDER, chip_names, load_chip


def test_loihi_1_is_as_its_sources_say() -> None:
    assert chip_names() == ["loihi1"]
    chip = load_chip("loihi1")
    assert (chip.columns, chip.rows, chip.cores_per_tile, chip.cores) == (8, 4, 4, 128)
    assert (chip.neurons, chip.synapse_bits, chip.axons_in, chip.axons_out) == (1024, 128 * 1024 * 8, 4096, 4096)
    assert {key: one.picojoules for key, one in chip.energy.items()} == {
        "message": 111.0,
        "hop_east_west": 3.0,
        "hop_north_south": 4.2,
    }
    assert {key: one.nanoseconds for key, one in chip.latency.items()} == {
        "neuron": pytest.approx(6.0 + 3.7),
        "spike": 30.0,
        "message_out": 5.1,
        "message_in": 16.0,
        "synapse": 3.1,
    }
    assert [chip.barrier_ns(n) for n in (1, 2, 3, 4, 28, 29, 32)] == [600, 1000, 1000, 1400, 1400, 1800, 1800]
    columns, rows = chip.tile(np.array([0, 3, 4, 15, 16, 127]))
    assert (columns.tolist(), rows.tolist()) == ([0, 0, 0, 0, 1, 7], [0, 0, 1, 3, 0, 3])
    figures = chip.figures()
    assert figures == json.loads(json.dumps(figures))
    assert len(figures) == 1 + 5 + 1 + 3 + 5
    for entry in figures.values():
        assert len(entry["source"]) > 20
        assert 2010 <= entry["year"] <= 2026


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("mesh"), "the file lacks mesh"),
        (lambda c: c["mesh"].update(columns=0), "mesh.columns=0"),
        (lambda c: c["mesh"].pop("source"), "mesh lacks source"),
        (lambda c: c["core"].pop("neurons"), "core lacks neurons"),
        (lambda c: c["core"]["neurons"].update(value=10.5), "core.neurons.value=10.5 must be a whole number"),
        (lambda c: c["core"]["synapse_memory"].update(unit="bytes"), "synapse_memory.unit='bytes' must be one of bits"),
        (lambda c: c["core"].update(shared_weights=1), "shared_weights=1 must be true or false"),
        (lambda c: c["energy"]["message"].update(unit="ns"), "energy.message.unit='ns' must be one of fJ, pJ"),
        (lambda c: c["latency"]["neuron"].update(unit="pJ"), "latency.neuron.unit='pJ' must be one of ps, ns"),
        (lambda c: c["latency"].pop("synapse"), "latency lacks synapse"),
        (lambda c: c["latency"]["barrier"].update(tiles={}), "barrier.tiles={} must give a time"),
        (lambda c: c["latency"]["barrier"].update(tiles={"a": 1}), "barrier.tiles='a' must be a whole number"),
        (lambda c: c["latency"]["barrier"].update(unit="s"), "barrier.unit='s'"),
        (lambda c: c.update(assumptions="none"), "assumptions='none'"),
    ],
)
def test_a_chip_that_does_not_say_everything_is_refused(change, message: str, tmp_path: Path) -> None:
    chip = yaml.safe_load((FOLDER / "loihi1.yaml").read_text(encoding="utf-8"))
    change(chip)
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(chip))
    with pytest.raises(ConfigurationError, match=message) as caught:
        load_chip(path)
    assert "mine.yaml" in str(caught.value)


def test_a_chip_of_ones_own_may_leave_limits_out(tmp_path: Path) -> None:
    chip = yaml.safe_load((FOLDER / "loihi1.yaml").read_text(encoding="utf-8"))
    for key in ("synapse_memory", "axons_in", "axons_out"):
        del chip["core"][key]
    chip["latency"]["barrier"] = {"tiles": {10: 2, 9: 1}, "unit": "µs", "source": "our board", "year": 2026}
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(chip))
    found = load_chip(path)
    assert (found.name, found.synapse_bits, found.axons_in, found.axons_out) == ("mine", None, None, None)
    assert [found.barrier_ns(tiles) for tiles in (8, 9, 10, 11)] == [0, 1000, 2000, 2000]
    with pytest.raises(ConfigurationError, match=r"no chip 'loihi9'.*loihi1"):
        load_chip("loihi9")
