"""A repository of the Hub to a folder in the cache, every file compared with a digest before it is used.

Neither huggingface_hub nor safetensors notices a flipped bit in a file of the right length. The cache names each blob
by the digest that the Hub announced: SHA-256 for large files, git's SHA-1 for small ones. So every file can be checked,
at each load and offline too; the pins of the registry are checked beside it. (Where the system has no links, the cache
keeps no digests, and pins alone are checked.) What is whole is then read by :mod:`ashnets.hub.inspecting`.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from ashnets.digests import sha256_of
from ashnets.errors import UnknownModelError, WeightsError
from ashnets.files import PICKLES, home, is_full
from ashnets.hub.inspecting import LARGEST_JSON, problems

# What a model needs, and nothing that runs code when it is opened; recipe and log are read by people.
FILES = ["*.safetensors", "*.json", "vocab.txt"]
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
    """Download what is not in the cache yet, check all of it, and return the folder.

    Args:
        repository: ``org/repo``.
        revision: branch, tag or commit.
        pins: file name → SHA-256. Then these files alone are fetched, and each must have its pin.
        token, cache_dir, local_files_only, force_download: as in huggingface_hub.

    Raises:
        UnknownModelError: no such repository or revision, no right to see it, or neither network nor a whole copy.
        WeightsError: a file that is missing, damaged, not the pinned one or hostile, pickles alone, or no room on the
            disk. Nothing is kept of it.
    """
    at = repository + (f" at {revision!r}" if revision else "")
    options = {"token": token, "cache_dir": cache_dir, "local_files_only": local_files_only}
    folder = Path(_download(at, repository, revision, pins, force_download=force_download, **options))
    _check(at, folder, pins)
    if pins is None and not any(folder.glob("*.safetensors")):
        _refuse_pickles(at, repository, revision, token, local_files_only)
    if not folder.is_dir():
        raise WeightsError(f"{at} holds no model: neither config.json nor safetensors; a publication may be under way")
    return folder


def digest(path: Path, kind: str = "sha256") -> str:
    """Of a file: ``sha256``, or ``git``'s name of its content (SHA-1 with a header)."""
    if kind == "sha256":
        return sha256_of(path)
    data = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


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
    shutil.rmtree(folder, ignore_errors=True)  # links alone: blobs that are whole serve the next attempt
    again = "" if problem.endswith(("again", "model", "models", "yourself")) else "; fetch it again"
    raise WeightsError(f"{at}: {name} {problem}. Nothing was loaded and nothing of it kept{again}")


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


def _download(at: str, repository: str, revision: str | None, pins: Mapping[str, str] | None, **options: Any) -> str:
    from huggingface_hub import constants, errors, snapshot_download

    if options["cache_dir"] is not None:
        options["cache_dir"] = os.fspath(options["cache_dir"])
    elif constants.HF_HUB_CACHE.startswith("~"):  # where there is no home folder, the library leaves it at that
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
        if is_full(error):
            raise WeightsError(
                f"{at}: {cache} takes no more ({reason}). Nothing was loaded; make room, or {_CACHE}"
            ) from None
        if getattr(error, "errno", None) in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise WeightsError(f"{at}: {cache} cannot be written ({reason}). Nothing was loaded; {_CACHE}") from None
        raise UnknownModelError(f"{at} could not be fetched ({reason}); try again") from error


def _refuse_sizes(
    at: str, repository: str, revision: str | None, patterns: list[str], cache: Path, token: str | bool | None
) -> None:
    """Refuse what cannot be read or has no room, before any of it is sent."""
    from huggingface_hub import HfApi
    from huggingface_hub.file_download import repo_folder_name

    try:  # asked once: a listing of the tree would be asked for again and again where there is no network
        api = HfApi(token=token, library_name="ashnets")
        files = api.model_info(repository, revision=revision, files_metadata=True).siblings or []
    except Exception:  # whatever it is, the download that follows meets it too, and says it in our words
        return
    blobs = cache / repo_folder_name(repo_id=repository, repo_type="model") / "blobs"
    missing = 0
    for one in files:
        path, size = one.rfilename, one.size or 0
        if "/" in path or not any(fnmatch(path, pattern) for pattern in patterns):
            continue
        if size > LARGEST_JSON and not path.endswith(".safetensors"):
            raise WeightsError(
                f"{at}: {path} has {size:,} bytes, more than the {LARGEST_JSON:,} that are read. Nothing was "
                "fetched; ask its authors"
            )
        if not (blobs / str(one.lfs.sha256 if one.lfs else one.blob_id)).exists():
            missing += size
    there = next(place for place in (blobs, *blobs.parents) if place.is_dir())
    if missing > (free := shutil.disk_usage(there).free):
        raise WeightsError(
            f"{at}: {missing / 1e9:,.2f} GB are to be fetched, and {there} has {free / 1e9:,.2f} GB free. Nothing was "
            f"fetched; make room, or {_CACHE}"
        )


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
