"""Checkpoints of a run: safetensors and JSON, written aside and renamed, so that one is always whole.

A checkpoint is taken at the end of an epoch. Everything random is drawn from (seed, epoch), so weights, optimiser state
and the epoch are all there is to keep.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from ashnets.errors import TrainingError

WEIGHTS, OPTIMISERS, STATE = "model.safetensors", "optimisers.safetensors", "state.json"


def tensors_of(model: nn.Module) -> dict[str, torch.Tensor]:
    """The state of a model with tied tensors once."""
    seen, kept = set(), {}
    for name, tensor in model.state_dict().items():
        if tensor.data_ptr() in seen and tensor.numel() > 1:
            continue
        seen.add(tensor.data_ptr())
        kept[name] = tensor.detach().contiguous()
    return kept


def save_checkpoint(
    folder: Path, model: nn.Module, optimisers: dict[str, torch.optim.Optimizer], state: dict[str, Any]
) -> None:
    """Replace ``folder`` by a new checkpoint; the old one stays until the new one is whole."""
    aside = folder.with_name(folder.name + ".partial")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    save_file(tensors_of(model), aside / WEIGHTS)
    save_file(_flatten(optimisers), aside / OPTIMISERS)
    (aside / STATE).write_text(json.dumps(state, indent=2) + "\n", encoding="utf-8")
    old = folder.with_name(folder.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    aside.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def find_checkpoint(folder: Path) -> Path | None:
    """The checkpoint to go on from; after a kill between two renames it is the old one."""
    for candidate in (folder, folder.with_name(folder.name + ".old")):
        if (candidate / STATE).is_file():
            return candidate
    return None


def load_checkpoint(
    folder: Path, model: nn.Module, optimisers: dict[str, torch.optim.Optimizer] | None = None
) -> dict[str, Any]:
    """Load weights, and optimiser state where ``optimisers`` are given; returns the state.

    Raises:
        TrainingError: damaged files, or tensors that do not fit.
    """
    try:
        state = json.loads((folder / STATE).read_text(encoding="utf-8"))
        load_weights(folder / WEIGHTS, model)
        if optimisers is not None:
            _restore(optimisers, load_file(folder / OPTIMISERS))
    except (OSError, json.JSONDecodeError, SafetensorError, KeyError, ValueError) as error:
        raise TrainingError(
            f"{folder}: the checkpoint cannot be read ({error}); start a run in a new folder"
        ) from error
    return state


def load_weights(path: Path, model: nn.Module, *, partly: bool = False) -> None:
    """Load a checkpoint's tensors; ``partly`` allows the file to hold tensors that ``model`` has no place for."""
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


def _flatten(optimisers: dict[str, torch.optim.Optimizer]) -> dict[str, torch.Tensor]:
    flat = {}
    for part, optimiser in optimisers.items():
        for index, entries in optimiser.state_dict()["state"].items():
            for key, value in entries.items():
                if value is not None:
                    flat[f"{part}/{index}/{key}"] = torch.as_tensor(value).contiguous()
    return flat or {"empty": torch.zeros(0)}


def _restore(optimisers: dict[str, torch.optim.Optimizer], flat: dict[str, torch.Tensor]) -> None:
    states: dict[str, dict[int, dict[str, torch.Tensor]]] = {part: {} for part in optimisers}
    for name, tensor in flat.items():
        if name == "empty":
            continue
        part, index, key = name.split("/")
        states[part].setdefault(int(index), {})[key] = tensor
    for part, optimiser in optimisers.items():
        full = optimiser.state_dict()
        full["state"] = states[part]
        optimiser.load_state_dict(full)
