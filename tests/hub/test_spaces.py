"""``publish --space``: the files of the Space, and that the app in it is complete."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
from huggingface_hub import RepoCard

from ashnets.errors import ConfigurationError, MissingExtraError
from ashnets.hub import publish, spaces

NAME, SPACE = "someone/letters", "someone/letters-app"


def test_a_space_holds_the_app_on_the_published_commit(hub, finished_run: Path, tmp_path: Path) -> None:
    result = publish(finished_run, NAME, license="mit", space=SPACE)
    space = hub.repositories[f"spaces/{SPACE}"]
    files = space.commits[result["space"]["commit"]]
    assert space.titles == ["initial commit", "ashnets app"], "one commit"
    assert result["space"]["url"].endswith(f"/spaces/{SPACE}")
    about = RepoCard(files["README.md"].decode()).data.to_dict()
    assert (about["sdk"], about["app_file"], about["license"], about["models"]) == ("gradio", "app.py", "mit", [NAME])
    assert f'"{NAME}@{result["commit"]}"' in files["app.py"].decode()
    lines = files["requirements.txt"].decode().splitlines()
    names = {line.replace("<", "=").replace(">", "=").partition("=")[0] for line in lines}
    assert {"torch", "transformers", "gradio"} < names and not {"pytest", "onnx", "faiss-cpu"} & names
    assert not [path for path in files if "__pycache__" in path or path.endswith(".safetensors")]

    # what the Space imports is its own copy, which has all that the package needs to import
    for path, data in files.items():
        (tmp_path / "space" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "space" / path).write_bytes(data)
    code = """
import sys, runpy
sys.path.insert(0, "")
import ashnets, ashnets.web_app.page
from ashnets.zoo.gallery_images import FOLDER
ashnets.app = lambda *words, **more: print(ashnets.__file__, words, more, len(list(FOLDER.iterdir())))
runpy.run_path("app.py")
"""
    ran = subprocess.run([sys.executable, "-P", "-c", code], cwd=tmp_path / "space", capture_output=True, text=True)
    assert ran.stdout.startswith(str(tmp_path / "space" / "ashnets" / "__init__.py")), ran.stderr
    assert f"'{NAME}@{result['commit']}'" in ran.stdout and "'host': '0.0.0.0'" in ran.stdout
    assert ran.stdout.split()[-1] == "300"

    # once more, onto a state that somebody has changed
    changed = {**files, "ashnets/old.py": b"", "notes.txt": b"of the owner"}
    del changed["ashnets/errors.py"]
    hub.put(f"spaces/{SPACE}", changed)
    there = space.commits[publish(finished_run, NAME, license="mit", space=SPACE)["space"]["commit"]]
    assert there == {**files, "notes.txt": b"of the owner"}


def test_a_dry_run_writes_the_files_of_the_space(hub, finished_run: Path, tmp_path: Path) -> None:
    found = publish(finished_run, NAME, license="mit", space=SPACE, tag="v1", dry_run=True, drafts=tmp_path)
    assert hub.asked == []
    folder = tmp_path / "spaces" / SPACE
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "app.py", "requirements.txt"]
    assert f'"{NAME}@v1"' in (folder / "app.py").read_text()
    assert {str(path) for path in folder.iterdir()} < set(found["drafts"])
    assert found["space"]["repository"] == SPACE


def missing(monkeypatch: pytest.MonkeyPatch, function: str) -> None:
    """Make a distribution look as if it were not installed."""

    def ask(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(spaces, function, ask)


@pytest.mark.parametrize(("function", "name"), [("version", "gradio"), ("requires", "ashnets")])
def test_what_a_space_needs_is_missed_before_the_model_is_sent(
    hub, finished_run: Path, monkeypatch: pytest.MonkeyPatch, function: str, name: str
) -> None:
    missing(monkeypatch, function)
    with pytest.raises(MissingExtraError, match=rf'{name} is not installed.*pip install -e "\.\[app\]"'):
        publish(finished_run, NAME, license="mit", space=SPACE)
    assert hub.asked == []


def test_a_public_space_of_a_private_model_is_refused_before_the_model_is_sent(hub, finished_run: Path) -> None:
    hub.put(f"spaces/{SPACE}", {"app.py": b"public"})
    with pytest.raises(ConfigurationError, match=f"the Space {SPACE} exists and is public"):
        publish(finished_run, NAME, license="mit", space=SPACE, private=True)
    assert NAME not in hub.repositories
    hub.repositories[f"spaces/{SPACE}"].private = True
    assert publish(finished_run, NAME, license="mit", space=SPACE, private=True)["space"]["commit"]


def test_a_wrong_name_is_refused_before_anything_is_sent(hub, finished_run: Path) -> None:
    with pytest.raises(ConfigurationError, match="write org/name"):
        publish(finished_run, NAME, license="mit", space="no-owner")
    assert hub.asked == []
