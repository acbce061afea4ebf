"""Recipes: every mistake is named with its key; phases and rates by hand."""

from __future__ import annotations

import math

import pytest
import torch
import yaml
from torch import nn

from ashnets.errors import ConfigurationError
from ashnets.model import AshNetsForPreTraining
from ashnets.training.optim import build_optimisers, factor, part_of, set_learning_rates
from ashnets.training.recipe import Schedule, load_recipe


@pytest.fixture
def write(tmp_path, recipe_data):
    """Write the small recipe with changes."""

    def write(**changes):
        path = tmp_path / "r.yaml"
        path.write_text(yaml.safe_dump({**recipe_data, **changes}))
        return path

    return write


def test_bundled_recipes_are_valid(repository):
    for path in sorted((repository / "zoo" / "recipes").glob("*.yaml")):
        recipe = load_recipe(path)
        assert recipe.name == path.stem
        assert recipe.pairs % 16 == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 3}, "unknown key epochs"),
        ({"precision": "fp8"}, "precision='fp8'"),
        ({"phases": []}, "phases is empty"),
        ({"phases": [{"name": "a", "epochs": 1}]}, "missing key concrete_only, grouping, objectives"),
        ({"fused_pairs": 9}, "fused_pairs=9"),
        ({"optimisers": {"transformer": {"kind": "adamw", "lr": 1e-3}}}, "must hold exactly transformer, concrete"),
        ({"schedule": {"kind": "linear"}}, "schedule.kind='linear'"),
    ],
)
def test_mistakes_are_named(write, changes, message):
    with pytest.raises(ConfigurationError, match=message):
        load_recipe(write(**changes))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("phases.1.objectives.itx=1", "objectives has itx"),
        ("phases.0.epochs=0", r"epochs=0 must be positive"),
        ("phases.0.grouping=sorted", "grouping='sorted'"),
        ("phases.0.objectives.stua=1", "concrete_only but trains stua"),
        ("optimisers.spiking.lr=-1", "lr=-1.0 must be positive"),
        ("optimisers.spiking.kind=lion", "kind='lion'"),
        ("seed=one", "seed='one' is not of type int"),
        ("phases.0.epochs=1.5", "epochs=1.5 is not of type int"),
        ("optimisers.spiking.lr=fast", "lr='fast' is not of type float"),
        ("seed", "write it as key=value"),
        ("a.b=1", "has no 'a'"),
        ("phases.7.epochs=1", "has no '7'"),
        ("phases.0=1", "name a key of one entry"),
        ("seed=[", "not valid YAML"),
    ],
)
def test_bad_overrides_are_named(write, override, message):
    with pytest.raises(ConfigurationError, match=message):
        load_recipe(write(), [override])


def test_overrides_and_phases(write):
    recipe = load_recipe(write(), ["seed=7", "phases.0.epochs=3", "changes.time_steps=5"])
    assert (recipe.seed, recipe.epochs, recipe.changes["time_steps"]) == (7, 5, 5)
    assert [recipe.phase_of(e).name for e in range(5)] == ["concrete"] * 3 + ["spiking"] * 2
    with pytest.raises(IndexError):
        recipe.phase_of(5)


@pytest.mark.parametrize("content", ["- 1\n", "a: [", "\xff"])
def test_what_is_no_recipe_is_refused(tmp_path, content):
    path = tmp_path / "r.yaml"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(ConfigurationError, match=r"r\.yaml"):
        load_recipe(path)
    with pytest.raises(ConfigurationError, match="no such recipe"):
        load_recipe(tmp_path / "absent.yaml")


def test_the_papers_schedule_by_hand():
    """1,000 warm-up steps, ×0.1 at epochs 25 and 35 (counted from 1 in words, from 0 in code)."""
    paper = Schedule()
    assert factor(paper, 0, 0, 0) == pytest.approx(1 / 1000)
    assert factor(paper, 499, 3, 0) == pytest.approx(0.5)
    rates = [factor(paper, 5000, epoch, 0) for epoch in (0, 24, 25, 34, 35, 39)]
    assert rates == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])
    cosine = Schedule(kind="cosine", warmup_steps=0)
    assert [factor(cosine, s, 0, 100) for s in (0, 50, 100)] == pytest.approx([1, 0.5, 0], abs=1e-12)


def test_three_optimisers_hold_every_parameter_once(write, small_pretraining_config):
    recipe = load_recipe(write())
    model = AshNetsForPreTraining(small_pretraining_config)
    optimisers = build_optimisers(model, recipe)
    assert {k: type(v) for k, v in optimisers.items()} == {
        "transformer": torch.optim.AdamW, "concrete": torch.optim.AdamW, "spiking": torch.optim.SGD
    }  # fmt: skip
    held = [id(p) for o in optimisers.values() for g in o.param_groups for p in g["params"]]
    assert sorted(held) == sorted(id(p) for p in model.parameters())
    gammas = {id(m.weight) for m in model.modules() if isinstance(m, nn.BatchNorm2d | nn.LayerNorm)}
    decayed = {id(p) for o in optimisers.values() for g in o.param_groups if g["weight_decay"] for p in g["params"]}
    assert gammas and not gammas & decayed
    set_learning_rates(optimisers, recipe, 0.5)
    assert {g["lr"] for g in optimisers["spiking"].param_groups} == {0.005}
    assert part_of("ashnets.vision.abstract_encoder.layers.conv1.conv.weight") == "spiking"
    assert math.isclose(optimisers["spiking"].param_groups[0]["momentum"], 0.9)


def test_a_number_without_a_point_is_a_number(write):
    assert load_recipe(write(), ["optimisers.spiking.lr=1e-4"]).optimisers["spiking"].lr == 1e-4
