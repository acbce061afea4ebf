"""Resolve a name to the folder of a model: registry, local folder or Hub repository."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ashnets.digests import weights_digest
from ashnets.errors import ConfigurationError, UnknownModelError, WeightsError, did_you_mean
from ashnets.files import PICKLES, JsonObject
from ashnets.hub.fetching import digest, fetch
from ashnets.hub.inspecting import inspect
from ashnets.hub.names import check_revision, split_repository
from ashnets.result_folder import MODEL_MARK, complete
from ashnets.zoo.names import split
from ashnets.zoo.registry import Weights, entry, is_name, untrained

NAMESPACE = "ASHNETS_NAMESPACE"


@dataclass(frozen=True)
class Located:
    """Where a model is.

    Attributes:
        folder: of the model; its files were compared with the registry's pins or the Hub's digests, if there are any.
        origin: ``package``, ``hub`` or ``folder``.
        repository: on the Hub.
        pins: file name → SHA-256 in the registry.
    """

    folder: str
    origin: str
    repository: str | None = None
    pins: Mapping[str, str] = field(default_factory=dict)


def resolve(name: str | os.PathLike, **options: Any) -> str:
    """The folder of the model ``name``; see :func:`locate`, which takes the same arguments.

    ashnets.resolve("ashnets-tiny")
    """
    return locate(name, **options).folder


def locate(
    name: str | os.PathLike,
    *,
    revision: str | None = None,
    namespace: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | os.PathLike | None = None,
    local_files_only: bool = False,
    force_download: bool = False,
) -> Located:
    """Find a model by its name.

    Args:
        name: a registry name, ``model[.tag][@revision]``; a folder; or a Hub repository, ``org/repo[@revision]`` or
            ``hf-hub:org/repo[@revision]``. Write ``./name`` for a folder with the name of a registry entry. If there is
            a local folder ``org``, ``org/repo`` is a path in it; write ``hf-hub:org/repo`` for the Hub.
        revision: branch, tag or commit of a Hub repository; the same as the part after ``@``.
        namespace: a user or an organization of the Hub; ``model.tag`` is then fetched from ``namespace/model.tag``.
            The environment variable ``ASHNETS_NAMESPACE`` does the same for weights that are not in this package.
        token, cache_dir, local_files_only, force_download: for the Hub; as in huggingface_hub.

    Returns:
        The folder and its origin. The files of a registry name have been compared with their pinned SHA-256, those of a
        repository with the digests that the Hub announced. Local folders and weights in this package never use the
        network.

    Raises:
        UnknownModelError: no model has this name; the message gives the nearest names.
        WeightsError: a registry name without trained weights; or a file is missing, damaged, different from its pin, or
            dangerous (see :mod:`ashnets.hub.inspecting`).
        ConfigurationError: two different revisions, or a revision where there are none.
    """
    text = os.fspath(name)
    options: JsonObject = {
        "token": token,
        "cache_dir": cache_dir,
        "local_files_only": local_files_only,
        "force_download": force_download,
    }
    if is_name(name):
        return _registered(text, revision, namespace, options)
    if text and Path(text).is_dir():
        with suppress(OSError):  # of a folder that cannot be written
            complete(Path(text), MODEL_MARK)
        inspect(Path(text))
        return Located(text, "folder")
    if Path(text).is_file():
        if Path(text).suffix in PICKLES:
            raise WeightsError(
                f"{text} may run code when it is unpickled, so it is never loaded; give a folder with config.json and "
                "safetensors"
            )
        raise UnknownModelError(f"{text} is a file; give the folder that contains it and config.json")
    repository = text.removeprefix("hf-hub:")
    parts = split_repository(repository)
    parent = Path(text).parent
    if (
        parts and repository == text and (isinstance(name, os.PathLike) or parent.is_dir())
    ):  # a path: the Hub is not asked
        near = did_you_mean(text, map(str, parent.glob("*")))
        raise UnknownModelError(f"there is no folder {text}.{near} For a Hub repository, write hf-hub:{text}")
    if parts:
        found = fetch(parts[0], _one_revision(text, parts[1], revision), **options)
        return Located(str(found), "hub", parts[0])
    if repository != text:
        raise UnknownModelError(f"{text!r} is not a Hub repository: write hf-hub:org/repo")
    if os.sep in text or text.startswith("."):
        remedy = "; for a model of the Hub, give ORGANIZATION/NAME" if "://" in text else ""
        raise UnknownModelError(f"there is no folder {text}{remedy}")
    entry(text)  # raises, with the nearest names
    raise UnknownModelError(f"no model is named {text!r}")


def compare_with_pins(weights: Weights) -> Path:
    """Compare every file of bundled weights with its pinned SHA-256 and return their folder.

    Raises:
        WeightsError: names the file that is missing, superfluous or different.
    """
    folder = weights.folder
    if folder is None:
        raise WeightsError(f"the weights {weights.tag!r} are not in this package: they are in {weights.repository}")
    present = {path.name for path in folder.glob("*") if not path.name.startswith(".")}
    if unpinned := sorted(present - set(weights.sha256)):
        raise WeightsError(f"{folder / unpinned[0]} does not belong to these weights; remove it")
    for name, pinned in weights.sha256.items():
        file = folder / name
        try:
            found = digest(file)
        except OSError as error:
            raise WeightsError(f"{file} cannot be read ({error.strerror}); install ashnets again") from None
        if found != pinned:
            raise WeightsError(
                f"{file} is damaged: its SHA-256 is {found}, not {pinned}; nothing was loaded; install ashnets again"
            )
    return folder


def _registered(name: str, revision: str | None, namespace: str | None, options: JsonObject) -> Located:
    model, tag, inline = split(name)
    revision = _one_revision(name, inline, revision)
    organization = namespace or os.environ.get(NAMESPACE)
    bare = model if tag is None else f"{model}.{tag}"
    # A tag that is not in the registry may exist in the given namespace.
    known = tag is None or tag in entry(model).tags or not organization
    weights = entry(bare).weights if known else None
    if weights and weights.folder and not namespace and revision is None:
        return Located(str(compare_with_pins(weights)), "package", pins=weights.sha256)
    pins = weights.sha256 if weights and revision is None else None
    if organization:
        repository = f"{organization}/{model}.{weights.tag}" if weights else f"{organization}/{bare}"
    elif weights is None:
        raise WeightsError(f"{bare}: {untrained(bare)}")
    elif weights.repository is None:
        raise ConfigurationError(
            f"{name}: the weights are in this package and have no revision {revision!r}; leave it out, or name a user "
            f"or organization of the Hub: namespace=..., or {NAMESPACE}"
        )
    else:
        repository, revision = weights.repository, revision or weights.commit
    return Located(str(fetch(repository, revision, pins=pins, **options)), "hub", repository, pins or {})


def _one_revision(name: str, inline: str | None, argument: str | None) -> str | None:
    if inline == "" or argument == "":
        raise ConfigurationError(f"{name}: the revision is empty; give a branch, tag or commit, or leave it out")
    if inline and argument and inline != argument:
        raise ConfigurationError(f"{name}: revision={argument!r} differs from @{inline}; give only one of them")
    chosen = inline or argument
    if chosen is not None:
        check_revision(chosen)
    return chosen


def weights_sha256(name: str | os.PathLike) -> str | None:
    """The digest of the weights of a name or folder; see `ashnets.digests`."""
    return weights_digest(Path(resolve(name)))
