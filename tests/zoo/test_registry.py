"""The registry: names, configurations, counts."""

from __future__ import annotations

import functools
import itertools
import json
import logging
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from transformers import ResNetConfig, ResNetForImageClassification, ViTConfig, ViTForImageClassification

import ashnets
from ashnets import zoo
from ashnets.cli import main
from ashnets.configuration import AshNetsConfig
from ashnets.errors import ConfigurationError, UnknownModelError
from ashnets.files import read_csv
from ashnets.zoo import registry
from ashnets.zoo.describing import describe_config
from ashnets.zoo.names import SUFFIXES
from ashnets.zoo.registry import ROOT, recipe_path

CHANGES = {
    "l3": {"num_hidden_layers": 3},
    "t1": {"time_steps": 1},
    "t5": {"time_steps": 5},
    "t20": {"time_steps": 20},
    "ann": {"summary_ratio": "ann"},
    "fixed": {"summary_ratio": "fixed"},
    "snn": {"summary_ratio": "snn"},
    "nocollector": {"collector": False},
}


def test_the_listed_names():
    suffixes = ["", "-t1", "-t5", "-t20", "-ann", "-fixed", "-snn", "-nocollector"]
    expected = {"ashnets-tiny" + suffix for suffix in suffixes}
    for architecture, form, suffix in itertools.product(
        ("r18", "r50", "r101", "r152", "vit-b16"), ("", "-l3"), suffixes
    ):
        expected.add(f"ashnets-{architecture}{form}{suffix}")
    names = zoo.list_models()
    assert set(names) == expected
    assert len(names) == len(expected) == 88


def test_an_architecture_is_found_by_its_file_and_listed_by_its_place(tmp_path, monkeypatch):
    known = zoo.list_models()
    assert [name for name in known if name == zoo.entry(name).architecture] == [
        "ashnets-tiny",
        "ashnets-r18",
        "ashnets-r50",
        "ashnets-r101",
        "ashnets-r152",
        "ashnets-vit-b16",
    ]
    shutil.copytree(ROOT / "architectures", tmp_path / "architectures")
    text = "summary: a new one\nforms: []\nconfiguration: {backbone: resnet18, time_steps: 7}\n"
    (tmp_path / "architectures" / "ashnets-a.yaml").write_text(text)
    monkeypatch.setattr(registry, "ROOT", tmp_path)
    found = registry._entries.__wrapped__()
    assert list(found) == [*known, "ashnets-a", *(f"ashnets-a-{suffix}" for suffix in SUFFIXES)]
    assert found["ashnets-a"].configuration == {"backbone": "resnet18", "time_steps": 7}


@pytest.mark.parametrize("name", zoo.list_models())
def test_suffixes_change_what_they_say_and_nothing_else(name):
    architecture = zoo.entry(name).architecture
    changes = {}
    for suffix in name.removeprefix(architecture).split("-")[1:]:
        changes.update(CHANGES[suffix])
    plain = zoo.config_of(architecture).to_dict()
    assert zoo.config_of(name).to_dict() == {**plain, **changes}


def test_defaults_of_the_full_architectures():
    for name in ("ashnets-r18", "ashnets-r50", "ashnets-r101", "ashnets-r152", "ashnets-vit-b16"):
        config = zoo.config_of(name)
        assert (config.image_size, config.time_steps, config.group_size) == (256, 10, 16)
        assert (config.hidden_size, config.num_concepts, config.num_hidden_layers) == (768, 2048, 12)
        assert config.num_visual_tokens == (256 if name == "ashnets-vit-b16" else 64)
    assert zoo.config_of("ashnets-tiny").num_visual_tokens == 36


