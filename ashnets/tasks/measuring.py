"""Models on splits of a data set: `evaluate_task` for each, or retrieval on captioned images of any form.

    evaluate(["ashnets-tiny", "runs/ann/model"], "retrieval", "data/pictograms", splits=["test-twitter-seen"])
    evaluate("runs/easy-vqa/model", "vqa", "site-packages/easy_vqa", output="out/easy-vqa")

A data set has a name, which a fine-tuned model knows. Retrieval needs none: ``images`` is any source of captions
(:mod:`ashnets.data.sources.opening`), where the bare name of an image, or its first caption, is its text.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from ashnets.data.sources.opening import open_source
from ashnets.digests import WEIGHTS_SHA256
from ashnets.environment import environment
from ashnets.errors import ConfigurationError
from ashnets.files import require_writable, write_csv, write_json
from ashnets.hub.resolving import resolve, weights_sha256
from ashnets.result_folder import result_folder
from ashnets.retrieval.two_stage import WAYS
from ashnets.tasks.data import open_task_data
from ashnets.tasks.evaluating import (
    LEFT_OUT,
    SECRET,
    evaluate_named,
    require_measurable,
    split_to_measure,
    trained_splits,
)
from ashnets.training.evaluate import TRAINED_ON, evaluate_retrieval, training_record
from ashnets.training.evaluate import as_rows as rows_of_images
from ashnets.training.recipe import TASKS

IMAGES, RESULTS = "images", "results.json"
LAST = ("pairs_seen", WEIGHTS_SHA256, "device", "torch")  # columns of every table


def evaluate(
    names: str | os.PathLike | Sequence[str | os.PathLike],
    task: str,
    data: str | os.PathLike,
    *,
    dataset: str | None = None,
    splits: Sequence[str] = (),
    images: str | os.PathLike | None = None,
    output: str | os.PathLike | None = None,
    sample: int = 0,
    candidates: int | None = None,
    exhaustive: bool = False,
    ablate: bool = False,
    variants: bool = True,
    workers: int = 0,
    progress: bool = True,
) -> dict[str, Any]:
    """Evaluate models on a task, each on each split.

        ashnets.evaluate("ashnets-tiny", "retrieval", "data/pictograms", splits=["test-twitter-seen"])

    Args:
        names: of a model or of several, or folders of trained ones.
        task: ``vqa``, ``nlvr2``, ``ve`` or ``retrieval``.
        data: folder of the data set.
        dataset: its name; by default the one that the models were fine-tuned on, and for retrieval else ``images``.
        splits: by default the one that is customary, which no model must then have been trained on; of ``images``
            ``test``, or ``valid`` where there is none.
        images: where the images lie, if not in ``data``.
        output: a file, ``.csv`` or ``.json``, for the table of results; or a folder, which receives it as
            ``results.json`` and ``results.csv``, and of a data set also predictions, items and a page of examples: in
            folders of their own, MODEL/SPLIT, where there are several. Of ``images`` it receives the results alone.
        sample: items of a split, or images; 0 takes all.
        candidates, exhaustive, ablate, variants: as in `evaluate_task`; for ``images``, each of which is from a reset state,
            there are no variants, and no candidates unless asked for.
        workers: processes that read images; 0 reads them between the batches, as those of ``images`` are.

    Returns:
        ``{"task", "data", "models": {name: {"training": record, "weights_sha256", "splits": {split: result}}},
        "environment"}``; a result is what `evaluate_task` gives, or, for ``images``, the entries of
        :func:`ashnets.training.evaluate.evaluate_retrieval`. ``warnings``, where there are any, are those of all
        models, with their names.

    Raises:
        ConfigurationError: no such task, a data set that is not named, options that do not fit.
        OutputError: ``output`` cannot be written; said before anything is measured.
        DataError, UnknownModelError, WeightsError: as elsewhere.
    """
    if task not in TASKS:
        raise ConfigurationError(f"task={task!r} is not one of {', '.join(TASKS)}")
    given = [names] if isinstance(names, str | os.PathLike) else names
    models, splits = list(dict.fromkeys(map(str, given))), list(dict.fromkeys(splits))
    table, place = _places(output)
    if output is not None:
        require_writable(table or Path(output) / RESULTS)
    dataset = dataset or _dataset_of(models, task)
    result: dict[str, Any] = {"task": task, "data": dataset}
    if dataset == IMAGES:
        if task != "retrieval" or images is not None:
            wrong = f"--images {images}" if task == "retrieval" else f"task {task}"
            raise ConfigurationError(f"{wrong} needs the name of a data set: give it with --dataset")
        if workers:
            raise ConfigurationError(f"--workers {workers} is for data sets with a name; leave it out for {data}")
        chosen = list(splits) or [_customary(data)]
        result |= evaluate_retrieval(
            models, Path(data), chosen, candidates or 0, ablate, progress, exhaustive=exhaustive, sample=sample
        )
    else:
        opened = open_task_data(dataset, data, images)
        wanted: list[str | None] = [*splits] or [None]
        records = {name: training_record(name) for name in models}
        several = len(models) * len(wanted) > 1
        chosen = [
            split_to_measure(opened, split, trained_splits(records[name], dataset), name)
            for name in models
            for split in wanted
        ]
        for one in dict.fromkeys(chosen) if several else ():  # before the first of them takes its time
            require_measurable(opened, one, place, sample)
        folders, entries = as_folders(models), {}
        for name in models:
            entry: dict[str, Any] = {"training": records[name], WEIGHTS_SHA256: weights_sha256(name), "splits": {}}
            for split in wanted:
                own = place / folders[name] / (split or "") if place and several else place
                with result_folder(own, RESULTS, "keep") if own else nullcontext() as made:
                    found = evaluate_named(
                        name,
                        task,
                        opened,
                        dataset=dataset,
                        split=split,
                        output=made,
                        limit=sample,
                        candidates=candidates,
                        exhaustive=exhaustive,
                        ablate=ablate,
                        variants=variants,
                        workers=workers,
                        progress=progress,
                    )
                kept = (key for key in found if key not in ("model", "training", WEIGHTS_SHA256, "environment"))
                entry["splits"][found["split"]] = {key: found[key] for key in kept}
            entries[name] = entry
        result |= {"models": entries, "environment": environment()}
    if warnings := _warnings(result["models"]):
        result["warnings"] = warnings
    if place is not None:
        write_json(place / RESULTS, result)
        table = place / "results.csv"
    if table is not None:
        write_json(table, result) if table.suffix == ".json" else write_csv(table, as_rows(result))
    return result


def as_rows(result: dict[str, Any]) -> list[dict[str, Any]]:
    """What `evaluate` gives as flat rows with the same keys, for a table or a CSV file.

    A row is a variant, a ranking or a baseline, and for retrieval one direction of it. ``model`` is what its training
    started from, where that is known; of several models ``measured`` is the name that was given. ``trained on`` stands
    where the measured split is among those of a model's training.
    """
    if result["data"] == IMAGES:
        return rows_of_images(result)
    rows = []
    several = len(result["models"]) > 1
    seen = any(TRAINED_ON in found for model in result["models"].values() for found in model["splits"].values())
    for name, model in result["models"].items():
        training = model["training"] or {}
        for found in model["splits"].values():
            about = {
                "model": training.get("model", name),
                **({"measured": name} if several else {}),
                "changes": " ".join(f"{key}={value}" for key, value in training.get("changes", {}).items()),
                "recipe": training.get("recipe", ""),
                "seed": training.get("seed", ""),
                "data": found["data"],
                "split": found["split"],
                **({TRAINED_ON: " ".join(found.get(TRAINED_ON, ()))} if seen else {}),
            }
            end = {
                "pairs_seen": training.get("pairs_seen", ""),
                WEIGHTS_SHA256: model[WEIGHTS_SHA256],
                **result["environment"],
            }
            made = _retrieval_rows(found) if result["task"] == "retrieval" else _task_rows(found)
            rows += [{**about, **row, **{key: end[key] for key in LAST}} for row in made]
    keys = dict.fromkeys(key for row in rows for key in row if key not in LAST)
    return [{key: row.get(key, "") for key in [*keys, *LAST]} for row in rows]


def remarks(result: dict[str, Any]) -> list[str]:
    """What must be known to read the rows of what `evaluate` gives, a sentence each."""
    said = []
    if result["data"] == IMAGES:
        for name, model in result["models"].items():
            if not model["images_on_record"]:
                said.append(f"{name} does not say which images it learned from: these may be among them")
            for split, entries in model["splits"].items():
                if found := entries[0].get(TRAINED_ON):
                    said.append(
                        f"{TRAINED_ON}: {name} learned from {found['images']} of these {found['of']} images of {split}"
                    )
        return said
    for name, model in result["models"].items():
        for split, found in model["splits"].items():
            if TRAINED_ON in found:
                said.append(f"{TRAINED_ON}: {name} learned from {split} itself ({', '.join(found[TRAINED_ON])})")
            if SECRET in found:
                said.append(f"{split}: {found[SECRET]}")
            if LEFT_OUT in found:
                said.append(f"{LEFT_OUT}: {found[LEFT_OUT]}")
    return list(dict.fromkeys(said))


def _warnings(models: dict[str, Any]) -> list[str]:
    """What the models and their splits warn of, behind the model's name."""
    found = []
    for name, model in models.items():
        parts = [model, *(split for split in model["splits"].values() if isinstance(split, dict))]
        found += [f"{name}: {text}" for part in parts for text in part.get("warnings", ())]
    return list(dict.fromkeys(found))


