"""Baselines in the training loop: files, trained and frozen weights, resumed runs, the table, errors."""

from __future__ import annotations

import csv
import json

import pytest
import torch
import yaml
from safetensors.torch import load_file

from ashnets.baselines.comparing import CONTESTANTS, build_table
from ashnets.baselines.frozen import FrozenForPreTraining
from ashnets.baselines.starting import HEADS, build_baseline
from ashnets.baselines.vilt import ViltForPreTraining, ViltForVQA
from ashnets.errors import ConfigurationError, TrainingError, WeightsError
from ashnets.runs import train
from ashnets.training.checkpoint import checkpoints
from ashnets.training.reading import load_recipe
from ashnets.training.run import Run
from ashnets.zoo.tables import baseline_table


def captions_of(corpus) -> list[str]:
    from ashnets.data.sources.opening import open_source

    return [c for row in open_source(corpus).split("train")["captions"].to_pylist() for c in row]


@pytest.mark.parametrize("baseline", ["vilt", "frozen"])
def test_a_run_trains_what_it_should(baseline, write_recipe, corpus, tmp_path):
    """The last checkpoint against the initial weights: the frozen network is unchanged, all other weights changed."""
    path = write_recipe(baseline)
    result = train(path, corpus=corpus, output=tmp_path / "run", progress=False)
    _, _, start, said = build_baseline(load_recipe(path), captions_of(corpus))
    end = load_file(checkpoints(tmp_path / "run" / "checkpoints")[-1] / "model.safetensors")
    before = {name: tensor for name, tensor in start.state_dict().items() if name in end}
    frozen = {name for name in before if ".concrete_encoder." in name}
    still = {name for name, tensor in before.items() if torch.equal(tensor, end[name])}
    # the second token type never occurs; ITC reads [CLS] alone, so its last layer's other parts still move
    assert len(frozen) == (0 if baseline == "vilt" else 53 * 6) and frozen <= still
    assert {name for name in still - frozen if "num_batches" not in name} == set()
    assert result["pairs_seen"] == 27 and result["initialized"] == said
    log = json.loads((tmp_path / "run" / "log.jsonl").read_text().splitlines()[-1])
    assert ("valid_matching_accuracy" in log) == (baseline == "vilt") == ("valid_text_to_image_R@1" not in log)
    model = HEADS[baseline, "pretraining"].from_pretrained(tmp_path / "run" / "model")
    assert not model.training
    published = {name: tensor.half().float() for name, tensor in end.items() if tensor.is_floating_point()}
    own = model.state_dict()
    assert not [name for name, tensor in published.items() if not torch.equal(own[name], tensor)]


