r"""The integer graph as a network of Lava-DL's netx: an HDF5 file for ``lava.lib.dl.netx.hdf5.Network``.

    layer/0   type input    shape (C, H, W)
    layer/i   type conv     shape, stride, padding, dilation, groups, weight (O, I/groups, kH, kW), bias (O,)
              neuron        type CUBA, iDecay 4096 (no memory of the current), vDecay k, vThMant

netx and its simulator check few of the chip's limits, so this module checks them. :mod:`ashnets.model.integer` states
the arithmetic of netx and Loihi. A netx file can contain a chain of convolutions, but no pooling, no sum of two
branches and no neurons in floating point. Attributes of the file contain what netx has no field for: timing, input
encoding, origin, the scale of the integers, and a sha256 of all of it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
import torch

from ashnets.errors import ConfigurationError, MissingExtraError, WeightsError
from ashnets.export.folding import float32
from ashnets.export.graph import GraphLayer, InputEncoding, SpikingGraph
from ashnets.files import JsonObject, write_atomically
from ashnets.model.integer import BIAS_LIMIT, CURRENT_LIMIT, DECAY_ONE, IntegerConstants
from ashnets.words import install

if TYPE_CHECKING:
    import h5py

FORMAT = "ashnets-netx/1"
NO_MEMORY = 4096  # iDecay: the current decays completely at each step


def write_lava(graph: SpikingGraph, path: str | os.PathLike) -> Path:
    """Write an integer graph for netx.

    Args:
        graph: of a model of ``precision="int8"``, or of :func:`ashnets.export.graph.quantized`.
        path: of the file, which appears when it is complete.

    Raises:
        ConfigurationError: a graph in floats, or a constant that the chip cannot hold.
        MissingExtraError: h5py is not installed.
    """
    check_for_lava(graph)
    h5py = _require_h5py()
    # In memory first: HDF5 writes to many places of a file, and a killed process would leave it incomplete.
    with h5py.File(Path(path).name, "w", driver="core", backing_store=False) as file:
        for index, values in enumerate(_contents(graph)):
            _put(file.create_group(f"layer/{index}"), values)
        notes = _notes(graph)
        file.attrs.update({**notes, "sha256": _digest(file, notes)})
        file.flush()
        data = file.id.get_file_image()
    return write_atomically(path, data)


def check_for_lava(graph: SpikingGraph) -> None:
    """Refuse a graph that does not fit netx or the chip.

    Raises:
        ConfigurationError: naming the layer, the value, the limit and a way out.
    """
    for layer in graph.layers:
        c = layer.integer
        if c is None:
            raise ConfigurationError(
                f"{graph.name}: layer {layer.name} is in floats, and a netx file holds integers alone: export a model "
                'that was trained with precision="int8", or round this one after training (--quantize, '
                "ashnets.export.quantized), which changes its spikes"
            )
        low, high = int(c.weight.min()), int(c.weight.max())
        if low < -256 or high > 254 or bool((c.weight % 2).any()):
            raise ConfigurationError(
                f"{layer.name}: integer weights of {low} to {high} must be even numbers in -256..254, which is what 8 "
                "signed bits with one bit of scale hold; make them by integer_constants"
            )
        if int(c.bias.abs().max()) > BIAS_LIMIT:
            raise ConfigurationError(
                f"{layer.name}: a bias of {int(c.bias.abs().max())} is beyond ±{BIAS_LIMIT}, the 13 bits of a bias "
                "mantissa; make it by integer_constants, which clips it"
            )
        if not 0 <= c.threshold < CURRENT_LIMIT:
            raise ConfigurationError(
                f"{layer.name}: vThMant={c.threshold} must lie in 0..{CURRENT_LIMIT - 1}, the 17 bits of a threshold: "
                "the weights are too small beside θ"
            )
        if not 0 <= c.decay <= DECAY_ONE:
            raise ConfigurationError(f"{layer.name}: vDecay={c.decay} must lie in 0..{DECAY_ONE}, a 12-bit decay")
        rows = c.weight.flatten(1).long()
        worst = int(torch.maximum(rows.clamp_min(0).sum(1), rows.clamp_max(0).sum(1).neg()).max())
        if worst >= CURRENT_LIMIT:
            raise ConfigurationError(
                f"{layer.name}: the weights of one neuron can add up to {worst}, and a current of {CURRENT_LIMIT} or "
                "more wraps in its 24 bits: use fewer input channels"
            )


def read_lava(path: str | os.PathLike) -> SpikingGraph:
    """Read the integer graph from a file of :func:`write_lava`.

    Raises:
        MissingExtraError: h5py is not installed.
        WeightsError: the file is missing, damaged, edited, or not of this format.
    """
    h5py = _require_h5py()
    path = Path(path)
    again = "export it again"
    if not path.is_file():
        raise WeightsError(f"{path} is no file: give the path of an exported network")
    try:
        with h5py.File(path, "r") as file:
            notes = {key: value for key, value in file.attrs.items() if key != "sha256"}
            if notes.get("format") != FORMAT:
                raise WeightsError(
                    f"{path}: its format is {notes.get('format')!r}, this ashnets reads {FORMAT!r} (a file of another "
                    f"tool or version); {again}"
                )
            if file.attrs.get("sha256") != _digest(file, notes):
                raise WeightsError(f"{path} was changed after its export: it does not match its own sha256; {again}")
            return _graph(file, notes)
    except WeightsError:
        raise
    except Exception as error:  # h5py raises OSError, KeyError, RuntimeError, ValueError ... over a damaged file
        raise WeightsError(
            f"{path} is damaged or cut short: HDF5 cannot read it ({' '.join(str(error).split())[:120]}); {again}"
        ) from error


def _contents(graph: SpikingGraph) -> list[dict[str, object]]:
    """The layers for netx, in order; a key with a slash is in a group."""

    def whole(*values: int) -> np.ndarray:
        return np.array(values, dtype=np.int64)

    layers: list[dict[str, object]] = [{"type": b"input", "shape": whole(*graph.input_shape)}]
    for layer in graph.layers:
        c = layer.integer
        assert c is not None  # check_for_lava
        layers.append(
            {
                "type": b"conv",
                "shape": whole(*layer.output_shape),
                "stride": whole(*layer.stride),
                "padding": whole(*layer.padding),
                "dilation": whole(*layer.dilation),
                "groups": np.int64(layer.groups),
                "weight": c.weight.numpy().astype(np.int32),
                "bias": c.bias.numpy().astype(np.int32),
                "neuron/type": b"CUBA",
                "neuron/iDecay": np.int64(NO_MEMORY),
                "neuron/vDecay": np.int64(c.decay),
                "neuron/vThMant": np.int64(c.threshold),
            }
        )
    return layers


def _notes(graph: SpikingGraph) -> JsonObject:
    return {
        "format": FORMAT,
        "name": graph.name,
        "layers": json.dumps([layer.name for layer in graph.layers]),
        "steps": json.dumps([layer.weight_step for layer in graph.layers]),
        "time_steps": graph.time_steps,
        "carry": graph.carry,
        "group_size": graph.group_size,
        "dt": graph.dt,
        "input_encoding": json.dumps(asdict(graph.encoding)),
        "provenance": json.dumps(graph.provenance),
    }


def _put(group: h5py.Group, values: Mapping[str, object]) -> None:
    for key, value in values.items():
        group.create_dataset(key, data=value)


def _digest(file: h5py.File, notes: JsonObject) -> str:
    """The sha256 of the name, shape and values of every dataset, and of the attributes."""
    found = hashlib.sha256(json.dumps({key: str(value) for key, value in sorted(notes.items())}).encode())
    names: list[str] = []
    file.visititems(lambda name, item: names.append(name) if hasattr(item, "dtype") else None)
    for name in sorted(names):
        value = np.asarray(file[name][()])
        found.update(f"{name} {value.dtype.kind} {value.shape} ".encode())
        found.update(value.tobytes() if value.dtype.kind in "SO" else value.astype("<i8").tobytes())
    return found.hexdigest()


def _graph(file: h5py.File, notes: JsonObject) -> SpikingGraph:
    names, steps = json.loads(notes["layers"]), json.loads(notes["steps"])
    shape = tuple(int(n) for n in file["layer/0/shape"][()])
    layers = []
    for index, (name, step) in enumerate(zip(names, steps, strict=True), start=1):
        stored = file[f"layer/{index}"]
        constants = IntegerConstants(
            weight=torch.from_numpy(stored["weight"][()]),
            bias=torch.from_numpy(stored["bias"][()]),
            threshold=int(stored["neuron/vThMant"][()]),
            decay=int(stored["neuron/vDecay"][()]),
            step=step,
        )
        output = tuple(int(n) for n in stored["shape"][()])
        layers.append(
            GraphLayer(
                name=name,
                weight=constants.weight.double().mul(step).float(),
                bias=constants.bias.double().mul(step).float(),
                **{key: tuple(int(n) for n in stored[key][()]) for key in ("stride", "padding", "dilation")},  # type: ignore[arg-type]
                groups=int(stored["groups"][()]),
                beta=float32(1 - constants.decay / DECAY_ONE),
                theta=float32(constants.threshold * step),
                input_shape=shape,  # type: ignore[arg-type]
                output_shape=output,  # type: ignore[arg-type]
                weight_step=step,
                integer=constants,
            )
        )
        shape = output
    return SpikingGraph(
        name=str(notes["name"]),
        layers=tuple(layers),
        time_steps=int(notes["time_steps"]),
        carry=str(notes["carry"]),
        group_size=int(notes["group_size"]),
        encoding=InputEncoding(**json.loads(notes["input_encoding"])),
        dt=float(notes["dt"]),
        provenance=json.loads(notes["provenance"]),
    )


def _require_h5py() -> ModuleType:
    try:
        import h5py
    except ImportError as error:
        raise MissingExtraError(f"Lava export needs h5py ({error}): {install('lava')}") from error
    return h5py
