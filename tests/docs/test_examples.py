"""The scripts of examples/ run and do what they say."""

from __future__ import annotations

import html
import importlib.util
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from markdown import Markdown

from ashnets.data.corpus import open_gallery

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few drawings of the gallery, a pineapple among them."""
    folder = tmp_path_factory.mktemp("images")
    for row in [*list(open_gallery(ROOT / "zoo" / "gallery"))[:3], {"path": ROOT / "zoo/gallery/images/1f34d.png"}]:
        shutil.copy(row["path"], folder)
    return folder


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """A function that runs a script with arguments in an empty folder, and returns what it prints."""
    monkeypatch.chdir(tmp_path)

    def main(name: str, *arguments: str | Path) -> str:
        spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        module.main([str(one) for one in arguments])
        return capsys.readouterr().out

    return main


def test_there_are_no_others() -> None:
    tested = set(re.findall(r'run\("(\w+)"', Path(__file__).read_text(encoding="utf-8")))
    assert {path.stem for path in (ROOT / "examples").glob("*.py")} == tested


def test_the_page_shows_their_code() -> None:
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    (used,) = re.findall(r"^markdown_extensions:\n(?:  .*\n)+", text, re.MULTILINE)
    named = [one if isinstance(one, dict) else {one: {}} for one in yaml.safe_load(used)["markdown_extensions"]]
    settings = {name: options for one in named for name, options in one.items()}
    settings["pymdownx.snippets"]["base_path"] = [str(ROOT)]
    page = Markdown(extensions=list(settings), extension_configs=settings)
    shown = page.convert((ROOT / "docs" / "examples.md").read_text(encoding="utf-8"))
    shown = html.unescape(re.sub(r"<[^>]*>", "", shown))
    for path in (ROOT / "examples").glob("*.py"):
        assert path.read_text(encoding="utf-8").strip() in shown, path


def test_search(run: Callable[..., str], images: Path) -> None:
    heading, first, *_ = run("search_photographs", images, "a pineapple").splitlines()
    assert heading == "a pineapple, among 4 images:" and first.endswith("1f34d.png")


def test_questions(run: Callable[..., str], tmp_path: Path) -> None:
    changes = ("--set", "batch_size=8", "--set", "schedule.warmup_steps=1", "--set", "precision=fp32")
    out = run("finetune_for_questions", "--images", "12", "--output", "out", *changes)
    assert re.search(r"^\d+ of 4 questions on new images are answered right", out, re.MULTILINE)
    answers = json.loads((tmp_path / "out" / "run" / "model" / "config.json").read_text())["id2label"].values()
    assert set(answers) <= {"red", "green", "blue", "yellow", "circle", "square"}


def test_formats(run: Callable[..., str]) -> None:
    onnx, nir, lava = run("export_and_load", "--output", "out").splitlines()
    assert re.fullmatch(r"ONNX: [1-9]\d+ spikes of the last layer in onnxruntime, 0 differ from ours", onnx)
    assert nir.count("(LIF)") == nir.count("(Conv2d)") == 6
    assert lava == "Lava: input" + 6 * ", conv"


def test_energy(run: Callable[..., str], images: Path, tmp_path: Path) -> None:
    out = run("energy_of_own_images", images, "--output", "out")
    report = json.loads((tmp_path / "out" / "energy.json").read_text())
    assert report["counts"]["images"] == 4
    for layer in report["counts"]["layers"]:
        assert re.search(rf"{layer['name']}: {layer['neurons']:,} neurons, firing rate 0\.\d+$", out, re.MULTILINE)
    assert "of 128 cores of Loihi 1" in out and out.count("µJ an image") == len(report["estimates"])


def test_own_chip(run: Callable[..., str], images: Path) -> None:
    out = run("own_chip_profile", "--images", images, "--output", "out")
    cores = re.match(r"(\d+) of 64 cores of an invented chip\n", out)
    assert cores and int(cores[1]) < 64
    assert "an invented chip, A100 for the dense parts: " in out
