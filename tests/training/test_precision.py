"""``precision: auto``: what is chosen is named, kept by a resumed run, and the same as if asked for by name."""

from __future__ import annotations

import json

import pytest
import torch
import yaml
from safetensors.torch import load_file

from ashnets.device import own_device
from ashnets.errors import TrainingError
from ashnets.runs import train
from ashnets.training import precision
from ashnets.training.checkpoint import checkpoints
from ashnets.training.reading import load_recipe
from ashnets.training.run import Run
from ashnets.zoo import config_of

SHORT = ["phases.0.epochs=1", "phases.1.epochs=1", "phases.1.grouping=random"]


def test_the_measurement_is_real_and_draws_nothing():
    before = torch.random.get_rng_state()
    found, why = precision.choose(config_of("ashnets-tiny"), torch.device("cpu"))
    assert torch.equal(torch.random.get_rng_state(), before)
    speedup = float(why.split(" times")[0].split()[-1])
    assert found == ("bf16" if speedup >= precision.WORTH else "fp32") or speedup == precision.WORTH


def test_a_model_without_widths_of_its_own_is_measured_with_512_channels(monkeypatch):
    config, shapes, full = config_of("ashnets-r18"), [], precision._full
    monkeypatch.setattr(precision, "_full", lambda *shape: shapes.append(shape) or full(*shape))
    precision.bf16_speedup(config)
    side = config.image_size // config.stride
    assert shapes[2:] == [(precision.IMAGES, 512, side, side), (512, 512, 3, 3)]


def test_a_named_precision_is_not_measured(recipe, monkeypatch):
    monkeypatch.setattr(precision, "bf16_speedup", None)
    settings = load_recipe(recipe)
    assert precision.with_precision(settings, config_of("ashnets-tiny"), torch.device("cpu")) == (settings, None)


@pytest.mark.parametrize("way", ["training", "evaluation", "cuda:1"])
def test_fp32_is_not_tf32(recipe, monkeypatch, way):
    """cuDNN's own switch, which exists without a GPU too."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)  # torch's default
    settings, gpu = load_recipe(recipe), torch.device("cuda", 0)
    precision.with_precision(settings, config_of("ashnets-tiny"), torch.device("cpu"))
    assert own_device("cpu") == "cpu" and torch.backends.cudnn.allow_tf32
    if way == "training":
        precision.with_precision(settings, config_of("ashnets-tiny"), gpu)
    elif way == "evaluation":
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
        monkeypatch.setenv("LOCAL_RANK", "3")
        assert own_device() == torch.device("cuda", 1)
    else:
        assert own_device(way) == way
    assert not torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize(("speedup", "expected"), [(1.9, "bf16"), (1.05, "fp32"), (0.4, "fp32")])
def test_the_dry_run_names_the_choice(corpus, recipe, tmp_path, monkeypatch, speedup, expected):
    monkeypatch.setattr(precision, "bf16_speedup", lambda _: speedup)
    overrides = ["precision=auto", *SHORT]
    plan = train(recipe, corpus=corpus, output=tmp_path / "run", overrides=overrides, dry_run=True)
    assert plan["precision"] == expected
    chosen = f"precision={expected}, chosen by measurement: bf16 is {speedup:.2f} times as fast as fp32"
    assert plan["notes"][0] == chosen


def test_the_choice_is_recorded_kept_and_has_a_name(corpus, recipe, tmp_path, monkeypatch, capsys):
    """Two measurements that contradict each other; the run that asks for bf16 by name is the oracle, to the bit."""
    options = {"corpus": corpus, "progress": False}
    auto = {**options, "output": tmp_path / "auto", "overrides": ["precision=auto", *SHORT]}

    def stop(*_) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(precision, "bf16_speedup", lambda _: 1.9)
    with monkeypatch.context() as only_now:
        only_now.setattr(Run, "_calibrate", stop)
        with pytest.raises(KeyboardInterrupt):
            train(recipe, **auto)
    chosen = "by measurement: bf16 is 1.90 times as fast as fp32"
    assert f"note: precision=bf16, chosen {chosen}" in capsys.readouterr().err
    monkeypatch.setattr(precision, "bf16_speedup", lambda _: 0.4)
    record = train(recipe, resume=True, **auto)
    assert record["precision"] == "bf16" and record["precision_chosen"] == chosen
    published = tmp_path / "auto" / "model"
    assert yaml.safe_load((published / "recipe.yaml").read_text())["precision"] == "bf16"
    assert json.loads((published / "training.json").read_text())["precision_chosen"] == chosen
    assert "another environment" not in capsys.readouterr().err

    named = train(recipe, output=tmp_path / "named", overrides=["precision=bf16", *SHORT], **options)
    assert named["precision"] == "bf16" and "precision_chosen" not in named
    ends = [checkpoints(tmp_path / run / "checkpoints")[-1] / "model.safetensors" for run in ("auto", "named")]
    one, two = map(load_file, ends)
    assert all(torch.equal(tensor, two[name]) for name, tensor in one.items())
    with pytest.raises(TrainingError, match="precision: was 'bf16', is 'fp32'"):
        train(recipe, resume=True, **{**auto, "overrides": ["precision=fp32", *SHORT]})
