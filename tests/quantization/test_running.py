"""From a float checkpoint to an integer checkpoint: files, report, refused input."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
import typer
import yaml
from safetensors.torch import load_file
from typer.testing import CliRunner

import ashnets
from ashnets.cli.quantize import quantize as quantize_command
from ashnets.data.pairs import Pairs
from ashnets.data.sources.opening import open_source
from ashnets.errors import ConfigurationError, OutputError
from ashnets.evaluation.options import EvaluationOptions
from ashnets.evaluation.retrieval import RetrievalSet, rank
from ashnets.export.emulator import emulate, integer_layers
from ashnets.files import write_json
from ashnets.model.recompute import recompute_activations
from ashnets.model.sampling import image_key, probabilistic_sampling
from ashnets.model.tdbn import calibrate
from ashnets.quantization.running import fine_tuning_recipe, quantize
from ashnets.training.reading import load_recipe
from ashnets.training.setup import build_model


@pytest.fixture(scope="module")
def checkpoint(corpus, recipe_data, tmp_path_factory):
    """The model of the small recipe with calibrated statistics, published like that of a run, but not trained."""
    folder = tmp_path_factory.mktemp("float") / "model"
    folder.mkdir()
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe_data))
    source = open_source(corpus)
    captions = [c for row in source.split("train")["captions"].to_pylist() for c in row]
    _, processor, model, _ = build_model(load_recipe(folder / "recipe.yaml"), captions)
    pairs = Pairs(source, ["train"], 64)
    vision = model.ashnets.vision
    spikes = vision.sample(pairs.on_white(range(8)), [image_key(name) for name in pairs.image_ids[:8]])
    calibrate(vision.abstract_encoder, [spikes], run=vision.abstract_encoder.run)
    model.eval().save_pretrained(folder)
    processor.save_pretrained(folder)
    write_json(folder / "training.json", {"recipe": "small", "model": "ashnets-tiny", "seed": 0, "hold_out": 0.05})
    return folder


@pytest.fixture(scope="module")
def quantized(checkpoint, corpus, tmp_path_factory):
    output = tmp_path_factory.mktemp("int8") / "link"
    output.with_name("model").mkdir()
    output.symlink_to("model")
    report = quantize(checkpoint, output, corpus=corpus, steps=5, calibration=12, compared=5, progress=False)
    return output, report


def sampled(corpus, split: str, count: int, steps: int) -> torch.Tensor:
    pairs = Pairs(open_source(corpus), [split], 64)
    keys = [image_key(name) for name in pairs.image_ids[:count]]
    return probabilistic_sampling(pairs.on_white(range(count)), keys, steps)


def test_the_folder_is_a_model_like_any_other(quantized, checkpoint):
    output, report = quantized
    assert sorted(path.name for path in output.iterdir()) == sorted(
        [path.name for path in checkpoint.iterdir()] + ["quantization.json"]
    )
    assert {path.name for path in output.parent.iterdir()} == {"link", "model"}, "nothing is left beside it"
    assert json.loads((output / "quantization.json").read_text()) == json.loads(json.dumps(report))
    assert ashnets.config_of(output).precision == "int8"
    record = json.loads((output / "training.json").read_text())
    assert record["recipe"] == "small" and record["quantized"]["steps"] == 5
    recipe = load_recipe(output / "recipe.yaml")
    assert [phase.name for phase in recipe.phases] == ["spiking"]
    assert recipe.optimizers["spiking"].lr == pytest.approx(1e-3), "a tenth of the recipe's"


def test_what_was_fine_tuned_is_what_is_loaded_and_exported(quantized, checkpoint, corpus):
    output, _ = quantized
    stored = load_file(output / "model.safetensors")
    kinds = {key: tensor.dtype for key, tensor in stored.items() if tensor.is_floating_point()}
    assert {kind for key, kind in kinds.items() if ".abstract_encoder." in key} == {torch.float32}
    assert {kind for key, kind in kinds.items() if ".abstract_encoder." not in key} == {torch.float16}
    model = ashnets.from_pretrained(output)
    spikes = sampled(corpus, "valid", 3, 3)
    encoder = model.ashnets.vision.abstract_encoder
    outputs, _ = encoder.run(spikes)
    wanted, _ = emulate(integer_layers(model), spikes.numpy())
    for name, out in outputs.items():
        assert np.array_equal(out.detach().numpy(), wanted[name]) and out.any()
    before = ashnets.from_pretrained(checkpoint).ashnets.vision.abstract_encoder
    changes = [(a - b).abs().max() for a, b in zip(before.parameters(), encoder.parameters(), strict=True)]
    assert min(changes) > 0, "every parameter was trained"


def test_the_report_s_numbers_are_those_of_the_weights(quantized, checkpoint, corpus):
    output, report = quantized
    assert report["steps"] == len(report["losses"]) == 5
    assert (report["calibrated_on"], report["compared_on"], report["split"]) == (12, 5, "valid")
    assert list(report["spikes_changed"]) == ["calibrated", "rounded", "fine-tuned"]
    assert list(report["retrieval"]) == ["concrete alone", "float", *report["spikes_changed"]]
    models = {"float": ashnets.from_pretrained(checkpoint), "fine-tuned": ashnets.from_pretrained(output)}
    tokenizer = ashnets.AshNetsProcessor.from_pretrained(output).tokenizer
    for name, model in models.items():
        measured = RetrievalSet.of_pairs(Pairs(open_source(corpus), ["valid"], 64))
        found = rank(model, tokenizer, measured, options=EvaluationOptions(progress=False)).to_list()[0]
        reported = {**report["retrieval"][name], "cost": found["cost"]}  # it holds seconds
        assert reported == found and found["images"] == 6
    spikes = sampled(corpus, "valid", 5, 3)
    ours, theirs = (model.ashnets.vision.abstract_encoder.run(spikes)[0] for model in models.values())
    for layer, found in report["spikes_changed"]["fine-tuned"].items():
        a, b = ours[layer].bool().numpy(), theirs[layer].bool().numpy()
        changed = np.logical_xor(a, b).sum()
        assert found == {
            "rate_float": round(float(a.mean()), 5),
            "rate": round(float(b.mean()), 5),
            "changed": round(changed / a.size, 5),
            "changed_per_spike": round(changed / a.sum(), 5),
        }
    assert all(0 < found["changed"] < 0.5 for found in report["spikes_changed"]["rounded"].values())


@torch.inference_mode()
def test_what_the_spikes_say_of_a_text_is_eq_9_over_single_images(quantized, checkpoint, corpus):
    """Against float64 sums over the published tensors for single images and texts; SR·F_SNN comes from the model."""
    output, report = quantized
    assert list(report["spiking_to_text"]) == ["float", "calibrated", "rounded", "fine-tuned"]
    pairs = Pairs(open_source(corpus), ["valid"], 64)
    for name, folder in (("float", checkpoint), ("fine-tuned", output)):
        model = ashnets.from_pretrained(folder, task="pretraining")
        tokenizer = ashnets.AshNetsProcessor.from_pretrained(folder).tokenizer
        weight = {key: value.double().numpy() for key, value in load_file(folder / "model.safetensors").items()}
        ranks = []
        texts = [tokenizer(text, return_tensors="pt", return_token_type_ids=False) for text in pairs.names]
        hidden = [model.ashnets.transformer(t["input_ids"], t["attention_mask"], None)[0][0, 0] for t in texts]
        assert model.config.stua_projections == "itc" and model.config.token_reading == "positions"

        def linear(name, x, weight=weight):
            return x @ weight[f"{name}.weight"].T + weight[f"{name}.bias"]

        w = linear("text_projection", np.stack([h.double().numpy() for h in hidden]))
        for i in range(len(pairs)):
            visual = model.ashnets.vision(pairs.on_white([i]), image_keys=[image_key(pairs.image_ids[i])])
            tokens = visual.summary_ratio[0].double().numpy() * visual.abstract[0].double().numpy()  # (N, M1)
            places = np.concatenate([linear("image_projection.narrow", token) for token in tokens])
            v = linear("image_projection", tokens.sum(0) / len(tokens))
            v = v + places @ weight["image_projection.joined.weight"].T
            cosines = w @ v / np.linalg.norm(w, axis=1) / np.linalg.norm(v)
            ranks.append(1 + int((cosines > cosines[i]).sum()))
        found = report["spiking_to_text"][name]
        assert (found["images"], found["texts"]) == (6, 6) and found["chance"]["R@1"] == pytest.approx(1 / 6)
        for k in (1, 5):
            assert found[f"R@{k}"] == pytest.approx(np.mean([rank <= k for rank in ranks]))


def test_rounding_alone_keeps_the_weights_and_gathers_the_statistics(checkpoint, even_corpus, tmp_path):
    kept = quantize(
        checkpoint, tmp_path / "kept", corpus=even_corpus, steps=0, calibration=0, compared=2, progress=False
    )
    assert list(kept["retrieval"]) == ["concrete alone", "float", "rounded"] and kept["calibrated_on"] == 0
    original, stored = load_file(checkpoint / "model.safetensors"), load_file(tmp_path / "kept" / "model.safetensors")
    spiking = [key for key in original if ".abstract_encoder." in key]
    assert spiking and all(torch.equal(original[key], stored[key]) for key in spiking)
    found = quantize(
        checkpoint,
        tmp_path / "new",
        corpus=even_corpus,
        steps=0,
        calibration=24,
        compared=2,
        overrides=["augment=false", "batch_size=24"],
        progress=False,
    )
    assert found["calibrated_on"] == 24
    stored = load_file(tmp_path / "new" / "model.safetensors")
    assert all(torch.equal(original[key], stored[key]) for key in spiking if "running" not in key and "num" not in key)
    (mean,) = [key for key in spiking if key.endswith("conv1.norm.running_mean")]
    weight = original[mean.replace("norm.running_mean", "conv.weight")]
    spikes = sampled(even_corpus, "train", 24, 3)  # all of them, so that their order and groups do not matter
    currents = torch.nn.functional.conv2d(spikes.flatten(0, 1), weight, stride=2, padding=1)
    torch.testing.assert_close(stored[mean], currents.mean((0, 2, 3)), rtol=1e-4, atol=1e-5)
    variance = stored[mean.replace("mean", "var")]
    torch.testing.assert_close(variance, currents.var((0, 2, 3)), rtol=1e-4, atol=1e-5)
    assert not torch.equal(stored[mean], original[mean])


FULL_DISK = """
import resource, sys
from ashnets.errors import OutputError
from ashnets.quantization.running import quantize

