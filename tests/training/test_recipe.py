"""Recipes: every mistake is named with its key; phases and rates by hand."""

from __future__ import annotations

import math

import pytest
import torch
import yaml
from torch import nn

from ashnets.errors import ConfigurationError
from ashnets.model import AshNetsForPreTraining
from ashnets.model.tdbn import TdBN
from ashnets.training.optim import build_optimizers, factor, part_of, phase_factor, set_learning_rates, warmup_steps
from ashnets.training.reading import load_recipe
from ashnets.training.recipe import Schedule, differences


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
        assert recipe.batch_size % 16 == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 3}, "unknown key epochs"),
        ({"precision": "fp8"}, "precision='fp8'"),
        ({"phases": []}, "phases is empty"),
        ({"phases": [{"name": "a", "epochs": 1}]}, "missing key concrete_only, grouping, objectives"),
        ({"fused_pairs": 9}, "fused_pairs=9"),
        (
            {"optimizers": {"transformer": {"kind": "adamw", "lr": 1e-3}}},
            "must have exactly the keys transformer, concrete",
        ),
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
        ("phases.0.objectives.mvm=1", "concrete_only but trains mvm"),
        ("optimizers.spiking.lr=-1", "lr=-1.0 must be positive"),
        ("optimizers.spiking.weight_decay=-1", "weight_decay=-1.0 must not be negative"),
        ("schedule.gamma=.nan", "gamma=nan must be above 0 and at most 1"),
        ("changes=null", "changes=None must be keys with values"),
        ("changes=[]", r"changes=\[\] must be keys with values"),
        ("optimizers.spiking.kind=lion", "kind='lion'"),
        ("seed=one", "seed='one' is not of type int"),
        ("seed=-1", "seed=-1 must not be negative"),
        ("phases.0.objectives.itc=much", r"objectives.itc='much' is not of type float"),
        ("phases.0.objectives.itc=-1", "has a negative weight"),
        ("phases.0.frozen=[vision]", "frozen has vision"),
        ("phases.0.negative_temperature=0", "negative_temperature=0.0 must be positive"),
        ("phases.1.name=concrete", "share a name"),
        ("phases.1.name=a/b", "becomes a folder"),
        ("schedule.milestones=[5, 3]", r"milestones=\[5, 3\] must be epochs in ascending order"),
        ("schedule.milestones=[soon]", r"milestones\[0\]='soon' is not of type int"),
        ("train=train", "train='train' is not of type list"),
        ("distillation=0.4", "distillation needs the momentum encoders"),
        ("momentum=1", r"momentum=1.0 must lie in \[0, 1\)"),
        ("bare_name=2", "bare_name=2.0 must lie in"),
        ("vocabulary=half", "vocabulary='half'"),
        ("accumulate=0", "accumulate=0 must be at least 1"),
        ("queue=-1", "queue=-1 must not be negative"),
        ("stdp={layers: 0}", "stdp.layers=0"),
        ("stdp={depth: 2}", "stdp: unknown key depth"),
        ("phases.0.epochs=1.5", "epochs=1.5 is not of type int"),
        ("optimizers.spiking.lr=fast", "lr='fast' is not of type float"),
        ("seed", "write it as key=value"),
        ("a.b=1", "has no 'a'"),
        ("phases.7.epochs=1", "has no '7'"),
        ("phases.0=1", r"such as phases\.0\.epochs=1"),
        ("phases.epochs=1", r"several entries, counted from 0: name one of them, such as phases\.0\.epochs=1"),
        ("phases.objectives.itc=1", r"such as phases\.0\.objectives\.itc=1"),
        ("phase.0.epochs=1", r"has no 'phase' .* Did you mean phases\?"),
        ("phases.0.epoch=1", r"^override 'phases\.0\.epoch=1': unknown key epoch\. Did you mean epochs\?"),
        ("sede=1", r"^override 'sede=1': unknown key sede\. Did you mean seed\?"),
        (
            "model=ashnets-tiny.pictograms",
            r"names trained weights.*write model=ashnets-tiny\. .*set weights=ashnets-tiny\.pictograms",
        ),
        ("model=ashnets-tiny@v1", r"names trained weights"),
        ("seed=[", "not valid YAML"),
    ],
)
def test_bad_overrides_are_named(write, override, message):
    with pytest.raises(ConfigurationError, match=message):
        load_recipe(write(), [override])


