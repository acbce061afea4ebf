"""What each row of each experiment becomes: recipes that `ashnets train` would run."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from ashnets.errors import ConfigurationError
from ashnets.experiments.deriving import configuration_of, row_overrides
from ashnets.experiments.units import unit_of
from ashnets.training.reading import load_recipe
from ashnets.training.recipe import SINGLE
from ashnets.zoo.experiment_files import experiment_names, read_experiment, read_scale
from ashnets.zoo.registry import recipe_path

LAB = recipe_path("lab-pictograms")


def lab(changes: dict, without: tuple[str, ...] = (), devices: int = 1):
    return load_recipe(LAB, row_overrides(LAB, changes, without, devices))


def test_what_rows_drop_by_hand():
    first, second = lab({}).phases
    assert first.objectives == {"itc": 1.0, "itm": 0.5, "mlm": 0.25, "stua": 0.5} and first.beside
    assert second.objectives == {"itc": 1.0, "itm": 0.5, "mlm": 0.25, "mvm": 0.1, "stua": 0.5}
    ann = lab({"changes.summary_ratio": "ann"})
    assert [phase.objectives for phase in ann.phases] == [{"itc": 1.0, "itm": 0.5, "mlm": 0.25}] * 2
    bare = lab({"changes.collector": False})
    assert [set(phase.objectives) for phase in bare.phases] == [{"itc", "itm", "mlm", "stua"}] * 2
    snn = lab({"changes.summary_ratio": "snn"})
    assert [phase.concrete_only for phase in snn.phases] == [False, False] and snn.epochs == 6
    assert "stua" not in {name for phase in lab({}, ("stua",)).phases for name in phase.objectives}


@pytest.mark.parametrize(
    ("group", "devices", "batch", "fused"), [(4, 1, 64, 16), (64, 1, 64, 16), (64, 2, 128, 32), (16, 3, 96, 24)]
)
def test_groups_and_devices_make_the_batch(group, devices, batch, fused):
    recipe = lab({"changes.group_size": group}, devices=devices)
    assert (recipe.batch_size, recipe.fused_pairs) == (batch, fused)


@pytest.mark.parametrize("scale", ["lab", "paper"])
@pytest.mark.parametrize("name", experiment_names())
def test_every_row_is_a_recipe_and_its_command_makes_it(name, scale):
    """On eight devices, as the paper has them, at its scale."""
    experiment, at, devices = read_experiment(name), read_scale(scale), 8 if scale == "paper" else 1
    try:
        tasks = at.tasks_of(experiment)
    except ConfigurationError as error:
        assert scale == "lab" and name in ("table-4", "table-6", "table-7") and "at another scale" in str(error)
        return
    for row in experiment.rows_at(scale):
        unit = unit_of(row, 3, at, tasks, Path("data"), Path("out"), devices)
        config = configuration_of(unit.pretraining.settings())
        for stage in unit.stages:
            words = shlex.split(stage.command())
            given = [words[i + 1] for i, word in enumerate(words) if word == "--set"]
            assert words[1] == ("train" if stage.task is None else "finetune")
            recipe = load_recipe(recipe_path(words[2 if stage.task is None else 3]), given)
            assert recipe == stage.settings() and recipe.seed == 3
            load_recipe(recipe_path(stage.recipe), list(stage.estimated or stage.overrides))
            objectives = {name for phase in recipe.phases for name in phase.objectives}
            assert config.has_spiking_branch or not objectives & {"stua", "mvm", "distill"}
            assert config.has_concrete_branch or "distill" not in objectives
            assert config.collector or "mvm" not in objectives
            assert config.has_concrete_branch or not any(phase.concrete_only for phase in recipe.phases)
            if recipe.phases[0].grouping != SINGLE:
                assert recipe.batch_size % (config.group_size * devices) == 0


def paper_stages(name: str, row: str) -> dict[str | None, object]:
    experiment, at = read_experiment(name), read_scale("paper")
    (chosen,) = [one for one in experiment.rows if one.name == row]
    stages = unit_of(chosen, 0, at, at.tasks_of(experiment), Path("data"), Path("out")).stages
    return {stage.task: stage.settings() for stage in stages}


def test_a_vit_is_never_trained_with_the_sgd_of_a_cnn():
    for recipe in paper_stages("table-13", "ViT-B/16").values():
        concrete = recipe.optimizers["concrete"]
        assert (concrete.kind, concrete.lr, concrete.weight_decay) == ("adamw", 1e-4, 1e-2)
    for recipe in paper_stages("table-13", "ResNet101").values():
        assert (recipe.optimizers["concrete"].kind, recipe.optimizers["concrete"].lr) == ("sgd", 1e-2)


@pytest.mark.parametrize(("row", "grouping"), [("Base", "random"), ("Base+ITC", "similar")])
def test_retrieval_is_fine_tuned_on_groups_as_in_pretraining(row, grouping):
    stages = paper_stages("figure-5", row)
    assert stages[None].phases[-1].grouping == stages["retrieval"].phases[0].grouping == grouping
    assert {stages[task].phases[0].grouping for task in ("vqa", "nlvr2", "ve")} == {SINGLE}


def test_rows_with_the_same_recipe_share_their_runs():
    scale = read_scale("lab")
    folders = []
    rows = {
        "table-10": "10",
        "table-11": "ASH-Nets",
        "table-12": "ASH-Nets (w)",
        "table-13": "ResNet101",
        "table-14": "w",
    }
    for name, row in rows.items():
        experiment = read_experiment(name)
        (chosen,) = [one for one in experiment.rows if one.name == row]
        folders.append(unit_of(chosen, 0, scale, [], Path("data"), Path("out")).folder)
    assert len(set(folders)) == 1 and folders[0].parent.parent == Path("out/runs")
