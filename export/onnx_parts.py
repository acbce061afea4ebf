r"""What all ONNX forms of the spiking graph share: a layer's nodes, metadata, writing, reading.

A float layer's sums are exact by the graph's construction, so Conv may add in any order; its neuron is one Mul and
one Add. An integer layer's Conv runs in float32 too, which holds every sum of it; the neuron is in int64, whose Div
truncates toward zero as the chip's decay does. Membranes go in and out as float32 in both forms.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ashnets.errors import MissingExtraError, WeightsError
from ashnets.export.graph import SpikingGraph, SpikingLayer
from ashnets.files import write_atomically
from ashnets.model.integer import BIT, DECAY_ONE, MEMBRANE_LIMIT

if TYPE_CHECKING:
    import onnx

OPSET = 20
IR_VERSION = 9  # that of the ONNX release which brought opset 20: older runtimes read it too
EXTERNAL_ABOVE = (1 << 31) - (1 << 24)  # protobuf ends at 2 GiB; what is not weights takes some of it


def require(library: str) -> Any:
    """Import a library of the extra ``onnx``, or raise MissingExtraError."""
    try:
        return __import__(library)
    except ImportError as error:
        raise MissingExtraError(f"ONNX export needs {library} ({error}): pip install ashnets[onnx]") from error


class Parts:
    """Nodes and constants of a graph that is being written.

    Args:
        library: the module ``onnx``.
        graph: what is written.
    """

    def __init__(self, library: Any, graph: SpikingGraph) -> None:
        self.onnx, self.graph = library, graph
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.inputs: list[Any] = []
        self.outputs: list[Any] = []
        self.real = library.TensorProto.FLOAT
        self.whole = library.TensorProto.INT64

    def node(self, kind: str, inputs: list[str], outputs: list[str], name: str, **attributes: Any) -> Any:
        """A node, for the caller to place."""
        return self.onnx.helper.make_node(kind, inputs, outputs, name=name, **attributes)

    def constant(self, name: str, value: torch.Tensor | np.ndarray) -> str:
        """Store a constant; bodies of loops see it too."""
        array = value.contiguous().numpy() if isinstance(value, torch.Tensor) else value
        self.constants.append(self.onnx.numpy_helper.from_array(array, name))
        return name

    def value(self, name: str, shape: list[int | str | None], kind: int | None = None) -> Any:
        """Name, type and shape of an input or output; float32 by default."""
        return self.onnx.helper.make_tensor_value_info(name, self.real if kind is None else kind, shape)

    def fired(self, layer: SpikingLayer) -> str:
        """Name of a layer's spikes: the last one's are the graph's output."""
        return layer.name if layer is self.graph.layers[-1] else f"spikes_{layer.name}"

    def current(self, layer: SpikingLayer, spikes: str, output: str) -> Any:
        """Conv: (B, C, H, W) spikes to currents, in steps where the layer is in integers."""
        weight, bias = layer.weight, layer.bias
        if layer.integer is not None:
            weight, bias = layer.integer.weight.float(), layer.integer.bias.float()
        n = layer.name
        return self.node(
            "Conv", [spikes, self.constant(f"{n}.weight", weight), self.constant(f"{n}.bias", bias)], [output],
            f"{n}/conv", kernel_shape=list(weight.shape[2:]), strides=list(layer.stride),
            dilations=list(layer.dilation), pads=[*layer.padding, *layer.padding], group=layer.groups,
        )  # fmt: skip

    def neuron_constants(self, layer: SpikingLayer) -> None:
        """Store what :meth:`neuron` of this layer reads, once."""
        n, c = layer.name, layer.integer
        values: dict[str, torch.Tensor]
        if c is None:
            values = {"beta": torch.tensor(layer.beta), "theta": torch.tensor(layer.theta), "rest": torch.tensor(0.0)}
        else:
            numbers = {
                "keep": DECAY_ONE - c.decay, "one": DECAY_ONE, "shift": BIT, "low": -MEMBRANE_LIMIT,
                "high": MEMBRANE_LIMIT, "theta": c.threshold * BIT, "rest": 0,
            }  # fmt: skip
            values = {key: torch.tensor(number) for key, number in numbers.items()}
        for key, value in values.items():
            self.constant(f"{n}.{key}", value)

    def neuron(self, layer: SpikingLayer, current: str, v: str, fired: str, v_next: str, step: str = "") -> list[Any]:
        """One step of the layer's neurons; ``step`` keeps names apart where a graph holds many."""
        n, s = layer.name, step

        def add(kind: str, inputs: list[str], output: str, what: str, **attributes: Any) -> Any:
            return self.node(kind, inputs, [output], f"{n}/{what}{s}", **attributes)

        if layer.integer is None:
            return [
                add("Mul", [v, f"{n}.beta"], f"{n}.kept{s}", "leak"),
                add("Add", [f"{n}.kept{s}", current], f"{n}.h{s}", "integrate"),
                add("Greater", [f"{n}.h{s}", f"{n}.theta"], f"{n}.fired{s}", "fire"),
                add("Cast", [f"{n}.fired{s}"], fired, "spikes", to=self.real),
                add("Where", [f"{n}.fired{s}", f"{n}.rest", f"{n}.h{s}"], v_next, "reset"),
            ]
        return [
            add("Cast", [v], f"{n}.v{s}", "membrane", to=self.whole),
            add("Mul", [f"{n}.v{s}", f"{n}.keep"], f"{n}.product{s}", "leak"),
            add("Div", [f"{n}.product{s}", f"{n}.one"], f"{n}.kept{s}", "truncate"),
            add("Cast", [current], f"{n}.a{s}", "current", to=self.whole),
            add("Mul", [f"{n}.a{s}", f"{n}.shift"], f"{n}.u{s}", "shift"),
            add("Add", [f"{n}.kept{s}", f"{n}.u{s}"], f"{n}.sum{s}", "integrate"),
            add("Clip", [f"{n}.sum{s}", f"{n}.low", f"{n}.high"], f"{n}.h{s}", "clip"),
            add("Greater", [f"{n}.h{s}", f"{n}.theta"], f"{n}.fired{s}", "fire"),
            add("Cast", [f"{n}.fired{s}"], fired, "spikes", to=self.real),
            add("Where", [f"{n}.fired{s}", f"{n}.rest", f"{n}.h{s}"], f"{n}.left{s}", "reset"),
            add("Cast", [f"{n}.left{s}"], v_next, "state", to=self.real),
        ]

    def model(self, form: str) -> onnx.ModelProto:
        """The whole, with its metadata."""
        helper, graph = self.onnx.helper, self.graph
        body = helper.make_graph(
            self.nodes, f"{graph.name}-{form.split('-')[-1].split('/')[0]}", self.inputs, self.outputs, self.constants
        )
        model = helper.make_model(
            body,
            producer_name="ashnets",
            producer_version=graph.provenance.get("ashnets", ""),
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
        )
        helper.set_model_props(model, {"format": form, **describe(graph), "graph_sha256": digest(model)})
        return model


