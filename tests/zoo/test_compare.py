"""Comparison of models: every cell against its source, and models without weights."""

from __future__ import annotations

import csv
import json
import statistics
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ashnets import zoo
from ashnets.cli.compare import compare as compare_command
from ashnets.errors import ConfigurationError, UnknownModelError
from ashnets.zoo.comparing import NO_WEIGHTS, RANDOM, compare_models, random_model, results_of, to_rows
from ashnets.zoo.gallery_images import Images


def images(side: int) -> Images:
    return Images(torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0)), [1, 2], "noise")


def never(*_: object) -> None:
    raise AssertionError("nothing was to be loaded or measured")


@pytest.fixture(scope="module")
def rows() -> dict[str, list[str]]:
    found = compare_models(["ashnets-tiny-t1", "ashnets-tiny-ann"], load=never, count_and_estimate=never, read=images)  # type: ignore[arg-type]
    return {row[0]: row[1:] for row in to_rows(found)}


def test_untrained_models_say_so_and_are_not_counted(rows: dict[str, list[str]]) -> None:
    assert rows["weights"] == [NO_WEIGHTS, NO_WEIGHTS]
    assert rows["spikes an image"] == [NO_WEIGHTS, NO_WEIGHTS]
    assert not any("estimate" in label for label in rows)


def test_configuration_parameters_and_macs(rows: dict[str, list[str]]) -> None:
    assert rows["time_steps"] == ["1", "10"]
    assert rows["image_size"] == ["96", "96"]
    assert rows["summary_ratio"] == ["trainable", "ann"]
    assert "hidden_size" not in rows, "what is equal is left out"
    told = [zoo.describe(name) for name in ("ashnets-tiny-t1", "ashnets-tiny-ann")]
    assert rows["parameters"] == [f"{one.totals['parameters']:,}" for one in told]
    step = told[0].macs["abstract encoder, a step"]
    assert rows["MACs: abstract encoder, T dense passes"] == [f"{step:,}", "-"]
    assert rows["MACs: concrete encoder"] == [f"{one.macs['concrete encoder']:,}" for one in told]


def test_results_are_the_files(repository: Path) -> None:
    names = ["ashnets-tiny-t1", "ashnets-tiny-ann"]
    one, other = compare_models(names, load=never, count_and_estimate=never, read=images)  # type: ignore[arg-type]
    rows = {row[0]: row[1:] for row in to_rows([replace(one, results=results_of("ashnets-tiny")), other])}
    with open(repository / "zoo" / "results" / "pictograms.csv", newline="", encoding="utf-8") as stream:
        found = [row for row in csv.DictReader(stream) if row["split"] == "test-twitter-seen"]

    def cell(model: str, branch: str) -> str:
        own = [
            row for row in found if (row["model"], row["branch"], row["direction"]) == (model, branch, "text_to_image")
        ]
        return (
            " / ".join(means([float(row[k]) for row in own] for k in ("R@1", "R@10"))) + " (chance 0.00069 / 0.00693)"
        )

    label = "R@1 / R@10: test-twitter-seen, text to image, {}ITC, n 1444"
    beside = [cell("ashnets-tiny", "both"), cell("ashnets-tiny-ann", "concrete")]
    assert rows[label.format("")] == beside, "two models stand on one line"
    assert rows[label.format("concrete alone, ")] == [cell("ashnets-tiny", "concrete alone"), "-"]
    assert rows["seeds of R@1 / R@10"] == ["0, 1, 2", "0, 1, 2"]
    assert results_of("ashnets-tiny.pictograms") == results_of("ashnets-tiny") != []
    assert results_of("runs/tiny") == results_of("ashnets-tiny.mine/model") == []


def means(columns: Iterator[list[float]]) -> Iterator[str]:
    for values in columns:
        yield f"{statistics.mean(values):.3f} ± {statistics.stdev(values):.3f}"


def test_random_weights_fire_and_are_labeled() -> None:
    seen = []

    def measure(model, chosen: Images, name: str) -> dict:
        with torch.no_grad():
            seen.append(model.vision(chosen.pixels, image_keys=chosen.image_keys).layer_rates)
        return {"spikes": 1.0, "synaptic_operations": 2.0, "rate": 0.5, "energy": {}}

    (found,) = compare_models(
        ["ashnets-tiny-t5"], load=never, count_and_estimate=measure, read=images, random_weights=True
    )  # type: ignore[arg-type]
    assert found.weights == RANDOM.format(seed=0)
    assert "never trained" in found.weights
    assert all(0 < float(rate.mean()) < 0.9 for rate in seen[0].values())
    again = random_model("ashnets-tiny-t5", images(96))
    with torch.no_grad():
        rates = again.vision(images(96).pixels, image_keys=[1, 2]).layer_rates
    assert all(torch.equal(rates[name], seen[0][name]) for name in rates), "the same seed gives the same model"


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(UnknownModelError, match="tyni"):
        compare_models(["ashnets-tiny", "ashnets-tyni"], load=never, count_and_estimate=never, read=images)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="twice"):
        compare_models(["ashnets-tiny", "ashnets-tiny"], load=never, count_and_estimate=never, read=images)  # type: ignore[arg-type]


def test_the_command_sets_trained_and_untrained_side_by_side(capsys: pytest.CaptureFixture[str]) -> None:
    compare_command(["ashnets-tiny", "ashnets-tiny-ann"], sample=2, random_weights=True, as_json_=True)
    trained, untrained = json.loads(capsys.readouterr().out)
    assert trained["weights"] == "trained: pictograms"
    assert trained["measured"]["spikes"] > 0
    assert set(trained["measured"]["energy"]) == {"45nm-int8", "loihi1-with-a100"}
    assert untrained["weights"] == RANDOM.format(seed=0)
    assert untrained["measured"]["spikes"] is None
    assert untrained["measured"]["energy"]["45nm-int8"]["spiking"] is None
    totals = [one["measured"]["energy"]["45nm-int8"]["total"] for one in (untrained, trained)]
    assert 0 < totals[0] < totals[1], "the spiking branch comes on top"

    compare_command(["ashnets-tiny", "ashnets-tiny-t1"], sample=1, profile=["45nm-fp16"])
    out = capsys.readouterr().out
    assert "no weights" in out
    assert "45nm-fp16, estimate: in all" in out
