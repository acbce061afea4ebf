"""Fetch a repository of the Hub into the cache, and compare every file with a digest before it is used.

Neither huggingface_hub nor safetensors notices a flipped bit in a file of the right length. The cache names each blob
by the digest that the Hub announced: SHA-256 for large files, git's SHA-1 for small ones. So every file is checked at
each load, offline too. The pins of the registry are checked as well. (Where the file system has no links, the cache
keeps no digests, and only the pins are checked.) :mod:`ashnets.hub.inspecting` then reads the undamaged files.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from ashnets.digests import sha256_of
from ashnets.errors import UnknownModelError, WeightsError
from ashnets.files import PICKLES, home, is_full
from ashnets.hub.inspecting import LARGEST_JSON, problems

# The files that a model needs; none of them runs code when it is opened.
FILES = ["*.safetensors", "*.json", "vocab.txt"]
# What a whole copy has: a model and its processor.
WHOLE = ("config.json", "*.safetensors", "processor_config.json", "tokenizer.json")
_INCOMPLETE = ": the copy in the cache is incomplete and the Hub cannot be reached; try again when it can"
_CACHE = "name another cache: HF_HUB_CACHE, or cache_dir=..."


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
    """Download the files that are not in the cache yet, check all files, and return the folder.

    Args:
        repository: ``org/repo``.
        revision: branch, tag or commit.
        pins: file name → SHA-256. If given, only these files are fetched, and each must match its pin.
        token, cache_dir, local_files_only, force_download: as in huggingface_hub.

    Raises:
        UnknownModelError: no such repository or revision, no right to see it, or no network and no complete copy.
        WeightsError: a file is missing, damaged, different from its pin, or hostile; there are only pickles; or the
            disk is full. Nothing of the download is kept.
    """
    at = repository + (f" at {revision!r}" if revision else "")
    options = {"token": token, "cache_dir": cache_dir, "local_files_only": local_files_only}
    folder = Path(_download(at, repository, revision, pins, force_download=force_download, **options))
    if folder.is_dir():
        _refuse_partial(at, repository, folder, pins or WHOLE, cache_dir)
    _check(at, folder, pins)
    if pins is None and not any(folder.glob("*.safetensors")):
        _refuse_pickles(at, repository, revision, token, local_files_only)
    if not folder.is_dir():
        raise WeightsError(
            f"{at} contains no model: neither config.json nor safetensors; it may be in the middle of a publication"
        )
    return folder


def digest(path: Path, kind: str = "sha256") -> str:
    """Digest of a file: ``sha256``, or ``git``: the SHA-1 with a header by which git names its content."""
    if kind == "sha256":
        return sha256_of(path)
    data = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def announced(path: Path) -> str | None:
    """The digest that the Hub announced for a file of the cache, which names its blob; None if it has none."""
    named = path.resolve().name
    return named if re.fullmatch(r"[0-9a-f]{64}|[0-9a-f]{40}", named) else None


def is_fetched(name: str) -> bool:
    """Whether a file is one of ``FILES``."""
    return any(fnmatch(name, pattern) for pattern in FILES)


def _refuse_partial(
    at: str, repository: str, folder: Path, patterns: Iterable[str], cache_dir: str | os.PathLike | None
) -> None:
    """Refuse a copy without some files if the Hub has never listed its files: another program may have fetched a few.

    If it has, huggingface_hub has compared the copy with the listing.
    """
    from huggingface_hub import errors, get_cached_repo_tree

    try:
        get_cached_repo_tree(repository, revision=folder.name, cache_dir=None if cache_dir is None else Path(cache_dir))
    except errors.CachedRepoTreeNotFoundError:
        if not all(any(folder.glob(pattern)) for pattern in patterns):
            raise UnknownModelError(at + _INCOMPLETE) from None


def _check(at: str, folder: Path, pins: Mapping[str, str] | None) -> None:
    found = list(_problems(folder, pins)) or list(problems(folder))
    if not found:
        return
    name, problem = found[0]
    try:
        for one, _ in found:
            (folder / one).resolve().unlink(missing_ok=True)
    except OSError as error:
        raise WeightsError(
            f"{at}: {name} {problem}. Nothing was loaded; {(folder / name).resolve()} cannot be removed "
            f"({error.strerror}): remove it yourself, or {_CACHE}"
        ) from error
    shutil.rmtree(folder, ignore_errors=True)  # only links: the undamaged blobs stay for the next attempt
    again = "" if problem.endswith(("again", "model", "models", "yourself")) else "; fetch it again"
    raise WeightsError(f"{at}: {name} {problem}. Nothing was loaded and nothing of it kept{again}")


def _problems(folder: Path, pins: Mapping[str, str] | None) -> Iterator[tuple[str, str]]:
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        pin = (pins or {}).get(path.name)
        if not path.is_file() or not (pin or is_fetched(path.name)):
            continue
        if pins is not None and pin is None:
            yield path.name, "is not one of the pinned files"
            continue
        named = announced(path) or ""
        if len(named) == 64 and (found := digest(path)) != named:
            yield path.name, f"is damaged: its SHA-256 is {found}, the Hub announced {named}"
        elif len(named) == 40 and (found := digest(path, "git")) != named:
            yield path.name, f"is damaged: its git SHA-1 is {found}, the Hub announced {named}"
        elif pin and (found := digest(path)) != pin:
            yield path.name, f"is not the pinned file: its SHA-256 is {found}, not {pin}"
    for name in pins or ():
        if not (folder / name).is_file():
            yield name, "is pinned but is not in the repository"


def _download(at: str, repository: str, revision: str | None, pins: Mapping[str, str] | None, **options: Any) -> str:
    from huggingface_hub import constants, errors, snapshot_download

    if options["cache_dir"] is not None:
        options["cache_dir"] = os.fspath(options["cache_dir"])
    elif constants.HF_HUB_CACHE.startswith("~"):  # there is no home folder, and the library did not expand it
        home("HF_HOME")
    cache = Path(options["cache_dir"] or constants.HF_HUB_CACHE)
    patterns = list(pins) if pins else FILES
    if not options["local_files_only"] and not constants.HF_HUB_OFFLINE:
        _refuse_sizes(at, repository, revision, patterns, cache, options["token"])
    try:
        return snapshot_download(
            repository, revision=revision, allow_patterns=patterns, ignore_patterns=["*/*"], **options
        )
    except errors.GatedRepoError:
        raise UnknownModelError(f"{at} is gated: accept its terms on the Hub, then log in: `hf auth login`") from None
    except errors.RevisionNotFoundError:
        raise UnknownModelError(f"{at}: there is no such branch, tag or commit") from None
    except errors.RepositoryNotFoundError:
        raise UnknownModelError(
            f"{at} does not exist, or is private and needs a token; there is no local folder {repository} either"
        ) from None
    except errors.IncompleteSnapshotError:
        raise UnknownModelError(at + _INCOMPLETE) from None
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled):
        raise UnknownModelError(
            f"{at}: there is no such local folder, and the Hub repository is neither in the cache nor reachable: "
            "connect to the Hub, check HF_ENDPOINT, or give the path of a folder"
        ) from None
    except errors.HFValidationError as error:
        raise UnknownModelError(f"{at}: {error}") from None
    except Exception as error:  # httpx's, the Hub's and the system's errors have no base of their own
        reason = " ".join(str(error).split())[:200]
        if is_full(error):
            raise WeightsError(
                f"{at}: {cache} is full ({reason}). Nothing was loaded; free some space, or {_CACHE}"
            ) from None
        if getattr(error, "errno", None) in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise WeightsError(f"{at}: {cache} is not writable ({reason}). Nothing was loaded; {_CACHE}") from None
        raise UnknownModelError(f"{at} could not be fetched ({reason}); try again") from error


def _refuse_sizes(
    at: str, repository: str, revision: str | None, patterns: list[str], cache: Path, token: str | bool | None
) -> None:
    """Refuse files that are too large to read or do not fit on the disk, before they are downloaded."""
    from huggingface_hub import HfApi
    from huggingface_hub.file_download import repo_folder_name

    try:  # one request: a listing of the tree would retry many times without a network
        api = HfApi(token=token, library_name="ashnets")
        files = api.model_info(repository, revision=revision, files_metadata=True).siblings or []
    except Exception:  # the download that follows fails in the same way, with our message
        return
    blobs = cache / repo_folder_name(repo_id=repository, repo_type="model") / "blobs"
    missing = 0
    for one in files:
        path, size = one.rfilename, one.size or 0
        if "/" in path or not any(fnmatch(path, pattern) for pattern in patterns):
            continue
        if size > LARGEST_JSON and not path.endswith(".safetensors"):
            raise WeightsError(
                f"{at}: {path} has {size:,} bytes; at most {LARGEST_JSON:,} are read. Nothing was fetched; "
                "ask its authors"
            )
        if not (blobs / str(one.lfs.sha256 if one.lfs else one.blob_id)).exists():
            missing += size
    there = next(place for place in (blobs, *blobs.parents) if place.is_dir())
    if missing > (free := shutil.disk_usage(there).free):
        raise WeightsError(
            f"{at}: the download needs {missing / 1e9:,.2f} GB, and {there} has {free / 1e9:,.2f} GB free. Nothing was "
            f"fetched; free some space, or {_CACHE}"
        )


def _refuse_pickles(
    at: str, repository: str, revision: str | None, token: str | bool | None, local_files_only: bool
) -> None:
    """Raise an error that names the pickles in a repository without safetensors, if the Hub can be reached."""
    from huggingface_hub import HfApi, constants

    if local_files_only or constants.HF_HUB_OFFLINE:
        return
    names = HfApi(token=token).list_repo_files(repository, revision=revision)
    pickles = sorted(name for name in names if Path(name).suffix in PICKLES)
    if pickles:
        raise WeightsError(
            f"{at} contains {', '.join(pickles)} but no .safetensors: pickled weights can run code and are never "
            "fetched; ask its authors for a safetensors copy"
        )
