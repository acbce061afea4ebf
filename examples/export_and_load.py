"""Export the spiking encoder to ONNX, NIR and Lava, and load each file with the library that it is for.

python examples/export_and_load.py --output out/formats
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import h5py
import nir
import numpy as np
import onnxruntime

import ashnets


def run_onnx(folder: Path) -> tuple[int, int]:
    """Run the exported steps on the sample; returns its spikes in the last layer, and how many of them differ."""
    session = onnxruntime.InferenceSession(folder / "network.onnx", providers=["CPUExecutionProvider"])
    sample = np.load(folder / "sample.npz")
    spikes = sample["spikes"].astype(np.float32)  # (T, B, 3, H, W)
    state = {i.name: np.zeros((spikes.shape[1], *i.shape[1:]), np.float32) for i in session.get_inputs()[1:]}
    names, fired, different = [one.name for one in session.get_outputs()], 0, 0
    for step, expected in zip(spikes, sample["expected_concepts"], strict=True):
        out = dict(zip(names, session.run(names, {"spikes": step, **state}), strict=True))
        state = {name: out[f"{name}_next"] for name in state}
        fired += int(out["concepts"].sum())
        different += int((out["concepts"] != expected).sum())
    return fired, different


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="ashnets-tiny", help="name or folder of a model")
    parser.add_argument("--output", type=Path, required=True, help="folder for the exports")
    given = parser.parse_args(arguments)

    for name in ("onnx", "nir", "lava"):  # Lava computes in integers, so a float model is rounded
        folder = given.output / name
        ashnets.export_encoder(given.model, name, output=folder, quantize=name == "lava", progress=False)

    fired, different = run_onnx(given.output / "onnx")
    print(f"ONNX: {fired} spikes of the last layer in onnxruntime, {different} differ from ours")
    graph = nir.read(given.output / "nir" / "network.nir")
    print("NIR:", ", ".join(f"{name} ({type(node).__name__})" for name, node in graph.nodes.items()))
    with h5py.File(given.output / "lava" / "network.h5") as file:
        kinds = [layer["type"][()].decode() for _, layer in sorted(file["layer"].items(), key=lambda one: int(one[0]))]
        print("Lava:", ", ".join(kinds))


if __name__ == "__main__":
    main()
