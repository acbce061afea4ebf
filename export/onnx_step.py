r"""The spiking graph as an ONNX step graph: one step a call, the membranes go in and come out.

    inputs   spikes (B, C, H, W)        v_<layer> (B, C, h, w), one for each layer, zeros at rest
    outputs  <last layer> (B, C, h, w)  v_<layer>_next          on request spikes_<layer> of every other layer

The caller owns the loop over T and the state, so streaming, batching and grouping need no other file. B is dynamic.

What equality can be had. onnxruntime and :meth:`SpikingGraph.run` agree in every spike, by construction (see
``graph.py``: sums without rounding). Against the model as trained, with convolution and tdBN apart, single spikes of
millions differ in the first layer and more from layer to layer (of a calibrated random encoder of ``ashnets-tiny``'s
shape some hundredths of a per cent in the last): folding rounds W' once where the model rounds conv and tdBN apart, and
a neuron within 10⁻⁶ of its threshold goes the other way. :func:`compare` reports both; ``ashnets demo`` prints them.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ashnets.errors import InputError, MissingExtraError, WeightsError
from ashnets.export.graph import SpikingGraph, State, check_spikes
from ashnets.files import write_atomically
from ashnets.model.abstract_encoder import AbstractEncoder

if TYPE_CHECKING:
    import onnx

OPSET = 20
IR_VERSION = 9  # that of the ONNX release which brought opset 20: older runtimes read it too
FORMAT = "ashnets-onnx-step/1"


def write_onnx_step(graph: SpikingGraph, path: str | os.PathLike, layer_spikes: bool = False) -> Path:
    """Write the step graph.

    Args:
        graph: see :func:`ashnets.export.graph.from_model`.
        path: of the file; written aside, then renamed.
        layer_spikes: also give the spikes of the layers before the last as outputs.

    Returns:
        The path.

    Raises:
        MissingExtraError: onnx is not installed.
    """
    onnx = _require("onnx")
    model = _build(onnx, graph, layer_spikes)
    onnx.checker.check_model(model, full_check=True)
    return write_atomically(path, model.SerializeToString(deterministic=True))


def _build(onnx: Any, graph: SpikingGraph, layer_spikes: bool) -> onnx.ModelProto:
    helper, numpy_helper, real = onnx.helper, onnx.numpy_helper, onnx.TensorProto.FLOAT

    def tensor(name: str, shape: tuple[int, ...]) -> Any:
        return helper.make_tensor_value_info(name, real, ["B", *shape])

    nodes, constants = [], []
    inputs = [tensor("spikes", graph.input_shape)]
    states, spikes = [], []
    x = "spikes"

    def constant(name: str, value: torch.Tensor) -> str:
        constants.append(numpy_helper.from_array(value.numpy(), name))
        return name

    zero = constant("zero", torch.tensor(0.0))
    for layer in graph.layers:
        n = layer.name
        fired = n if layer is graph.layers[-1] else f"spikes_{n}"
        beta = constant(f"{n}.beta", torch.tensor(layer.beta))
        theta = constant(f"{n}.theta", torch.tensor(layer.theta))
        weights = [constant(f"{n}.weight", layer.weight), constant(f"{n}.bias", layer.bias)]
        nodes += [
            helper.make_node(
                "Conv", [x, *weights], [f"{n}.current"], name=f"{n}/conv",
                kernel_shape=list(layer.weight.shape[2:]), strides=list(layer.stride), dilations=list(layer.dilation),
                pads=[*layer.padding, *layer.padding], group=layer.groups,
            ),
            helper.make_node("Mul", [f"v_{n}", beta], [f"{n}.kept"], name=f"{n}/leak"),
            helper.make_node("Add", [f"{n}.kept", f"{n}.current"], [f"{n}.h"], name=f"{n}/integrate"),
            helper.make_node("Greater", [f"{n}.h", theta], [f"{n}.fired"], name=f"{n}/fire"),
            helper.make_node("Cast", [f"{n}.fired"], [fired], name=f"{n}/spikes", to=real),
            helper.make_node("Where", [f"{n}.fired", zero, f"{n}.h"], [f"v_{n}_next"], name=f"{n}/reset"),
        ]  # fmt: skip
        inputs.append(tensor(f"v_{n}", layer.output_shape))
        states.append(tensor(f"v_{n}_next", layer.output_shape))
        spikes.append(tensor(fired, layer.output_shape))
        x = fired
    outputs = [spikes[-1], *states, *(spikes[:-1] if layer_spikes else [])]
    model = helper.make_model(
        helper.make_graph(nodes, f"{graph.name}-step", inputs, outputs, constants),
        producer_name="ashnets",
        producer_version=graph.provenance.get("ashnets", ""),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )
    helper.set_model_props(model, _metadata(graph, model))
    return model


def _metadata(graph: SpikingGraph, model: onnx.ModelProto) -> dict[str, str]:
    """What a reader needs beside the arithmetic; strings, as ONNX wants them."""
    lines = {
        "format": FORMAT,
        "layers": json.dumps([layer.name for layer in graph.layers]),
        "time_steps": str(graph.time_steps),
        "beta": json.dumps({layer.name: layer.beta for layer in graph.layers}),
        "theta": json.dumps({layer.name: layer.theta for layer in graph.layers}),
        "neuron": "h = beta*v + conv(s); s' = h > theta; v' = 0 where s', h elsewhere",
        "carry": graph.carry,
        "group_size": str(graph.group_size),
        "input_encoding": json.dumps(vars(graph.encoding)),
        "constants_sha256": _digest(model),
    }
    return {**lines, **{f"provenance.{key}": value for key, value in graph.provenance.items()}}


def _digest(model: onnx.ModelProto) -> str:
    """sha256 over the graph itself: a flipped bit in a weight is no error to any reader."""
    return hashlib.sha256(model.graph.SerializeToString(deterministic=True)).hexdigest()


@torch.no_grad()
def run_onnx(
    path: str | os.PathLike, spikes: torch.Tensor, state: State | None = None
) -> tuple[dict[str, torch.Tensor], State]:
    """Run a step graph over a sequence in onnxruntime, on the CPU.

    Args:
        path: a file of :func:`write_onnx_step`.
        spikes: (T', B, C, H, W), 0 and 1.
        state: membranes to start from; ``None`` starts at rest.

    Returns:
        Spikes by layer name, (T', B, C, h, w): all layers that the file gives; and the membranes after the last step.

    Raises:
        MissingExtraError: onnx or onnxruntime is not installed.
        WeightsError: the file is missing, damaged, or no step graph of ashnets.
        InputError: spikes or state do not fit.
    """
    onnx, runtime = _require("onnx"), _require("onnxruntime")
    data, layers = _read(onnx, Path(path))
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = runtime.InferenceSession(data, options, providers=["CPUExecutionProvider"])

    shapes = {put.name: tuple(put.shape[1:]) for put in session.get_inputs()}
    check_spikes(spikes, shapes["spikes"])
    batch = spikes.shape[1]
    if state is None:
        membranes = {f"v_{n}": torch.zeros(batch, *shapes[f"v_{n}"]).numpy() for n in layers}
    else:
        found, wanted = [tuple(v.shape) for v in state], [(batch, *shapes[f"v_{n}"]) for n in layers]
        if found != wanted:
            raise InputError(f"the state has shapes {found}; {path} needs {wanted}")
        membranes = {f"v_{n}": v.float().numpy() for n, v in zip(layers, state, strict=True)}
    names = [put.name for put in session.get_outputs()]
    fired: dict[str, list[torch.Tensor]] = {}
    for x in spikes.float():
        out = dict(zip(names, session.run(names, {"spikes": x.numpy(), **membranes}), strict=True))
        membranes = {f"v_{n}": out[f"v_{n}_next"] for n in layers}
        for n in layers:
            value = out.get(n, out.get(f"spikes_{n}"))
            if value is not None:
                fired.setdefault(n, []).append(torch.from_numpy(value))
    return {n: torch.stack(s) for n, s in fired.items()}, tuple(torch.from_numpy(v) for v in membranes.values())


def _read(onnx: Any, path: Path) -> tuple[bytes, list[str]]:
    """The checked bytes of a step graph and its layers' names."""
    again = "export it again"
    try:
        data = path.read_bytes()
    except OSError as error:
        raise WeightsError(f"{path} cannot be read ({error.strerror}): give the path of an exported graph") from error
    try:
        model = onnx.load_model_from_string(data)
        properties = {entry.key: entry.value for entry in model.metadata_props}
    except Exception as error:  # protobuf's DecodeError, whose class differs between its builds
        raise WeightsError(f"{path} is damaged or cut short: it does not parse as ONNX; {again}") from error
    if properties.get("format") != FORMAT:
        raise WeightsError(
            f"{path}: its format is {properties.get('format')!r}, this ashnets runs {FORMAT!r} (a file of another tool "
            f"or version, or one that was cut short); {again}"
        )
    if properties.get("constants_sha256") != _digest(model):
        raise WeightsError(f"{path} was changed after its export: its graph does not match its own sha256; {again}")
    return data, json.loads(properties["layers"])


@dataclass(frozen=True)
class LayerComparison:
    """Spikes of one layer compared: ``compared`` of them, and how many differ from each of two references."""

    layer: str
    compared: int
    differ_from_graph: int
    differ_from_model: int


@dataclass(frozen=True)
class Comparison:
    """ONNX in onnxruntime against two references, over the same input spikes from rest.

    Attributes:
        pictures, steps: what was run.
        layers: a :class:`LayerComparison` for each layer.
    """

    pictures: int
    steps: int
    layers: tuple[LayerComparison, ...]

    @property
    def compared(self) -> int:
        """Spikes (fired or not) compared, over all layers."""
        return sum(layer.compared for layer in self.layers)

    @property
    def differ_from_graph(self) -> int:
        """Spikes unlike those of the neutral graph, folded, run in torch: 0 is what an export must reach."""
        return sum(layer.differ_from_graph for layer in self.layers)

    @property
    def differ_from_model(self) -> int:
        """Spikes unlike those of the model as it was trained, convolution and tdBN apart."""
        return sum(layer.differ_from_model for layer in self.layers)


@torch.no_grad()
def compare(
    path: str | os.PathLike, graph: SpikingGraph, encoder: AbstractEncoder, spikes: torch.Tensor
) -> Comparison:
    """Run a step graph, its neutral graph and the model on the same spikes and count what differs.

    Args:
        path: a file written with ``layer_spikes=True``.
        graph: what the file was written from.
        encoder: the model's abstract encoder; run in evaluation mode.
        spikes: (T', B, C, H, W).

    Raises:
        InputError: the file gives no spikes of the inner layers.
    """
    exported, _ = run_onnx(path, spikes)
    missing = [layer.name for layer in graph.layers if layer.name not in exported]
    if missing:
        raise InputError(f"{path} gives no spikes of {', '.join(missing)}: write it with layer_spikes=True")
    folded, _ = graph.run(spikes)
    training = encoder.training
    encoder.eval()
    try:
        original, _ = encoder.run(spikes.float())
    finally:
        encoder.train(training)
    return Comparison(
        pictures=spikes.shape[1],
        steps=spikes.shape[0],
        layers=tuple(
            LayerComparison(
                layer=name,
                compared=folded[name].numel(),
                differ_from_graph=int((exported[name] != folded[name]).sum()),
                differ_from_model=int((exported[name] != original[name]).sum()),
            )
            for name in (layer.name for layer in graph.layers)
        ),
    )


def _require(library: str) -> Any:
    try:
        return __import__(library)
    except ImportError as error:
        raise MissingExtraError(f"ONNX export needs {library} ({error}): pip install ashnets[onnx]") from error
