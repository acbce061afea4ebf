"""The exported folder: what is in it, whether its README runs, and every registered architecture in every format."""

from __future__ import annotations

import copy
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import typer
from typer.testing import CliRunner

import ashnets
from ashnets import zoo
from ashnets.cli.export import export
from ashnets.configuration import AshNetsConfig
from ashnets.errors import AshNetsError, ConfigurationError, OutputError
from ashnets.export import exporting
from ashnets.export.emulator import IntegerLayer, emulate
from ashnets.export.exporting import FORMATS, export_model, sample_spikes
from ashnets.export.graph import SpikingGraph, from_model, quantized
from ashnets.export.lava import read_lava, write_lava
from ashnets.export.nir_graph import compare_nir, write_nir
from ashnets.export.onnx.reading import read_spikes
from ashnets.export.onnx.running import run_onnx
from ashnets.export.onnx.sequence import write_onnx_sequence
from ashnets.export.onnx.step import write_onnx_step
from ashnets.model.abstract_encoder import AbstractEncoder
from ashnets.model.sampling import probabilistic_sampling
from ashnets.model.tdbn import calibrate
from ashnets.processor import AshNetsImageProcessor


def reduced(name: str, **changes: object) -> SpikingGraph:
    """A registered architecture's spiking branch with few channels over 2 × 2 tokens, awake."""
    stated = zoo.config_of(name).to_dict()
    config = zoo.config_of(name)
    channels = [4 + 2 * i for i in range(len(config.spiking_channels))]
    small = {"image_size": 2 * config.stride, "spiking_channels": channels, "num_concepts": 12, **changes}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = AbstractEncoder(AshNetsConfig(**{**stated, **small})).eval()
        for block in encoder.layers.values():
            torch.nn.init.normal_(block.norm.bias, std=0.2)
        size = encoder.config.image_size
        some = (torch.rand(encoder.config.time_steps, 3, 3, size, size) < 0.5).float()
    calibrate(encoder, [some], run=encoder.run)
    return from_model(encoder, name)


ARCHITECTURES = sorted({zoo.registry.entry(name).architecture for name in zoo.list_models()})


