"""The pages of the API reference, from the docstrings: one for the names of ``ashnets``, one for each package."""

from __future__ import annotations

import ast
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

import ashnets

ROOT = Path(__file__).resolve().parents[2]
FACE = "reference/api/index.md"
BESIDE = ("export", "hub", "zoo")  # packages that `ashnets` links


def on_files(files: Files, config: MkDocsConfig) -> None:
    files.append(File.generated(config, FACE, content=face()))
    for package, names in packages().items():
        title = "ashnets: what all share" if package == "ashnets" else package
        lines = [f"# {title}", *map(reference, names)]
        files.append(File.generated(config, f"reference/api/{package}.md", content="\n\n".join(lines)))


def packages() -> dict[str, list[str]]:
    """The package of each page → its modules. Modules directly in ``ashnets`` share a page."""
    found: dict[str, list[str]] = {"ashnets": []}
    folders = [ROOT / "ashnets", *(ROOT / name for name in BESIDE)]
    paths = sorted(path for folder in folders for path in folder.rglob("*.py") if not _is_linked(path))
    for path in paths:
        parts = path.relative_to(ROOT).with_suffix("").parts
        if parts[-1] == "__main__" or parts[1] == "cli":  # which the reference of the commands shows
            continue
        parts = parts if parts[0] == "ashnets" else ("ashnets", *parts)
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        inside = len(parts) > 2 or path.name == "__init__.py"
        found.setdefault(".".join(parts[:2]) if inside else "ashnets", []).append(".".join(parts))
    return found


def reference(module: str) -> str:
    """The block of a module; a package shows what it defines itself, not what it offers from its modules."""
    path = path_of(module)
    if path.name != "__init__.py":
        return f"::: {module}"
    own = [node.name for node in _definitions(path) if not node.name.startswith("_")]
    return f"::: {module}\n    options:\n      members: {own}"


def _is_linked(path: Path) -> bool:
    return path.resolve() != path


def face() -> str:
    """The names that ``import ashnets`` offers, with links."""
    lines = ["# Public names", f"```text\n{ashnets.__doc__}```", "| name | |\n|---|---|"]
    for name, module in sorted(ashnets._HOMES.items()):
        place, text = definition(module, name)
        lines[-1] += f"\n| [`ashnets.{name}`][{place}.{name}] | {text} |"
    return "\n\n".join(lines)


def definition(module: str, name: str) -> tuple[str, str]:
    """The module that defines what ``module`` offers as ``name``, and the first line of its docstring."""
    for node in _definitions(path_of(module)):
        if node.name == name:
            return module, " ".join((ast.get_docstring(node) or "").partition("\n\n")[0].split())
    for node in ast.parse(path_of(module).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and node.module and name in [one.name for one in node.names]:
            return definition(node.module, name)
    raise LookupError(f"{module} does not define {name}")


def path_of(module: str) -> Path:
    path = ROOT / Path(*module.split("."))
    return path.with_suffix(".py") if path.with_suffix(".py").is_file() else path / "__init__.py"


def _definitions(path: Path) -> list[ast.FunctionDef | ast.ClassDef]:
    """The functions and classes that a file defines."""
    body = ast.parse(path.read_text(encoding="utf-8")).body
    return [node for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
