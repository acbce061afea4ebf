r"""The spiking graph as a NIR file, and the readers that test it: spikingjelly, snntorch and norse.

    τ·dv/dt = −v + r·i        stepped by dt:   v[t] = v[t−1] + (dt/τ)·(r·i[t] − v[t−1]) = β·v[t−1] + (1 − β)·r·i[t]

with τ = dt/(1 − β) and r = 1. The weights of the file are W'/(1 − β), so that its neurons receive our currents; for β =
1/2 the factor is 2, and nothing is rounded. As the format requires, every neuron has its own entry in τ, r, v_leak (0),
v_reset (0) and v_threshold (θ). The sum i has the same bits in any order (``folding.py``), but each reader updates v by
its own arithmetic: snntorch as we do, spikingjelly and norse by v + (i − v)·dt/τ, whose last bit may differ.
:func:`compare_nir` counts the differences.

In NIR a neuron fires above its threshold; in spikingjelly it also fires at the threshold. :func:`load_in_spikingjelly`
therefore replaces θ by the next larger float32. NIR has no neuron that truncates, so an integer graph is refused.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import io
import itertools
import json
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ashnets.errors import ConfigurationError, MissingExtraError, WeightsError
from ashnets.export.graph import SpikingGraph, check_spikes
from ashnets.files import JsonObject, write_atomically
from ashnets.words import install

if TYPE_CHECKING:
    import nir

FORMAT = "ashnets-nir/1"
Stepper = Callable[[torch.Tensor], torch.Tensor]


def write_nir(graph: SpikingGraph, path: str | os.PathLike) -> Path:
    """Write a float graph as NIR.

    Args:
        graph: see :func:`ashnets.export.graph.from_model`.
        path: of the file, which appears when it is complete.

    Raises:
        ConfigurationError: an integer graph, or β = 0, whose τ the readers refuse.
        MissingExtraError: nir is not installed.
    """
    nir = _require("nir")
    notes = {
        "format": FORMAT,
        "name": graph.name,
        "layers": json.dumps([layer.name for layer in graph.layers]),
        "time_steps": str(graph.time_steps),
        "carry": graph.carry,
        "group_size": str(graph.group_size),
        "dt": str(graph.dt),
        "input_encoding": json.dumps(asdict(graph.encoding)),
        "provenance": json.dumps(graph.provenance),
    }
    nodes: JsonObject = {"input": nir.Input({"input": np.array(graph.input_shape)})}
    for layer in graph.layers:
        if layer.integer is not None:
            raise ConfigurationError(
                f"{graph.name}: layer {layer.name} is in integers, and NIR has no neuron whose decay truncates: export "
                "it to lava or onnx, or a model of precision float to NIR"
            )
        if layer.beta == 0:
            raise ConfigurationError(
                f"{layer.name}: β=0 means τ = dt, a neuron without memory, which readers of NIR refuse: choose decay_k "
                "below 4096"
            )
        scale = 1 / (1 - layer.beta)
        nodes[f"{layer.name}_conv"] = nir.Conv2d(
            input_shape=layer.input_shape[1:],
            weight=(layer.weight.double() * scale).float().numpy(),
            stride=layer.stride,
            padding=layer.padding,
            dilation=layer.dilation,
            groups=layer.groups,
            bias=(layer.bias.double() * scale).float().numpy(),
        )
        nodes[layer.name] = nir.LIF(
            tau=np.full(layer.output_shape, scale * graph.dt),
            r=np.ones(layer.output_shape),
            v_leak=np.zeros(layer.output_shape),
            v_threshold=np.full(layer.output_shape, layer.theta),
            v_reset=np.zeros(layer.output_shape),
        )
    nodes["output"] = nir.Output({"output": np.array(graph.layers[-1].output_shape)})
    names = list(nodes)
    written = nir.NIRGraph(nodes, list(itertools.pairwise(names)), metadata=notes)
    written.metadata = {**notes, "sha256": _digest(written, notes)}
    buffer = io.BytesIO()
    nir.write(buffer, written)
    return write_atomically(path, buffer.getvalue())


def read_nir(path: str | os.PathLike) -> nir.NIRGraph:
    """Read and verify the ``NIRGraph`` in a file of :func:`write_nir`.

    Raises:
        MissingExtraError: nir is not installed.
        WeightsError: the file is missing, damaged, edited, or not of this format.
    """
    nir = _require("nir")
    path, again = Path(path), "export it again"
    if not path.is_file():
        raise WeightsError(f"{path} is no file: give the path of an exported graph")
    try:
        found = nir.read(path)
        notes = {key: _text(value) for key, value in found.metadata.items()}
        sha256 = notes.pop("sha256", None)
        if notes.get("format") == FORMAT:
            digest = _digest(found, notes)
    except Exception as error:  # h5py and nir raise OSError, KeyError, ValueError, AssertionError ...
        raise WeightsError(
            f"{path} is damaged or cut short: NIR cannot read it ({' '.join(str(error).split())[:120]}); {again}"
        ) from error
    if notes.get("format") != FORMAT:
        raise WeightsError(
            f"{path}: its format is {notes.get('format')!r}, this ashnets reads {FORMAT!r} (a file of another tool or "
            f"version); {again}"
        )
    if sha256 != digest:
        raise WeightsError(f"{path} was changed after its export: it does not match its own sha256; {again}")
    return found


def load_in_spikingjelly(path: str | os.PathLike) -> Stepper:
    """Load a file of :func:`write_nir` as a network of spikingjelly.

    Returns:
        A function of one step: input spikes (B, C, H, W) to those of the last layer. It starts from a reset state.

    Raises:
        MissingExtraError: nir or nirtorch is not installed.
        WeightsError: see :func:`read_nir`.
    """
    _require("nirtorch")
    from spikingjelly.activation_based import neuron, nir_exchange

    graph = read_nir(path)
    with _quiet():
        network = nir_exchange.import_from_nir(graph, dt=float(_text(graph.metadata["dt"])))
    for module in network.modules():
        if isinstance(module, neuron.LIFNode):
            module.v_threshold = float(np.nextafter(np.float32(module.v_threshold), np.float32(np.inf)))
    return _stepper(network)


def load_in_snntorch(path: str | os.PathLike) -> Stepper:
    """Load it as a network of snntorch, which supports only dt = 1e-4.

    Raises:
        MissingExtraError: nir, nirtorch or snntorch is not installed.
        WeightsError: see :func:`read_nir`.
    """
    _require("nirtorch")
    read = _reader("snntorch.import_nir").import_from_nir
    with _quiet():
        network = read(read_nir(path))
    return _stepper(network)


def load_in_norse(path: str | os.PathLike) -> Stepper:
    """Load it as a network of norse, which needs dt and ignores r.

    Raises:
        MissingExtraError: nir, nirtorch or norse is not installed.
        WeightsError: see :func:`read_nir`.
    """
    _require("nirtorch")
    read = _reader("norse.torch").from_nir
    graph = read_nir(path)
    with _quiet():
        network = read(graph, dt=float(_text(graph.metadata["dt"])))
    return _stepper(network)


LOADERS: dict[str, Callable[[str | os.PathLike], Stepper]] = {
    "spikingjelly": load_in_spikingjelly,
    "snntorch": load_in_snntorch,
    "norse": load_in_norse,
}


@torch.no_grad()
def run_nir(step: Stepper, spikes: torch.Tensor) -> torch.Tensor:
    """Run a sequence (T', B, C, H, W) from a reset state; returns the last layer's spikes (T', B, C, h, w)."""
    return torch.stack([step(x).detach() for x in spikes.float()])


@torch.no_grad()
def compare_nir(path: str | os.PathLike, graph: SpikingGraph, spikes: torch.Tensor) -> dict[str, int]:
    """Count the spikes of the last layer that differ from those of the graph, for each installed reader.

    Args:
        path: a file of :func:`write_nir`.
        graph: what it was written from.
        spikes: (T', B, C, H, W).
    """
    check_spikes(spikes, graph.input_shape)
    expected = graph.run(spikes)[0][graph.layers[-1].name]
    found = {}
    for name, load in LOADERS.items():
        with contextlib.suppress(MissingExtraError):
            found[name] = int((run_nir(load(path), spikes) != expected).sum())
    return found


def _stepper(network: Callable[[torch.Tensor, Any], tuple[torch.Tensor, Any]]) -> Stepper:
    """One step of nirtorch's executor, which keeps its state here."""
    state: Any = None

    def step(spikes: torch.Tensor) -> torch.Tensor:
        nonlocal state
        out, state = network(spikes, state)
        return out

    return step


def _digest(graph: nir.NIRGraph, notes: dict[str, str]) -> str:
    """The sha256 of the arrays of all nodes, the edges and the notes."""
    found = hashlib.sha256(json.dumps(sorted(notes.items())).encode())
    found.update(json.dumps(sorted([str(a), str(b)] for a, b in graph.edges)).encode())
    for name, node in sorted(graph.nodes.items()):
        found.update(f"{name} {type(node).__name__} ".encode())
        for key, value in sorted(vars(node).items()):
            if key in ("input_type", "output_type", "metadata", "name"):
                continue
            array = np.asarray(value)
            found.update(f"{key} {array.shape} ".encode())
            found.update(str(value).encode() if array.dtype.kind in "OSU" else array.astype(np.float64).tobytes())
    return found.hexdigest()


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


@contextlib.contextmanager
def _quiet():
    """Hide what readers print about their scaling."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield


def _reader(module: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        library = module.partition(".")[0]
        raise MissingExtraError(f"{library} is not installed ({error}): {install('nir')}") from error


def _require(library: str) -> ModuleType:
    try:
        return __import__(library)
    except ImportError as error:
        raise MissingExtraError(f"NIR export needs {library} ({error}): {install('nir')}") from error
