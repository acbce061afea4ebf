"""The forms of the repository for users: a checkout, an editable installation, a wheel, an sdist."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

import ashnets

FOLDERS = {"ashnets": "ashnets", "zoo": "ashnets/zoo", "export": "ashnets/export", "hub": "ashnets/hub"}

# In two pieces, so that this file does not hold them.
PRIVATE = [
    first + second
    for first, second in [
        ("/wo", "rk/"),
        ("/.lib", "rary"),
        ("../sh", "ared"),
        ("/opt/", "pypi"),
        ("/opt/", "wheels"),
        ("/ro", "ot/"),
    ]
]


@pytest.fixture(scope="module")
def package_files(repository_files: list[Path]) -> set[str]:
    """The files of the four packages, as paths inside an installation."""
    return {
        "/".join([FOLDERS[path.parts[0]], *path.parts[1:]])
        for path in repository_files
        if path.parts[0] in FOLDERS and path.parent != Path(".") and path.as_posix() not in LINKS
    }


LINKS = {"ashnets/zoo": "../zoo", "ashnets/export": "../export", "ashnets/hub": "../hub"}


@pytest.mark.parametrize(("link", "target"), LINKS.items())
def test_links_join_the_four_packages(repository: Path, link: str, target: str) -> None:
    assert (repository / link).is_symlink(), f"{link} is no link: a checkout without symbolic links cannot work"
    assert os.readlink(repository / link) == target
    assert (repository / link / "__init__.py").is_file()


def test_every_folder_of_modules_is_a_package(package_files: set[str]) -> None:
    folders = {path.rpartition("/")[0] for path in package_files if path.endswith(".py")}
    assert {folder for folder in folders if f"{folder}/__init__.py" not in package_files} == set()


def test_one_version(repository: Path) -> None:
    project = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert ashnets.__version__ == project["version"]


def test_no_file_names_a_place_of_one_machine(repository: Path, repository_files: list[Path]) -> None:
    found = []
    for path in repository_files:
        place = repository / path
        content = os.readlink(place).encode() if place.is_symlink() else place.read_bytes()
        found += [f"{path}: {name}" for name in PRIVATE if name.encode() in content]
    assert not found, "\n".join(found)


def build(source: Path, output: Path, *what: str) -> None:
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(output), *what, str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def checkout(repository: Path, repository_files: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout for builds; links remain links."""
    copy = tmp_path_factory.mktemp("checkout")
    for path in repository_files:
        (copy / path).parent.mkdir(parents=True, exist_ok=True)
        if (repository / path).is_symlink():
            (copy / path).symlink_to(os.readlink(repository / path))
        else:
            (copy / path).write_bytes((repository / path).read_bytes())
    return copy


@pytest.fixture(scope="module")
def wheel(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("wheel")
    build(checkout, output, "--wheel")
    return next(output.glob("*.whl"))


@pytest.fixture(scope="module")
def wheel_of_sdist(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("sdist")
    build(checkout, output, "--sdist")
    with tarfile.open(next(output.glob("*.tar.gz"))) as archive:
        archive.extractall(output, filter="data")
    build(next(path for path in output.iterdir() if path.is_dir()), output, "--wheel")
    return next(output.glob("*.whl"))


@pytest.mark.parametrize("kind", ["wheel", "wheel_of_sdist"])
def test_wheels_hold_every_module_and_datum_and_nothing_else(
    kind: str, package_files: set[str], request: pytest.FixtureRequest
) -> None:
    with zipfile.ZipFile(request.getfixturevalue(kind)) as archive:
        names = set(archive.namelist())
    metadata = {name for name in names if name.split("/")[0].endswith(".dist-info")}
    assert names - metadata == package_files
    assert {"LICENSE", "NOTICE"} <= {name.rpartition("/")[2] for name in metadata}


def test_an_installed_wheel_works_away_from_the_checkout(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", str(site), str(wheel)]
    subprocess.run(pip, check=True, capture_output=True)
    code = "import ashnets, ashnets.zoo; print(ashnets.__file__, ashnets.zoo.__file__, *ashnets.zoo.list_models())"
    environment = {**os.environ, "PYTHONPATH": str(site)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True, capture_output=True, text=True
    )
    face, zoo, *names = done.stdout.split()
    assert Path(face) == site / "ashnets" / "__init__.py"
    assert Path(zoo) == site / "ashnets" / "zoo" / "__init__.py"
    assert "ashnets-tiny" in names


def test_the_environment_holds_the_editable_installation_that_make_does(repository: Path, tmp_path: Path) -> None:
    script = Path(sys.executable).parent / "ashnets"
    done = subprocess.run([script, "--version"], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert done.stdout.strip() == f"ashnets {ashnets.__version__}"
    where = [sys.executable, "-c", "import ashnets; print(ashnets.__path__[0])"]
    done = subprocess.run(where, cwd=tmp_path, check=True, capture_output=True, text=True)
    assert Path(done.stdout.strip()) == repository / "ashnets"


def test_make_names_its_targets(repository: Path) -> None:
    done = subprocess.run(["make", "help"], cwd=repository, check=True, capture_output=True, text=True)
    targets = {line.split()[1] for line in done.stdout.splitlines() if line.startswith("  make ")}
    tests = {"test", "test-light", "test-slow", "test-full"}
    assert tests | {"demo", "lint", "bench", "docs", "pages", "clean", "help"} == targets


def test_ruff_finds_nothing(repository: Path) -> None:
    for command in (["check"], ["format", "--check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command], cwd=repository, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout


def test_the_citation_is_of_this_version_and_of_the_paper(repository: Path) -> None:
    found = yaml.safe_load((repository / "CITATION.cff").read_text(encoding="utf-8"))
    assert (found["version"], found["license"]) == (ashnets.__version__, "Apache-2.0")
    (paper,) = found["references"]
    card = yaml.safe_load((repository / "hub" / "card-data.yaml").read_text(encoding="utf-8"))
    assert paper["url"] == card["citation"]["url"]
