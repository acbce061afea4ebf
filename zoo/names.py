"""The names of models.

    ashnets-ARCHITECTURE[-l3][-SUFFIX][.TAG][@REVISION]

``ARCHITECTURE`` is a file in ``architectures/``. ``-l3`` is the form of the ablations, with 3 transformer layers. At
most one further suffix changes one decision: the number of steps (Table X), the summary ratio (Table XI) or the
collector (Table XIV). A tag names trained weights; a name without a tag means the default weights. A revision is a
branch, tag or commit of the Hub repository of the weights. A model has exactly one name: T = 10 is the default and has
no suffix, and the order of suffixes is fixed.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import NamedTuple

from ashnets.errors import UnknownModelError
from ashnets.files import JsonObject

FORMS: dict[str, JsonObject] = {"l3": {"num_hidden_layers": 3}}
SUFFIXES: dict[str, JsonObject] = {
    "t1": {"time_steps": 1},
    "t5": {"time_steps": 5},
    "t20": {"time_steps": 20},
    "ann": {"summary_ratio": "ann"},
    "fixed": {"summary_ratio": "fixed"},
    "snn": {"summary_ratio": "snn"},
    "nocollector": {"collector": False},
}
_ORDER = [*FORMS, *SUFFIXES]
_SILENT = {"t10", "l12", "trainable"}  # suffixes that people write for the defaults


class Name(NamedTuple):
    """The three parts of a name; see :func:`split`."""

    model: str
    tag: str | None
    revision: str | None


def split(name: str) -> Name:
    """Split ``model[.tag][@revision]`` into its parts, without a look-up."""
    rest, at, revision = str(name).partition("@")
    model, dot, tag = rest.partition(".")
    return Name(model, tag if dot else None, revision if at else None)


def compose(architecture: str, forms: Iterable[str]) -> dict[str, JsonObject]:
    """Every name of an architecture → the configuration changes of its suffixes."""
    names = {}
    for form in ("", *forms):
        for suffix in ("", *SUFFIXES):
            parts = [architecture, *filter(None, (form, suffix))]
            names["-".join(parts)] = {**FORMS.get(form, {}), **SUFFIXES.get(suffix, {})}
    return names


def unknown(name: str, known: Iterable[str]) -> UnknownModelError:
    """The error for an unknown name, with the nearest known ones."""
    known = list(known)
    near = _canonical(name, known) or difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.6)
    hint = f"did you mean {' or '.join(near)}?" if near else "`ashnets list` or ashnets.list_models() shows the names"
    return UnknownModelError(f"no model is named {name!r}; {hint}")


def _canonical(name: str, known: list[str]) -> list[str]:
    """The known name with the same suffixes in another order or case."""
    words = name.lower().replace("_", "-").split("-")
    rest = [word for word in words if word not in _ORDER and word not in _SILENT]
    suffixes = sorted((word for word in set(words) if word in _ORDER), key=_ORDER.index)
    candidate = "-".join([*rest, *suffixes])
    return [candidate] if candidate in known else []
