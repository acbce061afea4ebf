"""A package of Debian: fetched from Debian's archive, checked against a pinned sha256, read without unpacking."""

from __future__ import annotations

import http.client
import io
import lzma
import os
import tarfile
import tempfile
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ashnets.digests import sha256_of
from ashnets.errors import DataError

_ARCHIVES = ("https://deb.debian.org/debian", "https://snapshot.debian.org/archive/debian/20250520T000000Z")
_TIMEOUT_S = 60
_MAX_PACKAGE_BYTES = 256 * 2**20
_MAX_MEMBER_BYTES = 16 * 2**20
_AR, _AR_ENTRY = b"!<arch>\n", 60


@dataclass(frozen=True)
class DebianPackage:
    """One pinned package; ``pool`` is its folder in Debian's archive."""

    name: str
    version: str
    sha256: str
    license: str
    attribution: str
    pool: str

    @property
    def file(self) -> str:
        return f"{self.name}_{self.version}_all.deb"


def fetch_deb(package: DebianPackage, cache: Path, archives: tuple[str, ...] = _ARCHIVES) -> Path:
    """Return the package's file in ``cache``; it is downloaded when it is missing or damaged.

    Raises DataError when no archive gives it, or its sha256 differs from the pinned one.
    """
    target = cache / package.file
    if target.is_file() and sha256_of(target) == package.sha256:
        return target
    cache.mkdir(parents=True, exist_ok=True)
    reasons = []
    for archive in archives:
        address = f"{archive}/{package.pool}/{package.file}"
        try:
            with urllib.request.urlopen(address, timeout=_TIMEOUT_S) as answer:
                data = answer.read(_MAX_PACKAGE_BYTES)
        except (OSError, ValueError, http.client.HTTPException) as error:
            reasons.append(f"{address}: {error}")
            continue
        with tempfile.TemporaryDirectory(dir=cache, prefix=".fetch-") as aside:
            fetched = Path(aside) / package.file
            fetched.write_bytes(data)
            if (found := sha256_of(fetched)) == package.sha256:
                os.replace(fetched, target)
                return target
        reasons.append(f"{address} has sha256 {found}, pinned is {package.sha256}")
    raise DataError(
        f"{package.file} could not be fetched: {' | '.join(reasons)}. Check the connection, or put the file into the "
        f"cache {cache}."
    )


def read_deb(path: Path, wanted: Callable[[str], bool]) -> dict[str, bytes]:
    """Contents of the regular files that ``wanted`` accepts, by their path (``usr/share/…``); nothing is unpacked.

    Links are skipped. Raises DataError for a damaged file, and for an unreasonably large member.
    """
    contents: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(_data_tar(path)), mode="r:xz") as archive:
            for member in archive:
                inner = member.name.removeprefix("./")
                if not member.isfile() or not wanted(inner):
                    continue
                if member.size > _MAX_MEMBER_BYTES:
                    raise DataError(f"{path}: member {inner!r} has {member.size} bytes, more than expected.")
                stream = archive.extractfile(member)
                assert stream is not None  # a regular file always has one
                contents[inner] = stream.read()
    except (tarfile.TarError, lzma.LZMAError, EOFError, OSError) as error:
        raise DataError(f"{path}: the package is damaged ({error}). Delete it and build again.") from None
    return contents


def _data_tar(path: Path) -> bytes:
    """The member ``data.tar.xz`` of the ar archive that a .deb is: 60-byte entries, even offsets (man 5 ar)."""
    data = path.read_bytes()
    at = len(_AR)
    while data.startswith(_AR) and at + _AR_ENTRY <= len(data):
        entry = data[at : at + _AR_ENTRY]
        size = entry[48:58].strip()
        if not size.isdigit():
            break
        at += _AR_ENTRY
        if entry[:16].rstrip(b" /") == b"data.tar.xz":
            return data[at : at + int(size)]
        at += int(size) + int(size) % 2
    raise DataError(f"{path}: the package is damaged (no data.tar.xz in it). Delete it and build again.")