@pytest.mark.parametrize("precision", ["float", "int8"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_comes_back_to_the_spike(name: str, precision: str, tmp_path: Path) -> None:
    graph = reduced(name, precision=precision)
    spikes = sample_spikes(graph, 2)
    expected, _ = graph.run(spikes)
    last = graph.layers[-1].name
    assert expected[last].sum() > 0

    for write, options in ((write_onnx_step, {}), (write_onnx_sequence, {}), (write_onnx_sequence, {"unrolled": 10})):
        found, _ = run_onnx(write(graph, tmp_path / "network.onnx", layer_spikes=True, **options), spikes)
        assert all(torch.equal(found[n], expected[n]) for n in expected)
    if precision == "float":
        compared = compare_nir(write_nir(graph, tmp_path / "network.nir"), graph, spikes)
        assert compared == {"spikingjelly": 0, "snntorch": 0, "norse": 0}
    else:
        back = read_lava(write_lava(graph, tmp_path / "network.h5"))
        layers = [IntegerLayer(x.name, x.integer, x.stride, x.padding, x.groups) for x in back.layers]
        emulated, _ = emulate(layers, spikes)
        assert all(np.array_equal(emulated[n], expected[n].numpy()) for n in expected)


@pytest.fixture(scope="module")
def model(config: AshNetsConfig, encoder: AbstractEncoder):
    from ashnets.model import HEADS

    with torch.random.fork_rng():
        torch.manual_seed(1)
        built = HEADS["retrieval"](AshNetsConfig(**{**config.to_dict(), "decay_k": 2048, "num_hidden_layers": 1}))
    built.ashnets.vision.abstract_encoder.load_state_dict(encoder.state_dict())
    return built.eval()


def separate_embeds(size: int) -> torch.Tensor:
    """Three embeddings of texts whose cosines to one of the small model's images differ by far more than 0.001."""
    drawn = torch.randn(3, size, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.normalize(drawn, dim=-1)


@pytest.mark.parametrize("to", [f for f in FORMATS if f != "onnx-model"])
def test_a_folder_holds_what_it_says_and_its_readme_runs(to: str, model, tmp_path: Path) -> None:
    folder = tmp_path / "exported"
    texts = ["a cat", "a dog", "Käse"], separate_embeds(model.config.projection_size)
    report = export_model(model, to, folder, "small", quantize=to == "lava", texts=texts)
    assert {"reading.onnx", "texts.npz"} <= set(report["files"])
    _check(folder, report, to, model)


@pytest.mark.slow
def test_the_whole_models_folder(model, tmp_path: Path) -> None:
    report = export_model(model, "onnx-model", tmp_path / "exported", "small")
    assert max(report["largest_difference"].values()) < report["tolerance"]
    _check(tmp_path / "exported", report, "onnx-model", model)


def _check(folder: Path, report: dict, to: str, model: Any) -> None:
    assert json.loads((folder / "report.json").read_text()) == json.loads(json.dumps(report))
    assert {path.name for path in folder.iterdir()} == {*report["files"], "report.json"}
    assert [p.name for p in folder.parent.iterdir()] == ["exported"]
    assert set(report.get("mismatches", {}).values()) <= {0}
    assert report["files"]["README.md"]["bytes"] > 500
    assert report["versions"]["ashnets"] == ashnets.__version__
    if to.startswith("onnx"):
        assert report["opset"] == 20
    with np.load(folder / "sample.npz", allow_pickle=False) as sample:
        assert sample["spikes"].shape == (6, 3, 3, 40, 40)
    blocks = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks[0].strip().splitlines()) >= 3
    if to == "sana-fe":  # SANA-FE is not installed here; test_sanafe runs all blocks
        blocks = [block for block in blocks if "from PIL import" in block]
    code = "\n".join([f"import sys; sys.path.insert(0, {str(Path(ashnets.__file__).parents[1])!r})", *blocks])
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    batch = AshNetsImageProcessor(40)(folder / "sample.jpg")
    ours = probabilistic_sampling(batch["pixel_values"], batch["image_keys"], 6, from_model(model).encoding.seed)
    with np.load(folder / "own.npz", allow_pickle=False) as own:
        assert np.array_equal(own["spikes"], ours.numpy()), "a README draws other spikes than the sampler"
    if to == "lava":
        assert done.stdout.count("Conv") == 4
    if to == "nir":
        assert done.stdout.count(": 0 spikes differ") == 6 + 1, "each step in spikingjelly, all of them in sinabs"
    if to not in ("onnx-model", "sana-fe"):
        graph = from_model(model)
        counts = (quantized(graph) if to == "lava" else graph).run(ours)[0]["concepts"].sum(0)
        assert f"{int(counts.sum())} spikes of concepts" in done.stdout
        _check_texts(folder, counts, done.stdout)


def _check_texts(folder: Path, counts: torch.Tensor, said: str) -> None:
    """The README's last block says the texts nearest to the embedding of the counts."""
    with np.load(folder / "texts.npz", allow_pickle=False) as stored:
        texts, embeds = stored["texts"].tolist(), torch.from_numpy(stored["embeds"])
    cosines = embeds @ read_spikes(folder / "reading.onnx", counts)[0]
    order = cosines.argsort(descending=True)
    assert cosines[order].diff().max() < -0.02, "too close for the order to be certain"
    numbers, found = zip(*(line.split(" ", 1) for line in said.strip().splitlines()[-len(texts) :]), strict=True)
    assert list(found) == [texts[i] for i in order]
    assert [float(number) for number in numbers] == pytest.approx(cosines[order].tolist(), abs=2e-3)


@pytest.mark.parametrize(
    ("to", "tools"),
    [
        ("onnx", {"onnxruntime"}),
        ("onnx-sequence", {"onnxruntime"}),
        ("onnx-unrolled", {"onnxruntime"}),
        ("nir", {"spikingjelly", "snntorch", "norse"}),
        ("lava", {"emulator of the chip"}),
        pytest.param("onnx-model", set(), marks=pytest.mark.slow),
    ],
)
def test_the_command_exports_the_bundled_model(to: str, tools: set[str], tmp_path: Path) -> None:
    app = typer.Typer()
    app.command("export")(export)
    folder = tmp_path / "exported"
    rounded = ["--quantize"] if to == "lava" else []
    done = CliRunner().invoke(app, ["ashnets-tiny", "--to", to, *rounded, "--output", str(folder), "--json"])
    assert done.exit_code == 0, done.output
    report = json.loads(done.output)
    if to == "onnx-model":
        assert max(report["largest_difference"].values()) < report["tolerance"]
        return
    assert report["mismatches"] == dict.fromkeys(tools, 0)
    layers = from_model(ashnets.from_pretrained("ashnets-tiny")).layers
    compared = layers[-1:] if to == "nir" else layers
    assert report["compared"] == 3 * 10 * sum(layer.neurons for layer in compared)
    with np.load(folder / "sample.npz", allow_pickle=False) as sample:
        assert 0.001 < sample["expected_concepts"].mean() < 0.9


def test_random_weights_are_labeled_everywhere(model, tmp_path: Path) -> None:
    report = export_model(model, "onnx", tmp_path / "out", "small", random_weights="RANDOM weights (seed 3)")
    assert report["random_weights"].startswith("RANDOM weights (seed 3): spikes and firing rates are those of random")
    assert "Warning: RANDOM weights (seed 3)" in (tmp_path / "out" / "README.md").read_text()
    network = onnx.load(tmp_path / "out" / "network.onnx")
    notes = {entry.key: entry.value for entry in network.metadata_props}
    assert notes["provenance.weights"] == "RANDOM weights (seed 3)"


def test_a_model_on_another_device_is_copied(
    encoder: AbstractEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The meta device plays the GPU, from which the weights of ``encoder`` are read."""
    elsewhere = copy.deepcopy(encoder).to("meta")
    monkeypatch.setattr(AbstractEncoder, "cpu", lambda _: encoder)
    for name, model in (("here", encoder), ("there", elsewhere)):
        export_model(model, "onnx", tmp_path / name, "small")
    assert all(parameter.is_meta for parameter in elsewhere.parameters())
    here, there = (json.loads((tmp_path / name / "report.json").read_text()) for name in ("here", "there"))
    assert here == there and here["fired"] > 0


def test_an_earlier_export_is_replaced_and_nothing_else(model, tmp_path: Path) -> None:
    folder = tmp_path / "exported"
    export_model(model, "onnx", folder, "small")
    export_model(model, "nir", folder, "small")
    assert sorted(p.name for p in folder.iterdir()) == [
        "README.md",
        "network.nir",
        "report.json",
        "sample.jpg",
        "sample.npz",
    ]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years")
    with pytest.raises(OutputError, match="mine contains something else"):
        export_model(model, "nir", tmp_path / "mine", "small")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file is a file"):
        export_model(model, "nir", tmp_path / "file", "small")
    (folder / "notes.txt").write_text("of somebody else")
    with pytest.raises(OutputError, match=r"exported contains files that no export wrote \(notes\.txt\)"):
        export_model(model, "onnx", folder, "small")
    assert (folder / "notes.txt").is_file() and (folder / "network.nir").is_file()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["exported", "file", "mine"]


def test_an_export_to_the_current_folder_and_through_a_link(
    model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    monkeypatch.chdir(tmp_path / "real")
    export_model(model, "nir", ".", "small")
    export_model(model, "onnx", tmp_path / "link", "small")
    assert sorted(p.name for p in Path.cwd().iterdir()) == [
        "README.md",
        "network.onnx",
        "report.json",
        "sample.jpg",
        "sample.npz",
    ]
    assert (tmp_path / "link").is_symlink() and sorted(p.name for p in tmp_path.iterdir()) == ["link", "real"]


def test_a_refused_export_leaves_nothing(model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match="'brian2' is not one of lava, onnx"):
        export_model(model, "brian2", tmp_path / "exported")
    with pytest.raises(ConfigurationError, match="is in floats"):
        export_model(model, "lava", tmp_path / "exported")
    with pytest.raises(ConfigurationError, match="only the spiking branch"):
        export_model(model, "onnx-model", tmp_path / "exported", quantize=True)
    # A tool that disagreed in one spike would be caught.
    original = exporting._mismatches
    monkeypatch.setattr(exporting, "_mismatches", lambda *a: original(*a) + 1)
    with pytest.raises(AshNetsError, match="onnxruntime: 1 spikes"):
        export_model(model, "onnx", tmp_path / "exported")
    assert list(tmp_path.iterdir()) == []


BLOCKED = """
import os, sys
sys.path.insert(0, {root!r})
from ashnets.configuration import AshNetsConfig
from ashnets.errors import MissingExtraError
from ashnets.export import export_model, from_model, run_onnx
from ashnets.model.abstract_encoder import AbstractEncoder
import torch

config = AshNetsConfig(backbone="resnet-tiny", backbone_widths=[4], image_size=8, spiking_channels=[4, 4])
encoder = AbstractEncoder(config)
for library, to in (("h5py", "lava"), ("nir", "nir"), ("onnx", "onnx"), ("onnxscript", "onnx-model")):
    held = sys.modules.get(library)
    sys.modules[library] = None  # every import of it now fails, as if it were not installed
    try:
        export_model(encoder, to, "exported", quantize=to == "lava")
    except MissingExtraError as error:
        print(error, os.listdir())
    del sys.modules[library]
    if held is not None:
        sys.modules[library] = held
sys.modules["onnxruntime"] = sys.modules["snntorch"] = sys.modules["norse"] = None
for to in ("onnx", "nir"):
    report = export_model(encoder, to, to)
    print(report["mismatches"], report["not_run"])
try:
    run_onnx("onnx/network.onnx", torch.zeros(1, 1, 3, 8, 8))
except MissingExtraError as error:
    print(error)
"""


def test_what_is_not_installed_is_said_with_the_remedy(tmp_path: Path, repository: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", BLOCKED.format(root=str(repository))],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
    )
    said = done.stdout.splitlines()
    missing = [("h5py", "lava"), ("nir", "nir"), ("onnx", "onnx"), ("onnxscript", "onnx")]
    for line, (library, extra) in zip(said[:4], missing, strict=True):
        assert f"needs {library} (" in line
        assert line.endswith(f'pip install -e ".[{extra}]"` []'), "and nothing is left"
    assert said[4].startswith("{} {'onnxruntime': 'ONNX export needs onnxruntime")
    assert said[5] == "{'spikingjelly': 0} {'snntorch': 'not installed', 'norse': 'not installed'}"
    assert said[6].endswith('pip install -e ".[onnx]"`')