checkpoint, corpus, there = sys.argv[1:]
options = {"corpus": corpus, "steps": 0, "calibration": 0, "compared": 2, "progress": False}
quantize(checkpoint, ".", **options)
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))  # below the size of the weights
try:
    quantize(checkpoint, there, **options)
except OutputError as error:
    print(error)
"""


def test_a_full_disk_is_said_and_an_empty_folder_is_filled(checkpoint, even_corpus, tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    command = [sys.executable, "-c", FULL_DISK, str(checkpoint), str(even_corpus), str(there)]
    done = subprocess.run(command, cwd=here, check=True, capture_output=True, text=True, timeout=200)
    assert done.stdout.startswith(f"{there} cannot be written (") and done.stdout.count("cannot be written") == 1
    assert "File too large" in done.stdout and "make room" in done.stdout
    assert ashnets.from_pretrained(here).config.precision == "int8"
    assert [path.name for path in tmp_path.iterdir()] == ["here"]


def test_a_named_recipe_is_taken_as_it_is(checkpoint, recipe):
    own, named = fine_tuning_recipe(checkpoint, None, None, 50), fine_tuning_recipe(checkpoint, recipe, None, 50)
    assert own.schedule.kind == "cosine" and own.schedule.warmup_steps == 3
    assert named.schedule == load_recipe(recipe).schedule
    assert named.optimizers == load_recipe(recipe).optimizers
    assert own.optimizers["transformer"] == dataclasses.replace(named.optimizers["transformer"], lr=2.0e-5)
    assert [phase.name for phase in named.phases] == ["spiking"]
    changed = fine_tuning_recipe(checkpoint, None, ["phases.1.frozen=[transformer, concrete]"], 50)
    assert changed.phases[0].frozen == ["transformer", "concrete"]


def test_a_dry_run_measures_and_writes_nothing(checkpoint, corpus, tmp_path):
    plan = quantize(
        checkpoint,
        tmp_path / "out",
        corpus=corpus,
        steps=40,
        dry_run=True,
        progress=False,
        overrides=["phases.1.frozen=[transformer, concrete, collector]", "accumulate=3"],
    )
    # three micro-batches for each step of the optimizer
    assert plan["steps"] == 40 and plan["images"] == 27 and plan["flops_run"] == 40 * 3 * plan["flops_a_step"]
    assert 0 < plan["parameters_spiking"] == plan["parameters_trainable"] < plan["parameters"]
    assert not list(tmp_path.iterdir())


def test_refusals(quantized, checkpoint, corpus, tmp_path):
    output, _ = quantized
    before = (output / "model.safetensors").read_bytes()
    with pytest.raises(OutputError, match="is there already"):
        quantize(checkpoint, output, corpus=corpus)
    assert (output / "model.safetensors").read_bytes() == before
    with pytest.raises(ConfigurationError, match="precision='int8' already"):
        quantize(output, tmp_path / "a", corpus=corpus)
    with pytest.raises(ConfigurationError, match="no phase trains the spiking branch"):
        quantize(checkpoint, tmp_path / "a", corpus=corpus, overrides=["phases.1.frozen=[spiking]"])
    shutil.copytree(checkpoint, tmp_path / "bare")
    (tmp_path / "bare" / "recipe.yaml").unlink()
    with pytest.raises(ConfigurationError, match="--recipe"):
        quantize(tmp_path / "bare", tmp_path / "a", corpus=corpus)
    assert not (tmp_path / "a").exists()


def test_recomputed_activations_give_the_same_gradient(quantized, corpus):
    spikes, found = sampled(corpus, "train", 4, 3), []
    for recomputed in (False, True):
        encoder = ashnets.from_pretrained(quantized[0]).ashnets.vision.abstract_encoder.train()
        if recomputed:
            assert recompute_activations(encoder) == 6
        outputs, _ = encoder.run(spikes)
        outputs["concepts"].sum().backward()
        found.append([p.grad for p in encoder.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True)) and found[0][0].any()


def test_the_command_prints_tables(checkpoint, corpus, tmp_path):
    app = typer.Typer()
    app.command()(quantize_command)
    words = [str(checkpoint), "--output", str(tmp_path / "int8"), "--corpus", str(corpus), "--steps", "0"]
    words += ["--calibration", "0", "--compared", "2"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    assert lines[0].split()[:5] == ["weights", "direction", "split", "images", "R@1"]
    assert sum(line.startswith("rounded") for line in lines) == 3 + 6, "three directions, six layers"
    assert sum(line.startswith("concrete alone") for line in lines) == 2
    assert sum("spiking_to_text" in line for line in lines) == 2, "of the float model, and rounded"
    done = CliRunner().invoke(app, [*words[:2], str(tmp_path / "again"), *words[3:], "--json"])
    assert json.loads(done.stdout)["retrieval"]["float"]["images"] == 6
