"""Images of a run: what is drawn is what the logs say, and a poor log is no reason to fail."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ashnets.training.plots import RunLog, _firing_rates, _learning_rates, _losses, _validation, plot_run

ALL = ["losses", "learning_rates", "firing_rates", "summary_ratio", "spiking_branch", "validation"]


@pytest.fixture
def bundled(repository: Path, tmp_path: Path) -> Path:
    """The log of the bundled model: 15 epochs of the phase `concrete`, then 9 of `spiking`, 65 steps each."""
    shutil.copy(repository / "zoo" / "checkpoints" / "ashnets-tiny.pictograms" / "log.jsonl", tmp_path)
    return tmp_path


def write(path: Path, records: list[dict]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


def lines_of(figure, title: str) -> list:
    """The curves of the panel ``title``; phase borders have two points at one step and are left out."""
    (axes,) = [a for a in figure.axes if a.get_title() == title or not title]
    return [line for line in axes.get_lines() if len(set(line.get_xdata())) == len(line.get_xdata())]


def test_every_image_of_a_real_log(bundled: Path) -> None:
    write(
        bundled / "steps.jsonl",
        [
            {"step": s, "epoch": 1, "phase": "concrete", "lr_transformer": 1e-4 * s, "lr_spiking": 0.0}
            for s in (1, 2, 3)
        ],
    )
    written = plot_run(bundled)
    assert [path.relative_to(bundled / "plots").as_posix() for path in written] == [f"{name}.png" for name in ALL]
    for path in written:
        image = np.asarray(Image.open(path).convert("RGB"), dtype=int)
        assert image.shape[0] > 300 and image.shape[1] > 800
        assert (np.ptp(image, axis=2) > 60).sum() > 300, "there are colored curves"
    assert {path.name for path in (bundled / "plots").iterdir()} == {f"{name}.png" for name in ALL}


def test_curves_are_the_numbers_of_the_log(bundled: Path) -> None:
    log = [json.loads(line) for line in (bundled / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    run = RunLog(bundled)
    assert run.phases() == [("concrete", 0, 975), ("spiking", 975, 1560)]
    phases = lines_of(_losses(run), "STUA: spikes and text")
    assert [x for line in phases for x in line.get_xdata()] == [r["step"] for r in log if "stua" in r]
    assert [y for line in phases for y in line.get_ydata()] == [r["stua"] for r in log if "stua" in r]
    recalls = lines_of(_validation(run), "image → text")
    assert [line.get_label() for line in recalls] == ["R@1", "R@5", "R@10"]
    assert recalls[1].get_ydata() == pytest.approx([100 * r["valid_image_to_text_R@5"] for r in log])
    rates = lines_of(_firing_rates(run), "at inference, weights as published")
    rates = [line for line in rates if not line.get_label().startswith("_")]
    assert [line.get_label() for line in rates] == ["conv1", "conv2", "conv3", "conv4", "conv5", "concepts"]
    assert rates[-1].get_ydata() == pytest.approx([100 * r["rate_concepts"] for r in log if "rate_concepts" in r])
    assert _learning_rates(run) is None


def test_a_phase_that_no_epoch_has_finished(tmp_path: Path) -> None:
    write(tmp_path / "log.jsonl", [{"epoch": 4, "step": 40, "phase": "a", "loss": 1.0}])
    write(
        tmp_path / "steps.jsonl",
        [
            {"step": 35, "epoch": 4, "phase": "a", "loss": 1.0},
            {"kind": "warning", "step": 40, "epoch": 4, "text": "conv1 is dead"},
            {"step": 45, "epoch": 5, "phase": "b", "loss": 1.0},
            {"step": 50, "epoch": 5, "phase": "b", "loss": 1.0},
        ],
    )
    assert RunLog(tmp_path).phases() == [("a", 35, 40), ("b", 40, 50)], "the run began with epoch 4"


@pytest.mark.parametrize(
    ("log", "steps", "expected"),
    [
        ([], [], []),
        ([{"epoch": 1, "step": 5, "phase": "a", "loss": 2.0}], [], ["losses"]),
        ([{"epoch": 1, "step": 5, "loss": None, "itc": float("nan"), "valid_accuracy": 0.5}], [], ["validation"]),
        ([], [{"step": 5, "epoch": 1, "loss": 2.0, "lr_concrete": 0.0}], ["losses", "learning_rates"]),
        ([{"epoch": 1, "phase": "a"}], [{"step": 1, "rate_conv1": 0.0}, {"step": 2}], ["firing_rates"]),
        (
            [{"epoch": 1, "step": 1, "summary_ratio": float("inf")}],
            [{"step": 1, "summary_ratio": 1}],
            ["summary_ratio"],
        ),
    ],
)
def test_poor_logs(tmp_path: Path, log: list, steps: list, expected: list[str]) -> None:
    write(tmp_path / "log.jsonl", log)
    write(tmp_path / "steps.jsonl", steps)
    with open(tmp_path / "steps.jsonl", "a", encoding="utf-8") as file:
        file.write('{"step": 9, "lo')
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [path.stem for path in plot_run(tmp_path)] == expected


def test_a_value_that_is_no_number_is_a_gap(tmp_path: Path) -> None:
    write(tmp_path / "steps.jsonl", [{"step": s, "loss": v} for s, v in ((3, 1.0), (1, 3.0), (2, None))])
    (line,) = lines_of(_losses(RunLog(tmp_path)), "weighted sum")
    assert list(line.get_xdata()) == [1, 2, 3]
    np.testing.assert_array_equal(line.get_ydata(), [3.0, np.nan, 1.0])


def test_no_window_is_opened(bundled: Path) -> None:
    """A notebook keeps its own backend for its own plots."""
    code = (
        "import sys, matplotlib; matplotlib.use('svg'); from pathlib import Path\n"
        "from ashnets.training.plots import plot_run\n"
        "assert plot_run(Path(sys.argv[1])) and matplotlib.get_backend() == 'svg'\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(bundled)], check=True, timeout=120)
