"""Licences as the Hub names them: ``licences.yaml``, and ``other:NAME`` for a licence of one's own."""

from __future__ import annotations

from functools import cache
from importlib import resources
from pathlib import Path

import yaml

from ashnets.errors import did_you_mean

OWN = "other:"


@cache
def hub_licences() -> tuple[str, ...]:
    """The identifiers that the Hub takes."""
    return tuple(yaml.safe_load((resources.files("ashnets.hub") / "licences.yaml").read_text(encoding="utf-8")))


def licence_fields(licence: str) -> dict[str, str]:
    """``license`` and, for a licence that the Hub does not list, ``license_name`` of a card's metadata."""
    name = licence.lower()
    if name in hub_licences() and name != "other":
        return {"license": name}
    return {"license": "other", "license_name": name.removeprefix(OWN).strip().replace(" ", "-")}


def licence_problem(licence: str | None, folder: Path) -> str | None:
    """What is wrong with a licence; None for a good one.

    Args:
        folder: of the model, which must hold the text of a licence that the Hub does not list.
    """
    if not licence:
        return "not given: --licence says it"
    name = licence.lower()
    if name.startswith(OWN) and name.removeprefix(OWN).strip():
        return None if any(folder.glob("LICENSE*")) else f"{licence}: put its text into {folder / 'LICENSE'}"
    if name in hub_licences() and name != "other":
        return None
    own = f"a licence of your own is written {OWN}NAME, with its text in {folder / 'LICENSE'}"
    return f"{licence!r} is none of the Hub's licences.{did_you_mean(name, hub_licences())} Otherwise, {own}"
