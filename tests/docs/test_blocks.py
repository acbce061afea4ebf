"""What README and docs show: every Python block runs, every file and link exists. Command lines: `test_cli`."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from ashnets.cli import main
from ashnets.data.corpus import open_gallery
from tests.data import benchmark_files
from tests.docs.written import anchors, blocks, documents, guides, links

ROOT = Path(__file__).resolve().parents[2]
WITH_PYTHON = [path for path in guides(ROOT)[1:] if blocks(path.read_text(encoding="utf-8"), "python")]
ANSWERS = '[{"question_id": 42001, "answer": "yes"}, {"question_id": 42000, "answer": "mesh"}]'


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the blocks use: the gallery, a folder of images with captions, a run, a benchmark with answers to it."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "zoo").symlink_to(ROOT / "zoo")
    (folder / "my-images").mkdir()
    for row in list(open_gallery(ROOT / "zoo" / "gallery"))[:6]:
        copy = Path(shutil.copy(row["path"], folder / "my-images"))
        copy.with_suffix(".txt").write_text("\n".join(row["captions"]), encoding="utf-8")
    Image.open(copy).convert("RGB").save(folder / "my-images" / "heron.jpg")
    (folder / "my-images" / "heron.txt").write_text("a grey heron", encoding="utf-8")
    (folder / "runs" / "mine").mkdir(parents=True)
    (folder / "runs" / "mine" / "model").symlink_to(ROOT / "zoo" / "checkpoints" / "ashnets-tiny.pictograms")
    benchmark_files.vqa_v2(folder / "data" / "vqa")
    (folder / "answers.json").write_text(ANSWERS, encoding="utf-8")
    return folder


@pytest.mark.parametrize("page", WITH_PYTHON, ids=lambda path: path.stem)
def test_every_python_block_runs(page: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks of a page are one program."""
    monkeypatch.chdir(place)
    known: dict[str, object] = {"__name__": "__main__"}
    for code in blocks(page.read_text(encoding="utf-8"), "python"):
        exec(compile(code, str(page), "exec"), known)


def test_readme_in_a_process_of_its_own_prefers_the_right_texts() -> None:
    (code,) = blocks((ROOT / "README.md").read_text(encoding="utf-8"), "python")
    code += "\nscores = out.image_embeds @ out.text_embeds.T\n"
    code += "assert (scores.diagonal() > scores.flip(0).diagonal() + 0.1).all(), scores"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)


def test_the_answers_are_scored_as_by_hand(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = blocks((ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8"), "python")
    monkeypatch.chdir(place)
    known: dict[str, object] = {}
    exec(code.replace("print(", "found = ("), known)
    assert known["found"]["accuracy"] == pytest.approx((1 + 0.3) / 2)  # type: ignore[index]


def test_the_commands_of_the_quick_start_run(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (block,) = blocks((ROOT / "docs" / "quick-start.md").read_text(encoding="utf-8"), "sh")
    monkeypatch.chdir(place)
    for line in block.replace("zoo/gallery/images", "my-images").splitlines():
        assert main(shlex.split(line, comments=True)[1:]) == 0, line
        assert capsys.readouterr().out
    assert (place / "out" / "onnx" / "network.onnx").is_file()


def test_files_that_are_named_exist() -> None:
    for page in guides(ROOT):
        text = page.read_text(encoding="utf-8")
        named = re.findall(r"(?:`|python )((?:zoo|ashnets|export|hub|tests|docs|examples)/[\w./-]*)", text)
        missing = [name for name in named if not (ROOT / name).exists()]
        assert not missing, page


def test_links_reach_a_file_and_a_heading() -> None:
    for page in documents(ROOT):
        for link in links(page.read_text(encoding="utf-8")):
            if link.startswith("https://"):
                continue
            path, _, anchor = link.partition("#")
            target = (page.parent / path).resolve() if path else page
            assert target.is_file(), f"{page.relative_to(ROOT)}: {link}"
            if anchor and target.suffix == ".md":
                assert anchor in anchors(target.read_text(encoding="utf-8")), f"{page.name}: {link}"
