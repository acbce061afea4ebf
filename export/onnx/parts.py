r"""What all ONNX forms of the spiking graph share: a layer's nodes, metadata, writing, reading.

    float    h = β·v + x                                x = W' ∗ s + b'
    integer  h = clip(p·v / q + x, ±(2²³ − 1))          x = 64·(W_int ∗ s + b_int),  p/q = (4096 − k)/4096 reduced
    both     s' = h > θ        v' = h·(1 − s')

The graph is constructed so that the sums of a float layer are exact; Conv may therefore add in any order. An integer
layer is in float32 as well, which represents all of its numbers up to the clip. Only the decay is computed in integers,
because their Div truncates toward zero as the chip does, and a Cast need not; 32 bits are used where p·v fits. The
reset is a product, since Where takes several times as long in onnxruntime. In both forms membranes are inputs and
outputs in float32.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
import torch

from ashnets.errors import MissingExtraError, WeightsError
from ashnets.export.graph import GraphLayer, SpikingGraph
from ashnets.files import write_atomically
from ashnets.model.integer import BIT, DECAY_ONE, MEMBRANE_LIMIT, IntegerConstants
from ashnets.result_folder import result_folder
from ashnets.words import install

if TYPE_CHECKING:
    import onnx

OPSET = 20
IR_VERSION = 9  # of the ONNX release with opset 20, so that older runtimes can read it
DIGEST = "graph_sha256"
EXTERNAL_ABOVE = (1 << 31) - (1 << 24)  # the limit of protobuf is 2 GiB, and the rest of the graph needs some of it


def require(library: str) -> ModuleType:
    """Import a library of the extra ``onnx``, or raise MissingExtraError."""
    try:
        return __import__(library)
    except ImportError as error:
        raise MissingExtraError(f"ONNX export needs {library} ({error}): {install('onnx')}") from error


def decay_fraction(constants: IntegerConstants) -> tuple[int, int, torch.dtype]:
    """p and q of 1 − k/4096 in lowest terms, and the smallest integer type for p·v."""
    keep = DECAY_ONE - constants.decay
    common = math.gcd(keep, DECAY_ONE)
    narrow = MEMBRANE_LIMIT * (keep // common) < 1 << 31
    return keep // common, DECAY_ONE // common, torch.int32 if narrow else torch.int64


class Parts:
    """Nodes and constants of a graph that is being written.

    Args:
        library: the module ``onnx``.
        graph: the spiking graph.
    """

    def __init__(self, library: ModuleType, graph: SpikingGraph) -> None:
        self.onnx, self.graph = library, graph
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []
        self.real = library.TensorProto.FLOAT
        self.whole = library.TensorProto.INT64
        self.short = library.TensorProto.INT32

    def node(self, kind: str, inputs: list[str], outputs: list[str], name: str, **attributes: object) -> onnx.NodeProto:
        """A node, for the caller to place."""
        return self.onnx.helper.make_node(kind, inputs, outputs, name=name, **attributes)

    def constant(self, name: str, value: torch.Tensor | np.ndarray) -> str:
        """Store a constant, which bodies of loops can also use."""
        array = value.contiguous().numpy() if isinstance(value, torch.Tensor) else value
        self.constants.append(self.onnx.numpy_helper.from_array(array, name))
        return name

    def value(self, name: str, shape: list[int | str | None], kind: int | None = None) -> onnx.ValueInfoProto:
        """Name, type and shape of an input or output; float32 by default."""
        return self.onnx.helper.make_tensor_value_info(name, self.real if kind is None else kind, shape)

    def fired(self, layer: GraphLayer) -> str:
        """The name of a layer's spikes; those of the last layer are the output of the graph."""
        return layer.name if layer is self.graph.layers[-1] else f"spikes_{layer.name}"

    def current(self, layer: GraphLayer, spikes: str, output: str) -> onnx.NodeProto:
        """A Conv node: spikes (B, C, H, W) to currents in the unit of the membrane."""
        weight, bias = layer.weight, layer.bias
        if layer.integer is not None:
            weight, bias = layer.integer.weight.float() * BIT, layer.integer.bias.float() * BIT
        n = layer.name
        return self.node(
            "Conv",
            [spikes, self.constant(f"{n}.weight", weight), self.constant(f"{n}.bias", bias)],
            [output],
            f"{n}/conv",
            kernel_shape=list(weight.shape[2:]),
            strides=list(layer.stride),
            dilations=list(layer.dilation),
            pads=[*layer.padding, *layer.padding],
            group=layer.groups,
        )

    def neuron_constants(self, layer: GraphLayer) -> None:
        """Store the constants for :meth:`neuron` of this layer, once."""
        n, c = layer.name, layer.integer
        if c is None:
            values = {"beta": layer.beta, "theta": layer.theta, "one": 1.0}
        else:
            values = {"low": -MEMBRANE_LIMIT, "high": MEMBRANE_LIMIT, "theta": c.threshold * BIT, "one": 1.0}
            p, q, whole = decay_fraction(c)
            for key, number in (("p", p), ("q", q)):
                if (key, number) != ("p", 1):
                    self.constant(f"{n}.{key}", torch.tensor(number, dtype=whole))
        for key, value in values.items():
            self.constant(f"{n}.{key}", torch.tensor(float(value)))

    def neuron(
        self, layer: GraphLayer, current: str, v: str, fired: str, v_next: str, step: str = ""
    ) -> list[onnx.NodeProto]:
        """One step of the layer's neurons; ``step`` makes names unique in a graph of many steps."""
        n, s, nodes = layer.name, step, []

        def add(kind: str, inputs: list[str], output: str, what: str, **attributes: object) -> str:
            nodes.append(self.node(kind, inputs, [output], f"{n}/{what}{s}", **attributes))
            return output

        if layer.integer is None:
            kept = add("Mul", [v, f"{n}.beta"], f"{n}.kept{s}", "leak")
            h = add("Add", [kept, current], f"{n}.h{s}", "integrate")
        else:
            p, _, whole = decay_fraction(layer.integer)
            kept = add("Cast", [v], f"{n}.v{s}", "membrane", to=self.short if whole == torch.int32 else self.whole)
            if p != 1:
                kept = add("Mul", [kept, f"{n}.p"], f"{n}.product{s}", "leak")
            kept = add("Div", [kept, f"{n}.q"], f"{n}.quotient{s}", "truncate")
            kept = add("Cast", [kept], f"{n}.kept{s}", "kept", to=self.real)
            h = add("Add", [kept, current], f"{n}.sum{s}", "integrate")
            h = add("Clip", [h, f"{n}.low", f"{n}.high"], f"{n}.h{s}", "clip")
        over = add("Greater", [h, f"{n}.theta"], f"{n}.over{s}", "fire")
        add("Cast", [over], fired, "spikes", to=self.real)
        silent = add("Sub", [f"{n}.one", fired], f"{n}.silent{s}", "silent")
        add("Mul", [h, silent], v_next, "reset")
        return nodes

    def model(self, form: str) -> onnx.ModelProto:
        """The whole model, with its metadata."""
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
        label(self.onnx, model, {"format": form, **describe(graph)})
        return model


