"""What a shell is offered for an argument: names, without loading anything that a name stands for."""

from __future__ import annotations

TASKS = ("vqa", "retrieval", "nlvr2", "ve")


def models(incomplete: str) -> list[str]:
    """Names of the registry."""
    from ashnets.zoo.registry import list_models

    return _beginning(list_models(), incomplete)


def recipes(incomplete: str) -> list[str]:
    """Names of the bundled recipes."""
    from ashnets.zoo.registry import ROOT

    return _beginning(sorted(path.stem for path in (ROOT / "recipes").glob("*.yaml")), incomplete)


def tasks(incomplete: str) -> list[str]:
    """Names of the tasks."""
    return _beginning(TASKS, incomplete)


def models_then_tasks(incomplete: str) -> list[str]:
    """What may follow one of several models: another one, or the task."""
    return [*models(incomplete), *tasks(incomplete)]


def _beginning(names: list[str] | tuple[str, ...], incomplete: str) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]
