"""Checkpoints of a run: safetensors and JSON in a folder that is complete or absent.

``step-00000120/`` contains the state after 120 optimizer steps: the tensors of each module and each optimizer, the
order of images in the current epoch, and ``state.json``. A folder without ``state.json`` is not a checkpoint. A
checkpoint is written aside and renamed; only then is an old one deleted. A complete checkpoint therefore exists at
every moment, even if the process is killed.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from ashnets.errors import TrainingError
from ashnets.files import JsonObject, write_json
from ashnets.result_folder import result_folder

WEIGHTS, OPTIMIZERS, ORDER, STATE = "model.safetensors", "optimizers.safetensors", "order.safetensors", "state.json"
KEPT = 2  # the newest, and the one before it in case the newest is damaged


def tensors_of(model: nn.Module) -> dict[str, torch.Tensor]:
    """The state of a model; tied tensors appear once."""
    seen, kept = set(), {}
    for name, tensor in model.state_dict().items():
        if tensor.data_ptr() in seen and tensor.numel() > 1:
            continue
        seen.add(tensor.data_ptr())
        kept[name] = tensor.detach().contiguous()
    return kept


def save_checkpoint(
    folder: Path,
    modules: Mapping[str, nn.Module],
    state: Mapping[str, object],
    optimizers: Mapping[str, torch.optim.Optimizer] | None = None,
    order: dict[str, torch.Tensor] | None = None,
) -> None:
    """Write a checkpoint; ``folder`` appears when it is complete.

    Args:
        modules: file stem → module; ``model`` is one of them.
        state: values that JSON can represent.
        optimizers, order: further tensors that a resumed run needs.

    Raises:
        TrainingError: it could not be written, for example because the disk is full; earlier checkpoints are
            unchanged.
    """
    try:
        with result_folder(folder, STATE) as aside:
            for name, module in modules.items():
                save_file(tensors_of(module), aside / f"{name}.safetensors")
            if optimizers is not None:
                save_file(_flatten(optimizers), aside / OPTIMIZERS)
            if order:
                save_file(order, aside / ORDER)
            write_json(aside / STATE, state)
    except (OSError, SafetensorError) as error:
        raise TrainingError(
            f"{folder}: the checkpoint could not be written ({error}); the one before it is complete: free disk space "
            "and continue with --resume"
        ) from error


def checkpoint_name(step: int) -> str:
    """Folder of the checkpoint after a step."""
    return f"step-{step:08d}"


def checkpoints(folder: Path) -> list[Path]:
    """The complete checkpoints in ``folder``, oldest first."""
    return [path for path in _named(folder) if (path / STATE).is_file()]


def discard_old(folder: Path) -> None:
    """Remove all but the newest checkpoints, and incomplete ones."""
    for path in checkpoints(folder)[:-KEPT]:
        (path / STATE).unlink()  # first, so that a partly deleted one is never taken for a checkpoint
    for path in _named(folder):
        if not (path / STATE).is_file():
            shutil.rmtree(path, ignore_errors=True)


def _named(folder: Path) -> list[Path]:
    """What has the name of a checkpoint, in order; a folder ``step-by-step`` is the user's own."""
    return sorted(path for path in folder.glob("step-*") if re.fullmatch(r"step-\d{8,}", path.name))


def read_state(folder: Path) -> JsonObject:
    """``state.json`` of a checkpoint."""
    try:
        return json.loads((folder / STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TrainingError(
            f"{folder}: the checkpoint cannot be read ({error}); delete this folder to continue from the one before it"
        ) from error


def load_checkpoint(
    folder: Path, modules: Mapping[str, nn.Module], optimizers: Mapping[str, torch.optim.Optimizer]
) -> tuple[JsonObject, dict[str, torch.Tensor]]:
    """Load every module and optimizer; returns the state and the order.

    Raises:
        TrainingError: damaged files, or tensors that do not match the model.
    """
    state = read_state(folder)
    try:
        for name, module in modules.items():
            load_weights(folder / f"{name}.safetensors", module)
        _restore(optimizers, load_file(folder / OPTIMIZERS))
        order = load_file(folder / ORDER) if (folder / ORDER).exists() else {}
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise TrainingError(
            f"{folder}: the checkpoint cannot be read ({error}); delete this folder to continue from the one before it"
        ) from error
    return state, order


def load_weights(path: Path, model: nn.Module, *, partly: bool = False) -> None:
    """Load a checkpoint's tensors; ``partly`` allows tensors in the file that ``model`` does not have."""
    tensors = load_file(path)
    own = model.state_dict()
    if partly:
        tensors = {k: v for k, v in tensors.items() if k in own}
    wrong = [k for k, v in tensors.items() if k not in own or own[k].shape != v.shape]
    missing = set(tensors_of(model)) - set(tensors)
    if wrong or missing:
        raise TrainingError(
            f"{path} does not fit the model: missing {sorted(missing)[:4]}, unknown or of another shape {wrong[:4]}"
        )
    model.load_state_dict(tensors, strict=False)


def _flatten(optimizers: Mapping[str, torch.optim.Optimizer]) -> dict[str, torch.Tensor]:
    flat = {}
    for part, optimizer in optimizers.items():
        for index, entries in optimizer.state_dict()["state"].items():
            for key, value in entries.items():
                if value is not None:
                    flat[f"{part}/{index}/{key}"] = torch.as_tensor(value).contiguous()
    return flat or {"empty": torch.zeros(0)}


def _restore(optimizers: Mapping[str, torch.optim.Optimizer], flat: dict[str, torch.Tensor]) -> None:
    states: dict[str, dict[int, dict[str, torch.Tensor]]] = {part: {} for part in optimizers}
    for name, tensor in flat.items():
        if name == "empty":
            continue
        part, index, key = name.split("/")
        states[part].setdefault(int(index), {})[key] = tensor
    for part, optimizer in optimizers.items():
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        for number, entries in states[part].items():
            shapes = {tuple(entry.shape) for entry in entries.values() if entry.dim()}
            if number >= len(parameters) or shapes - {tuple(parameters[number].shape)}:
                raise ValueError(f"the state of parameter {number} of optimizer {part} has another shape")
        full = optimizer.state_dict()
        full["state"] = states[part]
        optimizer.load_state_dict(full)
