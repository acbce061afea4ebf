"""What the results of an experiment say: means over seeds, and a verdict for each claim.

A results file is that of ``ashnets experiment``: a row for each row of the experiment, seed, task and metric.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ashnets.files import read_csv
from ashnets.zoo.experiment_files import PRETRAINING, SHEET, Claim, ExperimentFile, ScaleFile, read_scale

SEEN, NOT_SEEN, TOO_SMALL = "seen", "not seen", "too small to tell"
MEANING = (
    f"*{SEEN.capitalize()}*: the difference of the means is as claimed, and larger than twice the standard deviation "
    f"over the seeds. *{NOT_SEEN.capitalize()}*: the difference is as large, but reversed. *{TOO_SMALL.capitalize()}*: "
    "all other differences."
)
Values = dict[tuple[str, str], list[float]]  # (row, measure) → a value for each seed


def verdict(better: Sequence[float], worse: Sequence[float], lower: bool = False) -> str:
    """Whether ``better`` is better than ``worse``, each with a value for each seed.

    With d the difference of the means and s the standard deviation over seeds, pooled over both (the root of the mean
    variance): ``seen`` if d > 2·s, ``not seen`` if d < −2·s, else ``too small to tell``. Of three seeds each, equal
    rows differ by more than 2·s in one of 14 comparisons, in either direction (Student's t with four degrees of
    freedom). With less than two seeds of either nothing can be told, nor with different numbers of seeds: a seed that
    never reached a loss has no number of epochs, and the others alone would make its row look better.

    Args:
        lower: a lower value is better.
    """
    if len(better) != len(worse) or len(better) < 2:
        return TOO_SMALL
    difference = statistics.fmean(better) - statistics.fmean(worse)
    difference = -difference if lower else difference
    spread = statistics.fmean([statistics.variance(better), statistics.variance(worse)]) ** 0.5
    if abs(difference) <= 2 * spread:
        return TOO_SMALL
    return SEEN if difference > 0 else NOT_SEEN


def values_of(rows: Iterable[Mapping[str, str]], experiment: ExperimentFile, scale: ScaleFile) -> Values:
    """The values of an experiment's measures, in the order of the seeds; rows without a value are left out."""
    found: Values = {}
    metrics = {measure: scale.metric(measure) for measure in experiment.measures}
    for row in sorted(rows, key=lambda row: int(row["seed"])):
        for measure, metric in metrics.items():
            if metric == (row["task"], row["metric"]) and row["value"] != "":
                found.setdefault((row["row"], measure), []).append(float(row["value"]))
    return found


def verdicts(claim: Claim, values: Values, measures: Iterable[str]) -> dict[str, list[str]]:
    """Verdict → the measures of a claim with it; measures without a value of both rows are left out."""
    found: dict[str, list[str]] = {}
    for measure in claim.measures or measures:
        better, worse = (values.get((row, measure), []) for row in (claim.better, claim.worse))
        if better and worse:
            found.setdefault(verdict(better, worse, claim.lower), []).append(measure)
    return found


def mean_and_spread(values: Sequence[float], measure: str, scale: ScaleFile) -> str:
    """``60.3 ± 0.8 (3)``: mean, standard deviation and number of seeds; shares in percent; a dash without a value."""
    if not values:
        return "–"
    metric = scale.metric(measure)
    percent = 1.0 if metric is not None and metric[0] in (PRETRAINING, SHEET) else 100.0
    mean = percent * statistics.fmean(values)
    digits = 1 if percent > 1 or mean >= 100 else 2
    spread = f" ± {percent * statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{mean:.{digits}f}{spread} ({len(values)})"


def claim_lines(experiment: ExperimentFile, values: Values) -> list[str]:
    """A table of verdicts in Markdown, a line for each claim that was measured; empty without any."""
    lines = []
    for claim in experiment.claims:
        found = verdicts(claim, values, experiment.measures)
        if found:
            cells = [", ".join(found.get(one, [])) or "–" for one in (SEEN, NOT_SEEN, TOO_SMALL)]
            lines.append(f"| {experiment.place} | {claim.text} | {' | '.join(cells)} |")
    return lines


CLAIM_HEAD = ["| | claim | seen in | not seen in | too small to tell in |", "|---|---|---|---|---|"]


def read_values(path: Path, experiment: ExperimentFile) -> tuple[Values, list[dict[str, str]]]:
    """The values of a results file, and its rows. A file has one scale."""
    rows = read_csv(path)
    return values_of(rows, experiment, read_scale(rows[0]["scale"])) if rows else {}, rows
