"""The README of an exported folder: what it contains, and code that loads it. The tests run that code unchanged."""

from __future__ import annotations

from typing import Any

from ashnets.export.graph import SpikingGraph
from ashnets.files import JsonObject

_LAVA = """
import dataclasses, sys, types
import numpy as np

# lava-nc 0.10.0 was written for Python 3.10; its ByteEncoder is the default of a field and must be hashable since 3.11
original = dataclasses.dataclass
def hashable(cls=None, /, **options):
    def wrap(c):
        return original(c, **(options | ({{"unsafe_hash": True}} if c.__name__ == "ByteEncoder" else {{}})))
    return wrap if cls is None else wrap(cls)
dataclasses.dataclass = hashable
# this module needs torchvision and serves only training on images with boxes
sys.modules["lava.lib.dl.slayer.object_detection"] = types.ModuleType("object_detection")
from lava.lib.dl.netx import hdf5
from lava.proc.conv import utils
dataclasses.dataclass = original

# lava has these in 8 bits, which NumPy 2 does not widen for 128 or more channels or pixels
convolve = utils.conv_scipy
def conv_scipy(spikes, weight, *geometry):
    return convolve(spikes, weight, *(tuple(map(int, n)) if np.ndim(n) else int(n) for n in geometry))
utils.conv_scipy = conv_scipy

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

_SANAFE = """
import json, subprocess, sys
import numpy as np

python = sys.executable  # or the path of another Python, one that has sanafe 2.2.9 and numpy
subprocess.run([python, "run_sanafe.py", "--images", "1"], check=True)
assert json.load(open("results.json"))["differ"] == 0
"""

_IMAGE = """
import hashlib
import numpy as np
from PIL import Image, ImageOps

image = ImageOps.exif_transpose(Image.open("sample.jpg")).convert("RGB")  # your own file
image = image.resize(({width}, {height}), Image.Resampling.BICUBIC)
pixels = np.asarray(image).transpose(2, 0, 1).astype(np.float32) / 255  # (3, {height}, {width})

key = int.from_bytes(hashlib.blake2b(pixels.tobytes(), digest_size=8).digest(), "little") >> 1
bar = np.round(pixels.ravel() * np.float32(1 << 24)).astype(np.uint32)
own = np.empty(({steps}, 1, *pixels.shape), np.uint8)  # spikes (T, 1, 3, {height}, {width})
for t in range({steps}):
    state, mask = 0, (1 << 64) - 1
    for word in ({seed}, key, t):  # seed, image, step
        z = ((state ^ (word & mask)) + 0x9E3779B97F4A7C15) & mask
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        state = z ^ (z >> 31)
    x = np.arange(pixels.size, dtype=np.uint32) * np.uint32(0x9E3779B9) ^ np.uint32(state & 0xFFFFFFFF)
    x = (x ^ (x >> 16)) * np.uint32(0x7FEB352D) + np.uint32(state >> 32)
    x = (x ^ (x >> 15)) * np.uint32(0x846CA68B)
    own[t, 0] = ((x ^ (x >> 16)) >> 8 < bar).reshape(pixels.shape)
np.savez("own.npz", spikes=own)
"""

_RUN_STEP = """
state = {{i.name: np.zeros((1, *i.shape[1:]), np.float32) for i in session.get_inputs() if i.name != "spikes"}}
counts = 0  # (1, channels, h, w)
for spikes in own.astype(np.float32):
    out = dict(zip(names, session.run(names, {{"spikes": spikes, **state}})))
    state = {{name: out[name + "_next"] for name in state}}
    counts = counts + out["{last}"]
print(int(counts.sum()), "spikes of {last}")
"""

_RUN_SEQUENCE = """
state = {{i.name: np.zeros((1, *i.shape[1:]), np.float32) for i in session.get_inputs() if i.name != "spikes"}}
(spikes,) = session.run(["{last}"], {{"spikes": own.astype(np.float32), **state}})
counts = spikes.sum(0)  # (1, channels, h, w)
print(int(counts.sum()), "spikes of {last}")
"""

_READING = """
import onnxruntime
reading = onnxruntime.InferenceSession("reading.onnx", providers=["CPUExecutionProvider"])
texts = np.load("texts.npz")

