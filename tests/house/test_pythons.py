"""The choice of Python by `make`, and equal versions in all files that name them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

GOOD, OLD = f'exec "{sys.executable}" "$@"', "exit 1"
SHIM = 'echo "pyenv: no such version" >&2; exit 127'


def make(repository: Path, folder: Path, pythons: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    """`make` with a PATH of only these programs and a shell."""
    for name, body in pythons.items():
        (folder / name).write_text(f"#!{shutil.which('sh')}\n{body}\n")
        (folder / name).chmod(0o755)
    (folder / "sh").symlink_to(shutil.which("sh"))
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHON", "MAKEFLAGS", "MAKELEVEL")}
    command = [shutil.which("make"), "--no-print-directory", "-s", "-C", str(repository), *words]
    return subprocess.run(command, env={**environment, "PATH": str(folder)}, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("pythons", "words", "taken"),
    [
        ({"python3.11": GOOD, "python3.13": GOOD, "python3": GOOD}, [], "python3.13"),
        ({"python3.13": SHIM, "python3.12": GOOD, "python3.11": GOOD}, [], "python3.12"),
        ({"python3.13": SHIM, "python3": GOOD}, [], "python3"),
        ({"python3.13": GOOD, "mine": GOOD}, ["PYTHON=mine"], "mine"),
        ({"python3.13": SHIM, "python3": OLD}, [], ""),
    ],
)
def test_make_takes_the_newest_that_starts(
    repository: Path, tmp_path: Path, pythons: dict[str, str], words: list[str], taken: str
) -> None:
    done = make(repository, tmp_path, pythons, "--eval=which:;@:$(info $(PYTHON))", "which", *words)
    assert (done.stdout.strip(), done.returncode) == (taken, 0), done.stderr


@pytest.mark.parametrize(
    ("pythons", "words", "named"),
    [
        ({"python3": OLD}, [], "none of python3.13"),
        ({"mine": OLD, "python3": GOOD}, ["PYTHON=mine"], "mine is no Python"),
    ],
)
def test_make_without_a_python_says_what_it_needs(
    repository: Path, tmp_path: Path, pythons: dict[str, str], words: list[str], named: str
) -> None:
    stamp = f"{tmp_path}/venv/.stamp"
    done = make(repository, tmp_path, pythons, f"VENV={tmp_path}/venv", stamp, *words)
    assert done.returncode != 0 and named in done.stderr and "from 3.11 on" in done.stderr, done.stderr
    assert not (tmp_path / "venv").exists()


def test_versions_are_the_same_everywhere(repository: Path) -> None:
    project = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))
    classified = [line.rpartition(" ")[2] for line in project["project"]["classifiers"] if ":: Python ::" in line]
    offered = re.search(r"for python in (.*?) python3;", (repository / "Makefile").read_text(encoding="utf-8"))
    assert offered is not None
    assert offered[1].split() == [f"python{version}" for version in reversed(classified)]
    oldest = classified[0]
    assert project["project"]["requires-python"] == f">={oldest}"
    assert project["tool"]["mypy"]["python_version"] == oldest
    assert project["tool"]["ruff"]["target-version"] == f"py{oldest.replace('.', '')}"
    assert f"Python {oldest} to {classified[-1]}" in (repository / "requirements.lock").read_text(encoding="utf-8")