def test_patterns():
    assert zoo.list_models("ashnets-tiny-t*") == ["ashnets-tiny-t1", "ashnets-tiny-t5", "ashnets-tiny-t20"]
    with pytest.warns(UserWarning, match=r"matches 'nothing\*'\. ashnets\.list_models\(\) gives all names") as told:
        assert zoo.list_models("nothing*") == []
    assert told[0].filename == __file__
    for pattern, meant in (("r101", r"'\*r101\*'"), ("ashnet-tiny*", "ashnets-tiny")):
        with pytest.warns(UserWarning, match=rf"Did you mean {meant}\?"):
            assert zoo.list_models(pattern, pretrained=True) == []
    with_weights, without = zoo.list_models(pretrained=True), zoo.list_models(pretrained=False)
    assert sorted(with_weights + without) == sorted(zoo.list_models())
    assert all(zoo.entry(name).weights for name in with_weights)
    assert not any(zoo.entry(name).weights for name in without)


def test_listing_loads_no_framework():
    code = "import sys, ashnets; ashnets.list_models(); print({'torch', 'transformers'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("ashnets-r101-t5-l3", "did you mean ashnets-r101-l3-t5?"),
        ("ashnets-r101-t10", "did you mean ashnets-r101?"),
        ("ASHNETS-R18-ANN", "did you mean ashnets-r18-ann?"),
        ("ashnets_tiny", "did you mean ashnets-tiny?"),
        ("ashnets-tny", "ashnets-tiny"),
        ("ashnets-r125", "ashnets-r152"),
        ("ashnets-tiny-l3", "ashnets-tiny"),
        ("resnet", "list_models"),
        ("", "list_models"),
    ],
)
def test_a_typo_gets_the_nearest_names(name, near):
    for call in (zoo.entry, zoo.describe, zoo.create, zoo.config_of):
        with pytest.raises(UnknownModelError) as caught:
            call(name)
        assert near in str(caught.value)


def test_unknown_tag():
    with pytest.raises(UnknownModelError, match=r"ashnets-r18 has no tag 'coco': it has no trained weights"):
        zoo.entry("ashnets-r18.coco")


