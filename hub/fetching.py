"""A repository of the Hub to a folder in the cache, every file compared with a digest before it is used.

Neither huggingface_hub nor safetensors notices a flipped bit in a file of the right length. The cache names each blob
by the digest that the Hub announced: SHA-256 for large files, git's SHA-1 for small ones. So every file can be checked,
at each load and offline too; the pins of the registry are checked beside it. (Where the system has no links, the cache
keeps no digests, and pins alone are checked.)
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from fnmatch import fnmatch
from pathlib import Path

from ashnets.errors import UnknownModelError, WeightsError
from ashnets.files import PICKLES

# What a model needs, and nothing that runs code when it is opened; recipe and log are read by people.
FILES = ["*.safetensors", "*.json", "vocab.txt"]


def fetch(
    repository: str,
    revision: str | None = None,
    *,
    pins: Mapping[str, str] | None = None,
    token: str | bool | None = None,
    cache_dir: str | os.PathLike | None = None,
    local_files_only: bool = False,
    force_download: bool = False,
) -> Path:
    """Download what is not in the cache yet, check all of it, and return the folder.

    Args:
        repository: ``org/repo``.
        revision: branch, tag or commit.
        pins: file name → SHA-256. Then these files alone are fetched, and each must have its pin.
        token, cache_dir, local_files_only, force_download: as in huggingface_hub.

    Raises:
        UnknownModelError: no such repository or revision, no right to see it, or neither network nor a whole copy.
        WeightsError: a file that is missing, damaged or not the pinned one, or pickles alone. Nothing is kept of it.
    """
    at = repository + (f" at {revision!r}" if revision else "")
    folder = Path(_download(at, repository, revision, pins, token, cache_dir, local_files_only, force_download))
    _check(at, folder, pins)
    if pins is None and not any(folder.glob("*.safetensors")):
        _refuse_pickles(at, repository, revision, token, local_files_only)
    if not folder.is_dir():
        raise WeightsError(f"{at} holds no model: neither config.json nor safetensors; a publication may be under way")
    return folder


def digest(path: Path, kind: str = "sha256") -> str:
    """Of a file: ``sha256``, or ``git``'s name of its content (SHA-1 with a header)."""
    if kind == "sha256":
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    data = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _check(at: str, folder: Path, pins: Mapping[str, str] | None) -> None:
    problems = list(_problems(folder, pins))
    if not problems:
        return
    for name, _ in problems:
        file = folder / name
        if file.exists():
            file.resolve().unlink()
    shutil.rmtree(folder, ignore_errors=True)  # links alone: blobs that are whole serve the next attempt
    name, problem = problems[0]
    raise WeightsError(f"{at}: {name} {problem}. Nothing was loaded and nothing of it kept; fetch it again")


def _problems(folder: Path, pins: Mapping[str, str] | None) -> Iterator[tuple[str, str]]:
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        pin = (pins or {}).get(path.name)
        if not path.is_file() or not (pin or any(fnmatch(path.name, pattern) for pattern in FILES)):
            continue
        if pins is not None and pin is None:
            yield path.name, "is none of the pinned files"
            continue
        named = path.resolve().name
        if re.fullmatch(r"[0-9a-f]{64}", named) and (found := digest(path)) != named:
            yield path.name, f"is damaged: its SHA-256 is {found}, the Hub announced {named}"
        elif re.fullmatch(r"[0-9a-f]{40}", named) and (found := digest(path, "git")) != named:
            yield path.name, f"is damaged: git would name it {found}, the Hub announced {named}"
        elif pin and (found := digest(path)) != pin:
            yield path.name, f"is not the pinned file: its SHA-256 is {found}, not {pin}"
    for name in pins or ():
        if not (folder / name).is_file():
            yield name, "is pinned, and is not in the repository"


def _download(
    at: str,
    repository: str,
    revision: str | None,
    pins: Mapping[str, str] | None,
    token: str | bool | None,
    cache_dir: str | os.PathLike | None,
    local_files_only: bool,
    force_download: bool,
) -> str:
    from huggingface_hub import errors, snapshot_download

    try:
        return snapshot_download(
            repository,
            revision=revision,
            token=token,
            cache_dir=os.fspath(cache_dir) if cache_dir is not None else None,
            local_files_only=local_files_only,
            force_download=force_download,
            allow_patterns=list(pins) if pins else FILES,
            ignore_patterns=["*/*"],
        )
    except errors.GatedRepoError:
        raise UnknownModelError(f"{at} is gated: accept its terms on the Hub, then log in: `hf auth login`") from None
    except errors.RevisionNotFoundError:
        raise UnknownModelError(f"{at}: there is no such branch, tag or commit") from None
    except errors.RepositoryNotFoundError:
        raise UnknownModelError(
            f"{at} does not exist, or is private and needs a token; there is no folder {repository} either"
        ) from None
    except errors.IncompleteSnapshotError:
        raise UnknownModelError(
            f"{at}: the copy in the cache is incomplete and the Hub cannot be reached; try again when it can"
        ) from None
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled):
        raise UnknownModelError(
            f"{at} is no folder here, and as a Hub repository it is neither in the cache nor reachable: "
            "connect to the Hub, check HF_ENDPOINT, or give the path of a folder"
        ) from None
    except errors.HFValidationError as error:
        raise UnknownModelError(f"{at}: {error}") from None
    except Exception as error:  # httpx's, the Hub's and the system's errors have no base of their own
        reason = " ".join(str(error).split())[:200]
        raise UnknownModelError(f"{at} could not be fetched ({reason}); try again") from error


def _refuse_pickles(
    at: str, repository: str, revision: str | None, token: str | bool | None, local_files_only: bool
) -> None:
    """Say what stands there in place of safetensors, if it can be asked."""
    from huggingface_hub import HfApi, constants

    if local_files_only or constants.HF_HUB_OFFLINE:
        return
    names = HfApi(token=token).list_repo_files(repository, revision=revision)
    pickles = sorted(name for name in names if Path(name).suffix in PICKLES)
    if pickles:
        raise WeightsError(
            f"{at} holds {', '.join(pickles)} but no .safetensors: pickled weights can run code and are never fetched; "
            "ask its authors for a safetensors copy"
        )
