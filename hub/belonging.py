"""What a card may tell of a model: results, energy and exported graphs whose digest is that of the model's weights.

``ashnets evaluate``, ``ashnets energy`` and ``ashnets export`` write the digest (`ashnets.digests`) beside their
numbers. A file of other weights, or one that does not say of which, is refused.
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
    """The rows of a results file that are of the weights in ``folder``.

    Raises:
        ConfigurationError: no such file, or none of its rows is.
    """
    again = command("evaluate", folder, "TASK", "DATA", "--output", file)
    if not file.is_file():
        raise ConfigurationError(f"there is no results file {file}; `{again}` writes one")
    rows = read_csv(file)
    if not rows or "model" not in rows[0]:
        raise ConfigurationError(f"{file} is no results file: it has no column 'model'; `{again}` writes one")
    own = [row for row in rows if digest and row.get(WEIGHTS_SHA256) == digest]
    if not own:
        raise _stranger(file, (row.get(WEIGHTS_SHA256) for row in rows), folder, digest, again)
    return own


def own_energy(file: Path, folder: Path, digest: str | None) -> list[EnergyRow]:
    """The estimates of an energy report, which must be of the weights in ``folder``.

    Raises:
        ConfigurationError: no such report, or one of other weights.
    """
    rows = read_energy(file)
    if not digest or any(row.weights_sha256 != digest for row in rows):
        again = command("energy", folder, "--output", file.parent)
        raise _stranger(file, (row.weights_sha256 for row in rows), folder, digest, again)
    return rows


def own_exports(exports: Path, folder: Path, digest: str | None) -> dict[str, Path | bytes]:
    """Path in the repository → file, for all files below ``exports``.

    Each must lie beside the ``report.json`` of an export of these weights, which tells what was exported.

    Raises:
        ConfigurationError: no exports, or such of other weights.
        WeightsError: a file that may run code, or is not the one that was exported.
    """
    paths = sorted(path for path in exports.rglob("*") if path.is_file() and not path.name.startswith("."))
    if not paths:
        raise ConfigurationError(f"{exports} holds no exported graphs; `{_export(folder, exports)}` writes some")
    if dangerous := [path for path in paths if is_pickle(path)]:
        raise WeightsError(f"{dangerous[0]} may run code when it is opened: it is a pickle or an archive; remove it")
    for place in dict.fromkeys(path.parent for path in paths):
        _check_export(place, [path for path in paths if path.parent == place], folder, digest)
    return {f"exports/{path.relative_to(exports).as_posix()}": path for path in paths}


def _check_export(place: Path, files: Sequence[Path], folder: Path, digest: str | None) -> None:
    report, again = place / REPORT, _export(folder, place)
    try:
        told = json.loads(report.read_text(encoding="utf-8"))
        known = {name: one["sha256"] for name, one in told["files"].items()}
        found = told.get(WEIGHTS_SHA256)
    except OSError as error:
        raise ConfigurationError(
            f"{report} cannot be read ({error.strerror}), so {files[0]} is of unknown weights; `{again}` writes both"
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ConfigurationError(f"{report} is no report of an export; `{again}` writes one") from None
    if not digest or found != digest:
        raise _stranger(report, [found], folder, digest, again)
    for file in files:
        if file.name != REPORT and sha256_of(file) != known.get(file.name):
            raise WeightsError(f"{file} is not what was exported, by {REPORT} beside it; remove it, or `{again}`")


def _export(folder: Path, place: Path) -> str:
    return command("export", folder, "--to", "FORMAT", "--output", place)


def _stranger(
    file: Path, found: Iterable[str | None], folder: Path, digest: str | None, again: str
) -> ConfigurationError:
    others = ", ".join(sorted({one for one in found if one}))
    told = f"of weights with the SHA-256 {others}" if others else "without the SHA-256 of the weights"
    return ConfigurationError(
        f"{file} holds numbers {told}, and those in {folder} have {digest}: they do not belong to this model's card; "
        f"leave the file out, or make it again: `{again}`"
    )
