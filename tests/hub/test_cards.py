"""Model cards: made from files, valid, and explicit about unknown facts."""

from __future__ import annotations

import csv
import dataclasses
import re
import subprocess
import sys
import warnings

import pytest
import torch
from huggingface_hub import ModelCard

import ashnets
from ashnets import AshNetsConfig, zoo
from ashnets.errors import ConfigurationError
from ashnets.hub.cards import Subject, bundled_energy, bundled_results, card, eval_results, read_record
from ashnets.zoo.numbers import paper_rows, read_energy
from ashnets.zoo.registry import config_of, entry


def subject_of(name: str) -> Subject:
    """A registry name, with or without weights."""
    found = entry(name)
    weights = found.weights
    return Subject(
        title=found.name if weights is None else f"{found.name}.{weights.tag}",
        source=name,
        config=config_of(found.name),
        architecture=found.name,
        license=weights.license if weights else "Apache-2.0",
        training_data=weights.training_data if weights else None,
        record=read_record(weights.folder) if weights and weights.folder else None,
        trained=weights is not None,
        results=bundled_results(weights) if weights else (),
        energy=bundled_energy(found.name, weights) if weights else (),
    )


def section(text: str, title: str) -> str:
    return text.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


@pytest.fixture(scope="module")
def tiny() -> str:
    return card(subject_of("ashnets-tiny"))


@pytest.fixture(scope="module")
def big() -> str:
    return card(subject_of("ashnets-r152"))


def test_the_card_of_the_bundled_model(tiny):
    data = ModelCard(tiny).data
    assert (data.license, data.library_name, data.pipeline_tag) == ("apache-2.0", "ashnets", "feature-extraction")
    assert data.base_model == ["sentence-transformers/all-MiniLM-L6-v2"]
    assert {"spiking-neural-network", "vision-language"} <= set(data.tags) and "untrained" not in data.tags
    assert "**Untrained" not in tiny and "No record" not in tiny
    # every measured number of the results file, and chance beside it
    measured = section(tiny, "Results, measured")
    weights = zoo.entry("ashnets-tiny").weights
    with open(weights.results, newline="", encoding="utf-8") as stream:
        rows = [row for row in csv.DictReader(stream) if row["weights_sha256"] == weights.digest]
    lines = [line for line in measured.splitlines() if line.startswith("| test-")]
    assert len(lines) == len(rows) > 0
    for line, row in zip(lines, rows, strict=True):
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert {row["split"], row["R@1"], row["R@10"], row["chance R@1"]} <= set(cells)
    found = [(one.dataset_split, one.dataset_config, one.metric_name, one.metric_value) for one in data.eval_results]
    assert len(found) == len(set(found)) == 3 * len(rows), "one result each: directions and branches are not merged"
    assert f"{zoo.describe('ashnets-tiny').totals['parameters']:,}" in section(tiny, "Architecture")
    assert weights.training_data in section(tiny, "Training") and "CC-BY-4.0" in section(tiny, "Training")
    assert "has no model of this size" in section(tiny, "What the paper reports")


def test_a_card_is_the_same_each_time(tiny):
    assert card(subject_of("ashnets-tiny")) == tiny


def test_an_untrained_configuration_says_so_first(big):
    body = big.partition("\n---\n")[2]
    assert body.startswith("# ashnets-r152\n\n> **Untrained.**")
    assert "untrained" in ModelCard(big).data.tags and ModelCard(big).data.eval_results is None
    assert section(big, "Results, measured").strip() == "Nothing was measured."
    assert "Not trained." in section(big, "Training")
    with pytest.raises(zoo.registry.UnknownModelError):
        subject_of("ashnets-r15")


def test_the_papers_numbers_stand_apart(big):
    paper = section(big, "What the paper reports")
    assert "75.40" in paper and "86.09" in paper and "92.20" in paper
    assert "These weights did not produce them" in paper
    assert "VinVL (75.95) and BridgeTower (78.73 test-std) are stronger" in paper
    outside = big.replace(paper, "")
    assert not re.search(r"75\.40|86\.09|92\.20", outside)


