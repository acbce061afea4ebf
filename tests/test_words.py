"""Commands in messages can be copied; records contain no private path."""

from __future__ import annotations

import shlex
from pathlib import Path

from ashnets.words import command, counted, install, without_place


def test_a_command_is_read_by_a_shell_as_it_was_meant():
    words = ["index", Path("my images"), "--name", "it's $HOME; *", "--rebuild"]
    assert shlex.split(command(*words)) == ["ashnets", "index", "my images", *words[2:]]
    assert command("verify", "runs/mine") == "ashnets verify runs/mine"


def test_an_extra_is_installed_as_readme_says(repository):
    assert install("onnx") == 'in a checkout of ashnets, run `pip install -e ".[onnx]"`'
    assert 'pip install -e ".[' in (repository / "README.md").read_text(encoding="utf-8")
    for folder in ("ashnets", "export", "hub", "zoo", "docs"):
        for path in [*(repository / folder).rglob("*.py"), *(repository / folder).rglob("*.md")]:
            if "kernels" not in path.parts:
                assert "pip install ashnets" not in path.read_text(encoding="utf-8").replace("'", ""), path


def test_counts_have_their_number():
    assert [counted(n, "step") for n in (0, 1, 2, 1200)] == ["0 steps", "1 step", "2 steps", "1,200 steps"]


def test_a_record_tells_the_names_of_a_folder_and_not_its_place():
    assert without_place("/home/me/secret/tiny/model") == "tiny/model"
    assert without_place("ashnets-tiny.pictograms") == "ashnets-tiny.pictograms"
    assert without_place("runs/tiny/model") == "runs/tiny/model"