@pytest.mark.parametrize("name", ["me/birds", "hf-hub:me/birds@v1", "./ashnets-tiny", Path("ashnets-tiny")])
def test_a_configuration_of_a_repository_is_that_of_its_folder(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for call in (zoo.config_of, functools.partial(ashnets.from_pretrained, weights=None)):
        with pytest.raises(UnknownModelError, match=r"there is no folder of this name .*ashnets\.resolve\('"):
            call(name)


def test_config_of_a_folder(tmp_path):
    config = AshNetsConfig(time_steps=7)
    config.save_pretrained(tmp_path)
    assert zoo.config_of(tmp_path).time_steps == 7
    data = json.loads((tmp_path / "config.json").read_text())
    for content, message in (
        ("{", "not valid JSON"),
        ("[1]", "model_type None"),
        (json.dumps({**data, "model_type": "bert"}), "model_type 'bert'"),
        (json.dumps({**data, "tiem_steps": 7}), "'tiem_steps'"),
        (json.dumps({**data, "time_steps": "seven"}), "'time_steps' expected int"),
        (json.dumps({**data, "time_steps": 0}), "time_steps=0"),
    ):
        (tmp_path / "config.json").write_text(content)
        with pytest.raises(ConfigurationError, match=message):
            zoo.config_of(tmp_path)


# Parameters -----------------------------------------------------------------------------------------------------------

RESNETS = {
    "ashnets-r18": ("basic", [2, 2, 2, 2], [64, 128, 256, 512], 11_689_512),
    "ashnets-r50": ("bottleneck", [3, 4, 6, 3], [256, 512, 1024, 2048], 25_557_032),
    "ashnets-r101": ("bottleneck", [3, 4, 23, 3], [256, 512, 1024, 2048], 44_549_160),
    "ashnets-r152": ("bottleneck", [3, 8, 36, 3], [256, 512, 1024, 2048], 60_192_808),
}


def parameters(module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("name", RESNETS)
def test_backbones_have_the_published_numbers_of_parameters(name):
    kind, depths, widths, published = RESNETS[name]
    with torch.device("meta"):
        settings = ResNetConfig(layer_type=kind, depths=depths, hidden_sizes=widths, num_labels=1000)
        library = parameters(ResNetForImageClassification(settings))
    description = zoo.describe(name)
    assert description.totals["backbone_with_classifier"] == library == published
    assert description.parameters["backbone"] == published - (widths[-1] + 1) * 1000
    assert f"{published / 1e6:.2f} M" in description.to_text()


def test_vit_has_the_published_number_of_parameters():
    with torch.device("meta"):
        library = parameters(ViTForImageClassification(ViTConfig(num_labels=1000)))
    assert zoo.describe("ashnets-vit-b16").totals["backbone_with_classifier"] == library == 86_567_656


@pytest.mark.parametrize("name", ["ashnets-tiny", "ashnets-tiny-ann", "ashnets-tiny-nocollector", "ashnets-tiny-fixed"])
def test_parts_add_up_to_the_model(name):
    description = zoo.describe(name)
    total = parameters(zoo.create(name))
    assert sum(description.parameters.values()) == description.totals["parameters"] == total
    assert description.heads["retrieval"] == parameters(zoo.create(name, task="retrieval"))
    assert description.heads["pretraining"] == parameters(zoo.create(name, task="pretraining"))


# MACs, by hand --------------------------------------------------------------------------------------------------------


def test_macs_by_hand():
    macs = zoo.describe("ashnets-r18").macs
    # ResNet-18 on 256 px: stem, then four stages at 64, 32, 16 and 8 px.
    stem = 3 * 64 * 49 * 128**2
    stages = 4 * 64 * 64 * 9 * 64**2
    for width, side in ((128, 32), (256, 16), (512, 8)):
        half = width // 2
        stages += (half * width * 9 + 3 * width * width * 9 + half * width) * side**2
    assert macs["concrete encoder"] == stem + stages + 512 * 768 * 64
    step = 3 * 24 * 9 * 128**2
    step += 24 * 48 * 9 * 64**2 + 48 * 96 * 9 * 32**2 + 96 * 192 * 9 * 16**2 + 192 * 384 * 9 * 8**2
    assert macs["abstract encoder, a step"] == step + 384 * 2048 * 64 == 230_817_792
    assert macs["collector"] == 64 * 2048 * 768
    assert macs["summary ratio"] == 64 * 768
    for part, length in (("text alone", 40), ("pair", 40 + 64)):
        layer = length * (4 * 768 * 768 + 2 * 768 * 3072) + 2 * length * length * 768
        assert macs[f"transformer, {part}"] == 12 * layer


def test_all_steps_count():
    description = zoo.describe("ashnets-r18-t20")
    assert description.totals["spiking_macs"] == 20 * 230_817_792


@pytest.mark.parametrize("name", ["ashnets-r18", "ashnets-r101", "ashnets-r152", "ashnets-vit-b16"])
def test_the_spiking_encoder_stays_within_its_budget(name):
    assert zoo.describe(name).macs["abstract encoder, a step"] <= 0.3e9


# Description, creation ------------------------------------------------------------------------------------------------


def test_description_says_plainly_that_nothing_was_trained():
    description = zoo.describe("ashnets-r101-ann")
    assert description.weights.startswith("no trained weights")
    assert not description.pretrained
    text = description.to_text()
    assert "no trained weights" in text and "without a spiking branch" in text
    assert json.loads(json.dumps(description.to_dict()))["symbols"]["N"] == 64
    assert "abstract encoder" not in description.parameters
    trained_here = zoo.describe("ashnets-tiny-ann").weights
    assert trained_here.startswith("no published weights: it was trained here, and its results are in zoo/results/pict")
    assert "never trained" not in trained_here and "was never trained here" in zoo.describe("ashnets-tiny-t1").weights


def test_a_description_has_the_results_of_the_files():
    rows = [row for row in read_csv(zoo.entry("ashnets-tiny").weights.results) if row["model"] == "ashnets-tiny"]
    asked = ("test-twitter-seen", "text_to_image", "both", "ITC")
    own = [row for row in rows if (row["split"], row["direction"], row["branch"], row["ranking"]) == asked]
    description = zoo.describe("ashnets-tiny")
    first = description.measured[0]
    assert (first["task"], first["split"], first["n"], first["seeds"]) == (
        "retrieval, text to image",
        "test-twitter-seen",
        own[0]["images"],
        str(len(own)),
    )
    mean = statistics.fmean(float(row["R@1"]) for row in own)
    assert float(first["metric"].split()[1]) == pytest.approx(mean, abs=6e-4)
    assert float(first["chance"]) == pytest.approx(1 / int(first["n"]), abs=6e-5)
    (task,) = [row for row in description.measured if row["task"] == "easy-vqa, fine-tuned"]
    answers = {row["variant"]: row["accuracy"] for row in read_csv(ROOT / "results" / "tasks" / "easy-vqa.csv")}
    assert float(task["metric"].removeprefix("accuracy ")) == pytest.approx(float(answers["reset"]), abs=6e-4)
    assert float(task["chance"]) == pytest.approx(float(answers["chance"]), abs=6e-4)
    text = description.to_text()
    assert all(row["metric"] in text for row in description.measured)
    assert describe_config(zoo.config_of("ashnets-tiny"), "ashnets-tiny").measured == [], "other weights"
    assert zoo.describe("ashnets-r18").measured == [] and "Results" not in zoo.describe("ashnets-r18").to_text()


def test_create_is_reproducible_and_leaves_the_generator_alone(caplog):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    with caplog.at_level(logging.INFO, "ashnets.zoo.creating"):
        one = zoo.create("ashnets-tiny", seed=3, time_steps=4)
    assert torch.equal(torch.get_rng_state(), before)
    assert "random weights (seed 3)" in caplog.text
    two, other = zoo.create("ashnets-tiny", seed=3, time_steps=4), zoo.create("ashnets-tiny", seed=4, time_steps=4)
    assert not one.training
    assert one.config.time_steps == 4
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))
    assert not torch.equal(one.vision.collector.concepts, other.vision.collector.concepts)


