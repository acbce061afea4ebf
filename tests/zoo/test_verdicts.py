"""Verdicts by hand, and the section on experiments from small results files."""

from __future__ import annotations

import random
import statistics

import pytest

from ashnets.files import write_csv
from ashnets.zoo.experiment_files import experiment_names, paper_cells, read_experiment, read_scale
from ashnets.zoo.tables import experiment_table
from ashnets.zoo.verdicts import NOT_SEEN, SEEN, TOO_SMALL, mean_and_spread, values_of, verdict, verdicts


@pytest.mark.parametrize(
    ("better", "worse", "expected"),
    [
        ([0.6, 0.7], [0.3, 0.4], SEEN),  # 0.3 apart; both have a standard deviation of 0.071
        ([0.6, 0.7], [0.5, 0.6], TOO_SMALL),  # 0.1 apart, below 0.141
        ([0.3, 0.4], [0.6, 0.7], NOT_SEEN),
        ([0.9], [0.1], TOO_SMALL),  # one seed
        ([0.9, 0.9], [], TOO_SMALL),
        ([0.6, 0.7], [0.3, 0.4, 0.3], TOO_SMALL),  # a seed without a value
        ([0.5, 0.5], [0.5, 0.5], TOO_SMALL),
        ([0.6, 0.6], [0.5, 0.5], SEEN),  # without any spread
    ],
)
def test_a_verdict_by_hand(better, worse, expected):
    assert verdict(better, worse) == expected
    opposite = {SEEN: NOT_SEEN, NOT_SEEN: SEEN}
    assert verdict(better, worse, lower=True) == opposite.get(expected, expected)


def test_equal_rows_are_told_apart_as_often_as_is_said():
    """Three seeds of two equal rows, 20,000 times: one in 14."""
    draw = random.Random(0).gauss
    told = [verdict(*([draw(0, 1) for _ in range(3)] for _ in range(2))) != TOO_SMALL for _ in range(20_000)]
    assert statistics.fmean(told) == pytest.approx(1 / 14, abs=0.006)


def result(row: str, seed: int, task: str, metric: str, value: float | str) -> dict[str, str]:
    return {"scale": "lab", "row": row, "seed": str(seed), "task": task, "metric": metric, "value": str(value)}


TR = ("retrieval", "image_to_text R@1")
ROWS = [
    *(result("ASH-Nets", seed, *TR, value) for seed, value in ((1, 0.52), (0, 0.5))),
    *(result("ANNs", seed, *TR, value) for seed, value in ((0, 0.3), (1, 0.31))),
    *(result("SNNs", seed, *TR, value) for seed, value in ((0, 0.3), (1, 0.28))),
    result("SNNs", 0, "vqa", "accuracy", ""),
]


def test_values_are_those_of_the_measures():
    experiment, scale = read_experiment("table-11"), read_scale("lab")
    values = values_of(ROWS, experiment, scale)
    assert values["ASH-Nets", "TR"] == [0.5, 0.52] and ("SNNs", "VQA") not in values
    assert mean_and_spread(values["ASH-Nets", "TR"], "TR", scale) == "51.0 ± 1.4 (2)"
    assert mean_and_spread([30.0], "seconds an epoch", scale) == "30.00 (1)"
    helps, _, _, alone = experiment.claims
    assert verdicts(helps, values, experiment.measures) == {SEEN: ["TR"]}
    assert verdicts(alone, values, experiment.measures) == {TOO_SMALL: ["TR"]}


def test_a_seed_that_never_reached_the_loss_is_not_left_out_of_the_comparison():
    """Two of three seeds with similar samples reached it, in fewer epochs than each seed without."""
    epochs = ("pre-training", "epochs to mlm")
    rows = [result("ASH-Nets (w)", seed, *epochs, value) for seed, value in ((0, 12), (1, 13))]
    rows += [result("ASH-Nets (o)", seed, *epochs, value) for seed, value in ((0, 30), (1, 31), (2, 32))]
    experiment, scale = read_experiment("table-12"), read_scale("lab")
    values = values_of(rows, experiment, scale)
    assert verdicts(experiment.claims[0], values, experiment.measures) == {TOO_SMALL: ["epochs to MLM"]}


def test_the_section_of_a_page(tmp_path):
    assert experiment_table(tmp_path) == ""
    write_csv(tmp_path / "table-11" / "results.csv", ROWS)
    lines = experiment_table(tmp_path).splitlines()
    assert lines[2] == "| Table 11 of the paper | the spiking branch helps | TR | – | – |"
    assert lines[-1] == "Scale `lab`, 2 seeds: [table-11](../zoo/results/experiments/table-11/page.md)."


def test_every_experiment_names_rows_and_columns_of_the_paper():
    """A row or a column that the paper has not would raise KeyError or be missing."""
    assert [name for name in experiment_names() if name.startswith("table")] == [f"table-{n}" for n in range(2, 15)]
    for name in experiment_names():
        experiment = read_experiment(name)
        if experiment.table is None:
            continue
        cells = paper_cells(experiment)
        assert list(cells) == [row.name for row in experiment.rows], name
        assert all(
            list(found) == [m for m, column in experiment.measures.items() if column] for found in cells.values()
        )
    assert paper_cells(read_experiment("table-9"))["16"]["TR"] == "90.10"
