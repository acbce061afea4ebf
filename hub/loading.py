"""Load a model by name, in the class that its configuration names."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ashnets.errors import ConfigurationError, WeightsError
from ashnets.hub.resolving import resolve
from ashnets.model import HEADS, head_class
from ashnets.model.pretrained import HUB_OPTIONS, check_folder
from ashnets.zoo.registry import config_of


def from_pretrained(name: str | os.PathLike, task: str | None = None, **kwargs: Any) -> Any:
    """Load a model by registry name, folder, or Hub repository.

        ashnets.from_pretrained("ashnets-tiny", task="retrieval")

    Args:
        name: see :func:`resolve`.
        task: ``base``, ``pretraining``, ``retrieval``, ``vqa``, ``nlvr2`` or ``ve``; by default the class that the
            checkpoint was saved from.
        kwargs: as for ``AshNetsModel.from_pretrained``; ``weights=None`` builds random weights.

    Returns:
        The model in evaluation mode.

    Raises:
        UnknownModelError, WeightsError, ConfigurationError: as ``resolve`` and ``AshNetsModel.from_pretrained``.
    """
    if kwargs.get("weights", "pretrained") not in ("pretrained", None):
        raise ConfigurationError(f"weights={kwargs['weights']!r}: give 'pretrained', or None for random weights")
    if "weights" in kwargs and kwargs["weights"] is None:
        return head_class(task or "base").from_pretrained(name, **kwargs)
    folder = resolve(name, **{key: kwargs.pop(key) for key in HUB_OPTIONS if key in kwargs})
    if task is not None:
        return head_class(task).from_pretrained(folder, **kwargs)
    check_folder(Path(folder), kwargs.get("variant"))
    saved = (config_of(Path(folder)).architectures or ["AshNetsModel"])[0]
    for cls in HEADS.values():
        if cls.__name__ == saved:
            return cls.from_pretrained(folder, **kwargs)
    raise WeightsError(
        f"{folder}/config.json names the class {saved!r}, which ashnets does not have "
        f"({', '.join(cls.__name__ for cls in HEADS.values())}); give a task"
    )
