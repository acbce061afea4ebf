"""Fine-tuning from end to end: files of a run, bit-identical resumed runs, each task, errors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

import ashnets
from ashnets.data.benchmarks import BENCHMARKS
from ashnets.data.pictograms.tasks import PICTOGRAM_TASKS, open_pictogram_task
from ashnets.errors import ConfigurationError, DataError, TrainingError, WeightsError
from ashnets.evaluation.evaluating import evaluate
from ashnets.processor import AshNetsProcessor
from ashnets.runs import finetune, train
from ashnets.tasks.data import drawn, open_task_data, train_and_valid
from ashnets.tasks.registry import CLASSIFICATIONS
from ashnets.training.checkpoint import checkpoints
from ashnets.training.reading import load_recipe
from ashnets.training.recipe import TaskRecipe
from ashnets.training.run import Run

ALIKE = ("seconds",)


def records(run, name="log.jsonl") -> list[dict]:
    lines = [json.loads(line) for line in (run / name).read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in ALIKE} for line in lines]


@pytest.fixture(scope="session")
def finished(drawings, recipe_data, tmp_path_factory):
    """Recipe and folder of a run: questions about drawings, two epochs, with every feature of a training step."""
    folder = tmp_path_factory.mktemp("run")
    recipe = folder / "small.yaml"
    changes = {"ema": 0.9, "accumulate": 2, "checkpoint_every": 1}
    changed = {**recipe_data, **changes, "changes": {**recipe_data["changes"], "hidden_dropout_prob": 0.1}}
    recipe.write_text(yaml.safe_dump(changed))
    result = finetune("vqa", recipe, data=drawings, output=folder / "run", progress=False)
    return recipe, folder / "run", result


def test_the_files_of_a_run(finished, drawings):
    _, folder, result = finished
    data = open_pictogram_task("pictogram-questions", drawings)
    train_records = data.records("train")
    log = records(folder)
    assert [r["pairs_seen"] for r in log] == [len(train_records), 2 * len(train_records)]
    assert all(0 <= r["valid_accuracy"] <= 1 and r["loss"] > 0 and 0 < r["rate_conv1"] < 1 for r in log)
    assert log[1]["loss"] < log[0]["loss"]
    assert result["task"] == "vqa" and result["data"] == "pictogram-questions"
    measured = result["validation"]
    assert measured["accuracy"] == pytest.approx(log[-1]["valid_accuracy"], abs=1e-4)
    assert list(measured["baselines"]) == ["chance", "majority by text", "bag of words"]
    assert result["told"][0].startswith(f"On {measured['items']} held-out items: accuracy {measured['accuracy']:.3f}.")
    assert (folder / "validation" / "examples.html").is_file()
    model = ashnets.from_pretrained(folder / "model")
    assert type(model).__name__ == "AshNetsForVQA"
    answers = CLASSIFICATIONS["vqa"].of_config(model.config).labels
    assert sorted(answers) == sorted({r.answer for r in train_records})
    found = evaluate(folder / "model", "vqa", drawings, splits=["valid"], progress=False)
    evaluated = found["models"][str(folder / "model")]["splits"]["valid"]
    last = log[-1]["valid_accuracy"]
    # the published weights are rounded to 16 bits
    assert evaluated["variants"]["reset"]["accuracy"] == pytest.approx(last, abs=0.03)
    assert list(evaluated["baselines"]) == ["chance", "majority by text", "bag of words"]


@pytest.mark.parametrize("stop", [1, 3])
def test_stopped_at_a_step_then_resumed(finished, drawings, tmp_path, monkeypatch, stop):
    recipe, folder, _ = finished
    options = {"data": drawings, "output": tmp_path / "run", "progress": False}
    plain = Run._optimize

    def until(self, *arguments) -> None:
        if self.step == stop:
            raise KeyboardInterrupt
        plain(self, *arguments)

    monkeypatch.setattr(Run, "_optimize", until)
    again = rf"interrupted; .*step {stop} is kept .*`ashnets finetune vqa .* --data .* --output .* --resume`"
    with pytest.raises(KeyboardInterrupt, match=again):
        finetune("vqa", recipe, **options)
    monkeypatch.undo()
    finetune("vqa", recipe, resume=True, **options)
    last = [checkpoints(run / "checkpoints")[-1] for run in (tmp_path / "run", folder)]
    assert last[0].name == last[1].name
    files = sorted(path.name for path in last[1].glob("*.safetensors"))
    assert files == ["ema.safetensors", "model.safetensors", "optimizers.safetensors", "start.safetensors"]
    for name in files:
        left, right = load_file(last[0] / name), load_file(last[1] / name)
        assert left.keys() == right.keys()
        assert not [key for key in left if not torch.equal(left[key], right[key])], name
    assert records(tmp_path / "run") == records(folder)
    assert records(tmp_path / "run", "steps.jsonl") == records(folder, "steps.jsonl")


@pytest.mark.parametrize(
    ("task", "data"),
    [("nlvr2", "pictogram-pairs"), ("ve", "pictogram-entailment"), ("retrieval", "pictogram-retrieval")],
)
def test_other_tasks_start_from_trained_weights(finished, drawings, write_recipe, tmp_path, task, data):
    """All weights except the classifier come from the initial model; φ items are on one time axis."""
    _, folder, _ = finished
    if task == "retrieval":
        with pytest.raises(WeightsError, match=r"image_projection.*weights=initial"):
            finetune(
                task,
                write_recipe(task, data, weights="pretrained", model=str(folder / "model"), changes={}),
                data=drawings,
                output=tmp_path / "run",
                progress=False,
            )
        recipe = write_recipe(task, data)
    else:
        phase = {"name": "all", "epochs": 1, "concrete_only": False, "grouping": "random", "objectives": {task: 1.0}}
        recipe = write_recipe(task, data, weights="pretrained", model=str(folder / "model"), changes={}, phases=[phase])
    result = finetune(
        task, recipe, data=drawings, output=tmp_path / "run", overrides=["phases.0.epochs=1"], progress=False
    )
    log = records(tmp_path / "run")
    if task == "retrieval":
        assert 0 <= log[0]["valid_text_to_image_R@1"] <= 1 and log[0]["itm"] > 0
    else:
        assert "all but the classifier" in result["initialized"][0]
        assert 0 <= log[0]["valid_accuracy"] <= 1 and log[0]["rate_conv1"] > 0
    found = evaluate(tmp_path / "run" / "model", task, drawings, output=tmp_path / "out", progress=False)
    (measured,) = next(iter(found["models"].values()))["splits"].values()
    assert (tmp_path / "out" / "examples.html").is_file() and measured["n"] > 0


def test_the_first_step_starts_at_the_trained_weights(finished, drawings, write_recipe, tmp_path, monkeypatch):
    _, folder, _ = finished
    seen = {}

    def stop(self, *_) -> None:
        seen.update({key: value.clone() for key, value in self.learner.model.ashnets.state_dict().items()})
        raise KeyboardInterrupt

    monkeypatch.setattr(Run, "_optimize", stop)
    recipe = write_recipe("ve", "pictogram-entailment", weights="pretrained", model=str(folder / "model"), changes={})
    with pytest.raises(KeyboardInterrupt):
        finetune("ve", recipe, data=drawings, output=tmp_path / "run", progress=False)
    saved = load_file(folder / "model" / "model.safetensors")
    assert seen and all(torch.equal(value, saved[f"ashnets.{key}"].to(value)) for key, value in seen.items())


@pytest.mark.slow
def test_two_processes_give_the_losses_of_one(drawings, write_recipe, tmp_path):
    """48 hypotheses in full micro-batches of 16. The order of sums differs: the relative tolerance is 1e-4."""
    recipe = write_recipe("ve", "pictogram-entailment", batch_size=16)
    finetune("ve", recipe, data=drawings, output=tmp_path / "one", progress=False)
    program = tmp_path / "two.py"
    program.write_text(
        "import sys\nfrom ashnets.runs import finetune\n"
        "finetune('ve', sys.argv[1], data=sys.argv[2], output=sys.argv[3], progress=False)\n"
    )
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(program)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(ashnets.__file__).parents[1])}
    done = subprocess.run(
        [*launch, str(recipe), str(drawings), str(tmp_path / "two")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    one, two = ([r for r in records(tmp_path / run, "steps.jsonl") if "loss" in r] for run in ("one", "two"))
    assert [r["step"] for r in one] == [r["step"] for r in two] == list(range(1, 7))
    for a, b in zip(one, two, strict=True):
        assert {**b, "phase": 0} == pytest.approx({**a, "phase": 0}, rel=1e-4)


@pytest.mark.parametrize("ratio", ["ann", "snn", "fixed"])
def test_the_other_summary_ratios_can_be_trained(drawings, write_recipe, tmp_path, ratio):
    """One key selects the variants of Table XI."""
    recipe = write_recipe("ve", "pictogram-entailment", batch_size=16)
    overrides = [f"changes.summary_ratio={ratio}", "phases.0.epochs=1"]
    finetune("ve", recipe, data=drawings, output=tmp_path / "run", overrides=overrides, progress=False)
    log = records(tmp_path / "run")
    assert len(log) == 1 and ("rate_conv1" in log[0]) == (ratio != "ann")
    model = ashnets.from_pretrained(tmp_path / "run" / "model")
    assert model.config.summary_ratio == ratio and type(model).__name__ == "AshNetsForVisualEntailment"


def test_training_on_published_captions(benchmarks, write_recipe, tmp_path):
    recipe = write_recipe("retrieval", "flickr30k", train=["train"], valid="val")
    finetune("retrieval", recipe, data=benchmarks["flickr30k"], output=tmp_path / "run", progress=False)
    log = records(tmp_path / "run")
    assert [r["pairs_seen"] for r in log] == [8, 16]
    found = evaluate(tmp_path / "run" / "model", "retrieval", benchmarks["flickr30k"], progress=False)
    (measured,) = next(iter(found["models"].values()))["splits"].values()
    assert measured["split"] == "test" and measured["variants"]["reset"]["captions"] == 18


def test_without_a_validation_split_images_are_held_out(benchmarks):
    data = open_task_data("easy-vqa", benchmarks["easy-vqa"])
    kept, held, said = train_and_valid(data, ["train"], "valid", 0.4)
    images = [{r.image for r in some} for some in (kept, held)]
    assert images[0] and images[1] and not images[0] & images[1]
    assert sorted(r.id for r in [*kept, *held]) == list(range(12)) and len(said) == 1
    with pytest.raises(DataError, match=r"hold_out=0\.0 takes 0 of its 6"):
        train_and_valid(data, ["train"], "valid", 0.0)


def test_the_answers_do_not_depend_on_what_is_held_out(benchmarks, write_recipe, tmp_path):
    """Six questions have the answer yes and six no; with images held out, fewer are trained."""
    recipe = write_recipe(data="easy-vqa", train=["train"], valid="none", hold_out=0.4, answers_minimum=6)
    finetune("vqa", recipe, data=benchmarks["easy-vqa"], output=tmp_path / "run", progress=False)
    config = ashnets.from_pretrained(tmp_path / "run" / "model").config
    assert CLASSIFICATIONS["vqa"].of_config(config).labels == ["no", "yes"]


def test_a_new_classifier_gives_all_answers_the_same_probability(small_model):
    task = CLASSIFICATIONS["vqa"]([f"answer {i}" for i in range(50)])
    model, processor = small_model("vqa", num_answers=50)
    torch.nn.init.zeros_(model.classifier[-1].weight)
    task.start(model)
    with torch.inference_mode():
        logits = model(**processor(images=torch.rand(20, 20, 3).numpy(), text="what?")).logits
    torch.testing.assert_close(logits.sigmoid(), torch.full((1, 50), 1 / 50))


def test_targets_are_soft_where_annotators_disagree(benchmarks):
    records = open_task_data("vqa-v2", benchmarks["vqa-v2"]).records("train")
    task = CLASSIFICATIONS["vqa"].of_training(records, 4)
    assert task.labels == ["2", "no", "red", "yes"], "four times each; ties are in alphabetical order"
    targets = task.targets(records[:2])  # yes ×4, a dog ×6; no ×7, yes ×2, a dog ×1
    assert targets.tolist() == [pytest.approx([0, 0, 0, 1]), pytest.approx([0, 1, 0, 0.6])]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "caption"}, "task='caption' is not one of vqa, nlvr2, ve, retrieval"),
        ({"data": ""}, "missing key data"),
        ({"augment": True}, "set augment to false"),
        ({"weights": "random"}, "weights='random'"),
        ({"queue": 8}, "queue=8 belongs to ITC"),
        ({"start": "somewhere"}, "set model to its folder"),
        ({"max_skipped": 3}, "max_skipped=3"),
        ({"answers_minimum": 0}, "answers_minimum=0"),
        (
            {
                "phases": [
                    {"name": "a", "epochs": 1, "concrete_only": False, "grouping": "single", "objectives": {"itc": 1.0}}
                ]
            },
            r"phases\[0\]\.objectives has itc",
        ),
    ],
)
def test_invalid_recipes_are_refused(write_recipe, changes, message):
    path = write_recipe()
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **changes}))
    with pytest.raises(ConfigurationError, match=message):
        load_recipe(path)


def test_the_wrong_command_and_the_wrong_data_are_refused(finished, drawings, benchmarks, write_recipe, tmp_path):
    recipe, folder, _ = finished
    with pytest.raises(ConfigurationError, match="ashnets finetune vqa"):
        train(recipe, corpus=drawings, output=tmp_path / "run", progress=False)
    with pytest.raises(ConfigurationError, match="is for task vqa, not for ve"):
        finetune("ve", recipe, data=drawings, output=tmp_path / "run", progress=False)
    with pytest.raises(
        ConfigurationError, match=r"task='vqq' is not one of vqa, nlvr2, ve, retrieval. Did you mean vqa"
    ):
        finetune("vqq", recipe, data=drawings, output=tmp_path / "run", progress=False)
    with pytest.raises(ConfigurationError, match="takes Entailment"):
        finetune("ve", write_recipe("ve"), data=drawings, output=tmp_path / "run", progress=False)
    with pytest.raises(WeightsError, match=r"ashnets-r18.*--set weights=initial"):
        finetune(
            "vqa",
            write_recipe(weights="pretrained", model="ashnets-r18"),
            data=drawings,
            output=tmp_path / "run",
            progress=False,
        )
    with pytest.raises(ConfigurationError, match=r"draws its images from the corpus"):
        finetune("vqa", recipe, data=drawings, images=tmp_path, output=tmp_path / "run", progress=False)
    with pytest.raises(TrainingError, match="another recipe"):
        finetune("vqa", recipe, data=drawings, output=folder, overrides=["seed=5"], resume=True, progress=False)
    for task, data in (("retrieval", "pictogram-retrieval"), ("ve", "pictogram-entailment")):
        with pytest.raises(
            ConfigurationError, match=rf"{task}\.yaml: baseline=vilt has no head for task {task}.*on vqa"
        ):
            finetune(task, write_recipe(task, data, baseline="vilt"), data=drawings, output=tmp_path, progress=False)
    assert not (tmp_path / "run").exists()


def test_bundled_recipes_name_existing_data_and_models(repository):
    found = {path.stem: load_recipe(path) for path in (repository / "zoo" / "recipes").glob("finetune-*.yaml")}
    assert len(found) == 12, sorted(found)
    for name, recipe in found.items():
        assert isinstance(recipe, TaskRecipe)
        assert recipe.data in {**BENCHMARKS, **PICTOGRAM_TASKS}, name
        ashnets.config_of(recipe.model)
        if recipe.data in BENCHMARKS:
            assert set(recipe.train) <= set(BENCHMARKS[recipe.data].all_splits())
        if recipe.model == "ashnets-r152":  # the settings of the paper's pre-training, and the splits of Table I
            assert recipe.batch_size == 128 and recipe.optimizers["transformer"].lr == 1e-4
            assert recipe.optimizers["concrete"].lr == recipe.optimizers["spiking"].lr == 1e-2
    assert found["finetune-vqa-v2"].train == ["train", "val"]
    assert found["finetune-retrieval-coco"].train == ["train", "restval"]


def test_a_finished_model_answers_with_its_processor(finished, drawings):
    """A finished model can be loaded and used with its processor, like any model."""
    _, folder, _ = finished
    model, processor = ashnets.from_pretrained(folder / "model"), AshNetsProcessor.from_pretrained(folder / "model")
    data = open_pictogram_task("pictogram-questions", drawings)
    with torch.inference_mode():
        logits = model(**processor(images=data.open_image("v0/00"), text="what is this?")).logits
    assert model.config.id2label[int(logits.argmax())] in CLASSIFICATIONS["vqa"].of_config(model.config).labels


def test_training_on_a_sample_of_the_items(drawings, write_recipe, tmp_path):
    recipe = write_recipe("ve", "pictogram-entailment", batch_size=8, train_items=12)
    finetune("ve", recipe, data=drawings, output=tmp_path / "run", progress=False)
    seen = [record["pairs_seen"] for record in records(tmp_path / "run")]
    assert seen == [12 * (i + 1) for i in range(len(seen))]


def test_samples_keep_the_order_and_depend_only_on_the_seed():
    items = list(range(1000))
    draw = drawn(items, 100, 3)
    assert draw == sorted(set(draw)) and len(draw) == 100 and draw == drawn(items, 100, 3) != drawn(items, 100, 4)
    assert abs(sum(draw) / 100 - 499.5) < 5 * 288.7 / 10  # five standard errors of the mean of a uniform sample
    assert drawn(items, 0, 3) == drawn(items, 2000, 3) == items
