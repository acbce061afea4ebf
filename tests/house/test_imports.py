"""Who may import whom, and what an import may cost."""

from __future__ import annotations

import ast
import resource
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

FOLDERS = {"ashnets": "ashnets", "zoo": "ashnets.zoo", "export": "ashnets.export", "hub": "ashnets.hub"}

# A module may not import from the rooms behind its longest matching name; the face and the command line import all.
CLOSED = {
    "ashnets": ("ashnets.zoo", "ashnets.export", "ashnets.hub", "ashnets.cli"),
    "ashnets.model": (
        "ashnets.zoo",
        "ashnets.export",
        "ashnets.hub",
        "ashnets.cli",
        "ashnets.training",
        "ashnets.data.pictograms",
    ),
    "ashnets.zoo": ("ashnets.export", "ashnets.hub", "ashnets.cli"),
    "ashnets.export": ("ashnets.zoo", "ashnets.hub", "ashnets.cli"),
    "ashnets.hub": ("ashnets.export", "ashnets.cli"),
}
FREE = ("ashnets.__main__", "ashnets.cli")


def module_name(path: Path) -> str:
    """``zoo/models.py`` → ``ashnets.zoo.models``; a package's ``__init__`` has the package's name."""
    parts = [FOLDERS[path.parts[0]], *path.with_suffix("").parts[1:]]
    return ".".join(parts).removesuffix(".__init__")


def within(module: str, room: str) -> bool:
    return module == room or module.startswith(room + ".")


def imports_of(source: str, module: str, is_package: bool = False) -> Iterator[str]:
    """Every name that ``source`` imports, wherever it stands; ``from a import b`` gives ``a`` and ``a.b``."""
    package = module if is_package else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package.split(".")[: len(package.split(".")) - node.level + 1]) if node.level else ""
            origin = ".".join(part for part in (base, node.module) if part)
            yield origin
            yield from (f"{origin}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) == "import_module":
            yield from (arg.value for arg in node.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str))


@pytest.fixture(scope="module")
def imports(repository: Path, repository_files: list[Path]) -> dict[str, set[str]]:
    """Module → everything that it imports, over the four packages."""
    modules = {}
    for path in repository_files:
        if path.suffix == ".py" and path.parts[0] in FOLDERS:
            name, is_package = module_name(path), path.name == "__init__.py"
            modules[name] = set(imports_of((repository / path).read_text(encoding="utf-8"), name, is_package))
    return modules


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("from ashnets import zoo", {"ashnets", "ashnets.zoo"}),
        ("def f():\n    import ashnets.hub.load as load", {"ashnets.hub.load"}),
        ("from . import b", {"ashnets.model", "ashnets.model.b"}),
        ("from ..zoo import names", {"ashnets.zoo", "ashnets.zoo.names"}),
        ("importlib.import_module('ashnets.export')", {"ashnets.export"}),
    ],
)
def test_imports_of_sees_every_form(source: str, expected: set[str]) -> None:
    assert set(imports_of(source, "ashnets.model.a")) == expected


def test_modules_import_in_one_direction(imports: dict[str, set[str]]) -> None:
    wrong = []
    for module, targets in imports.items():
        if module == "ashnets" or any(within(module, room) for room in FREE):
            continue
        closed = CLOSED[max((room for room in CLOSED if within(module, room)), key=len)]
        wrong += [f"{module} imports {target}" for target in targets if any(within(target, room) for room in closed)]
    assert not wrong, "\n".join(sorted(wrong))


def test_every_library_that_is_imported_is_declared(repository: Path, imports: dict[str, set[str]]) -> None:
    project = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    shipped = project["dependencies"] + [line for extra in extras if extra != "dev" for line in extras[extra]]
    declared = {canonicalize_name(Requirement(line).name) for line in shipped}
    # These two cannot be declared: see requirements-lava.lock.
    declared |= {"lava-dl", "lava-nc"}

    owners = packages_distributions()
    missing = set()
    for module, targets in imports.items():
        for top in {target.partition(".")[0] for target in targets} - sys.stdlib_module_names - {"ashnets"}:
            distributions = {canonicalize_name(name) for name in owners.get(top, [])}
            if not distributions & declared:
                missing.add(f"{module} imports {top} (of {', '.join(distributions) or 'no installed distribution'})")
    assert not missing, "declare it in pyproject.toml:\n" + "\n".join(sorted(missing))


def run_python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], check=True, capture_output=True, text=True)


@pytest.mark.parametrize("command", [["-c", "import ashnets"], ["-m", "ashnets", "--help"], ["-m", "ashnets", "list"]])
def test_no_heavy_library_is_loaded_where_none_is_needed(command: list[str]) -> None:
    loaded = run_python("-X", "importtime", *command).stderr
    tops = {line.rpartition("|")[2].strip().partition(".")[0] for line in loaded.splitlines()}
    assert "ashnets" in tops
    assert not tops & {"torch", "transformers", "spikingjelly", "matplotlib", "pyarrow", "datasets", "onnx", "scipy"}


@pytest.mark.parametrize("first", ["AshNetsConfig", "AshNetsModel", "AshNetsForVQA", "AshNetsProcessor"])
def test_the_first_use_of_a_class_registers_all_of_them(first: str) -> None:
    """Half of them would be worse than none: without ours, AutoProcessor hands out the tokenizer alone."""
    code = (
        f"from ashnets import {first}\n"
        "from transformers.models.auto import configuration_auto, modeling_auto, processing_auto\n"
        "from transformers.models.auto import image_processing_auto\n"
        "config = configuration_auto.CONFIG_MAPPING['ashnets']\n"
        "print(modeling_auto.MODEL_MAPPING[config].__name__, processing_auto.PROCESSOR_MAPPING[config].__name__,\n"
        "      config in image_processing_auto.IMAGE_PROCESSOR_MAPPING)"
    )
    assert run_python("-c", code).stdout.split() == ["AshNetsModel", "AshNetsProcessor", "True"]


@pytest.mark.parametrize("package", ["export", "hub", "model", "zoo"])
def test_packages_are_attributes_without_an_import_of_their_own(package: str) -> None:
    code = f"import ashnets; print(ashnets.{package}.__name__, '{package}' in dir(ashnets))"
    assert run_python("-c", code).stdout.split() == [f"ashnets.{package}", "True"]


def processor_seconds(*arguments: str) -> float:
    """Of the process and not of the clock: other work on the machine counts little."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run_python(*arguments)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_the_command_line_starts_about_as_fast_as_typer_itself() -> None:
    rounds = [
        (processor_seconds("-m", "ashnets", "list"), processor_seconds("-c", "import typer, yaml")) for _ in range(3)
    ]
    assert min(ours - 4 * typers for ours, typers in rounds) < 0.3
