"""The README of an exported folder: what it contains, and code that loads it. The tests run that code unchanged."""

from __future__ import annotations

from typing import Any

from ashnets.export.graph import SpikingGraph

_LAVA = """
from lava.lib.dl.netx import hdf5
network = hdf5.Network("network.h5", reset_interval={steps}, reset_offset=1)
print(network)
"""

_STEP = """
import numpy as np, onnxruntime
sample = np.load("sample.npz")
session = onnxruntime.InferenceSession("network.onnx", providers=["CPUExecutionProvider"])

batch = sample["spikes"].shape[1]
state = {{i.name: np.zeros((batch, *i.shape[1:]), np.float32) for i in session.get_inputs() if i.name != "spikes"}}
names = [o.name for o in session.get_outputs()]
for t, spikes in enumerate(sample["spikes"].astype(np.float32)):
    out = dict(zip(names, session.run(names, {{"spikes": spikes, **state}})))
    state = {{name: out[name + "_next"] for name in state}}
    assert (out["{last}"] == sample["expected_{last}"][t]).all()
"""

_SEQUENCE = """
import numpy as np, onnxruntime
sample = np.load("sample.npz")
session = onnxruntime.InferenceSession("network.onnx", providers=["CPUExecutionProvider"])

batch = sample["spikes"].shape[1]
state = {{i.name: np.zeros((batch, *i.shape[1:]), np.float32) for i in session.get_inputs() if i.name != "spikes"}}
(spikes,) = session.run(["{last}"], {{"spikes": sample["spikes"].astype(np.float32), **state}})
assert (spikes == sample["expected_{last}"]).all()
"""

_MODEL = """
import numpy as np, onnxruntime
sample = np.load("sample.npz")
session = onnxruntime.InferenceSession("network.onnx", providers=["CPUExecutionProvider"])

inputs = {{i.name: sample[i.name] for i in session.get_inputs()}}
names = [o.name for o in session.get_outputs()]
for name, value in zip(names, session.run(names, inputs)):
    assert np.allclose(value, sample["expected_" + name], rtol=0, atol=1e-4 * np.abs(value).max()), name
"""

_NIR = """
import numpy as np, torch
from spikingjelly.activation_based import neuron, nir_exchange
network = nir_exchange.import_from_nir("network.nir", dt={dt})

# spikingjelly fires at the threshold, NIR above it
for module in network.modules():
    if isinstance(module, neuron.LIFNode):
        module.v_threshold = float(np.nextafter(np.float32(module.v_threshold), np.float32(np.inf)))
sample, state = np.load("sample.npz"), None
for t, spikes in enumerate(torch.from_numpy(sample["spikes"]).float()):
    out, state = network(spikes, state)
    differ = int((out.detach().numpy() != sample["expected_{last}"][t]).sum())
    print(f"step {{t}}: {{differ}} spikes differ")
"""

_CODE = {
    "lava": _LAVA,
    "onnx": _STEP,
    "onnx-sequence": _SEQUENCE,
    "onnx-unrolled": _SEQUENCE,
    "onnx-model": _MODEL,
    "nir": _NIR,
}

_NOTES = {
    "lava": """
lava-nc 0.10.0 was written for Python 3.10 and NumPy 1. With newer versions it does not import, and its simulation
fails for 128 or more channels or pixels. Run these lines first, or call `ashnets.export.lava_simulation.simulate`,
which does everything in a separate process:

    from ashnets.export.lava_simulation import prepare_lava
    prepare_lava()

Stream the samples one after another. Each layer is one step late: step t of sample n of the last layer is at index
n·{steps} + t + {layers} of a sink, so run N·{steps} + {layers} steps for N samples. lava orders an array as (W, H, C),
`sample.npz` as (T, N, C, H, W).
""",
    "onnx": """
A call is one step. Membranes go in as `v_<layer>` and come out as `v_<layer>_next`; in the reset state they are zeros.
The batch size is free.
""",
    "onnx-sequence": """
A call is a whole sequence (T, B, C, H, W) with any T. Membranes go in as `v_<layer>` and come out as `v_<layer>_next`;
in the reset state they are zeros.
""",
    "onnx-unrolled": """
A call is a sequence (T, B, C, H, W) with T = {steps}; the graph has no loop. Membranes go in as `v_<layer>` and come
out as `v_<layer>_next`; in the reset state they are zeros.
""",
    "onnx-model": """
The sampler is not in the file: draw `spikes` (T, B, 3, H, W) from the pixel intensities in [0, 1] with
`ashnets.model.sampling`. Batch size and text length are free.
""",
    "nir": """
snntorch reads the file with `snntorch.import_nir.import_from_nir(nir.read("network.nir"))`. norse ignores r, which is 1
here. sinabs 3.1.3 cannot read the file.
""",
}


def readme(graph: SpikingGraph, to: str, report: dict[str, Any]) -> str:
    """The README as Markdown."""
    values = {
        "steps": graph.time_steps,
        "layers": len(graph.layers),
        "last": graph.layers[-1].name,
        "dt": graph.dt,
    }
    code = _CODE[to].format(**values).strip("\n")
    rows = "\n".join(
        f"| {layer.name} | {layer.weight.shape[1] * layer.groups} → {layer.weight.shape[0]} | "
        f"{'×'.join(map(str, layer.weight.shape[2:]))} | {layer.stride[0]} | "
        f"{' × '.join(map(str, layer.output_shape))} | {layer.beta:g} | {_threshold(layer)} |"
        for layer in graph.layers
    )
    results = [
        f"{count} of {report['compared']:,} outputs, {report['fired'] or 'none'} of them spikes, differ in {tool}"
        for tool, count in report.get("mismatches", {}).items()
    ]
    warnings = "".join(f"\nWarning: {text}.\n" for text in report.get("warnings", ()))
    if "largest_difference" in report:
        results.append(
            f"outputs differ from torch by at most {max(report['largest_difference'].values()):.1e} of their magnitude "
            f"(tolerance {report['tolerance']:g})"
        )
    results += [f"{tool} was not run ({reason})" for tool, reason in report["not_run"].items()]
    return f"""# {graph.name}: spiking encoder for {to}

Written by ashnets {graph.provenance["ashnets"]}; precision {graph.precision}, quantization {report["quantization"]}.
Compared on {report["images"]} images of {report["steps"]} steps: {"; ".join(results)}.
{warnings}
```python
{code}
```
{_NOTES[to].format(**values)}
| layer | channels | kernel | stride | neurons | β | θ |
|---|---|---|---|---|---|---|
{rows}

T = {graph.time_steps} steps an image. Membranes are {_carry(graph)}. Input: {graph.encoding.kind} spikes, drawn outside
the network from the pixel intensities in [0, 1] with seed {graph.encoding.seed}. `sample.npz` contains input and
expected output; `report.json` contains sizes, hashes and versions.
"""


def _threshold(layer: Any) -> str:
    if layer.integer is None:
        return f"{layer.theta:g}"
    return f"{layer.integer.threshold} steps of {layer.integer.step:.4g}"


def _carry(graph: SpikingGraph) -> str:
    if graph.carry == "group" and graph.group_size > 1:
        return (
            f"carried over a group of φ = {graph.group_size} similar images; a single image starts from a reset state"
        )
    return "reset at each image"
