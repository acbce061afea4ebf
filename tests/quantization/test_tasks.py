"""Fine-tuned checkpoints in integers: metric, spikes and statistics against direct calls; refused input."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from typer.testing import CliRunner

import ashnets
from ashnets.cli import app
from ashnets.data.pictograms.tasks import open_pictogram_task
from ashnets.errors import ConfigurationError, OutputError, WeightsError
from ashnets.evaluation.evaluating import evaluate
from ashnets.export.emulator import emulate, integer_layers
from ashnets.model.sampling import image_key
from ashnets.quantization.tasks import quantize
from ashnets.tasks.registry import CLASSIFICATIONS

DATA = {"vqa": "pictogram-questions", "nlvr2": "pictogram-pairs", "retrieval": "pictogram-retrieval"}


@pytest.fixture(scope="session")
def finetuned(drawings, small_model, task_recipe_data, tmp_path_factory):
    """A function: task → the folder of a model, published like that of fine-tuning, but not trained."""
    made = {}

    def save(task: str):
        if task in made:
            return made[task]
        folder = made[task] = tmp_path_factory.mktemp("finetuned") / task
        keys = {}
        if task == "vqa":
            records = open_pictogram_task(DATA[task], drawings).records("train")
            keys = CLASSIFICATIONS["vqa"].of_training(records, 1).configuration()
        model, processor = small_model(task, **keys)
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
        recipe = {**task_recipe_data, "task": task, "data": DATA[task], "batch_size": 8}
        recipe["phases"] = [{**recipe["phases"][0], "objectives": {task: 1.0}}]
        if task == "retrieval":
            recipe["phases"] = [{**recipe["phases"][0], "grouping": "similar", "objectives": {"itc": 1.0, "itm": 0.5}}]
            recipe["fused_pairs"] = 4
        (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
        record = {"model": "ashnets-tiny", "recipe": "small", "task": task, "data": DATA[task], "train": ["train"]}
        (folder / "training.json").write_text(json.dumps(record))
        return folder

    return save


@pytest.fixture(scope="session")
def quantized(finetuned, drawings, tmp_path_factory):
    """The folder and the report of three steps on questions."""
    output = tmp_path_factory.mktemp("int8") / "model"
    report = quantize(
        finetuned("vqa"), output=output, data=drawings, steps=3, calibration=10, compared=40, progress=False
    )
    return output, report


def test_the_metric_is_the_task_s_before_and_after(quantized, finetuned, drawings):
    output, report = quantized
    assert (report["task"], report["data"], report["split"]) == ("vqa", "pictogram-questions", "valid")
    assert list(report["metrics"]) == ["concrete alone", "float", "calibrated", "rounded", "fine-tuned"]
    assert "spiking_to_text" not in report and len(report["losses"]) == 3
    for stage, folder in (("float", finetuned("vqa")), ("fine-tuned", output)):
        measured = evaluate(folder, "vqa", drawings, splits=["valid"], variants=False, ablate=True, progress=False)
        found = measured["models"][str(folder)]["splits"]["valid"]
        assert report["metrics"][stage] == found["variants"]["reset"]
        if stage == "float":
            alone = {key: found["variants"]["concrete alone"][key] for key in report["metrics"]["concrete alone"]}
            assert report["metrics"]["concrete alone"] == alone


def test_it_loads_as_its_head_and_its_spikes_are_the_emulator_s(quantized, finetuned, drawings):
    output, report = quantized
    model, before = ashnets.from_pretrained(output), ashnets.from_pretrained(finetuned("vqa"))
    assert type(model).__name__ == "AshNetsForVQA" and model.config.precision == "int8"
    assert model.config.id2label == before.config.id2label and model.config.num_answers == before.config.num_answers
    record = json.loads((output / "training.json").read_text())
    assert record["data"] == "pictogram-questions" and record["quantized"]["steps"] == 3
    data = open_pictogram_task("pictogram-questions", drawings)
    names = list(dict.fromkeys(record.image for record in data.records("valid")))[:40]
    assert report["compared_on"] == len(names)
    keys = [image_key(name) for name in names]
    prepare = ashnets.AshNetsProcessor.from_pretrained(output).image_processor.preprocess
    spikes = before.ashnets.vision.sample(prepare([data.open_image(n) for n in names], keys)["pixel_values"], keys)
    ours, theirs = (m.ashnets.vision.abstract_encoder.run(spikes)[0] for m in (before, model))
    wanted, _ = emulate(integer_layers(model), spikes.numpy())
    for layer, found in report["spikes_changed"]["fine-tuned"].items():
        a, b = ours[layer].bool().numpy(), theirs[layer].bool().numpy()
        assert np.array_equal(b, wanted[layer].astype(bool)) and b.any()
        assert found["changed"] == round(np.logical_xor(a, b).sum() / a.size, 5)
    original, stored = load_file(finetuned("vqa") / "model.safetensors"), load_file(output / "model.safetensors")
    assert original.keys() == stored.keys()
    assert not torch.equal(original["classifier.0.weight"], stored["classifier.0.weight"].float())


def test_statistics_are_gathered_from_both_images_of_each_pair(finetuned, drawings, tmp_path):
    folder, output = finetuned("nlvr2"), tmp_path / "int8"
    data = open_pictogram_task("pictogram-pairs", drawings)
    records = data.records("train")
    report = quantize(
        folder,
        output=output,
        data=drawings,
        steps=0,
        calibration=len(records),
        compared=4,
        overrides=[f"batch_size={len(records)}"],
        progress=False,
    )
    assert report["calibrated_on"] == 2 * len(records) and "fine-tuned" not in report["metrics"]
    original, stored = load_file(folder / "model.safetensors"), load_file(output / "model.safetensors")
    (mean,) = [key for key in stored if key.endswith("conv1.norm.running_mean")]
    vision = ashnets.from_pretrained(folder).ashnets.vision
    names = [name for record in records for name in record.images]
    prepare = ashnets.AshNetsProcessor.from_pretrained(folder).image_processor.preprocess
    keys = [image_key(name) for name in names]
    spikes = vision.sample(prepare([data.open_image(n) for n in names], keys)["pixel_values"], keys)
    weight = original[mean.replace("norm.running_mean", "conv.weight")]
    currents = torch.nn.functional.conv2d(spikes.flatten(0, 1), weight, stride=2, padding=1)
    torch.testing.assert_close(stored[mean], currents.mean((0, 2, 3)), rtol=1e-4, atol=1e-5)


def test_retrieval_is_quantized_too_and_a_dry_run_writes_nothing(finetuned, drawings, tmp_path):
    options = {"data": drawings, "calibration": 4, "compared": 4, "progress": False}
    report = quantize(finetuned("retrieval"), output=tmp_path / "int8", steps=1, **options)
    assert list(report["retrieval"]) == ["concrete alone", "float", "calibrated", "rounded", "fine-tuned"]
    assert report["retrieval"]["float"]["images"] == report["spiking_to_text"]["float"]["images"] == 8
    assert type(ashnets.from_pretrained(tmp_path / "int8")).__name__ == "AshNetsForRetrieval"
    plan = quantize(finetuned("vqa"), output=tmp_path / "none", steps=7, dry_run=True, **options)
    items = open_pictogram_task("pictogram-questions", drawings).records("train")
    assert (plan["items"], plan["steps"]) == (len(items), 7) and plan["flops_run"] == 7 * plan["flops_a_step"]
    assert not (tmp_path / "none").exists()


def test_the_command_prints_the_task_s_metric_and_names_the_option(finetuned, drawings, tmp_path):
    words = ["quantize", str(finetuned("nlvr2")), "--output", str(tmp_path / "int8"), "--steps", "0"]
    refused = CliRunner().invoke(app, words)
    assert isinstance(refused.exception, ConfigurationError) and "--data" in str(refused.exception)
    done = CliRunner().invoke(app, [*words, "--data", str(drawings), "--calibration", "0", "--compared", "2"])
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    assert lines[0].split() == ["weights", "split", "n", "accuracy", "sentences", "consistency"]
    assert sum(line.startswith("rounded") for line in lines) == 1 + 4, "the metric, four layers"


def test_what_does_not_fit_is_refused(quantized, finetuned, drawings, tmp_path):
    with pytest.raises(ConfigurationError, match=r"pictogram-questions \(vqa\).*--data.*without --corpus"):
        quantize(finetuned("vqa"), output=tmp_path / "a", corpus=drawings, data=drawings)
    with pytest.raises(ConfigurationError, match=r"--data is for a model that was fine-tuned.*--corpus"):
        quantize("ashnets-tiny", output=tmp_path / "a", data=drawings)
    with pytest.raises(ConfigurationError, match="precision='int8' already"):
        quantize(quantized[0], output=tmp_path / "a", data=drawings)
    with pytest.raises(OutputError, match="is there already"):
        quantize(finetuned("vqa"), output=quantized[0], data=drawings)
    with pytest.raises(WeightsError, match="lack the task 'vqa'"):
        quantize("ashnets-tiny", output=tmp_path / "a", data=drawings, recipe=finetuned("vqa") / "recipe.yaml")
    assert not (tmp_path / "a").exists()
