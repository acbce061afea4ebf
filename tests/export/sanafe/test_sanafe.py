"""Files for SANA-FE: what they contain, what the script does with them, and SANA-FE itself as a judge."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
import yaml
from torch.nn import functional as F
from typer.testing import CliRunner

from ashnets.cli.export import export
from ashnets.configuration import AshNetsConfig
from ashnets.errors import AshNetsError, MissingExtraError
from ashnets.export.exporting import export_model, sample_spikes
from ashnets.export.graph import SpikingGraph, from_model, quantized
from ashnets.export.onnx.reading import read_spikes
from ashnets.export.placement.chips import load_chip
from ashnets.export.placement.placing import place
from ashnets.export.sanafe.simulation import compare_sanafe, python_of, simulate
from ashnets.export.sanafe.writing import ACCESS_TIME, write_sanafe
from ashnets.model import AshNetsForRetrieval
from ashnets.model.abstract_encoder import AbstractEncoder
from ashnets.model.sampling import probabilistic_sampling
from ashnets.processor import AshNetsImageProcessor

PYTHON = os.environ.get("ASHNETS_SANAFE_PYTHON")  # a Python that has sanafe


@pytest.fixture(scope="module")
def written(graph: SpikingGraph, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sanafe")
    whole = quantized(graph)
    write_sanafe(whole, place(whole, load_chip("loihi1"), "spatial"), folder)
    return folder


def script_of(folder: Path) -> Any:
    """``run_sanafe.py`` as a module, with an empty module in the place of sanafe."""
    spec = importlib.util.spec_from_file_location("run_sanafe", folder / "run_sanafe.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["sanafe"] = types.ModuleType("sanafe")
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules["sanafe"]
    return module


def test_the_script_makes_every_synapse(written: Path, graph: SpikingGraph) -> None:
    """The sum of weights over random spikes is torch's convolution, for groups, strides and dilation too."""
    script = script_of(written)
    generator = torch.Generator().manual_seed(0)
    cases = [
        (layer.weight, layer.stride, layer.padding, layer.dilation, 1, layer.input_shape) for layer in graph.layers
    ]
    cases.append((torch.randn(6, 2, 3, 2, generator=generator), (2, 1), (1, 2), (1, 2), 2, (4, 7, 6)))
    for weight, stride, padding, dilation, groups, shape in cases:
        spikes = (torch.rand(1, *shape, generator=generator) < 0.4).double()
        expected = F.conv2d(spikes, weight.double(), None, stride, padding, dilation, groups)
        layer = {
            "weight": weight.double().numpy(),
            "geometry": np.array([stride, padding, dilation]),
            "groups": np.array(groups),
            "cores_in": np.zeros(shape),
            "cores": np.zeros(expected.shape[1:]),
        }
        found, pairs = np.zeros(expected.numel()), 0
        for source, target, value in script.synapses(layer):
            np.add.at(found, target, spikes.flatten().numpy()[source] * value)
            pairs += len(source)
        assert found == pytest.approx(expected.flatten().numpy())
        ones = F.conv2d(torch.ones(1, *shape), torch.ones_like(weight), None, stride, padding, dilation, groups)
        assert pairs == int(ones.sum())