def test_folders_without_record_results_or_known_license():
    plain = dataclasses.replace(
        subject_of("ashnets-r18"),
        trained=True,
        license="other:My Own License",
        architecture=None,
        config=AshNetsConfig(backbone="resnet-tiny", backbone_widths=[8, 12], image_size=16, summary_ratio="ann"),
    )
    text = card(plain)
    assert "No record of a training" in text.partition("\n---\n")[2].splitlines()[2]
    assert (ModelCard(text).data.license, ModelCard(text).data.license_name) == ("other", "my-own-license")
    assert "No result was measured" in section(text, "Limits")
    assert "not stated by the publisher" in section(text, "Training")


def test_blind_baselines_and_other_columns_are_shown_as_the_file_has_them():
    keys = ("model", "split", "accuracy", "blind accuracy", "chance accuracy", "seed")
    values = (("m", "test", "0.61", "0.44", "0.08", "3"), ("m", "valid", "0.66", "0.45", "0.08", "4"))
    rows = [dict(zip(keys, line, strict=True)) for line in values]
    subject = dataclasses.replace(subject_of("ashnets-tiny"), results=rows, dataset="someone/questions")
    text = section(card(subject), "Results, measured")
    assert "| split | accuracy | blind accuracy | chance accuracy |" in text
    assert "| test | 0.61 | 0.44 | 0.08 |" in text and "Measured with: seed: 3, 4." in text
    assert [one.metric_value for one in eval_results(subject)] == [0.61, 0.66]
    assert {one.dataset_type for one in eval_results(subject)} == {"someone/questions"}
    without = dataclasses.replace(subject, results=[{"model": "m", "split": "test", "accuracy": "0.61"}], dataset=None)
    assert "neither chance nor a blind baseline" in section(card(without), "Results, measured")
    assert [one.dataset_type for one in eval_results(without)] == ["ashnets-corpus"]


@pytest.mark.parametrize(("name", "branch"), [("ashnets-tiny", "both"), ("ashnets-tiny-ann", "concrete")])
def test_a_benchmark_gets_the_model_as_it_is(name, branch):
    """Neither ablations nor carried membranes: the Hub shows them as results of the model."""
    values = {branch: "0.5", "concrete alone": "0.7", "spikes alone": "0.8", "another image's spikes": "0.9"}
    rows = [{"split": "test", "branch": one, "R@1": value} for one, value in values.items()]
    rows += [{"split": "test", "branch": branch, "ranking": "ITC, constant image", "R@1": "0.9", "changed": "0.0"}]
    rows += [{"split": "test", "variant": one, "accuracy": "0.9"} for one in ("carry", "carry, shuffled", "chance")]
    rows += [{"split": "test", "variant": "reset", "accuracy": "0.6"}]
    found = eval_results(dataclasses.replace(subject_of(name), results=rows), chief=True)
    assert [one.metric_value for one in found] == [0.5, 0.6]


@pytest.mark.parametrize(
    ("head", "task"),
    [
        ("AshNetsForVQA", "visual-question-answering"),
        ("AshNetsForRetrieval", "feature-extraction"),
        ("AshNetsForVisualReasoning", None),
        ("AshNetsForVisualEntailment", None),
    ],
)
def test_results_have_the_task_of_the_model(head, task):
    """The Hub has no task for NLVR2 and visual entailment, and model-index takes no result without one."""
    config = AshNetsConfig(**{**config_of("ashnets-tiny").to_dict(), "architectures": [head]})
    rows = [{"model": "m", "split": "test", "variant": "reset", "accuracy": "0.6"}]
    text = card(dataclasses.replace(subject_of("ashnets-tiny"), config=config, results=rows))
    data = ModelCard(text).data
    assert [one.task_type for one in data.eval_results or ()] == [one for one in [task] if one]
    assert data.get("pipeline_tag") == task
    told = "also contains these results" if task else "does not contain these results (`model-index`): the Hub has no"
    assert f"This card's metadata {told}" in section(text, "Results, measured") and "| reset | 0.6 |" in text


