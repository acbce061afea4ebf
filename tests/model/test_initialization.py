"""Backbone and transformer from other checkpoints: every tensor, or an error."""

from __future__ import annotations

import shutil

import pytest
import torch
from small_model import random_images, small_config
from transformers import BertConfig, BertModel, ResNetConfig, ResNetForImageClassification, ResNetModel

from ashnets.errors import ConfigurationError, WeightsError
from ashnets.model import AshNetsForPreTraining, AshNetsModel
from ashnets.model.concrete_encoder import ConcreteEncoder
from ashnets.model.initialization import load_backbone, load_transformer, spaced_layers


def library_resnet(**changes) -> ResNetConfig:
    settings = {"layer_type": "basic", "depths": [2, 2], "hidden_sizes": [8, 12], "embedding_size": 8}
    return ResNetConfig(**{**settings, **changes}, hidden_act="relu")


def library_bert(**changes) -> BertConfig:
    settings = {
        "vocab_size": 90,
        "hidden_size": 16,
        "num_hidden_layers": 6,
        "num_attention_heads": 2,
        "intermediate_size": 24,
        "max_position_embeddings": 20,
    }
    return BertConfig(**{**settings, **changes})


def shaken(model: torch.nn.Module) -> torch.nn.Module:
    """Every tensor away from its initial value, so that nothing can be equal by chance."""
    generator = torch.Generator().manual_seed(5)
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.add_(torch.rand(tensor.shape, generator=generator) * 0.2)
    return model.eval()


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bert")
    model = shaken(BertModel(library_bert()))
    model.save_pretrained(folder)
    return folder, model


@pytest.mark.parametrize("cls", [ResNetModel, ResNetForImageClassification])
def test_backbone_from_a_folder(tmp_path, cls):
    theirs = shaken(cls(library_resnet()))
    theirs.save_pretrained(tmp_path)
    model = AshNetsModel(small_config()).eval()
    projection = model.vision.concrete_encoder.projection.weight.clone()
    sentence = load_backbone(model, tmp_path)
    assert str(tmp_path) in sentence and "resnet-tiny" in sentence
    x = random_images(2)
    body = theirs if cls is ResNetModel else theirs.resnet
    with torch.no_grad():
        found = model.vision.concrete_encoder.backbone(x).last_hidden_state
        assert torch.equal(found, body(x).last_hidden_state)
    assert torch.equal(model.vision.concrete_encoder.projection.weight, projection)


def test_random_backbone_stays_and_says_so():
    model = AshNetsModel(small_config())
    before = {k: v.clone() for k, v in model.state_dict().items()}
    assert "random weights" in load_backbone(model, "random")
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_imagenet_without_a_network_names_the_remedy():
    model = AshNetsModel(
        small_config(backbone="resnet18", backbone_widths=[], image_size=32, spiking_channels=[2, 2, 2, 2, 2])
    )
    with pytest.raises(WeightsError, match=r"microsoft/resnet-18.*give a folder"):
        load_backbone(model, "imagenet")


def test_no_imagenet_weights_of_the_tiny_backbone():
    with pytest.raises(ConfigurationError, match="'resnet-tiny' are published"):
        load_backbone(AshNetsModel(small_config()), "imagenet")


def deep_config(backbone: str, **changes):
    return small_config(backbone=backbone, backbone_widths=[], image_size=64, spiking_channels=[2] * 5, **changes)


@pytest.mark.parametrize("backbone", ["resnet101", "resnet152"])
def test_a_deepened_resnet_computes_what_resnet50_does(tmp_path, backbone):
    """All four stages are equal to the bit; the new blocks learn: their last γ has a gradient."""
    torch.manual_seed(0)
    theirs = ResNetModel(ResNetConfig(hidden_act="relu")).eval()
    theirs.save_pretrained(tmp_path)
    encoder = ConcreteEncoder(deep_config(backbone)).eval()
    sentence = load_backbone(encoder, tmp_path)
    assert sentence == f"backbone {backbone}: ResNet-50 deepened by blocks that add nothing yet ({tmp_path})"
    x = random_images(2, 64)
    with torch.no_grad():
        found, expected = (body(x, output_hidden_states=True).hidden_states for body in (encoder.backbone, theirs))
    assert len(found) == len(expected) == 5
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    encoder(x).square().sum().backward()
    new = encoder.backbone.encoder.stages[2].layers[-1].layer[-1].normalization
    assert (new.weight == 0).all() and new.weight.grad.abs().max() > 0


def test_another_stride_is_refused(tmp_path):
    """The tensors of both forms have the same shapes, so that nothing else would show the difference."""
    ResNetModel(ResNetConfig(downsample_in_bottleneck=True)).save_pretrained(tmp_path)
    with pytest.raises(WeightsError, match=r"set changes\.downsample_in_bottleneck=True"):
        load_backbone(ConcreteEncoder(deep_config("resnet50")), tmp_path)
    load_backbone(ConcreteEncoder(deep_config("resnet50", downsample_in_bottleneck=True)), tmp_path)


