"""Whether what a name stands for is what it should be: digests, strict loading, processor."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ashnets.files import PICKLES
from ashnets.hub.checks import check_model, model_folder, warnings_of
from ashnets.hub.fetching import digest
from ashnets.hub.resolving import locate


def verify(name: str | os.PathLike, **options: Any) -> dict[str, Any]:
    """Find, check and load a model, and say what was compared with what.

        ashnets.verify("ashnets-tiny")["passed"]

    Args:
        name, options: as for :func:`ashnets.hub.resolve`; also the folder of a finished run, whose ``model/`` is meant.

    Returns:
        ``folder``, ``origin`` (``package``, ``hub`` or ``folder``), ``repository`` and ``commit`` if there are any,
        ``files`` (name → SHA-256, and what it was compared with), ``checks``, ``passed``, and ``warnings``, where there
        are any.

    Raises:
        UnknownModelError, WeightsError: as ``resolve``; a file that is not what it should be is an error, not a result.
    """
    located = locate(name, **options)
    folder, _ = model_folder(Path(located.folder))
    compared = {
        "package": "pinned by the registry",
        "hub": "announced by the Hub",
        "folder": "nothing: a folder has no pins",
    }[located.origin]
    files = {
        path.name: {
            "sha256": digest(path),
            "compared_with": "pinned by the registry" if path.name in located.pins else compared,
        }
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
