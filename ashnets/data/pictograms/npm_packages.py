"""Packages of the npm registry: fetched by npm itself, checked against a pinned sha256, read without unpacking.

Members are read into memory; nothing is unpacked to disk.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tarfile
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ashnets.digests import sha256_of
from ashnets.errors import DataError
from ashnets.files import cache_folder

_NPM_TIMEOUT_S = 900
_MAX_MEMBER_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Package:
    """One pinned package: its license is that of the drawings we use, which can differ from the package's own field."""

    name: str
    version: str
    sha256: str
    license: str
    attribution: str

    @property
    def spec(self) -> str:
        return f"{self.name}@{self.version}"

    @property
    def tarball(self) -> str:
        """The file name that ``npm pack`` gives: ``@scope/name`` becomes ``scope-name``."""
        return f"{self.name.removeprefix('@').replace('/', '-')}-{self.version}.tgz"


def default_cache() -> Path:
    """Where tarballs are kept between builds."""
    return cache_folder("npm")


def fetch(package: Package, cache: Path) -> Path:
    """Return the package's tarball in ``cache``; ``npm pack`` brings it when it is missing or damaged.

    Raises DataError when npm is missing, the registry cannot be reached, or the sha256 differs from the pinned one.
    """
    target = cache / package.tarball
    if target.is_file() and sha256_of(target) == package.sha256:
        return target
    npm = shutil.which("npm")
    if npm is None:
        raise DataError(
            f"{package.spec} is not in the cache {cache} and the command npm was not found. Install Node.js, which "
            f"includes npm, or put {package.tarball} into the cache."
        )
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix=".fetch-") as aside:
        command = [npm, "pack", package.spec, "--pack-destination", aside, "--ignore-scripts", "--loglevel", "error"]
        try:
            run = subprocess.run(
                command, cwd=aside, capture_output=True, text=True, timeout=_NPM_TIMEOUT_S, stdin=subprocess.DEVNULL
            )
        except subprocess.TimeoutExpired:
            raise DataError(
                f"npm pack {package.spec} did not end within {_NPM_TIMEOUT_S} s. Check the connection and build again: "
                "downloaded packages are kept."
            ) from None
        fetched = Path(aside) / package.tarball
        if run.returncode != 0 or not fetched.is_file():
            reason = " | ".join(line for line in run.stderr.strip().splitlines()[:4]) or f"exit status {run.returncode}"
            raise DataError(
                f"npm could not fetch {package.spec}: {reason}. Check the connection and npm's registry setting, or "
                f"put {package.tarball} into the cache {cache}."
            )
        found = sha256_of(fetched)
        if found != package.sha256:
            raise DataError(
                f"{package.spec}: the registry's tarball has sha256 {found}, pinned is {package.sha256}. It is not the "
                "package of this corpus and is not used."
            )
        os.replace(fetched, target)
    return target


def read_members(tarball: Path, wanted: Callable[[str], bool]) -> dict[str, bytes]:
    """Contents of the regular files that ``wanted`` accepts, by their path without npm's leading ``package/``.

    Links, devices and folders are skipped. Raises DataError for a path that leaves the package, an unreasonably
    large member and a damaged archive.
    """
    contents: dict[str, bytes] = {}
    try:
        with tarfile.open(tarball, "r:gz") as archive:
            for member in archive:
                path = PurePosixPath(member.name)
                if path.is_absolute() or ".." in path.parts or "\\" in member.name:
                    raise DataError(f"{tarball}: member {member.name!r} points outside the package; it is not used.")
                inner = "/".join(path.parts[1:])
                if not member.isfile() or not wanted(inner):
                    continue
                if member.size > _MAX_MEMBER_BYTES:
                    raise DataError(f"{tarball}: member {member.name!r} has {member.size} bytes, more than expected.")
                stream = archive.extractfile(member)
                assert stream is not None  # a regular file always has one
                contents[inner] = stream.read()
    except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
        raise DataError(f"{tarball}: the archive is damaged ({error}). Delete it and build again.") from None
    return contents


def read_json(tarball: Path, *names: str) -> list:
    """The named JSON members, parsed, in the order asked for."""
    contents = read_members(tarball, lambda inner: inner in names)
    missing = [name for name in names if name not in contents]
    if missing:
        raise DataError(f"{tarball}: the archive lacks {', '.join(missing)}; it is not the expected package.")
    try:
        return [json.loads(contents[name]) for name in names]
    except ValueError as error:
        raise DataError(f"{tarball}: {', '.join(names)} is not valid JSON ({error}).") from None