def test_spikes_of_another_shape_are_refused_before_the_network_is_built(
    written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Twice as many steps would otherwise be read as other spikes of other neurons."""
    script, own = script_of(written), tmp_path / "own.npz"
    monkeypatch.setattr(sys, "argv", ["run_sanafe.py", "--spikes", str(own), "--output", str(tmp_path)])
    for shape in ((12, 1, 3, 40, 40), (6, 1, 3, 20, 80), (6, 3, 40, 40)):
        np.savez(own, spikes=np.zeros(shape, np.uint8))
        with pytest.raises(SystemExit) as end:
            script.main()
        said = capsys.readouterr().err
        assert end.value.code == 2 and f"{own} has spikes of shape {shape}" in said and "(6, N, 3, 40, 40)" in said
    np.savez(own, spikes=np.zeros((6, 1, 3, 40, 40), np.uint8))
    with pytest.raises(AttributeError, match="load_arch"):  # of the empty module: it goes on to build
        script.main()


def test_the_chip_has_the_figures_of_its_file(written: Path, graph: SpikingGraph) -> None:
    chip = yaml.safe_load((written / "chip.yaml").read_text(encoding="utf-8"))["architecture"]
    assert (chip["attributes"]["width"], chip["attributes"]["height"], len(chip["tile"])) == (8, 4, 32)
    assert chip["attributes"]["latency_sync"] == pytest.approx({1: 6e-7, 2: 1e-6, 4: 1.4e-6, 29: 1.8e-6})
    tile = chip["tile"][0]["attributes"]
    assert (tile["energy_north_hop"], tile["energy_east_hop"]) == (pytest.approx(4.2e-12), pytest.approx(3e-12))
    cores = [core for one in chip["tile"] for core in one["core"]]
    assert len(cores) == 128
    with np.load(written / "network.npz", allow_pickle=False) as stored:
        inputs = np.bincount(stored["input_cores"].ravel(), minlength=128)
        assert [str(name) for name in stored["layers"]] == [layer.name for layer in graph.layers]
        assert stored["0_weight"].dtype == np.int32
        assert stored["0_lif"].tolist() == [quantized(graph).layers[0].integer.threshold, (4096 - 1400) / 4096]  # type: ignore[union-attr]
    assert inputs.sum() == 3 * 40 * 40
    for core, number in zip(cores, inputs.tolist(), strict=True):
        units = [unit["name"] for unit in core["soma"]]
        assert units == ["lif", *([f"input[0..{number - 1}]"] if number else [])]
    lif = cores[0]["soma"][0]["attributes"]
    energies = [lif[f"energy_{part}"] for part in ("access_neuron", "update_neuron", "spike_out")]
    assert energies == pytest.approx([51.2e-12, 21.6e-12, 69.3e-12])
    times = [lif[f"latency_{part}"] for part in ("access_neuron", "update_neuron", "spike_out")]
    assert times == pytest.approx([6e-9, 3.7e-9, 30e-9])
    synapse = cores[0]["synapse"][0]["attributes"]
    assert (synapse["energy_process_spike"], synapse["latency_process_spike"]) == pytest.approx((24e-12, 3.1e-9))


def test_without_sanafe_it_says_how_to_get_it(encoder: AbstractEncoder, written: Path, tmp_path: Path) -> None:
    assert importlib.util.find_spec("sanafe") is None, "SANA-FE is under the GPL: install it apart from this project"
    with pytest.raises(MissingExtraError, match=r"pip install sanafe==2\.2\.9"):
        python_of(None)
    with pytest.raises(MissingExtraError, match="has no sanafe"):
        simulate(written, sys.executable)
    with pytest.raises(AshNetsError, match="absent cannot be started"):
        simulate(written, "/absent")
    report = export_model(encoder, "sana-fe", tmp_path / "out", quantize=True)
    assert set(report["files"]) == {
        "README.md",
        "chip.yaml",
        "network.npz",
        "run_sanafe.py",
        "sample.jpg",
        "sample.npz",
    }
    assert report["not_run"] == {"SANA-FE": "takes minutes: --simulate SECONDS runs it"}
    assert report["placement"]["mapping"] == "best"
    with pytest.raises(MissingExtraError):
        export_model(encoder, "sana-fe", tmp_path / "other", quantize=True, simulate=60)
    assert not (tmp_path / "other").exists()


def test_the_command_tells_the_placement_as_a_table(tmp_path: Path) -> None:
    app = typer.Typer()
    app.command("export")(export)
    command = ["ashnets-tiny", "--to", "sana-fe", "--quantize", "--output", str(tmp_path / "out")]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    with np.load(tmp_path / "out" / "network.npz", allow_pickle=False) as stored:
        cores = len(np.unique(stored["5_cores"]))
    assert "{" not in done.stdout and " 0 KiB" not in done.stdout
    rows = [line.split() for line in done.stdout.splitlines()]
    assert ["concepts", str(cores)] in [row[:2] for row in rows]
    assert ["limits", "1,024", "neurons"] in [[row[0], *row[4:6]] for row in rows if len(row) > 5]


@pytest.mark.full
@pytest.mark.parametrize("mapping", ["best", "spatial", "linear"])
def test_sanafe_counts_the_same(graph: SpikingGraph, mapping: str, tmp_path: Path) -> None:
    check_in_sanafe(quantized(graph), mapping, 2, tmp_path)


@pytest.mark.full
def test_the_readme_runs_from_an_image_file_to_texts(config: AshNetsConfig, encoder: AbstractEncoder, tmp_path: Path):
    """All blocks, with SANA-FE's Python in the line that names it: the spikes of an image file are those of torch."""
    assert PYTHON, "ASHNETS_SANAFE_PYTHON is not set"
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = AshNetsForRetrieval(config).eval()
    model.ashnets.vision.abstract_encoder.load_state_dict(encoder.state_dict())
    folder, texts = tmp_path / "out", ["a cat", "a dog", "a bird"]
    embeds = F.normalize(torch.randn(3, config.projection_size, generator=torch.Generator().manual_seed(1)), dim=-1)
    export_model(model, "sana-fe", folder, "small", quantize=True, texts=(texts, embeds))
    blocks = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    code = "\n".join(blocks).replace("python = sys.executable", f"python = {PYTHON!r}")
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    batch = AshNetsImageProcessor(config.image_size)(folder / "sample.jpg")
    graph = quantized(from_model(model))
    spikes = probabilistic_sampling(batch["pixel_values"], batch["image_keys"], graph.time_steps, graph.encoding.seed)
    counts = graph.run(spikes)[0]["concepts"].sum(0)
    assert f"{int(counts.sum())} spikes of concepts" in done.stdout
    cosines = embeds @ read_spikes(folder / "reading.onnx", counts)[0]
    best, second, _ = cosines.argsort(descending=True).tolist()
    assert cosines[best] - cosines[second] > 0.02, "too close for the order to be certain"
    number, _, text = done.stdout.splitlines()[-3].partition(" ")
    assert text == texts[best] and float(number) == pytest.approx(cosines[best].item(), abs=2e-3)


def check_in_sanafe(graph: SpikingGraph, mapping: str, images: int, folder: Path) -> None:
    """Set ASHNETS_SANAFE_PYTHON to a Python that has sanafe 2.2.9."""
    assert PYTHON, "ASHNETS_SANAFE_PYTHON is not set"
    spikes = sample_spikes(graph, images)
    placement = place(graph, load_chip("loihi1"), mapping)
    write_sanafe(graph, placement, folder)
    arrays = {"spikes": spikes, **{f"expected_{name}": x for name, x in graph.run(spikes)[0].items()}}
    np.savez(folder / "sample.npz", **{name: x.to(torch.uint8).numpy() for name, x in arrays.items()})
    found = compare_sanafe(folder, graph, placement, spikes, PYTHON, timeout=3600)
    assert (found["differ"], found["images"]) == (0, images)
    ours, theirs = found["ashnets"], found["sanafe"]
    for key in ("packets", "hops", "network_pj", "synapse_pj"):
        assert theirs[key] == pytest.approx(ours[key], rel=1e-6)
    assert ours["soma_pj"] < theirs["soma_pj"] < 2 * ours["soma_pj"], "it charges the access in T + layers steps"
    # It saves the update of neurons to which nothing happens: at most those of the largest core, in each step.
    largest = max(int(one.neurons.max()) for one in placement.populations[1:])
    steps = graph.time_steps + len(graph.layers)
    update = placement.chip.latency["neuron"].nanoseconds * (1 - ACCESS_TIME)
    assert -1e-6 * ours["latency_ns"] <= ours["latency_ns"] - theirs["latency_ns"] <= steps * largest * update
    assert theirs["latency_ns"] == pytest.approx(ours["latency_ns"], rel=0.01)
