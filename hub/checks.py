"""Checks before a model folder is published: safe to open, complete, and unchanged after saving and loading."""

from __future__ import annotations

import json
import re
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from ashnets.errors import AshNetsError
from ashnets.files import PICKLES, JsonObject
from ashnets.hub.loading import from_pretrained
from ashnets.model.firing import layer_rates, rates_warnings
from ashnets.model.pretrained import AshNetsPreTrainedModel
from ashnets.processor import AshNetsProcessor
from ashnets.zoo.gallery_images import gallery_images

# Tensor names of training state, which users of a model do not need.
TRAINING_STATE = re.compile(r"(^|[._])(queues?|momentum|teacher|ema|optimi[sz]er|exp_avg(_sq)?|scheduler)([._]|$)")
_ARCHIVE, _PICKLE = b"PK\x03\x04", re.compile(rb"\x80[\x02-\x05]")


@dataclass(frozen=True)
class Check:
    """One check of a folder: whether it passed, what was found, and warnings for its users."""

    name: str
    passed: bool
    found: str
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> JsonObject:
        """For JSON, without warnings; see `warnings_of`."""
        return {"name": self.name, "passed": self.passed, "found": self.found}


def warnings_of(checks: Sequence[Check]) -> dict[str, list[str]]:
    """``{"warnings": [...]}`` if the checks have any, else an empty dictionary; for JSON."""
    found = [text for check in checks for text in check.warnings]
    return {"warnings": found} if found else {}


def model_folder(folder: Path) -> tuple[Path, Path]:
    """The folder of the model and the folder of its run; ``folder`` may be either."""
    if not (folder / "config.json").is_file() and (folder / "model" / "config.json").is_file():
        return folder / "model", folder
    return folder, folder.parent if folder.name == "model" else folder


def check_model(folder: Path) -> list[Check]:
    """Run every check of a folder that ``save_pretrained`` wrote, in order of their dependencies.

    Returns:
        The checks; those that depend on a failed check are left out.
    """
    checks = [no_pickles(folder), no_training_state(folder)]
    if not all(check.passed for check in checks):
        return checks
    try:
        model = from_pretrained(folder)
    except AshNetsError as error:
        return [*checks, Check("strict load", False, str(error))]
    size = sum(p.numel() for p in model.parameters())
    found = f"{type(model).__name__}, {size:,} parameters, none missing or superfluous"
    checks.append(Check("strict load", True, found))
    broken = [name for name, value in model.state_dict().items() if not torch.isfinite(value).all()]
    found = f"not finite: {', '.join(broken[:5])}" if broken else "every tensor is finite"
    checks += [Check("finite weights", not broken, found), processor_loads(folder), parity(model)]
    if model.config.has_spiking_branch and not broken:
        checks.append(layers_fire(model))
    return checks


def layers_fire(model: AshNetsPreTrainedModel) -> Check:
    """Firing rate of each layer on images of the bundled gallery; silent and saturated layers give warnings."""
    rates = layer_rates(model, gallery_images(model.config.image_size))
    found = ", ".join(f"{layer} {rate:.1%}" for layer, rate in rates.items())
    return Check("firing rates", True, f"{found} of the neurons in a time step", tuple(rates_warnings(rates)))


def no_pickles(folder: Path) -> Check:
    """No file is a pickle or an archive, by name or by content."""
    found = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and is_pickle(path))
    return Check("no pickles", not found, f"may run code: {', '.join(found)}; remove them" if found else "none")


def is_pickle(path: Path) -> bool:
    """Whether opening a file with torch, numpy or pickle could run code."""
    with path.open("rb") as stream:
        start = stream.read(6)
    if path.suffix in PICKLES or _PICKLE.match(start):
        return True
    if start.startswith(_ARCHIVE):
        return path.suffix != ".npz" or not plain_arrays(path)
    return start.startswith(np.lib.format.MAGIC_PREFIX) and _holds_objects(path.open("rb"))


def plain_arrays(path: Path) -> bool:
    """Whether a ``.npz`` contains only arrays of numbers; only headers are read."""
    try:
        with zipfile.ZipFile(path) as archive:
            return all(name.endswith(".npy") and not _holds_objects(archive.open(name)) for name in archive.namelist())
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError):  # damaged, of another kind, or encrypted
        return False


def _holds_objects(stream: IO[bytes]) -> bool:
    """Whether a ``.npy`` contains pickled objects, or cannot be read."""
    try:
        with stream:
            version = np.lib.format.read_magic(stream)
            read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
            return read(stream)[2].hasobject
    except (ValueError, KeyError, OSError):
        return True


def no_training_state(folder: Path) -> Check:
    """No optimizer, queue or momentum tensor among the weights."""
    try:
        found = sorted(name for name in tensor_names(folder) if TRAINING_STATE.search(name))
    except (SafetensorError, OSError) as error:
        return Check("no training state", False, f"a safetensors file cannot be read ({error})")
    return Check("no training state", not found, f"only for training: {', '.join(found[:5])}" if found else "none")


def tensor_names(folder: Path) -> Iterator[str]:
    """The names of all tensors in a folder's safetensors files; only headers are read."""
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as opened:
            yield from opened.keys()


def processor_loads(folder: Path) -> Check:
    """The image processor and the tokenizer exist and fit the configuration."""
    try:
        processor = AshNetsProcessor.from_pretrained(folder)
    except AshNetsError as error:
        return Check("processor", False, str(error))
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    found = {"image_size": processor.image_processor.image_size, "vocab_size": len(processor.tokenizer)}
    wrong = [f"{key} {found[key]} instead of {config[key]}" for key in found if found[key] != config[key]]
    return Check("processor", not wrong, ", ".join(wrong) or f"{found['vocab_size']:,} pieces")


def parity(model: AshNetsPreTrainedModel) -> Check:
    """After saving and loading, a model has bit-identical tensors and outputs."""
    with tempfile.TemporaryDirectory(prefix="ashnets-parity-") as aside:
        model.save_pretrained(aside)
        again = from_pretrained(aside)
    different = differences(model, again)
    return Check("parity after reload", not different, "; ".join(different) or "tensors and outputs are bit-identical")


def differences(one: AshNetsPreTrainedModel, other: AshNetsPreTrainedModel) -> list[str]:
    """The differences between two models: tensors by name, then outputs on a fixed input."""
    ours, theirs = one.state_dict(), other.state_dict()
    if ours.keys() != theirs.keys():
        return [f"tensors: {', '.join(sorted(ours.keys() ^ theirs.keys())[:5])}"]
    unequal = [name for name, value in ours.items() if not torch.equal(value, theirs[name])]
    if unequal:
        return [f"tensors: {', '.join(unequal[:5])}"]
    first, second = probe(one), probe(other)
    return [f"output {name}" for name in first if not torch.equal(first[name], second[name])]


@torch.inference_mode()
def probe(model: AshNetsPreTrainedModel) -> dict[str, torch.Tensor]:
    """Outputs on two images and two texts drawn from a fixed seed."""
    base, config = getattr(model, "ashnets", model), model.config
    draw = torch.Generator().manual_seed(0)
    images = torch.rand(2, 3, config.image_size, config.image_size, generator=draw)
    ids = torch.randint(1, config.vocab_size, (2, min(8, config.max_text_length)), generator=draw)
    images = images.to(base.device, base.dtype)
    found = base(pixel_values=images, input_ids=ids.to(base.device), image_keys=[1, 2])
    return {"last_hidden_state": found.last_hidden_state, "visual": found.visual.output}