def test_a_card_names_only_files_that_are_there():
    subject = subject_of("ashnets-tiny")
    assert "in this repository" not in section(card(subject), "Training")
    one = section(card(dataclasses.replace(subject, files=["log.jsonl", "config.json"])), "Training")
    assert "113 minutes on AMD EPYC; `log.jsonl` is in this repository." in one and "recipe.yaml" not in one
    both = section(card(dataclasses.replace(subject, files=["log.jsonl", "recipe.yaml"])), "Training")
    assert "; `recipe.yaml` and `log.jsonl` are in this repository." in both
    assert "pip install ashnets" not in card(subject) and "`pip install -e .` in a checkout" in card(subject)


@pytest.mark.parametrize("name", ["ashnets-tiny", "ashnets-tiny-t5"])
def test_the_three_lines_of_a_card_run(name):
    found = re.findall(r"```python\n(.*?)```", card(subject_of(name)), re.DOTALL)
    assert len(found) == 1 and len(found[0].strip().splitlines()) == 3
    code = f"{found[0]}print(type(model).__name__)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    trained = "create" not in found[0]
    assert trained == (zoo.entry(name).weights is not None), "no card loads weights that are not there"
    assert ran.stdout.splitlines()[-1:] == ["AshNetsForPreTraining" if trained else "AshNetsModel"], ran.stderr


def test_energy_is_an_estimate_with_its_assumptions(finished_run, tmp_path):
    """A real report of codecarbon."""
    from ashnets.export.energy.profiles import load_profile
    from ashnets.export.energy.report import energy_report, write_report
    from ashnets.zoo.gallery_images import Images

    model = ashnets.from_pretrained(finished_run / "model").ashnets
    images = Images(torch.rand(2, 3, 16, 16), [1, 2], "2 squares of noise")
    profiles = [load_profile(name) for name in ("45nm-fp32", "loihi1-with-a100")]
    report = energy_report(model, images, profiles, name="letters", weights="trained", progress=False)
    write_report(report, tmp_path)
    rows = read_energy(tmp_path / "energy.json")
    text = card(dataclasses.replace(subject_of("ashnets-tiny"), energy=rows))
    energy = section(text, "Energy, estimated")
    for one in report["estimates"]:
        line = next(line for line in energy.splitlines() if line.startswith(f"| {one['title']} |"))
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert float(cells[1]) == pytest.approx(one["spiking"]["total"] / 1e6, rel=0.005)
        assert float(cells[3]) == pytest.approx(one["dense_twin"] / 1e6, rel=0.005)
        assert all(f"- {assumption}\n" in energy + "\n" for assumption in one["assumptions"])
    assert "2 squares of noise" in energy and f"{report['counts']['spikes'] / 2:,.0f} spikes" in energy
    assert "estimate from counted operations" in section(text, "Limits")
    (tmp_path / "other.json").write_text('{"counts": {}}')
    with pytest.raises(ConfigurationError, match="is not an energy report"):
        read_energy(tmp_path / "other.json")


def test_the_hub_finds_nothing_wrong_with_them(hub, tiny, big):
    for text in (tiny, big):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            ModelCard(text).validate()
    with pytest.raises(ValueError, match=r"license.+ must be one of"):
        ModelCard(tiny.replace("license: apache-2.0", "license: whatever")).validate()


def test_drawings_close_their_lines(tiny):
    top, middle, bottom = tiny.partition("```text\n")[2].partition("\n```")[0].splitlines()
    assert top.index("┐") == middle.rindex("│") == bottom.index("┴") and top.rindex("┬") == middle.index("┘")
    none = card(subject_of("ashnets-tiny-ann"))
    top, bottom = none.partition("```text\n")[2].partition("\n```")[0].splitlines()
    assert "Bernoulli" not in top + bottom and top.index("┬") == bottom.index("┘")
    assert paper_rows("ashnets-tiny-ann") == []
