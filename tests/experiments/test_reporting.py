"""The page of an experiment says what a verdict means."""

from __future__ import annotations

from ashnets.experiments.reporting import draw, page
from ashnets.zoo.experiment_files import read_experiment, read_scale
from ashnets.zoo.verdicts import NOT_SEEN, SEEN, TOO_SMALL

ABOUT = {
    "data": "",
    "split": "",
    "metric": "",
    "n": 8,
    "chance": 0,
    "blind": 0,
    "device": "CPU",
    "threads": 1,
    "torch": "2",
}


def test_a_page_says_what_its_verdicts_mean():
    values = {("ASH-Nets", "TR"): [0.2, 0.21], ("ANNs", "TR"): [0.5, 0.51]}
    rows = [{"task": "retrieval", **ABOUT}]
    text = page(read_experiment("table-11"), read_scale("lab"), values, rows, "")
    claims = text.split("## Claims")[1]
    assert "| the spiking branch helps | – | TR | – |" in claims
    for word in (SEEN, NOT_SEEN, TOO_SMALL):
        assert f"*{word.capitalize()}*:" in claims
    assert "the difference is as large, but reversed" in claims


def test_panels_stand_in_rows_of_four():
    """Table XII has eight measures with units of their own; one without a value has no panel."""
    experiment, scale = read_experiment("table-12"), read_scale("lab")
    values = {("ANNs", one): [1.0, 2.0] for one in experiment.measures if one != "loss MVM"}
    figure = draw(experiment, scale, values)
    assert figure is not None and [axes.get_ylabel() for axes in figure.axes if axes.axison] == [
        one for one in experiment.measures if one != "loss MVM"
    ]
    grid = figure.axes[0].get_gridspec()
    assert (grid.nrows, grid.ncols, len(figure.axes)) == (2, 4, 8)