def test_the_form_that_is_advised_works(write):
    with pytest.raises(ConfigurationError) as told:
        load_recipe(write(), ["phases.epochs=3"])
    assert load_recipe(write(), [str(told.value).rpartition(" ")[2]]).phases[0].epochs == 3


def test_a_folder_with_weights_is_no_architecture(write, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    assert load_recipe(write(), [f"model={tmp_path}"]).model == str(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(ConfigurationError, match="contains trained weights, but weights=initial starts without any"):
        load_recipe(write(), [f"model={tmp_path}"])


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
    assert factor(paper, 0, 0, 10_000) == pytest.approx(1 / 1000)
    assert factor(paper, 499, 3, 10_000) == pytest.approx(0.5)
    rates = [factor(paper, 5000, epoch, 10_000) for epoch in (0, 24, 25, 34, 35, 39)]
    assert rates == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])
    cosine = Schedule(kind="cosine", warmup_steps=0)
    assert [factor(cosine, s, 0, 100) for s in (0, 50, 100)] == pytest.approx([1, 0.5, 0], abs=1e-12)


def test_a_warm_up_takes_a_tenth_of_a_run_at_most():
    """90 steps and a warm-up of 100: nine steps, by hand; a run too short for a tenth has none."""
    schedule = Schedule(kind="milestones", warmup_steps=100, milestones=[])
    assert [warmup_steps(schedule, total) for total in (9, 90, 999, 1000, 5000)] == [0, 9, 99, 100, 100]
    assert [factor(schedule, step, 0, 90) for step in (0, 4, 8, 9, 89)] == pytest.approx([1 / 9, 5 / 9, 1, 1, 1])
    assert factor(schedule, 0, 0, 9) == 1


def test_the_optimizers_hold_every_parameter_once(write, small_pretraining_config):
    decays = {"transformer": 0.01, "concrete": 0.02, "spiking": 0.03, "collector": 0.04}
    recipe = load_recipe(write(), [f"optimizers.{part}.weight_decay={decay}" for part, decay in decays.items()])
    model = AshNetsForPreTraining(small_pretraining_config)
    optimizers = build_optimizers(model, recipe)
    assert {k: type(v) for k, v in optimizers.items()} == {
        "transformer": torch.optim.AdamW,
        "concrete": torch.optim.AdamW,
        "spiking": torch.optim.SGD,
        "collector": torch.optim.AdamW,
    }
    held = [id(p) for o in optimizers.values() for g in o.param_groups for p in g["params"]]
    assert sorted(held) == sorted(id(p) for p in model.parameters())
    decay_of = {id(p): g["weight_decay"] for o in optimizers.values() for g in o.param_groups for p in g["params"]}
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d | nn.LayerNorm | TdBN)]
    assert {type(m) for m in norms} >= {nn.BatchNorm2d, nn.LayerNorm, TdBN}
    of_norms = {id(p) for m in norms for p in m.parameters()}
    for name, parameter in model.named_parameters():
        decayed = parameter.dim() >= 2 and id(parameter) not in of_norms
        assert decay_of[id(parameter)] == (decays[part_of(name)] if decayed else 0), name
    assert set(decay_of.values()) == {0, *decays.values()}
    set_learning_rates(optimizers, recipe, 0.5)
    assert {g["lr"] for g in optimizers["spiking"].param_groups} == {0.005}
    assert part_of("ashnets.vision.abstract_encoder.layers.conv1.conv.weight") == "spiking"
    assert math.isclose(optimizers["spiking"].param_groups[0]["momentum"], 0.9)


