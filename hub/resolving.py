"""A name to a folder with a model in it: registry, local folder or Hub repository."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from ashnets.errors import UnknownModelError, WeightsError
from ashnets.files import PICKLES
from ashnets.zoo import Weights, entry, is_name
from ashnets.zoo.describing import untrained

# What a model needs, and nothing that runs code when it is opened.
FILES = ["*.safetensors", "*.json", "vocab.txt"]
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def resolve(
    name: str | os.PathLike,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | os.PathLike | None = None,
) -> str:
    """Find the folder that ``name`` stands for.

    Args:
        name: a registry name, with or without tag; a folder; or a Hub repository, ``org/repo`` or
            ``hf-hub:org/repo``. A folder that is called like a registry name is reached as ``./name``.
        revision, token, cache_dir: for the Hub: branch, tag or commit; access token; where downloads are kept.

    Returns:
        The folder. The files of a registry name have been compared with their pinned SHA-256.

    Raises:
        UnknownModelError: nothing answers to the name; with the nearest names.
        WeightsError: a registry name without trained weights, or a file that is missing or not the pinned one.
    """
    text = os.fspath(name)
    if is_name(name):
        weights = entry(text).weights
        if weights is None:
            raise WeightsError(f"{text}: {untrained(text)}")
        return str(verify(weights))
    if text and Path(text).is_dir():
        return text
    if Path(text).is_file():
        if Path(text).suffix in PICKLES:
            raise WeightsError(
                f"{text} may run code when it is unpickled and is never loaded; give a folder with config.json and "
                "safetensors"
            )
        raise UnknownModelError(f"{text} is a file; give the folder that holds it beside config.json")
    repository = text.removeprefix("hf-hub:")
    if _REPOSITORY.fullmatch(repository):
        return _download(repository, revision, token, cache_dir)
    if repository != text:
        raise UnknownModelError(f"{text!r} names no Hub repository: write hf-hub:org/repo")
    if os.sep in text or text.startswith("."):
        raise UnknownModelError(f"there is no folder {text}")
    return entry(text).name  # raises, with the nearest names


def verify(weights: Weights) -> Path:
    """Compare every file of bundled weights with its pinned SHA-256 and return their folder.

    Raises:
        WeightsError: naming the file that is missing, superfluous or different.
    """
    present = {path.name for path in weights.folder.glob("*") if not path.name.startswith(".")}
    if unpinned := sorted(present - set(weights.sha256)):
        raise WeightsError(f"{weights.folder / unpinned[0]} does not belong to these weights; remove it")
    for name, pinned in weights.sha256.items():
        file = weights.folder / name
        try:
            with file.open("rb") as stream:
                found = hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError as error:
            raise WeightsError(f"{file} cannot be read ({error.strerror}); install ashnets again") from None
        if found != pinned:
            raise WeightsError(
                f"{file} is damaged: its SHA-256 is {found}, not {pinned}; nothing was loaded; install ashnets again"
            )
    return weights.folder


def _download(
    repository: str, revision: str | None, token: str | bool | None, cache_dir: str | os.PathLike | None
) -> str:
    from huggingface_hub import errors, snapshot_download

    at = f"huggingface.co/{repository}" + (f" at {revision!r}" if revision else "")
    try:
        return snapshot_download(
            repository,
            revision=revision,
            token=token,
            cache_dir=os.fspath(cache_dir) if cache_dir is not None else None,
            allow_patterns=FILES,
        )
    except errors.GatedRepoError:
        raise UnknownModelError(f"{at} is gated: accept its terms there, then log in with `hf auth login`") from None
    except errors.RevisionNotFoundError:
        raise UnknownModelError(f"{at}: there is no such branch, tag or commit") from None
    except errors.RepositoryNotFoundError:
        raise UnknownModelError(
            f"{at} does not exist, or is private and needs a token; there is no folder {repository} either"
        ) from None
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled):
        raise UnknownModelError(
            f"{repository} is no folder here, and as a Hub repository it is neither in the cache nor reachable: "
            "connect to the Hub, check HF_ENDPOINT, or give the path of a folder"
        ) from None
    except (errors.HfHubHTTPError, OSError) as error:
        raise UnknownModelError(f"{at} could not be fetched ({' '.join(str(error).split())[:200]})") from error
