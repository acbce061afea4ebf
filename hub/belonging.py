"""Results, energy and exported graphs that belong to a model: those that carry the digest of its weights.

``ashnets evaluate``, ``ashnets energy`` and ``ashnets export`` write the digest (`ashnets.digests`) next to their
numbers. A card refuses a file of other weights, or one without a digest.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from ashnets.digests import WEIGHTS_SHA256, sha256_of
from ashnets.errors import ConfigurationError, WeightsError
from ashnets.files import read_csv
from ashnets.hub.checks import is_pickle
from ashnets.words import command
from ashnets.zoo.numbers import EnergyRow, read_energy

REPORT = "report.json"  # of an export


def own_results(file: Path, folder: Path, digest: str | None) -> list[dict[str, str]]:
    """The rows of a results file that belong to the weights in ``folder``.

    Raises:
        ConfigurationError: no such file, or none of its rows belongs to them.
    """
    again = command("evaluate", folder, "TASK", "DATA", "--output", file)
    if not file.is_file():
        raise ConfigurationError(f"there is no results file {file}; `{again}` writes one")
    rows = read_csv(file)
    if not rows or "model" not in rows[0]:
        raise ConfigurationError(f"{file} is not a results file: it has no column 'model'; `{again}` writes one")
    own = [row for row in rows if digest and row.get(WEIGHTS_SHA256) == digest]
    if not own:
        raise _stranger(file, (row.get(WEIGHTS_SHA256) for row in rows), folder, digest, again)
    return own


def own_energy(file: Path, folder: Path, digest: str | None) -> list[EnergyRow]:
    """The estimates of an energy report, which must belong to the weights in ``folder``.

    Raises:
        ConfigurationError: no such report, or a report of other weights.
    """
    rows = read_energy(file)
    if not digest or any(row.weights_sha256 != digest for row in rows):
        again = command("energy", folder, "--output", file.parent)
        raise _stranger(file, (row.weights_sha256 for row in rows), folder, digest, again)
    return rows


def own_exports(exports: Path, folder: Path, digest: str | None) -> dict[str, Path | bytes]:
    """Path in the repository → file, for all files below ``exports``.

    Each must be in a folder with the ``report.json`` of an export of these weights, which lists the exported files.

    Raises:
        ConfigurationError: no exports, or exports of other weights.
        WeightsError: a file that may run code, or differs from the exported one.
    """
    paths = sorted(path for path in exports.rglob("*") if path.is_file() and not path.name.startswith("."))
    if not paths:
        raise ConfigurationError(f"{exports} contains no exported graphs; `{_export(folder, exports)}` writes some")
    if dangerous := [path for path in paths if is_pickle(path)]:
        raise WeightsError(f"{dangerous[0]} may run code when it is opened: it is a pickle or an archive; remove it")
    for place in dict.fromkeys(path.parent for path in paths):
        _check_export(place, [path for path in paths if path.parent == place], folder, digest)
    return {f"exports/{path.relative_to(exports).as_posix()}": path for path in paths}


def _check_export(place: Path, files: Sequence[Path], folder: Path, digest: str | None) -> None:
    report, again = place / REPORT, _export(folder, place)
    try:
        written = json.loads(report.read_text(encoding="utf-8"))
        known = {name: one["sha256"] for name, one in written["files"].items()}
        found = written.get(WEIGHTS_SHA256)
    except OSError as error:
        raise ConfigurationError(
            f"{report} cannot be read ({error.strerror}), so the weights of {files[0]} are unknown; "
            f"`{again}` writes both"
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ConfigurationError(f"{report} is not the report of an export; `{again}` writes one") from None
    if not digest or found != digest:
        raise _stranger(report, [found], folder, digest, again)
    for file in files:
        if file.name != REPORT and sha256_of(file) != known.get(file.name):
            raise WeightsError(f"{file} is not the exported file that {REPORT} lists; remove it, or run `{again}`")


def _export(folder: Path, place: Path) -> str:
    return command("export", folder, "--to", "FORMAT", "--output", place)


def _stranger(
    file: Path, found: Iterable[str | None], folder: Path, digest: str | None, again: str
) -> ConfigurationError:
    others = ", ".join(sorted({one for one in found if one}))
    digests = f"of weights with the SHA-256 {others}" if others else "without the SHA-256 of the weights"
    return ConfigurationError(
        f"{file} contains numbers {digests}, but the weights in {folder} have {digest}: they do not belong to this "
        f"model's card; leave the file out, or make it again: `{again}`"
    )