def test_a_resumed_run_ends_with_the_same_bits(write_recipe, corpus, tmp_path, monkeypatch):
    path = write_recipe("vilt", checkpoint_every=1)
    train(path, corpus=corpus, output=tmp_path / "whole", progress=False)
    plain = Run._optimize

    def until(self, *arguments) -> None:
        if self.step == 2:
            raise KeyboardInterrupt
        plain(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "_optimize", until)
        with pytest.raises(KeyboardInterrupt):
            train(path, corpus=corpus, output=tmp_path / "broken", progress=False)
    train(path, corpus=corpus, output=tmp_path / "broken", resume=True, progress=False)
    one, other = (
        load_file(checkpoints(tmp_path / name / "checkpoints")[-1] / "model.safetensors")
        for name in ("whole", "broken")
    )
    assert one.keys() == other.keys() and not [key for key in one if not torch.equal(one[key], other[key])]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"baseline": "clip"}, "baseline='clip' is not one of vilt, frozen"),
        ({"backbone_weights": "somewhere"}, "a baseline takes imagenet or random"),
        (
            {
                "phases": [
                    {
                        "name": "all",
                        "epochs": 1,
                        "concrete_only": True,
                        "grouping": "random",
                        "objectives": {"itc": 1.0, "itm": 1.0},
                    }
                ]
            },
            "vilt uses itm, mlm",
        ),
        ({"phases": [{"name": "all", "epochs": 1, "concrete_only": True, "grouping": "similar"}]}, "random groups"),
    ],
)
def test_what_cannot_be_is_refused(write_recipe, corpus, tmp_path, changes, message):
    with pytest.raises(ConfigurationError, match=message):
        train(write_recipe(**{"baseline": "vilt", **changes}), corpus=corpus, output=tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_no_round_is_refused_before_the_training(corpus, tmp_path):
    with pytest.raises(ConfigurationError, match="rounds=0"):
        build_table(corpus, tmp_path / "runs", rounds=0)
    assert not (tmp_path / "runs").exists()


def test_a_folder_of_another_model_is_refused(small_baseline, tmp_path):
    small_baseline(ViltForPreTraining).save_pretrained(tmp_path / "vilt")
    with pytest.raises(WeightsError, match="does not hold a FrozenForPreTraining"):
        FrozenForPreTraining.from_pretrained(tmp_path / "vilt")
    with pytest.raises(WeightsError, match="another model"):
        small_baseline(ViltForVQA, num_hidden_layers=1).take_base(tmp_path / "vilt")
    (tmp_path / "vilt" / "model.safetensors").write_bytes(b"short")
    with pytest.raises(WeightsError, match="cannot be read"):
        ViltForPreTraining.from_pretrained(tmp_path / "vilt")


def test_recipes_of_before_can_go_on(write_recipe):
    """The key ``baseline`` is written only if it is set, so that saved recipes without it still match."""
    with_baseline, without = load_recipe(write_recipe("vilt")).to_dict(), load_recipe(write_recipe(None))
    assert with_baseline["baseline"] == "vilt" and "baseline" not in without.to_dict()


def test_bundled_recipes_differ_where_they_must(repository):
    """The same pairs, seed, batch, epochs, schedule, optimizers and texts; other objectives and image encoders."""
    folder = repository / "zoo" / "recipes"
    found = {name: load_recipe(folder / f"{chosen.recipe}.yaml") for name, chosen in CONTESTANTS.items()}
    assert {name: recipe.baseline for name, recipe in found.items()} == {
        name: c.baseline for name, c in CONTESTANTS.items()
    }
    free = {"name", "baseline", "phases", "backbone_weights", "fused_pairs"}
    plain = [{k: v for k, v in recipe.to_dict().items() if k not in free} for recipe in found.values()]
    assert plain[0] == plain[1] == plain[2]
    assert len({recipe.epochs for recipe in found.values()}) == 1
    assert load_recipe(folder / "baseline-questions.yaml").to_dict()["train_items"] > 0


def test_the_table_end_to_end(repository, pictograms, tmp_path):
    """Small models in both stages on drawings: all numbers exist, chance is exact, a second call trains nothing."""
    small = {
        "image_size": 32,
        "backbone_widths": [8, 12],
        "spiking_channels": [4, 4, 8],
        "num_concepts": 12,
        "time_steps": 2,
        "group_size": 4,
        "num_hidden_layers": 1,
    }
    folder = tmp_path / "recipes"
    folder.mkdir()
    for name in (*(chosen.recipe for chosen in CONTESTANTS.values()), "baseline-questions"):
        recipe = yaml.safe_load((repository / "zoo" / "recipes" / f"{name}.yaml").read_text())
        recipe.update(
            changes=small,
            batch_size=8,
            **(
                {"train_items": 12, "valid_items": 4}
                if "task" in recipe
                else {"fused_pairs": min(recipe["fused_pairs"], 8), "backbone_weights": "random"}
            ),
        )
        if "task" in recipe:
            recipe["changes"] = {}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(recipe))
    options = {"recipes": folder, "sample": 6, "items": 20, "rounds": 1, "progress": False}
    rows = build_table(pictograms, tmp_path / "runs", **options)
    assert [row["baseline"] for row in rows] == [
        *(chosen.title for chosen in CONTESTANTS.values()),
        "chance",
        "majority by text",
        "bag of words",
    ]
    ours, vilt, frozen, chance = rows[:4]
    assert ours["pairs_seen"] == vilt["pairs_seen"] == frozen["pairs_seen"] == 2 * 16
    assert ours["items_seen"] == vilt["items_seen"] == frozen["items_seen"] == 12
    assert ours["time_ratio"] == 1 and vilt["time_ratio"] > 0
    assert ours["trained"] == ours["parameters"] and frozen["trained"] == frozen["parameters"] - 23_508_032
    assert (ours["ranking"], vilt["ranking"]) == ("ITC", "ITM on all pairs") and vilt["pairs_scored"] == 36
    assert chance["t2i R@1"] == pytest.approx(1 / 6, abs=1e-4) and chance["i2t R@5"] == pytest.approx(5 / 6, abs=1e-4)
    assert all(0 <= row[key] <= 1 for row in rows[:3] for key in ("t2i R@1", "i2t R@10", "accuracy", "blind"))
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*") if path.is_file()}
    again = build_table(pictograms, tmp_path / "runs", names=["vilt"], **options)
    assert times == {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*") if path.is_file()}
    with pytest.raises(TrainingError, match="another recipe; choose another folder:\n  seed: was 0, is 1"):
        build_table(pictograms, tmp_path / "runs", names=["vilt"], overrides=["seed=1"], **options)
    timed = {"pairs_per_second", "time_ratio", "time_ratio_low", "time_ratio_high", "ranking_seconds"}
    assert [{k: v for k, v in row.items() if k not in timed} for row in again] == [
        {k: v for k, v in row.items() if k not in timed} for row in rows if row not in (ours, frozen)
    ]


def test_the_bundled_results_are_of_one_budget(repository):
    with open(repository / "zoo" / "results" / "baselines.csv", newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    models = {row["baseline"]: row for row in rows if row["parameters"]}
    assert list(models) == [chosen.title for chosen in CONTESTANTS.values()]
    for key in ("pairs_seen", "items_seen", "seed", "split", "images", "n", "device", "torch", "transformers"):
        assert len({row[key] for row in models.values()}) == 1, key
    chance = next(row for row in rows if row["baseline"] == "chance")
    for k in (1, 5, 10):
        assert float(chance[f"t2i R@{k}"]) == pytest.approx(k / int(chance["images"]), abs=1e-4)
    assert len(baseline_table().splitlines()) == 2 + len(rows)


def test_the_table_is_made_of_the_results_file(tmp_path):
    path = tmp_path / "baselines.csv"
    keys = ["baseline", "parameters", "trained", "pairs_seen", "time_ratio", "ranking", "accuracy", "blind"]
    keys += [f"{way} R@{k}" for way in ("t2i", "i2t") for k in (1, 5, 10)]
    line = ["x", "7488136", "12", "320", "1.256", "ITC", "0.51234", "", "0.1", "0.2", "0.3", "0.4", "0.5", "1"]
    with open(path, "w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([keys, line])
    made = baseline_table(path)
    assert made.splitlines()[-1] == (
        "| x | 7.49 M | 0.00 M | 320 | × 1.26 | ITC | 0.100 | 0.200 | 0.300 | 0.400 | 0.500 | 1.000 | 0.512 | – |"
    )