tokens = counts.reshape(1, counts.shape[1], -1).transpose(0, 2, 1).astype(np.float32)  # (1, N, concepts)
ratio = np.ones((1, tokens.shape[1], 1), np.float32)  # SR; ones: without the concrete encoder
(embed,) = reading.run(None, {"counts": tokens, "summary_ratio": ratio})
cosines = texts["embeds"] @ embed[0]
for i in np.argsort(-cosines)[:5]:
    print(f"{cosines[i]:.3f}", texts["texts"][i])
"""

_RUN_MODEL = """
text = {{name: inputs[name][:1] for name in ("input_ids", "attention_mask")}}
given = {{"pixel_values": pixels[None], "spikes": own.astype(np.float32), **text}}
for name, value in zip(names, session.run(names, given)):
    print(name, value.shape)
"""

_RUN_NIR = """
state, counts = None, 0  # (1, channels, h, w)
for spikes in torch.from_numpy(own).float():
    out, state = network(spikes, state)
    counts = counts + out.detach().numpy()
print(int(counts.sum()), "spikes of {last}")
"""

_RUN_LAVA = """
from lava.magma.core.run_conditions import RunSteps
from lava.magma.core.run_configs import Loihi2SimCfg
from lava.proc.io.sink import RingBuffer as Sink
from lava.proc.io.source import RingBuffer as Source

late = {layers}  # steps: one for each layer
stream = np.pad(own[:, 0], [(0, late), (0, 0), (0, 0), (0, 0)]).transpose(3, 2, 1, 0).astype(np.int8)  # (W, H, C, T)
source, sink = Source(data=stream), Sink(shape=network.out.shape, buffer=stream.shape[-1])
source.s_out.connect(network.inp)
network.out.connect(sink.a_in)
network.run(condition=RunSteps(num_steps=stream.shape[-1]), run_cfg=Loihi2SimCfg(select_tag="fixed_pt"))
counts = sink.data.get()[..., late:].sum(-1).transpose(2, 1, 0)[None]  # (1, channels, h, w)
network.stop()
print(int(counts.sum()), "spikes of {last}")
"""

_RUN_SANAFE = """
subprocess.run([python, "run_sanafe.py", "--spikes", "own.npz"], check=True)
counts = np.load("results.npz")["{last}"].sum(1)  # (1, channels, h, w)
print(int(counts.sum()), "spikes of {last}")
"""

_RUN = {
    "lava": _RUN_LAVA,
    "onnx": _RUN_STEP,
    "onnx-sequence": _RUN_SEQUENCE,
    "onnx-unrolled": _RUN_SEQUENCE,
    "onnx-model": _RUN_MODEL,
    "nir": _RUN_NIR,
    "sana-fe": _RUN_SANAFE,
}

_CODE = {
    "lava": _LAVA,
    "onnx": _STEP,
    "onnx-sequence": _SEQUENCE,
    "onnx-unrolled": _SEQUENCE,
    "onnx-model": _MODEL,
    "nir": _NIR,
    "sana-fe": _SANAFE,
}

_NOTES = {
    "lava": """
