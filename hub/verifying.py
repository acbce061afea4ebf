"""Verify a model: digests, strict loading, processor."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ashnets.files import PICKLES, JsonObject
from ashnets.hub.checks import check_model, model_folder, warnings_of
from ashnets.hub.fetching import announced, digest, is_fetched
from ashnets.hub.resolving import Located, locate


def verify(name: str | os.PathLike, **options: Any) -> JsonObject:
    """Find, check and load a model, and report what each file was compared with.

        ashnets.verify("ashnets-tiny")["passed"]

    Args:
        name, options: as for :func:`ashnets.hub.resolve`; or a finished run, whose ``model/`` is verified.

    Returns:
        ``folder``, ``origin`` (``package``, ``hub`` or ``folder``), ``repository`` and ``commit`` if there are any,
        ``files`` (name → SHA-256, and what it was compared with), ``checks``, ``passed``, and ``warnings`` if there are
        any.

    Raises:
        UnknownModelError, WeightsError: as ``resolve``; a damaged or different file is an error, not a result.
    """
    located = locate(name, **options)
    folder, _ = model_folder(Path(located.folder))
    files = {
        path.name: {"sha256": digest(path), "compared_with": _compared_with(path, located)}
        for path in sorted(folder.iterdir())
        if path.is_file() and path.suffix not in PICKLES
    }
    checks = check_model(folder)
    return {
        "name": os.fspath(name),
        "origin": located.origin,
        "folder": str(folder),
        "repository": located.repository,
        "commit": folder.name if located.origin == "hub" else None,
        "files": files,
        "checks": [check.to_dict() for check in checks],
        "passed": all(check.passed for check in checks),
        **warnings_of(checks),
    }


def _compared_with(path: Path, located: Located) -> str:
    if path.name in located.pins:
        return "pinned by the registry"
    if located.origin == "hub" and is_fetched(path.name) and announced(path):
        return "announced by the Hub"
    return "nothing: a local folder has no pins" if located.origin == "folder" else "nothing"
