"""The registry: from a name to configuration, weights, license and results. It needs neither torch nor transformers."""

from __future__ import annotations

import fnmatch
import json
import math
import os
import re
import warnings
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from ashnets.digests import WEIGHTS_SHA256, combined
from ashnets.errors import ConfigurationError, UnknownModelError, did_you_mean
from ashnets.files import JsonObject, read_csv
from ashnets.zoo.names import compose, split, unknown

if TYPE_CHECKING:
    from ashnets.configuration import AshNetsConfig

ROOT = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Weights:
    """Trained weights, in this package or in a repository on the Hub.

    Attributes:
        tag: their name after the dot.
        folder: in this package, as ``save_pretrained`` wrote it; None for weights that are only on the Hub.
        sha256: file name → SHA-256, for every file.
        license, training_data: of these weights, in words.
        recipe, results: the files of their training recipe and of their results.
        repository, commit: their place on the Hub, ``org/repo`` and 40 hexadecimal digits; None if they were not
            published.
    """

    tag: str
    folder: Path | None
    sha256: dict[str, str]
    license: str
    training_data: str
    recipe: Path
    results: Path
    repository: str | None = None
    commit: str | None = None

    @property
    def digest(self) -> str | None:
        """Digest of the weights alone, which results contain too (`ashnets.digests`)."""
        return combined(self.sha256)


@dataclass(frozen=True)
class Entry:
    """One model of the registry.

    Attributes:
        name: the canonical name, without tag.
        architecture: the file in ``architectures/`` that it comes from.
        summary: one line.
        changes: configuration keys that its suffixes set.
        configuration: all keys that the architecture file or the suffixes set.
        weights: those of the tag, or the default ones; None if the model was not trained.
        tags: all tags, the default first.
    """

    name: str
    architecture: str
    summary: str
    changes: JsonObject
    configuration: JsonObject
    weights: Weights | None = None
    tags: tuple[str, ...] = field(default=())

    @property
    def tag(self) -> str | None:
        """The tag of ``weights``."""
        return self.weights.tag if self.weights else None


def list_models(pattern: str | None = None, *, pretrained: bool | None = None) -> list[str]:
    """The names of the models, without tags, ordered by architecture.

        ashnets.list_models("*-ann")

    Args:
        pattern: a glob, for example ``*-ann``. If no name of any model matches, a ``UserWarning`` says so.
        pretrained: True for models with trained weights, False for those without.
    """
    if pattern is not None and not matching(pattern):
        wider = f"*{pattern.strip('*')}*"
        hint = f" Did you mean {wider!r}?" if matching(wider) else did_you_mean(pattern.strip("*"), _entries())
        warnings.warn(
            f"no model's name matches {pattern!r}.{hint} ashnets.list_models() gives all names",
            UserWarning,
            stacklevel=2,
        )
    return matching(pattern, pretrained)


def matching(pattern: str | None = None, pretrained: bool | None = None) -> list[str]:
    """The names that :func:`list_models` gives, without a warning if there are none."""
    names = [
        name for name, found in _entries().items() if pretrained is None or (found.weights is not None) == pretrained
    ]
    return names if pattern is None else fnmatch.filter(names, pattern)


def entry(name: str) -> Entry:
    """The entry of ``name`` or ``name.tag``.

    Raises:
        UnknownModelError: no such name or tag, with the nearest ones; or a revision, of which the registry has none.
    """
    bare, tag, revision = split(name)
    if bare not in _entries():
        raise unknown(bare, _entries())
    if revision is not None:
        raise UnknownModelError(
            f"{name}: @{revision} names weights on the Hub; the registry has no revisions, so leave it out"
        )
    found = _entries()[bare]
    if tag is None:
        return found
    if tag not in found.tags:
        have = f"its tags are {', '.join(found.tags)}" if found.tags else "it has no trained weights"
        raise UnknownModelError(f"{bare} has no tag {tag!r}: {have}")
    return replace(found, weights=_weights()[bare][tag])


def config_of(name: str | os.PathLike) -> AshNetsConfig:
    """The configuration of a registry name, or of a folder with a ``config.json``; a path is always a folder.

        ashnets.config_of("ashnets-tiny").time_steps

    Raises:
        UnknownModelError: no model has this name, or there is no such folder.
        ConfigurationError: a folder whose configuration cannot be used.
    """
    from ashnets.configuration import AshNetsConfig

    text, file = os.fspath(name), Path(name) / "config.json"
    if not is_name(name) and not file.is_file() and (not isinstance(name, str) or "/" in text or os.sep in text):
        raise UnknownModelError(
            f"{text}: there is no folder of this name with a config.json. Of a Hub repository, give the folder: "
            f"ashnets.resolve({text!r})"
        )
    if is_name(name) or not text or not file.is_file():
        return AshNetsConfig(**entry(text).configuration)
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{file} is not valid JSON ({error})") from None
    kind = data.get("model_type") if isinstance(data, dict) else None
    if kind != AshNetsConfig.model_type:
        raise ConfigurationError(
            f"{file} has model_type {kind!r}, not {AshNetsConfig.model_type!r}: it belongs to another model"
        )
    try:
        return AshNetsConfig(**data)
    except ConfigurationError as error:
        raise ConfigurationError(f"{file}: {error}") from None