def test_create_refuses_unknown_tasks_and_keys():
    with pytest.raises(ConfigurationError, match="task='caption'"):
        zoo.create("ashnets-tiny", task="caption")
    with pytest.raises(ConfigurationError, match="'tiem_steps'"):
        zoo.create("ashnets-tiny", tiem_steps=3)


def test_weights_file_names_models_of_the_registry():
    for name, tags in yaml.safe_load((ROOT / "weights.yaml").read_text(encoding="utf-8")).items():
        assert name in zoo.list_models(pretrained=True)
        assert zoo.entry(name).tag == next(iter(tags))
        for tag in tags:
            weights = zoo.entry(f"{name}.{tag}").weights
            assert weights.recipe.is_file() and weights.results.is_file()
            assert zoo.describe(f"{name}.{tag}").pretrained


def test_a_misspelled_recipe_is_answered_by_the_nearest_name():
    with pytest.raises(ConfigurationError, match=r"'own-pair' is neither .* Did you mean own-pairs\? Bundled: .*own-p"):
        recipe_path("own-pair")


def test_a_recipe_that_joins_sets_asks_for_their_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["data", "check", "pretrain-coco-vg"]) == 2
    told = "pretrain-coco-vg joins published sets: also give the folder that has them, `ashnets data check "
    assert f"{told}pretrain-coco-vg PATH`" in capsys.readouterr().err
    (tmp_path / "pretrain-coco-vg").mkdir()
    assert main(["data", "check", "pretrain-coco-vg"]) == 4, "a folder of that name is one of images"
    assert "joins" not in capsys.readouterr().err
