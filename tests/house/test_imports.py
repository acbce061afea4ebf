"""The rules for imports, and the cost of an import."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Collection, Iterator
from graphlib import CycleError, TopologicalSorter
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

FOLDERS = {"ashnets": "ashnets", "zoo": "ashnets.zoo", "export": "ashnets.export", "hub": "ashnets.hub"}
HOMES = "_HOMES"  # of a package that offers names on first use: name → the module that defines it


def module_name(path: Path) -> str:
    """``zoo/models.py`` → ``ashnets.zoo.models``; an ``__init__`` has the name of its package."""
    parts = [FOLDERS[path.parts[0]], *path.with_suffix("").parts[1:]]
    return ".".join(parts).removesuffix(".__init__")


def within(module: str, room: str) -> bool:
    return module == room or module.startswith(room + ".")


def imports_of(source: str | ast.AST, module: str, is_package: bool = False) -> Iterator[str]:
    """Every name that ``source`` uses from a module: imported, an attribute, or offered on first use.

    ``from a import b`` gives ``a.b``; ``import a`` gives ``a``, and a later ``a.b.c`` gives ``a.b.c``.
    """
    package = module if is_package else module.rpartition(".")[0]
    tree = ast.parse(source) if isinstance(source, str) else source
    bound = {}  # name in this file → what it stands for
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name
                bound[alias.asname or alias.name.partition(".")[0]] = (
                    alias.name if alias.asname else alias.name.partition(".")[0]
                )
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package.split(".")[: len(package.split(".")) - node.level + 1]) if node.level else ""
            origin = ".".join(part for part in (base, node.module) if part)
            for alias in node.names:
                yield f"{origin}.{alias.name}"
                bound[alias.asname or alias.name] = f"{origin}.{alias.name}"
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) == "import_module":
            yield from (arg.value for arg in node.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str))
        elif isinstance(node, ast.Assign) and [getattr(one, "id", "") for one in node.targets] == [HOMES]:
            yield from ast.literal_eval(node.value).values()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            root, _, rest = ast.unparse(node).partition(".")
            if root in bound and all(part.isidentifier() for part in rest.split(".")):
                yield f"{bound[root]}.{rest}"


def module_of(name: str, modules: Collection[str]) -> str | None:
    """The module of a name; None if it is not one of ours."""
    while name and name not in modules:
        name = name.rpartition(".")[0]
    return name or None


def inner(imports: dict[str, set[str]]) -> dict[str, set[str]]:
    """Module → the other modules of the four packages that it imports."""
    return {
        module: {found for name in names if (found := module_of(name, imports)) and found != module}
        for module, names in imports.items()
    }


def read_floors(text: str) -> dict[str, tuple[int, str]]:
    """Module or package → its floor and room, from the table of CONTRIBUTING."""
    lines = re.findall(r"^\| (\d+) \| ([^|]+) \| ([^|]+) \|", text, re.MULTILINE)
    named = [(name, (int(floor), room)) for floor, room, cell in lines for name in re.findall(r"`([\w.]+)`", cell)]
    assert len(dict(named)) == len(named), "a module is named twice"
    return dict(named)


def place_of(module: str, floors: dict[str, tuple[int, str]]) -> tuple[int, str] | None:
    """The longest name of the table that contains the module; the line of the public face is only for itself."""
    found = [name for name in floors if within(module, name) and (name != "ashnets" or module == name)]
    return floors[max(found, key=len)] if found else None


def faults(arrows: dict[str, set[str]], floors: dict[str, tuple[int, str]]) -> list[str]:
    """The imports that the table forbids, one line for each."""
    places = {module: place_of(module, floors) for module in arrows}
    wrong = [f"{module} stands on no floor" for module, place in places.items() if place is None]
    for module, targets in arrows.items():
        for target in targets:
            ours, theirs = places[module], places[target]
            if ours and theirs and ours != theirs and ours[0] <= theirs[0]:
                wrong.append(f"{module} (floor {ours[0]}, {ours[1]}) imports {target} ({theirs[0]}, {theirs[1]})")
    return sorted(wrong)


@pytest.fixture(scope="module")
def imports(repository: Path, repository_files: list[Path]) -> dict[str, set[str]]:
    """Module → everything that it uses from other modules, for all four packages."""
    modules = {}
    for path in repository_files:
        if path.suffix == ".py" and path.parts[0] in FOLDERS:
            name, is_package = module_name(path), path.name == "__init__.py"
            modules[name] = set(imports_of((repository / path).read_text(encoding="utf-8"), name, is_package))
    return modules


@pytest.fixture(scope="module")
def floors(repository: Path) -> dict[str, tuple[int, str]]:
    return read_floors((repository / "CONTRIBUTING.md").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("from ashnets import zoo", {"ashnets.zoo"}),
        ("from ashnets import zoo\nzoo.describe('x').to_text()", {"ashnets.zoo", "ashnets.zoo.describe"}),
        ("def f():\n    import ashnets.hub.load as load", {"ashnets.hub.load"}),
        ("def f():\n    import ashnets\n    return ashnets.resolve('x')", {"ashnets", "ashnets.resolve"}),
        ("import ashnets.hub.load\nashnets.resolve", {"ashnets.hub.load", "ashnets.resolve"}),
        (
            "import ashnets as a\na.hub.fetching.fetch",
            {"ashnets", "ashnets.hub", "ashnets.hub.fetching", "ashnets.hub.fetching.fetch"},
        ),
        ("model.ashnets.vision", set()),
        ("from . import b", {"ashnets.model.b"}),
        ("from ..zoo import names", {"ashnets.zoo.names"}),
        ("importlib.import_module('ashnets.export')", {"ashnets.export"}),
        ("if TYPE_CHECKING:\n    from ashnets.zoo import Entry", {"ashnets.zoo.Entry"}),
        ("_HOMES = {'train': 'ashnets.runs'}", {"ashnets.runs"}),
    ],
)
def test_imports_of_sees_every_form(source: str, expected: set[str]) -> None:
    assert set(imports_of(source, "ashnets.model.a")) == expected


def test_the_rules_find_what_they_forbid() -> None:
    floors = read_floors(
        "| 3 | face | `ashnets` | … |\n| 2 | a | `ashnets.a`, `ashnets.b.low` | … |\n"
        "| 2 | c | `ashnets.c` | … |\n| 1 | b | `ashnets.b` | … |\n"
    )
    arrows: dict[str, set[str]] = {
        "ashnets": {"ashnets.a.x"},
        "ashnets.a.x": {"ashnets.b.low", "ashnets.c", "ashnets.b"},
        "ashnets.c": set(),
        "ashnets.b": {"ashnets.a.x"},
        "ashnets.b.low": {"ashnets", "ashnets.b"},
        "ashnets.new": {"ashnets.a.x"},
    }
    assert faults(arrows, floors) == [
        "ashnets.a.x (floor 2, a) imports ashnets.c (2, c)",
        "ashnets.b (floor 1, b) imports ashnets.a.x (2, a)",
        "ashnets.b.low (floor 2, a) imports ashnets (3, face)",
        "ashnets.new stands on no floor",
    ]


def test_no_arrow_points_upwards(imports: dict[str, set[str]], floors: dict[str, tuple[int, str]]) -> None:
    wrong = faults(inner(imports), floors)
    assert not wrong, "\n".join(wrong)


def test_every_name_of_the_table_is_a_module(imports: dict[str, set[str]], floors: dict[str, tuple[int, str]]) -> None:
    assert not set(floors) - set(imports)


def test_no_modules_import_each_other_in_a_circle(imports: dict[str, set[str]]) -> None:
    try:
        TopologicalSorter(inner(imports)).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


def test_a_package_on_several_floors_loads_none_of_them(
    repository: Path, repository_files: list[Path], floors: dict[str, tuple[int, str]], imports: dict[str, set[str]]
) -> None:
    """Importing ``a.b`` runs ``a/__init__.py``, whose immediate imports must not be above ``a.b``."""
    split = []
    for path in repository_files:
        if path.name == "__init__.py" and path.parts[0] in FOLDERS:
            package = module_name(path)
            places = {place_of(module, floors) for module in imports if within(module, package)}
            if len(places) > 1:
                split.append(package)
                body = ast.parse((repository / path).read_text(encoding="utf-8")).body
                top = ast.Module([node for node in body if isinstance(node, ast.Import | ast.ImportFrom)], [])
                loaded = {module_of(name, imports) for name in imports_of(top, package, is_package=True)} - {None}
                assert {place_of(str(module), floors) for module in loaded} <= {(1, "ground")}, package
    assert {"ashnets", "ashnets.hub", "ashnets.zoo"} <= set(split)


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


FIRST_USES = [f"from ashnets import {name}" for name in ("AshNetsConfig", "AshNetsModel", "AshNetsProcessor")]
FIRST_USES.append("import ashnets; from transformers import pipeline")


@pytest.mark.parametrize("first", FIRST_USES)
def test_the_first_use_of_a_class_registers_all_of_them(first: str) -> None:
    """All or none must be registered: without our processor, AutoProcessor returns only the tokenizer."""
    code = (
        f"{first}\n"
        "from transformers.models.auto import configuration_auto, modeling_auto, processing_auto\n"
        "from transformers.models.auto import image_processing_auto\n"
        "config = configuration_auto.CONFIG_MAPPING['ashnets']\n"
        "print(modeling_auto.MODEL_MAPPING[config].__name__, processing_auto.PROCESSOR_MAPPING[config].__name__,\n"
        "      modeling_auto.MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING[config].__name__,\n"
        "      config in image_processing_auto.IMAGE_PROCESSOR_MAPPING)"
    )
    expected = ["AshNetsModel", "AshNetsProcessor", "AshNetsForRetrieval", "True"]
    assert run_python("-c", code).stdout.split() == expected


@pytest.mark.parametrize("package", ["export", "hub", "model", "zoo"])
def test_packages_are_attributes_without_an_import_of_their_own(package: str) -> None:
    code = f"import ashnets; print(ashnets.{package}.__name__, '{package}' in dir(ashnets))"
    assert run_python("-c", code).stdout.split() == [f"ashnets.{package}", "True"]


def test_the_command_line_loads_few_modules() -> None:
    """Besides Python's own: now 135, of which pydantic is 39, ashnets 30 and typer 28."""
    loaded = run_python("-X", "importtime", "-m", "ashnets", "list").stderr.splitlines()
    names = [line.rpartition("|")[2].strip() for line in loaded if line.startswith("import time:")]
    others = [name for name in names if name.partition(".")[0] not in sys.stdlib_module_names]
    assert {"ashnets", "typer"} <= set(others) and len(others) < 180