def is_name(name: str | os.PathLike) -> bool:
    """Whether ``name`` is a registry name, with or without tag and revision, and not a path."""
    if not isinstance(name, str):
        return False
    parts = split(name)
    return parts.model in _entries() and "/" not in (parts.tag or "")


def untrained(name: str) -> str:
    """The reason why ``name`` has no weights, and the remedy."""
    found = entry(name)
    if files := _results_files(found.name):
        why = f"no published weights: it was trained here, and its results are in zoo/results/{', '.join(files)}"
    else:
        why = "no trained weights: it was never trained here"
        if found.architecture != "ashnets-tiny":
            why += "; its training needs MSCOCO and Visual Genome, which were not available"
    return f"{why}. ashnets.create({name!r}), or from_pretrained with weights=None, builds it with random weights"


def _results_files(model: str) -> list[str]:
    """The files of ``results/`` with a row of trained weights of ``model``."""
    return [
        path.name
        for path in sorted((ROOT / "results").glob("*.csv"))
        if any(row.get("model") == model and row.get(WEIGHTS_SHA256) for row in read_csv(path))
    ]


def recipe_path(recipe: str | os.PathLike) -> Path:
    """The file of a recipe, given by its path or by the name of a bundled recipe.

    Raises:
        ConfigurationError: neither a file nor a bundled recipe; the message lists the bundled ones.
    """
    bundled = ROOT / "recipes" / f"{os.fspath(recipe)}.yaml"
    if bundled.is_file():
        return bundled
    if Path(recipe).is_file():
        return Path(recipe)
    names = sorted(path.stem for path in (ROOT / "recipes").glob("*.yaml"))
    raise ConfigurationError(
        f"{os.fspath(recipe)!r} is neither a file nor a bundled recipe.{did_you_mean(os.fspath(recipe), names)} "
        f"Bundled: {', '.join(names)}"
    )


@cache
def _entries() -> dict[str, Entry]:
    entries = {}
    weights = _weights()
    files = {path.stem: read_yaml(path) for path in sorted((ROOT / "architectures").glob("*.yaml"))}
    for name, data in sorted(files.items(), key=lambda item: item[1].get("place", math.inf)):
        for full, changes in compose(name, data["forms"]).items():
            tags = weights.get(full, {})
            entries[full] = Entry(
                name=full,
                architecture=name,
                summary=data["summary"],
                changes=changes,
                configuration={**data["configuration"], **changes},
                weights=next(iter(tags.values()), None),
                tags=tuple(tags),
            )
    return entries


@cache
def _weights() -> dict[str, dict[str, Weights]]:
    return read_weights(ROOT / "weights.yaml")


def read_weights(path: Path) -> dict[str, dict[str, Weights]]:
    """Model → tag → weights, from a file like ``weights.yaml``, whose head explains its form.

    Raises:
        ConfigurationError: an entry without pins, with neither folder nor repository, or with a repository that is not
            pinned to a commit.
    """
    return {
        name: {tag: _pinned(f"{path}: {name}.{tag}", path.parent, tag, data) for tag, data in tags.items()}
        for name, tags in read_yaml(path).items()
    }


def _pinned(where: str, root: Path, tag: str, data: JsonObject) -> Weights:
    folder, repository, commit = data.get("folder"), data.get("repository"), data.get("commit")
    if not folder and not repository:
        raise ConfigurationError(f"{where} has neither folder nor repository: add the place of the weights")
    if repository and not re.fullmatch(r"[0-9a-f]{40}", str(commit)):
        raise ConfigurationError(f"{where}: commit={commit!r} must be the 40 hexadecimal digits of a commit")
    pins = data.get("sha256") or {}
    if not pins or not all(re.fullmatch(r"[0-9a-f]{64}", str(pin)) for pin in pins.values()):
        raise ConfigurationError(f"{where}: sha256 must give 64 hexadecimal digits for every file")
    return Weights(
        tag=tag,
        folder=root / folder if folder else None,
        sha256=pins,
        license=data["license"],
        training_data=data["training_data"],
        recipe=root / data["recipe"],
        results=root / data["results"],
        repository=repository,
        commit=commit,
    )


def read_yaml(path: Path) -> JsonObject:
    """Read a YAML file, with the fast C reader if there is one."""
    return yaml.load(path.read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
