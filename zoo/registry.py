"""The registry: a name to configuration, weights, licence and results; read without torch or transformers."""

from __future__ import annotations

import fnmatch
import json
import logging
import os
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from ashnets.errors import ConfigurationError, UnknownModelError
from ashnets.zoo.names import compose, unknown

if TYPE_CHECKING:
    from ashnets.configuration import AshNetsConfig
    from ashnets.model.pretrained import AshNetsPreTrainedModel

ROOT = Path(__file__).resolve().parent

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Weights:
    """Trained weights that stand in this package.

    Attributes:
        tag: their name behind the dot.
        folder: what ``save_pretrained`` wrote.
        sha256: file name → SHA-256, for every file of the folder.
        licence, training_data: of these weights, in words.
        recipe, results: the files that say how they were made and what they reach.
    """

    tag: str
    folder: Path
    sha256: dict[str, str]
    licence: str
    training_data: str
    recipe: Path
    results: Path


@dataclass(frozen=True)
class Entry:
    """One model of the registry.

    Attributes:
        name: the canonical name, without tag.
        architecture: the file in ``architectures/`` that it comes from.
        summary: one line.
        changes: configuration keys that its suffixes set.
        configuration: all keys that differ from ``AshNetsConfig``'s defaults or are stated.
        weights: the weights that the tag, or the default, names; None where nothing was trained.
        tags: all tags, the default first.
    """

    name: str
    architecture: str
    summary: str
    changes: dict[str, Any]
    configuration: dict[str, Any]
    weights: Weights | None = None
    tags: tuple[str, ...] = field(default=())

    @property
    def tag(self) -> str | None:
        """The tag of ``weights``."""
        return self.weights.tag if self.weights else None


def list_models(pattern: str | None = None, *, pretrained: bool | None = None) -> list[str]:
    """The names of the models, without tags, an architecture after another.

    Args:
        pattern: a glob, for example ``*-ann``.
        pretrained: True for models with trained weights, False for those without.
    """
    names = [
        name
        for name, found in _entries().items()
        if pretrained is None or (found.weights is not None) == pretrained
    ]
    return names if pattern is None else fnmatch.filter(names, pattern)


def entry(name: str) -> Entry:
    """The entry of ``name`` or ``name.tag``.

    Raises:
        UnknownModelError: with the nearest names or tags.
    """
    bare, dot, tag = str(name).partition(".")
    if bare not in _entries():
        raise unknown(bare, _entries())
    found = _entries()[bare]
    if not dot:
        return found
    if tag not in found.tags:
        have = f"its tags are {', '.join(found.tags)}" if found.tags else "it has no trained weights"
        raise UnknownModelError(f"{bare} has no tag {tag!r}: {have}")
    return replace(found, weights=_weights()[bare][tag])


def config_of(name: str | os.PathLike) -> AshNetsConfig:
    """The configuration of a registry name, or of a folder with a ``config.json``.

    Raises:
        UnknownModelError: nothing answers to the name.
        ConfigurationError: a folder whose configuration cannot be used.
    """
    from ashnets.configuration import AshNetsConfig

    file = Path(name) / "config.json"
    if is_name(name) or not os.fspath(name) or not file.is_file():
        return AshNetsConfig(**entry(os.fspath(name)).configuration)
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{file} is not valid JSON ({error})") from None
    kind = data.get("model_type") if isinstance(data, dict) else None
    if kind != AshNetsConfig.model_type:
        raise ConfigurationError(f"{file} has model_type {kind!r}, not {AshNetsConfig.model_type!r}: another model's")
    try:
        return AshNetsConfig(**data)
    except ConfigurationError as error:
        raise ConfigurationError(f"{file}: {error}") from None


def is_name(name: str | os.PathLike) -> bool:
    """Whether a registry name, with or without tag, and not a path, was given."""
    return isinstance(name, str) and name.partition(".")[0] in _entries()


def create(name: str, *, task: str = "base", seed: int | None = None, **changes: Any) -> AshNetsPreTrainedModel:
    """Build a model with random weights, in evaluation mode.

    Its deeper spiking layers are silent until it is trained, or ``ashnets.model.tdbn.calibrate`` has set the statistics
    of its tdBN layers.

    Args:
        name: a registry name without tag.
        task: ``base``, ``pretraining``, ``retrieval``, ``vqa``, ``nlvr2`` or ``ve``.
        seed: the same seed gives the same weights; the global generator is left as it was.
        changes: configuration keys to set.

    Raises:
        UnknownModelError, ConfigurationError: an unknown name, tag, task or key.
    """
    import torch

    from ashnets.configuration import AshNetsConfig
    from ashnets.model import head_class

    found = entry(name)
    cls = head_class(task)
    config = AshNetsConfig(**{**found.configuration, **changes})
    if seed is None:
        model = cls(config)
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = cls(config)
    logger.info(
        "%s: %s with random weights (seed %s); nothing in it was trained", found.name, cls.__name__, seed
    )
    return model.eval()


def recipe_path(recipe: str | os.PathLike) -> Path:
    """The file of a recipe: a path to one, or the name of a bundled one.

    Raises:
        ConfigurationError: neither; with the names of the bundled recipes.
    """
    bundled = ROOT / "recipes" / f"{os.fspath(recipe)}.yaml"
    if bundled.is_file():
        return bundled
    if Path(recipe).is_file():
        return Path(recipe)
    names = sorted(path.stem for path in (ROOT / "recipes").glob("*.yaml"))
    raise ConfigurationError(
        f"{os.fspath(recipe)!r} is neither a file nor a bundled recipe; bundled: {', '.join(names)}"
    )


@cache
def _entries() -> dict[str, Entry]:
    entries = {}
    weights = _weights()
    for name in ("ashnets-tiny", "ashnets-r18", "ashnets-r101", "ashnets-r152", "ashnets-vit-b16"):
        data = _read(ROOT / "architectures" / f"{name}.yaml")
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
    return {
        name: {
            tag: Weights(
                tag=tag,
                folder=ROOT / data["folder"],
                sha256=data["sha256"],
                licence=data["licence"],
                training_data=data["training_data"],
                recipe=ROOT / data["recipe"],
                results=ROOT / data["results"],
            )
            for tag, data in tags.items()
        }
        for name, tags in _read(ROOT / "weights.yaml").items()
    }


def _read(path: Path) -> dict[str, Any]:
    return yaml.load(path.read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