def describe(graph: SpikingGraph) -> dict[str, str]:
    """What a reader needs beside the arithmetic; strings, as ONNX wants them."""
    neuron = "h = beta*v + conv(s); s' = h > theta; v' = 0 where s', h elsewhere"
    if graph.precision == "int8":
        neuron = (
            "h = clip(trunc(v*(4096-decay)/4096) + 64*conv(s), +-(2^23-1)); s' = h > 64*threshold; v' = 0 where s', h "
            "elsewhere; v in units of step/64"
        )
    lines = {
        "opset": str(OPSET),
        "layers": json.dumps([layer.name for layer in graph.layers]),
        "time_steps": str(graph.time_steps),
        "precision": graph.precision,
        "beta": json.dumps({layer.name: layer.beta for layer in graph.layers}),
        "theta": json.dumps({layer.name: layer.theta for layer in graph.layers}),
        "neuron": neuron,
        "carry": graph.carry,
        "group_size": str(graph.group_size),
        "dt": str(graph.dt),
        "input_encoding": json.dumps(asdict(graph.encoding)),
    }
    if graph.precision == "int8":
        integers = {
            layer.name: {"threshold": layer.integer.threshold, "decay": layer.integer.decay, "step": layer.integer.step}
            for layer in graph.layers
            if layer.integer is not None
        }
        lines["integers"] = json.dumps(integers)
    return {**lines, **{f"provenance.{key}": value for key, value in graph.provenance.items()}}


