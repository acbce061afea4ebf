"""Checks of a model's files for dangerous content, before anything is loaded or built.

A digest shows that a file is the published one, not that its publisher means well. ``config.json`` can name an
implementation of attention that transformers would fetch from the Hub as compiled code, or sizes that fill the memory.
The index of sharded weights can name a pickle, or a file outside the folder. An adapter's configuration can make the
library load another model.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from safetensors import SafetensorError, safe_open

from ashnets.errors import WeightsError
from ashnets.files import JsonObject

INDEX, ADAPTER = "model.safetensors.index*.json", "adapter_config.json"  # an index may have a variant's name
LARGEST_JSON = 64_000_000  # bytes; a tokenizer of 250,000 pieces has 17 million
LARGEST_SIZE = 1_000_000  # of any size in config.json
ATTENTION = ("eager", "sdpa", None)  # any other may come as code from elsewhere
_ANY_NUMBER = ("sampling_seed",)
_SLACK = 4  # weights that lack some tensors are refused by name, later


def inspect(folder: Path) -> None:
    """Refuse a folder that would run code, read files elsewhere or fill the memory.

    Raises:
        WeightsError: names the file, its content, and what to do.
    """
    for name, problem in problems(folder):
        raise WeightsError(f"{folder / name} {problem}")


def problems(folder: Path) -> Iterator[tuple[str, str]]:
    """File name and problem, for each file that must not be loaded."""
    config = folder / "config.json"
    found = None
    for file in (config, *sorted(folder.glob(INDEX))):
        if file.is_file():
            try:
                data = _read(file)
            except (ValueError, RecursionError) as error:
                yield file.name, f"is not valid JSON ({_line(error)}); fetch it again"
                continue
            if file != config:
                yield from ((file.name, one) for one in _misled(folder, data))
            elif isinstance(data, dict):
                found = data
    if found is not None:
        yield from (("config.json", one) for one in _commands(found))
    for name in ("config.json", "tokenizer_config.json", "processor_config.json"):
        if _names_code(folder / name):
            yield name, "names custom code (auto_map), which is never run; remove the key"
    if (folder / ADAPTER).exists():
        yield ADAPTER, "would load another model instead of this one; remove it"
    tensors = numbers = 0
    for file in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(file, framework="np") as opened:
                shapes = [opened.get_slice(name).get_shape() for name in opened.keys()]  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            yield file.name, f"is damaged ({_line(error)}); fetch it again"
            return
        tensors, numbers = tensors + len(shapes), numbers + sum(map(math.prod, shapes))
    if found is not None and tensors:
        yield from (("config.json", one) for one in _too_much(found, tensors, numbers))


def _read(file: Path) -> object:
    size = file.stat().st_size
    if size > LARGEST_JSON:
        raise ValueError(f"it has {size:,} bytes; at most {LARGEST_JSON:,} are read")
    return json.loads(file.read_text(encoding="utf-8"))


def _names_code(file: Path) -> bool:
    try:
        data = _read(file)
    except (OSError, ValueError, RecursionError):
        return False  # no other reader can open it either
    return isinstance(data, dict) and "auto_map" in data


def _misled(folder: Path, index: object) -> Iterator[str]:
    files = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(files, dict) or not all(isinstance(name, str) for name in files.values()):
        yield "is not an index of weights: it has no weight_map from tensors to files; fetch it again"
        return
    for name in sorted(set(files.values())):
        if Path(name).name != name or "\\" in name or not name.endswith(".safetensors"):
            yield f"names {name!r} as weights: only safetensors files of its folder are loaded; do not use this model"
        elif not (folder / name).is_file():
            yield f"names {name}, which is missing; fetch it again"


def _commands(config: JsonObject) -> Iterator[str]:
    for key in ("attn_implementation", "_attn_implementation", "_attn_implementation_internal"):
        if (value := config.get(key)) not in ATTENTION:
            yield f"has {key}={value!r}, which may fetch code; remove the key, and give it to from_pretrained yourself"
    for key, value in config.items():
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, int | float) and abs(one) > LARGEST_SIZE and key not in _ANY_NUMBER:
                yield f"has {key}={one}: no ashnets model has sizes above {LARGEST_SIZE:,}; fetch it again"


def _too_much(config: JsonObject, tensors: int, numbers: int) -> Iterator[str]:
    """Sizes in ``config.json`` that do not fit the weights in the same folder."""

    def size(key: str) -> int:
        value = config.get(key)
        return value if isinstance(value, int) and value > 0 else 0

    layers, hidden = size("num_hidden_layers"), size("hidden_size")
    if layers > tensors:
        yield f"has num_hidden_layers={layers}, but the weights contain {tensors} tensors: they are of different models"
        return
    least = hidden * (size("vocab_size") + size("max_position_embeddings") + size("num_concepts"))
    least += layers * hidden * (4 * hidden + 2 * size("intermediate_size"))
    if config.get("backbone") == "vit-b16":
        least += (size("image_size") // 16) ** 2 * 768
    for key in ("spiking_channels", "spiking_grid_channels", "backbone_widths"):
        widths = config.get(key)
        if isinstance(widths, list) and all(isinstance(width, int) for width in widths):
            least += sum(abs(one * other) for one, other in pairwise(widths))
    if least > _SLACK * numbers:
        yield f"describes at least {least:,} numbers, but the weights contain {numbers:,}: they are of different models"


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
