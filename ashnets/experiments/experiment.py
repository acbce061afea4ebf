"""``ashnets experiment``: which runs an experiment needs, in which order they run, and what comes of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from pathlib import Path

from ashnets.data.pictograms.tasks import PictogramTask
from ashnets.errors import AshNetsError, ConfigurationError, DataError, TrainingError, did_you_mean
from ashnets.experiments.reporting import PAGE, RESULTS, write_report
from ashnets.experiments.running import devices, join_ranks, run_stage, run_unit, stages_left
from ashnets.experiments.units import RUNS, Stage, Unit, unit_of
from ashnets.files import JsonObject, write_json
from ashnets.result_folder import check_place
from ashnets.runs import training_source
from ashnets.tasks.data import open_task_data, require_images
from ashnets.training.distributed import rank
from ashnets.training.recipe import TaskRecipe
from ashnets.training.telling import costs_of
from ashnets.zoo.experiment_files import SHEET, ExperimentFile, ScaleFile, read_experiment, read_scale

PLACE = "data.json"  # in the folder of runs: where the data of each scale is
OUTPUT = "runs/experiments"


def experiment(
    name: str,
    *,
    scale: str = "lab",
    seeds: Sequence[int] = (0, 1, 2),
    only: Sequence[str] = (),
    data: str | os.PathLike | None = None,
    output: str | os.PathLike = OUTPUT,
    dry_run: bool = False,
    resume: bool = False,
    jobs: int = 1,
    progress: bool = True,
) -> JsonObject:
    """Run an experiment: each row as its own runs, with each seed; in this process or in each process of torchrun.

        ashnets.experiment("table-11", seeds=[0], data="data/pictograms", output="runs/experiments")

    The runs lie in ``output/runs`` and are shared by all experiments. Finished runs are not repeated, and neither are
    deleted ones whose ``measured-*.json`` are left. After each row and seed, ``output/NAME`` receives ``results.csv``,
    ``table.md``, ``page.md`` and a plot.

    Args:
        name: of a file in ``zoo/experiments``, or a file of that form.
        scale: ``lab``, ``paper``, or a file like those in ``zoo/experiments/scales``.
        seeds: each row is run with each of them.
        only: names of rows; all by default.
        data: folder of the data; the scale's file names the default.
        output: folder of runs and results.
        dry_run: measure a step of each run that is not finished, write nothing.
        resume: continue interrupted runs.
        jobs: units, a row with a seed, that run at once, each in a process with one thread; at most one a core.
        progress: show progress bars, if ``jobs`` is 1.

    Returns:
        ``experiment``, ``scale``, ``results`` and ``page`` (files), ``rows`` of the results file; of a dry run
        ``rows`` of runs with ``status``, ``seconds`` and ``bytes``, and the sum ``seconds`` of what is to do.

    Raises:
        ConfigurationError: no such experiment, scale or row; ``jobs`` with torchrun.
        DataError: data is missing; the message names all of it. Nothing was run then.
        TrainingError: an interrupted run without ``resume``; a run that failed.
        OutputError: ``output`` cannot be written.
    """
    chosen, at = read_experiment(name), read_scale(scale)
    place, folder = Path(at.data if data is None else data), Path(output)
    everything = plan_units(chosen, at, seeds, place, folder)
    units = [unit for unit in everything if unit.row.name in _rows(chosen, at, only)]
    _check_jobs(jobs)
    check_data(at, units, place)
    if dry_run:
        return _plan(chosen, at, units, progress)
    if not resume:
        _check_begun(chosen, units)
    join_ranks()
    check_place(folder / chosen.name, RESULTS)
    _note_place(folder / RUNS / PLACE, at.name, place)
    again = [name, scale, str(place), str(folder)]
    for unit in _run(chosen, units, again, jobs, progress):
        if rank() == 0:
            print(f"row {unit.row.name}, seed {unit.seed}: measured", file=sys.stderr, flush=True)
            write_report(chosen, at, everything, folder / chosen.name)
    rows = write_report(chosen, at, everything, folder / chosen.name) if rank() == 0 else []
    files = {"results": str(folder / chosen.name / RESULTS), "page": str(folder / chosen.name / PAGE)}
    return {"experiment": chosen.name, "scale": at.name, **files, "rows": rows}


def plan_units(chosen: ExperimentFile, scale: ScaleFile, seeds: Sequence[int], data: Path, output: Path) -> list[Unit]:
    """All units of an experiment: first all rows of the first seed."""
    if not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise ConfigurationError(f"seeds={list(seeds)}: give one or more different numbers, none of them negative")
    tasks = scale.tasks_of(chosen)
    where = data.absolute(), output.absolute()
    return [unit_of(row, seed, scale, tasks, *where, devices()) for seed in seeds for row in chosen.rows_at(scale.like)]


def check_data(scale: ScaleFile, units: Sequence[Unit], data: Path) -> None:
    """Raise DataError, which names everything that the units lack, before anything is run."""
    faults: dict[str, None] = {}
    seen: set[tuple[str, ...]] = set()
    for unit in units:
        for stage in unit.stages:
            key = (stage.recipe, *(str(one) for one in stage.overrides if one.startswith(("train=", "valid="))))
            if key not in seen:
                seen.add(key)
                faults |= dict.fromkeys(_faults_of_stage(stage))
        for one in unit.measured:
            key = (one.task.data, one.task.split)
            if key not in seen:
                seen.add(key)
                faults |= dict.fromkeys(_faults(one.task.data, one.place, one.images, [one.task.split]))
    if faults:
        raise DataError(
            f"scale {scale.name} lacks data below {data}, which --data names; nothing was run:\n  "
            + "\n  ".join(faults)
        )


def _faults_of_stage(stage: Stage) -> list[str]:
    recipe = stage.settings()
    if isinstance(recipe, TaskRecipe):
        return _faults(recipe.data, stage.data, stage.images, recipe.train)
    try:
        source = training_source(recipe, stage.data)
        for split in recipe.train:
            source.split(split)
    except AshNetsError as error:
        return [str(error)]
    return []


def _faults(name: str, folder: Path, images: Path | None, splits: Sequence[str]) -> list[str]:
    found = []
    for split in splits:
        try:
            opened = open_task_data(name, folder, images)
            if isinstance(opened, PictogramTask):  # a corpus is whole or refused, and its items take a minute
                opened.corpus.split(split)
            else:
                require_images(opened, opened.records(split))
        except AshNetsError as error:
            found.append(str(error))
    return found


def _rows(chosen: ExperimentFile, scale: ScaleFile, only: Sequence[str]) -> list[str]:
    known = [row.name for row in chosen.rows_at(scale.like)]
    for name in only:
        if name not in known:
            raise ConfigurationError(
                f"{chosen.name} has no row {name!r} at scale {scale.name}.{did_you_mean(name, known)} "
                f"There are {', '.join(known)}."
            )
    return list(only) or known


def _check_jobs(jobs: int) -> None:
    if jobs < 1:
        raise ConfigurationError(f"jobs={jobs}: at least one")
    if jobs > 1 and devices() > 1:
        raise ConfigurationError(f"jobs={jobs} with {devices()} processes of torchrun: leave --jobs out")


def _left(chosen: ExperimentFile, unit: Unit) -> list[Stage]:
    return stages_left(unit, chosen.costs, chosen.plot == SHEET)


def _check_begun(chosen: ExperimentFile, units: Sequence[Unit]) -> None:
    if begun := [stage.folder for unit in units for stage in _left(chosen, unit) if stage.begun]:
        raise TrainingError(f"{begun[0]} contains an interrupted run: continue it with --resume, or remove the folder")


def _note_place(file: Path, scale: str, data: Path) -> None:
    """Runs on other data must not share a folder."""
    known = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    here = str(data.resolve())
    if known.get(scale, here) != here:
        raise ConfigurationError(
            f"{file.parent} holds runs on {known[scale]}, not on {here}: choose another --output, or that --data"
        )
    if scale not in known and rank() == 0:
        write_json(file, {**known, scale: here})


def _plan(chosen: ExperimentFile, scale: ScaleFile, units: Sequence[Unit], progress: bool) -> JsonObject:
    """What is to run; seeds cost the same, so that one is measured."""
    costs: dict[tuple[str, str, str], JsonObject] = {}
    rows = []
    for unit in units:
        left = _left(chosen, unit)
        for stage in unit.stages:
            key = (unit.row.name, stage.folder.parent.parent.name, stage.folder.name)
            if key not in costs and stage in left:
                costs[key] = costs_of(run_stage(stage, dry_run=True, progress=progress))
            found = costs.get(key, {}) if stage in left else {}
            status = "finished" if stage not in left else "begun" if stage.begun else "to do"
            about = {"row": unit.row.name, "seed": unit.seed, "run": stage.folder.name, "status": status}
            cost = {"seconds": found.get("seconds", 0.0), "bytes": found.get("bytes", 0)}
            rows.append({**about, **cost, "command": stage.command()})
    # a run that several rows share is run once
    once = {row["command"]: row["seconds"] for row in rows}
    return {"experiment": chosen.name, "scale": scale.name, "seconds": sum(once.values()), "rows": rows}


def _run(
    chosen: ExperimentFile, units: Sequence[Unit], again: Sequence[str], jobs: int, progress: bool
) -> Iterator[Unit]:
    """Run all units; each is given back when it is measured.

    Args:
        again: experiment, scale, data and output, as they were given.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    jobs = min(jobs, cores, len(units))
    if jobs <= 1:
        for unit in units:
            run_unit(unit, chosen.costs, chosen.plot == SHEET, progress)
            yield unit
        return
    with ThreadPoolExecutor(jobs) as pool:
        running = {pool.submit(_in_a_process, unit, again): unit for unit in units}
        try:
            while running:
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    unit = running.pop(future)
                    future.result()
                    yield unit
        finally:
            for future in running:
                future.cancel()


def _in_a_process(unit: Unit, again: Sequence[str]) -> None:
    """Run a unit with one thread, in a process of its own, which writes into ``output.txt`` of the unit's folder.

    The pipe to its standard input stays open as long as this process lives: the other one ends with it.
    """
    unit.folder.mkdir(parents=True, exist_ok=True)
    words = [*again, unit.row.name, str(unit.seed)]
    said = unit.folder / "output.txt"
    with open(said, "ab") as stream:
        running = subprocess.Popen(
            [sys.executable, "-m", "ashnets.experiments", *words],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=stream,
            stderr=subprocess.STDOUT,
        )
        with running:
            status = running.wait()
    if status:
        last = said.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
        raise TrainingError(f"row {unit.row.name}, seed {unit.seed} failed, see {said}: {' '.join(last)}")


def run_row(name: str, scale: str, data: Path, output: Path, row: str, seed: int) -> None:
    """Run one unit without a report."""
    chosen, at = read_experiment(name), read_scale(scale)
    (unit,) = [unit for unit in plan_units(chosen, at, [seed], data, output) if unit.row.name == row]
    run_unit(unit, chosen.costs, chosen.plot == SHEET, progress=False)
