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
        name: see :func:`resolve`; with ``weights=None`` a registry name or a folder.
        task: ``base``, ``pretraining``, ``retrieval``, ``vqa``, ``nlvr2`` or ``ve``; by default the class that the
            checkpoint was saved from.
        kwargs: as for ``AshNetsModel.from_pretrained``, such as ``device`` and ``dtype``; ``weights=None`` builds
            random weights.

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
    check_folder(Path(folder), kwargs.get("variant"))
    if task is not None:
        check_task(name, Path(folder), task)
        return head_class(task).from_pretrained(folder, **kwargs)
    saved = saved_class(Path(folder))
    for cls in HEADS.values():
        if cls.__name__ == saved:
            return cls.from_pretrained(folder, **kwargs)
    raise WeightsError(
        f"{folder}/config.json names the class {saved!r}, which ashnets does not have "
        f"({', '.join(cls.__name__ for cls in HEADS.values())}); give a task"
    )


def saved_class(folder: Path) -> str:
    """The name of the class that a folder's weights were saved from. Raises ConfigurationError as ``config_of``."""
    return (config_of(folder).architectures or ["AshNetsModel"])[0]


def check_task(name: str | os.PathLike, folder: Path, task: str) -> None:
    """Check, before any weights are read, that they have the head of a task.

    Args:
        name: what the caller calls the model; ``folder`` is where it is.

    Raises:
        WeightsError: they were saved from a class that lacks it; the message says what to do.
        ConfigurationError: an unknown task, or as ``config_of``.
    """
    wanted, saved = head_class(task), saved_class(folder)
    known = {cls.__name__: cls for cls in HEADS.values()}
    if saved not in known or task == "base" or issubclass(known[saved], wanted):
        return
    remedy = (
        f"Fine-tune it (`ashnets finetune {task}`, ashnets.finetune)"
        if task in ("vqa", "nlvr2", "ve", "retrieval")
        else "Train it (`ashnets train`, ashnets.train)"
    )
    raise WeightsError(
        f"the weights of {os.fspath(name)} lack the task {task!r}: they were saved from {saved}, which has no head for "
        f"it. {remedy}, give a model that was saved from {wanted.__name__}, or build one with random weights "
        "(weights=None)"
    )