def test_a_number_without_a_point_is_a_number(write):
    recipe = load_recipe(write(), ["optimizers.spiking.lr=1e-4", "phases.0.objectives.itc=1e-1"])
    assert recipe.optimizers["spiking"].lr == 1e-4
    assert recipe.phases[0].objectives["itc"] == 0.1


def test_differences_go_down_to_the_single_value(write):
    before, now = (
        load_recipe(write(), [f"phases.0.epochs={n}", f"stdp={stdp}"]).to_dict()
        for n, stdp in ((2, "null"), (5, "{layers: 1}"))
    )
    lines = differences(before, now)
    assert lines[0] == "phases.0.epochs: was 2, is 5"
    assert len(lines) == 2 and lines[1].startswith("stdp: was None, is {'layers': 1")
    assert differences(now, now) == []
    assert differences({"a": [1]}, {"a": [1, 2], "b": 0}) == ["a: was [1], is [1, 2]", "b: was 'absent', is 0"]


def test_the_papers_recipes_say_what_the_paper_says(repository):
    """Section IV-A: 40 epochs, 16 pairs on 8 devices, three optimizers, ×0.1 at 25 and 35; 30 epochs in Table XII."""
    recipe = load_recipe(repository / "zoo" / "recipes" / "pretrain-coco-vg.yaml")
    assert (recipe.epochs, recipe.batch_size, recipe.queue, recipe.momentum) == (40, 16 * 8, 65536, 0.995)
    found = {k: (o.kind, o.lr, o.weight_decay) for k, o in recipe.optimizers.items()}
    assert found == {
        "transformer": ("adamw", 1e-4, 1e-2),
        "concrete": ("sgd", 1e-2, 5e-4),
        "spiking": ("sgd", 1e-2, 0.0),
        "collector": ("adamw", 1e-3, 0.0),  # not the paper's: C and SR hardly moved at the transformer's rate
    }
    assert (recipe.schedule.warmup_steps, recipe.schedule.milestones) == (1000, [25, 35])
    assert [(p.epochs, p.concrete_only, p.grouping) for p in recipe.phases] == [
        (10, True, "random"),
        (30, False, "similar"),
    ]
    for name, model in {"r18": "r18", "r101": "r101", "r101-l3": "r101-l3", "vit-b16": "vit-b16"}.items():
        other = load_recipe(repository / "zoo" / "recipes" / f"pretrain-coco-vg-{name}.yaml")
        changed = differences(recipe.to_dict(), other.to_dict())
        assert changed[:2] == [
            f"name: was 'pretrain-coco-vg', is 'pretrain-coco-vg-{name}'",
            f"model: was 'ashnets-r152', is 'ashnets-{model}'",
        ]
        assert bool(changed[2:]) == (name == "vit-b16"), "SGD with rate 1e-2 would destroy a ViT"
        if name == "vit-b16":
            assert other.optimizers["concrete"] == other.optimizers["transformer"]
    shorter = load_recipe(repository / "zoo" / "recipes" / "pretrain-coco-vg-30.yaml")
    changed = differences(recipe.to_dict(), shorter.to_dict())
    assert [line.partition(":")[0] for line in changed] == ["name", "phases.1.epochs"]
    assert shorter.epochs == 30


def test_each_later_phase_warms_up_again():
    schedule = Schedule(phase_warmup_steps=4)
    assert [phase_factor(schedule, step) for step in (0, 1, 3, 9)] == [0.25, 0.5, 1.0, 1.0]
    assert phase_factor(Schedule(), 0) == 1.0


def test_changes_can_be_set_where_a_recipe_has_none(tmp_path, recipe_data):
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump({key: value for key, value in recipe_data.items() if key != "changes"}))
    assert load_recipe(path, ["changes.time_steps=3"]).changes == {"time_steps": 3}