def describe(graph: SpikingGraph) -> dict[str, str]:
    """What a reader needs besides the arithmetic, as strings, which ONNX requires."""
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


def label(library: ModuleType, model: onnx.ModelProto, notes: dict[str, str]) -> None:
    """Add metadata to a model, with a sha256 of the model and the metadata."""
    library.helper.set_model_props(model, {**notes, DIGEST: _digest(model, notes)})


def _digest(model: onnx.ModelProto, notes: dict[str, str]) -> str:
    """The sha256 of graph and metadata, since no reader would notice a changed bit in a weight."""
    head = [model.ir_version, model.producer_name, model.producer_version, model.domain, model.graph.name]
    found = hashlib.sha256(json.dumps([head, sorted(notes.items())]).encode())
    graph = model.graph
    # In parts: a graph above 2 GB cannot be serialized as one.
    for part in (model.opset_import, graph.input, graph.output, graph.value_info, graph.node, model.functions):
        for item in part:
            found.update(item.SerializeToString(deterministic=True))
    for constant in graph.initializer:
        found.update(f"{constant.name} {constant.data_type} {list(constant.dims)} ".encode())
        found.update(constant.raw_data)
    return found.hexdigest()


def save(
    library: ModuleType, model: onnx.ModelProto, path: str | os.PathLike, external_above: int = EXTERNAL_ABOVE
) -> Path:
    """Check a model and write it; weights of more than ``external_above`` bytes are stored in ``path.data``."""
    given, path = Path(path), Path(os.path.realpath(path))  # weights are next to the file, not to a link
    if sum(len(constant.raw_data) for constant in model.graph.initializer) <= external_above:
        library.checker.check_model(model, full_check=True)
        write_atomically(path, model.SerializeToString(deterministic=True))
        data_of(path).unlink(missing_ok=True)
        return given
    with result_folder(path.parent, path.name, "keep") as aside:  # the graph last: it needs its weights
        library.save_model(
            model,
            aside / path.name,
            save_as_external_data=True,
            all_tensors_to_one_file=True,
            location=data_of(path).name,
            size_threshold=1024,
        )
        library.checker.check_model(str(aside / path.name), full_check=True)
        shutil.copymode(aside / path.name, aside / data_of(path).name)  # onnx makes it for its owner alone
    return given


def data_of(path: Path) -> Path:
    """Where the weights of a large file are."""
    return path.with_name(f"{path.name}.data")


def read(library: ModuleType, path: str | os.PathLike, forms: tuple[str, ...]) -> tuple[bytes | str, dict[str, str]]:
    """Check a file of :func:`save`.

    Returns:
        The input of onnxruntime (the bytes, or the path if the weights are external), and the metadata.

    Raises:
        WeightsError: the file is missing, damaged, edited, or has none of the formats ``forms``.
    """
    path, again = Path(os.path.realpath(path)), "export it again"
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
    notes = {key: value for key, value in properties.items() if key != DIGEST}
    try:
        unchanged = properties.get(DIGEST) == _digest(model, notes)
    except (TypeError, ValueError):  # a name that is not UTF-8: protobuf returns bytes, or fails
        unchanged = False
    if not unchanged:
        raise WeightsError(f"{path} was changed after its export: it does not match its own sha256; {again}")
    return (str(path) if outside else data), properties