lava runs the network in further processes, as it does below, and does not report their errors.
`ashnets.export.lava_simulation.simulate` runs everything in a separate process and reports them. The simulation takes
seconds for small images and few channels, and hours for larger models.

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
    "sana-fe": """
`chip.yaml` describes the chip for `sanafe.load_arch`. `network.npz` contains the weights and the core of each neuron.
`run_sanafe.py` builds the network from both, since SANA-FE has an object for each synapse, and a file of all of them
would take gigabytes. It runs in a Python with sanafe 2.2.9 and numpy; `--timing detailed` models congestion. SANA-FE is
under the GPL; nothing in this folder contains its code. It charges the access of each neuron in all of the T + {layers}
steps that an image takes on the chip, and an update where something happens. ashnets charges both in T steps, and
takes the time of both in every step: its latency can be slightly longer.
{simulated}""",
    "nir": """
Other readers:

- snntorch: `snntorch.import_nir.import_from_nir(nir.read("network.nir"))`.
- norse 1.1.0: `norse.torch.from_nir(nir.read("network.nir"), dt={dt})`. It ignores r, which is 1 here.
- sinabs 3.1.3 reads no LIF of more than one dimension. Its layers can be built from the nodes, as below.
- rockpool 3.1.0 reads neither convolutions nor LIF nodes.

```python
import json, nir
import sinabs.activation, sinabs.layers

graph, spikes = nir.read("network.nir"), torch.from_numpy(sample["spikes"]).float()
for name in json.loads(graph.metadata["layers"]):
    conv, lif = graph.nodes[name + "_conv"], graph.nodes[name]
    beta = 1 - {dt} / lif.tau.flat[0]  # sinabs: v = β·v + x; NIR: v = β·v + (1 − β)·x
    weight, bias = (torch.from_numpy((1 - beta) * x).float() for x in (conv.weight, conv.bias))
    neurons = sinabs.layers.LIF(
        tau_mem=-1 / np.log(beta),
        # sinabs fires at the threshold, NIR above it
        spike_threshold=torch.from_numpy(np.nextafter(lif.v_threshold.astype(np.float32), np.float32(np.inf))),
        spike_fn=sinabs.activation.SingleSpike,
        reset_fn=sinabs.activation.MembraneReset(),
        train_alphas=True,
        norm_input=False,
    )
    neurons.alpha_mem.data.fill_(beta)  # not rounded by exp
    geometry = [tuple(int(n) for n in x) for x in (conv.stride, conv.padding, conv.dilation)]
    current = torch.nn.functional.conv2d(spikes.flatten(0, 1), weight, bias, *geometry, conv.groups)
    spikes = neurons(current.unflatten(0, spikes.shape[:2]).swapaxes(0, 1)).swapaxes(0, 1)  # sinabs: (B, T, C, H, W)
differ = int((spikes.detach().numpy() != sample["expected_{last}"]).sum())
print(f"sinabs: {{differ}} spikes differ")
```
""",
}


def readme(graph: SpikingGraph, to: str, report: JsonObject) -> str:
    """The README as Markdown."""
    values = {
        "steps": graph.time_steps,
        "layers": len(graph.layers),
        "last": graph.layers[-1].name,
        "dt": graph.dt,
        "simulated": _simulated(report),
    }
    code = _CODE[to].format(**values).strip("\n")
    height, width = graph.input_shape[1:]
    run = _RUN[to].format(**values).strip("\n")
    image = _IMAGE.format(height=height, width=width, seed=graph.encoding.seed, steps=graph.time_steps).strip("\n")
    reading = _reading(report) if "texts" in report else ""
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
    warned = [*([report["random_weights"]] if "random_weights" in report else ()), *report.get("warnings", ())]
    warnings = "".join(f"\nWarning: {text}.\n" for text in warned)
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

## From an image file to spikes

NumPy and PIL alone draw the spikes of ashnets, bit by bit:

```python
{image}
```

The network above runs on them:

```python
{run}
```
{reading}
T = {graph.time_steps} steps an image. Membranes are {_carry(graph)}. Input: {graph.encoding.kind} spikes, drawn outside
the network from the pixel intensities in [0, 1] with seed {graph.encoding.seed}. `sample.npz` contains input and
expected output, `sample.jpg` is a small image; `report.json` contains sizes, hashes and versions.
"""


def _reading(report: JsonObject) -> str:
    """The section on texts."""
    code = _READING.strip("\n")
    return f"""
## From spikes to text

`reading.onnx` turns the spike counts of the last layer into an embedding, on the host. `texts.npz` contains
{report["texts"]} sentences with their embeddings. The nearest sentences are what the spikes alone say about the image:

```python
{code}
```
"""


def _simulated(report: JsonObject) -> str:
    """The table of a simulation in SANA-FE."""
    if "simulated" not in report:
        return ""
    found = report["simulated"]
    names = {
        "packets": ("packets", 1.0),
        "hops": ("hops", 1.0),
        "network_pj": ("network energy, µJ", 1e6),
        "synapse_pj": ("synapse energy, µJ", 1e6),
        "soma_pj": ("soma energy, µJ", 1e6),
        "latency_ns": (f"latency ({found['timing']} timing), ms", 1e6),
    }
    rows = [
        f"| {label} | {found['sanafe'][key] / unit:,.1f} | {found['ashnets'][key] / unit:,.1f} |"
        for key, (label, unit) in names.items()
    ]
    head = ["", "| an image, mean of the sample | SANA-FE | ashnets |", "|---|---|---|"]
    return "\n".join([*head, *rows, ""])


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