def test_a_repository_of_the_hub_without_a_network():
    with pytest.raises(WeightsError, match=r"someone/resnet: ResNetModel cannot be loaded"):
        load_backbone(AshNetsModel(small_config()), "hub:someone/resnet")


def test_backbone_of_another_shape_changes_nothing(tmp_path):
    ResNetModel(library_resnet(hidden_sizes=[8, 16])).save_pretrained(tmp_path)
    model = AshNetsModel(small_config())
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(WeightsError, match=r"is \(16, 8, 1, 1\), not \(12, 8, 1, 1\)"):
        load_backbone(model, tmp_path)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_backbone_of_another_kind(bert):
    with pytest.raises(WeightsError, match="give a checkpoint of a ResNetModel"):
        load_backbone(AshNetsModel(small_config()), bert[0])


def test_no_such_source(tmp_path):
    model = AshNetsModel(small_config())
    with pytest.raises(WeightsError, match="is not a folder: give 'imagenet', 'random', 'hub:org/repository'"):
        load_backbone(model, tmp_path / "none")
    with pytest.raises(WeightsError, match="is not a folder"):
        load_transformer(model, tmp_path / "none")
    with pytest.raises(WeightsError, match=r"no config\.json"):
        load_transformer(model, tmp_path)


def test_a_pickle_is_refused(bert, tmp_path):
    shutil.copy(bert[0] / "config.json", tmp_path)
    torch.save(bert[1].state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(WeightsError, match=r"pytorch_model\.bin but no \.safetensors"):
        load_transformer(AshNetsModel(small_config()), tmp_path)


def test_transformer_rows_positions_and_layers(bert):
    folder, theirs = bert
    rows = list(range(7, 87, 2))  # 40
    model = AshNetsForPreTraining(small_config())
    visual = model.ashnets.transformer.visual_positions.weight.clone()
    sentence = load_transformer(model, folder, layers=[1, 4], rows=rows)
    assert "layers 2, 5 of 6" in sentence and "40 of 90 word embeddings" in sentence and "16 of 20" in sentence
    ours = model.ashnets.transformer.bert
    assert torch.equal(ours.embeddings.word_embeddings.weight, theirs.embeddings.word_embeddings.weight[rows])
    assert torch.equal(ours.embeddings.position_embeddings.weight, theirs.embeddings.position_embeddings.weight[:16])
    assert torch.equal(ours.embeddings.token_type_embeddings.weight, theirs.embeddings.token_type_embeddings.weight)
    for mine, number in zip(ours.encoder.layer, (1, 4), strict=True):
        theirs_state = theirs.encoder.layer[number].state_dict()
        assert all(torch.equal(value, theirs_state[key]) for key, value in mine.state_dict().items())
    assert model.mlm.decoder.weight is ours.embeddings.word_embeddings.weight  # still tied
    assert torch.equal(model.ashnets.transformer.visual_positions.weight, visual)


def test_whole_transformer_computes_the_same(bert):
    folder, theirs = bert
    model = AshNetsModel(small_config(vocab_size=90, num_hidden_layers=6)).eval()
    load_transformer(model, folder)
    ids = torch.tensor([[2, 17, 40, 3], [2, 88, 3, 0]])
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])
    with torch.no_grad():
        expected = theirs(input_ids=ids, attention_mask=mask).last_hidden_state
        found = model(input_ids=ids, attention_mask=mask).last_hidden_state
    torch.testing.assert_close(found[mask.bool()], expected[mask.bool()])


def test_spaced_layers():
    assert spaced_layers(6, 3) == [0, 2, 5]
    assert spaced_layers(12, 3) == [0, 5, 11]
    assert spaced_layers(12, 12) == list(range(12))
    assert spaced_layers(6, 1) == [0]
    with pytest.raises(WeightsError, match="6 layers, the model 12"):
        spaced_layers(6, 12)


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({}, {}, r"word_embeddings.weight is \(90, 16\), not \(40, 16\)"),
        ({}, {"rows": range(39)}, r"is \(39, 16\), not \(40, 16\)"),
        ({}, {"rows": [90] * 40}, "beyond the 90 word embeddings"),
        ({}, {"rows": [-1] * 40}, "beyond the 90 word embeddings"),
        ({}, {"rows": range(40), "layers": [0]}, "give 2 numbers in 0..5"),
        ({}, {"rows": range(40), "layers": [0, 6]}, "give 2 numbers in 0..5"),
        ({"num_attention_heads": 4}, {"rows": range(40)}, "2 attention heads, the model 4"),
        ({"max_position_embeddings": 64}, {"rows": range(40)}, "20 positions, fewer than"),
        ({"intermediate_size": 32}, {"rows": range(40)}, r"is \(24, 16\), not \(32, 16\)"),
    ],
)
def test_transformers_that_do_not_fit(bert, changes, options, message):
    model = AshNetsModel(small_config(**changes))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(WeightsError, match=message):
        load_transformer(model, bert[0], **options)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