def digest(model: onnx.ModelProto) -> str:
    """sha256 over the graph itself: a flipped bit in a weight is no error to any reader."""
    found = hashlib.sha256()
    # Piece by piece: a graph above 2 GB cannot be serialised whole.
    for part in (model.opset_import, model.graph.input, model.graph.output, model.graph.node, model.functions):
        for item in part:
            found.update(item.SerializeToString(deterministic=True))
    for constant in model.graph.initializer:
        found.update(f"{constant.name} {constant.data_type} {list(constant.dims)} ".encode())
        found.update(constant.raw_data)
    return found.hexdigest()


def save(library: Any, model: onnx.ModelProto, path: str | os.PathLike, external_above: int = EXTERNAL_ABOVE) -> Path:
    """Check a model and write it, aside first; weights of more than ``external_above`` bytes go to ``path.data``."""
    path = Path(path)
    if sum(len(constant.raw_data) for constant in model.graph.initializer) <= external_above:
        library.checker.check_model(model, full_check=True)
        write_atomically(path, model.SerializeToString(deterministic=True))
        data_of(path).unlink(missing_ok=True)
        return path
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        library.save_model(
            model, aside / path.name, save_as_external_data=True, all_tensors_to_one_file=True,
            location=data_of(path).name, size_threshold=1024,
        )  # fmt: skip
        library.checker.check_model(str(aside / path.name), full_check=True)
        shutil.copymode(aside / path.name, aside / data_of(path).name)  # onnx makes it for its owner alone
        (aside / data_of(path).name).replace(data_of(path))  # the weights first: a graph without them is none
        (aside / path.name).replace(path)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return path


def data_of(path: Path) -> Path:
    """Where the weights of a large file are."""
    return path.with_name(f"{path.name}.data")


def read(library: Any, path: str | os.PathLike, forms: tuple[str, ...]) -> tuple[bytes | str, dict[str, str]]:
    """Check a file of :func:`save`.

    Returns:
        What onnxruntime takes, the bytes or, where the weights are external, the path; and the metadata.

    Raises:
        WeightsError: the file is missing, damaged, edited, or of none of the formats ``forms``.
    """
    path, again = Path(path), "export it again"
    try:
        data = path.read_bytes()
    except OSError as error:
        raise WeightsError(f"{path} cannot be read ({error.strerror}): give the path of an exported graph") from error
    try:
        model = library.load_model_from_string(data)
        properties = {entry.key: entry.value for entry in model.metadata_props}
    except Exception as error:  # protobuf's DecodeError, whose class differs between its builds
        raise WeightsError(f"{path} is damaged or cut short: it does not parse as ONNX; {again}") from error
    if properties.get("format") not in forms:
        raise WeightsError(
            f"{path}: its format is {properties.get('format')!r}, this ashnets runs {' or '.join(map(repr, forms))} (a "
            f"file of another tool or version, or one that was cut short); {again}"
        )
    outside = any(constant.external_data for constant in model.graph.initializer)
    if outside:
        try:
            model = library.load(path)
        except Exception as error:  # ValidationError, OSError, ValueError
            raise WeightsError(f"{path}: its weights, {data_of(path)}, are missing or cut short; {again}") from error
    if properties.get("graph_sha256") != digest(model):
        raise WeightsError(f"{path} was changed after its export: its graph does not match its own sha256; {again}")
    return (str(path) if outside else data), properties