def _task_rows(found: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for part in ("variants", "baselines"):
        for name, metrics in found[part].items():
            flat = {key: round(value, 5) for key, value in _flat(metrics) if key != "n"}
            yield {"variant": name, "n": metrics["n"], **flat}


def _retrieval_rows(found: dict[str, Any]) -> Iterator[dict[str, Any]]:
    chance, branch, reset = found["baselines"]["chance"], found["branch"], found["variants"]["reset"]
    named = {"reset": (branch, "ITC"), "concrete alone": ("concrete alone", "ITC")}
    ranked = {named.get(name, (branch, f"ITC, {name}")): one for name, one in found["variants"].items()}
    ranked |= {(branch, name): one for name, one in found.get("rankings", {}).items()}
    for (used, ranking), one in ranked.items():
        cost, lost = one.get("cost"), one.get("lost")
        for way in WAYS:
            yield {
                "direction": way,
                "branch": used,
                "ranking": ranking,
                "images": reset["images"],
                "texts": reset["captions"],
                **{key: round(share, 4) for key, share in one[way].items()},
                **{f"chance {key}": round(share, 5) for key, share in chance[way].items()},
                **({"changed": round(one["changed"], 4)} if "changed" in one else {}),
                **(
                    {"pairs scored": cost["pairs"], "pairs": cost["of"], "seconds": round(cost["seconds"], 2)}
                    if cost
                    else {}
                ),
                **({"R@1 lost": round(lost[way], 4)} if lost else {}),
            }


def _flat(metrics: dict[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Numbers under their keys, those of inner mappings behind the names of these."""
    for key, value in metrics.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{before}{key} ")
        elif isinstance(value, int | float):
            yield f"{before}{key}", value


def _dataset_of(names: Sequence[str], task: str) -> str:
    known = {str(name): (training_record(name) or {}).get("data") for name in names}
    said = {data for data in known.values() if data}
    if len(said) > 1:
        told = ", ".join(f"{name} on {data}" for name, data in known.items() if data)
        raise ConfigurationError(f"the models were fine-tuned on several data sets ({told}): name one with --dataset")
    if said:
        return said.pop()
    if task == "retrieval":
        return IMAGES
    raise ConfigurationError(f"{names[0]} does not say what it was fine-tuned on: name the data set with --dataset")


def _customary(folder: str | os.PathLike) -> str:
    return "test" if "test" in open_source(folder).splits else "valid"


def _places(output: str | os.PathLike | None) -> tuple[Path | None, Path | None]:
    """The file and the folder of ``output``, one of which is None."""
    if output is None:
        return None, None
    path = Path(output)
    if path.suffix in (".csv", ".json"):
        return path, None
    if path.exists() and not path.is_dir():
        raise ConfigurationError(f"--output {path} is a file: give a folder, or a file that ends in .csv or .json")
    return None, path


def as_folders(names: Sequence[str]) -> dict[str, str]:
    """A folder's name for each model; those that would share one get six hex digits of a hash of where they lie."""
    plain = {name: re.sub(r"[^\w.@-]+", "-", name).strip("-.") or "model" for name in names}
    taken = Counter(folder.casefold() for folder in plain.values())
    return {
        name: folder if taken[folder.casefold()] == 1 else f"{folder}-{_hash_of_place(name)}"
        for name, folder in plain.items()
    }


def _hash_of_place(name: str) -> str:
    place = Path(resolve(name)).resolve()
    return hashlib.sha256(os.fsencode(place)).hexdigest()[:6]
