"""From a recipe's YAML file, with changes of the command line, to a checked recipe."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import yaml

from ashnets.errors import ConfigurationError, did_you_mean
from ashnets.files import JsonObject
from ashnets.training.recipe import INITIAL, PRETRAINED, Optimizer, Phase, Recipe, Schedule, TaskRecipe
from ashnets.training.rules import check_recipe
from ashnets.training.stdp import STDP
from ashnets.zoo.registry import is_name

_PLAIN = ("bool", "float", "int", "str")


def load_recipe(path: Path, overrides: list[str] | None = None) -> Recipe:
    """Read and check a recipe file; ``overrides`` are ``key=value`` or ``key.sub=value``.

    Returns:
        A :class:`TaskRecipe` if the file has the key ``task``, else a :class:`Recipe`.

    Raises:
        ConfigurationError: naming the file, the key and the value.
    """
    try:
        data = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{path}: no such recipe ({error.strerror})") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: not valid YAML ({' '.join(str(error).split())})") from error
    if not isinstance(data, dict):
        raise ConfigurationError(f"{path}: a recipe is a mapping of keys, found {type(data).__name__}")
    for override in overrides or []:
        _override(data, override)
    recipe: Recipe = _build(TaskRecipe if "task" in data else Recipe, data, str(path))
    if recipe.weights not in (PRETRAINED, INITIAL):
        if not ("/" in recipe.weights or is_name(recipe.weights) or Path(recipe.weights).is_dir()):
            raise ConfigurationError(
                f"{path}: weights={recipe.weights!r} is neither {PRETRAINED} nor {INITIAL}, and no name of a model "
                "(`ashnets list`), no folder and no Hub repository org/name"
            )
        recipe.model, recipe.weights = recipe.weights, PRETRAINED
    check_recipe(recipe, str(path))
    return recipe


def _override(data: JsonObject, override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals:
        raise ConfigurationError(f"override {override!r}: write it as key=value or key.sub=value")
    place: Any = data
    *parents, last = key.split(".")
    if parents[:1] == ["changes"]:
        data.setdefault("changes", {})
    for number, parent in enumerate(parents):
        if isinstance(place, list) and not parent.isdigit():
            raise _names_no_entry(override, parents[:number], [*parents[number:], last], value)
        entries = {str(i): one for i, one in enumerate(place)} if isinstance(place, list) else place
        found = entries.get(parent)
        if not isinstance(found, dict | list):
            raise ConfigurationError(
                f"override {override!r}: the recipe has no {parent!r} with keys of its own."
                f"{did_you_mean(parent, [key for key, one in entries.items() if isinstance(one, dict | list)])}"
            )
        place = found
    try:
        parsed = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ConfigurationError(f"override {override!r}: the value is not valid YAML") from error
    if isinstance(place, list):
        raise _names_no_entry(override, parents, [last], value)
    if (kind := _kind_at(data, parents, last)) is not None:
        _refuse_unknown(kind, {last}, f"override {override!r}")
    place[last] = parsed


def _kind_at(data: JsonObject, parents: list[str], last: str) -> type | None:
    """The class whose keys stand below ``parents``; None where a recipe has keys of any name."""
    if not parents:
        return TaskRecipe if "task" in (*data, last) else Recipe
    return {("phases", 2): Phase, ("optimizers", 2): Optimizer, ("schedule", 1): Schedule, ("stdp", 1): STDP}.get(
        (parents[0], len(parents))
    )


def _names_no_entry(override: str, behind: list[str], rest: list[str], value: str) -> ConfigurationError:
    """For ``phases.epochs=1``, which does not name one of the phases."""
    if rest[0].isdigit():
        return ConfigurationError(
            f"override {override!r}: name a key of one entry, such as {'.'.join([*behind, *rest, 'epochs'])}=1"
        )
    form = ".".join([*behind, "0", *rest])
    return ConfigurationError(
        f"override {override!r}: {'.'.join(behind)} has several entries, counted from 0: name one of them, such as "
        f"{form}={value}"
    )


def _build(kind: type, data: Any, where: str) -> Any:
    if not isinstance(data, dict):
        raise ConfigurationError(f"{where}: expected keys of {kind.__name__}, found {data!r}")
    fields = {f.name: f for f in dataclasses.fields(kind)}
    _refuse_unknown(kind, set(data), where)
    required = {
        n for n, f in fields.items() if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    }
    missing = sorted(required - set(data))
    if missing:
        raise ConfigurationError(f"{where}: missing key {', '.join(missing)}")
    values = {key: _typed(value, str(fields[key].type), f"{where}: {key}") for key, value in data.items()}
    if issubclass(kind, Recipe):
        values["phases"] = [_build(Phase, p, f"{where}: phases[{i}]") for i, p in enumerate(data["phases"] or [])]
        values["optimizers"] = {
            k: _build(Optimizer, v, f"{where}: optimizers.{k}") for k, v in (data["optimizers"] or {}).items()
        }
        values["schedule"] = _build(Schedule, data["schedule"] or {}, f"{where}: schedule")
        if data.get("stdp") is not None:
            values["stdp"] = _build(STDP, data["stdp"], f"{where}: stdp")
    return kind(**values)


def _refuse_unknown(kind: type, keys: set[str], where: str) -> None:
    known = [f.name for f in dataclasses.fields(kind)]
    if unknown := sorted(keys - set(known)):
        near = did_you_mean(unknown[0], known)
        raise ConfigurationError(f"{where}: unknown key {', '.join(unknown)}.{near} Known: {', '.join(known)}")


def _typed(value: object, kind: str, where: str) -> object:
    """Check a value and its entries; YAML 1.1 reads ``1e-4`` (no point) as text, which is converted to a number."""
    kinds = kind.split(" | ")
    if "None" in kinds and value is None:
        return None
    kind = next((one for one in kinds if one.partition("[")[0] == type(value).__name__), kinds[0])
    container, _, inside = kind.removesuffix("]").partition("[")
    if container == "list" and isinstance(value, list):
        return [_typed(item, inside, f"{where}[{i}]") for i, item in enumerate(value)]
    if container == "dict" and isinstance(value, dict):
        return {key: _typed(item, inside.partition(", ")[2], f"{where}.{key}") for key, item in value.items()}
    if kind == "float" and not isinstance(value, bool):
        try:
            return float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            pass
    elif container not in (*_PLAIN, "list", "dict") or type(value).__name__ == kind:
        return value
    raise ConfigurationError(f"{where}={value!r} is not of type {kind}")
