"""Licenses as the Hub names them (``licenses.yaml``), and ``other:NAME`` for any other license."""

from __future__ import annotations

from functools import cache
from importlib import resources
from pathlib import Path

import yaml

from ashnets.errors import did_you_mean

OWN = "other:"


@cache
def hub_licenses() -> tuple[str, ...]:
    """The identifiers that the Hub accepts."""
    return tuple(yaml.safe_load((resources.files("ashnets.hub") / "licenses.yaml").read_text(encoding="utf-8")))


def license_fields(license: str) -> dict[str, str]:
    """``license`` and, for a license that the Hub does not list, ``license_name`` of a card's metadata."""
    name = license.lower()
    if name in hub_licenses() and name != "other":
        return {"license": name}
    return {"license": "other", "license_name": name.removeprefix(OWN).strip().replace(" ", "-")}


def license_problem(license: str | None, folder: Path, pinned: bool = False) -> str | None:
    """The problem with a license; None for a valid one.

    Args:
        folder: of the model; it must contain the text of a license that the Hub does not list.
        pinned: whether no file may be added to the folder: weights of the package and of the Hub are loaded only if
            their folder has exactly their files.
    """
    if not license:
        return "not given: set --license"
    name = license.lower()
    if name.startswith(OWN) and name.removeprefix(OWN).strip():
        return None if any(folder.glob("LICENSE*")) else f"{license}: {_put_text(folder, pinned)}"
    if name in hub_licenses() and name != "other":
        return None
    other = f"For another license, write {OWN}NAME and {_put_text(folder, pinned)}"
    return f"{license!r} is not a license of the Hub.{did_you_mean(name, hub_licenses())} {other}"


def _put_text(folder: Path, pinned: bool) -> str:
    if pinned:
        return (
            f"publish a copy: copy {folder} to a folder of your own, put the text of the license into its file LICENSE"
        )
    return f"put its text into {folder / 'LICENSE'}"
