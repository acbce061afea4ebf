"""How a fine-tuned model does on a split, and whether its answers depend on what is shown beside them.

============================ =======================================================================================
variant                      images
============================ =======================================================================================
reset                        each from a reset state: the result that counts, since it depends on the item alone
carry                        φ items on one time axis, in the order of the data: membranes are carried on
carry, shuffled              the same in a random order: what differs from ``carry`` comes from the neighbors
constant image             gray in the place of every image: what the text alone gives this model
concrete alone               each from a reset state, the spiking branch switched off; on request
============================ =======================================================================================

Baselines that never had an image stand beside it (`ashnets.tasks.baselines`), where the splits that they learn from
are there. Where the makers keep the answers, predictions are written for their server and nothing is measured.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from ashnets.data.benchmarks import Benchmark
from ashnets.device import own_device
from ashnets.digests import WEIGHTS_SHA256
from ashnets.environment import environment
from ashnets.errors import ConfigurationError, DataError, InputError
from ashnets.files import write_atomically, write_csv, write_json
from ashnets.hub.loading import from_pretrained
from ashnets.hub.resolving import weights_sha256
from ashnets.model.firing import MEASURED, layer_rates, rates_warnings
from ashnets.processor import AshNetsProcessor
from ashnets.tasks.baselines import baselines
from ashnets.tasks.data import TaskData, drawn, open_task_data, require_images, require_kind
from ashnets.tasks.items import images_at_rest
from ashnets.tasks.page import Example, examples_page
from ashnets.tasks.predicting import predict, predicted_labels
from ashnets.tasks.registry import CLASSIFICATIONS
from ashnets.tasks.retrieval import evaluate_captions
from ashnets.tasks.task import Classification
from ashnets.training.evaluate import TRAINED_ON, training_record
from ashnets.training.recipe import TASKS

EXAMPLES = 24  # of each sort on the page
LEFT_OUT, SECRET = "baselines left out", "answers"  # in a result where they say something


def evaluate_named(
    name: str | os.PathLike,
    task: str,
    folder: str | os.PathLike | TaskData,
    *,
    dataset: str | None = None,
    split: str | None = None,
    images: str | os.PathLike | None = None,
    **options: Any,
) -> dict[str, Any]:
    """`evaluate_task` of a model by name or folder, on a data set by folder, on the GPU if there is one.

    Args:
        folder: of the data set, or the data set opened, as several models share it.
        dataset: the data set's name; by default the one that the model was fine-tuned on.

    Raises:
        ConfigurationError: ``dataset`` is not given and the model does not say; ``split`` is not given and the model
            was trained on the one that is customary.
    """
    record = training_record(name) or {}
    dataset = dataset or record.get("data")
    if dataset is None:
        raise ConfigurationError(f"{name} does not say what it was fine-tuned on: name the data set with --dataset")
    data = folder if isinstance(folder, TaskData) else open_task_data(dataset, folder, images)
    trained_on = trained_splits(record, dataset)
    split = split_to_measure(data, split, trained_on, str(name))
    model = from_pretrained(name, task=task).to(own_device())
    processor = AshNetsProcessor.from_pretrained(name)
    result = evaluate_task(model, task, data, processor, split, trained_on=trained_on, title=str(name), **options)
    return {"model": str(name), "training": record or None, WEIGHTS_SHA256: weights_sha256(name), **result}


def evaluate_task(
    model: Any,
    task: str,
    data: TaskData,
    processor: AshNetsProcessor,
    split: str | None = None,
    *,
    trained_on: Sequence[str] = (),
    output: str | os.PathLike | None = None,
    variants: bool = True,
    ablate: bool = False,
    candidates: int | None = None,
    exhaustive: bool = False,
    limit: int = 0,
    batch: int = 64,
    seed: int = 0,
    workers: int = 0,
    title: str = "",
    progress: bool = True,
) -> dict[str, Any]:
    """Measure a model on a split of a task's data.

    Args:
        model: with the head of ``task``, in evaluation mode.
        task: ``vqa``, ``nlvr2``, ``ve`` or ``retrieval``.
        split: the data's default split if None, which the model must then not have been trained on.
        trained_on: splits of this data that the model was trained on. The text baselines learn from them too, and from
            ``train`` where there are none.
        output: folder for ``results.json``, the predictions in their benchmark's form, ``items.csv``,
            ``confusion.csv`` (truth, said, count) and ``examples.html``; nothing is written without. Of a split whose
            answers are kept by the makers it receives ``results.json`` and the predictions, which their server takes.
        variants: also measure what the table above names ahead of the last row; else ``reset`` alone.
        ablate: also measure its last row, where there is a spiking branch.
        candidates: for retrieval, of each query, that ITM orders anew; by default as many as the tests of a benchmark
            take, else 0, which leaves ITM out.
        exhaustive: for retrieval, also let ITM rank all pairs.
        limit: so many items, or images for retrieval, drawn by the seed; 0 takes all.
        batch: items shown at once.
        seed: of the drawn items, the shuffled order and the choice of examples.
        workers: processes that read images; 0 reads them between the batches.

    Returns:
        ``{"task", "data", "split", "n", "branch", "variants": {name: metrics}, "baselines": {name: metrics},
        "environment"}``; metrics as `ashnets.metrics` gives them, and in all variants but ``reset`` ``changed``, the
        share of items whose answer is another than in ``reset``. For retrieval that ITM ranks too, also ``rankings``
        (`ashnets.tasks.retrieval`). Where they say something, also ``trained on``, the splits of the training if the
        measured one is among them; ``baselines left out``, why ``baselines`` is empty; ``answers``, where these are
        not public: ``reset`` then has ``n`` alone; and ``warnings``, which name silent and saturated spiking layers.

    Raises:
        ConfigurationError: data of another task, no such task, or candidates for another than retrieval; no split is
            given and the model was trained on the customary one; a part of a split whose answers are not public.
        DataError: a split or images that are missing; answers that are not public, and no ``output``.
    """
    if task != "retrieval" and (candidates is not None or exhaustive):
        raise ConfigurationError(f"candidates and exhaustive are for retrieval, where ITM ranks; {task} ranks nothing")
    split = split_to_measure(data, split, trained_on)
    whole: list[Any] = data.records(split)
    records = drawn(whole, limit, seed)
    branch = "both" if model.config.has_spiking_branch else "concrete"
    found: dict[str, Any] = {
        "task": task,
        "data": data.name,
        "split": split,
        "n": len(records),
        "branch": branch,
    }
    subject = f"{data.title}, split {split}, n = {len(records)}."
    if split in trained_on:
        found[TRAINED_ON] = list(trained_on)
        subject += " The model was trained on this split."
    folder = None if output is None else Path(output)
    if task == "retrieval":
        found.update(
            evaluate_captions(
                model,
                data,
                records,
                processor,
                folder,
                f"{title} · retrieval",
                subject,
                variants=variants,
                ablate=ablate,
                candidates=candidates,
                exhaustive=exhaustive,
                batch=batch,
                seed=seed,
                workers=workers,
                progress=progress,
            )
        )
    elif task in CLASSIFICATIONS:
        kind = CLASSIFICATIONS[task]
        require_kind(data, records, kind.kind, task)
        secret = _answers_are_secret(data, split, records, folder, part=len(records) < len(whole))
        require_images(data, records)
        chosen = kind.of_config(model.config)
        learned, missing = ([], "") if secret else _learned(chosen, data, trained_on or ["train"])
        said = {
            name: predicted_labels(
                chosen,
                predict(
                    model,
                    chosen,
                    data,
                    records,
                    processor,
                    batch=batch,
                    workers=workers,
                    progress=progress,
                    title=name,
                    **options,
                ),
            )
            for name, options in _variants(
                model, len(records), variants and not secret, ablate and not secret, seed
            ).items()
        }
        if secret:
            found |= {"variants": {"reset": {"n": len(records)}}, "baselines": {}, SECRET: secret}
        else:
            found["variants"] = {
                name: {**chosen.metrics(records, one), **_changed(name, one, said["reset"])}
                for name, one in said.items()
            }
            found["baselines"] = {} if missing else baselines(chosen, learned, records)
        if missing:
            found[LEFT_OUT] = missing
            subject += f" Baselines are left out: {missing}."
        if secret and folder is not None:
            chosen.write(folder, records, said["reset"])
        elif folder is not None:
            _write(folder, chosen, data, records, said, found, f"{title} · {task}", subject, seed)
    else:
        raise ConfigurationError(f"task={task!r} is not one of {', '.join(TASKS)}")
    names = [record.image for record in records] if task == "retrieval" else chain(*(r.images for r in records))
    shown = list(islice(dict.fromkeys(names), MEASURED))
    if warnings := rates_warnings(layer_rates(model, images_at_rest(data, shown, processor, workers=workers))):
        found["warnings"] = warnings
    found["environment"] = environment()
    if folder is not None:
        write_json(folder / "results.json", found)
    return found


def _variants(model: Any, items: int, wanted: bool, ablate: bool, seed: int) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {"reset": {}}
    if wanted and model.config.has_spiking_branch:
        group = model.config.group_size
        shuffled = np.random.default_rng(seed).permutation(items)
        found["carry"] = {"group_size": group}
        found["carry, shuffled"] = {"group_size": group, "order": shuffled}
    if wanted:
        found["constant image"] = {"constant": True}
    if ablate and model.config.has_spiking_branch:
        found["concrete alone"] = {"concrete_only": True}
    return found


def _changed(name: str, said: list[str], reset: list[str]) -> dict[str, float]:
    if name == "reset":
        return {}
    return {"changed": sum(a != b for a, b in zip(said, reset, strict=True)) / len(reset)}


def trained_splits(record: dict[str, Any] | None, dataset: str) -> list[str]:
    """The splits of a data set that a model was trained on, by its training record; none if that is of another one."""
    if not record or record.get("data") != dataset:
        return []
    return list(record.get("train", ["train"]))


def split_to_measure(data: TaskData, split: str | None, trained_on: Sequence[str], name: str = "the model") -> str:
    """``split``, or the one that is customary.

    Raises:
        ConfigurationError: it is not given, and the model was trained on the customary one.
    """
    if split is None and data.default_split in trained_on:
        known = data.all_splits() if isinstance(data, Benchmark) else data.splits
        others = [one for one in known if one not in trained_on]
        there = f"give one of {', '.join(others)} by --split" if others else f"{data.title} has no other"
        raise ConfigurationError(
            f"{name} was trained on {', '.join(trained_on)} of {data.title}, and {data.default_split} is what is "
            f"measured by default: {there}, or measure what it was trained on by --split {data.default_split}"
        )
    return data.default_split if split is None else split


def require_measurable(data: TaskData, split: str, output: Path | None, limit: int) -> None:
    """Raises what `evaluate_task` would of a split that is missing, or secret; nothing is predicted."""
    records: list[Any] = data.records(split)
    _answers_are_secret(data, split, records, output, part=0 < limit < len(records))


def _learned(task: Classification, data: TaskData, splits: Sequence[str]) -> tuple[list[Any], str]:
    """What the text baselines learn from; or nothing, and why."""
    absent = [split for split in splits if split not in data.splits]
    if absent:
        return [], f"{data.folder} does not hold {data.title}'s split {', '.join(absent)}, which they learn from"
    found = [record for split in splits for record in data.records(split) if task.can_learn(record)]
    if not found:
        return [], f"{', '.join(splits)} of {data.title} in {data.folder} has no item that they could learn from"
    return found, ""


def _answers_are_secret(data: TaskData, split: str, records: Sequence[Any], folder: Path | None, part: bool) -> str:
    """What is said of answers that the makers keep; empty where answers are public.

    Args:
        part: the records are not the whole split.
    """
    secret = sum(getattr(record, "answer", "") is None for record in records)
    if not secret:
        return ""
    about = f"{secret} answers of {data.title}'s {split} are kept by its makers"
    if folder is None:
        raise DataError(
            f"{about}: choose another split, or write the predictions, which their server takes, by --output FOLDER"
        )
    if part:
        raise ConfigurationError(
            f"{about}, and their server takes no part of a split: leave --sample out to predict all"
        )
    return "answers are not public: predictions alone"


def _write(
    folder: Path,
    task: Classification,
    data: TaskData,
    records: Sequence[Any],
    said: dict[str, list[str]],
    found: dict[str, Any],
    title: str,
    subject: str,
    seed: int,
) -> None:
    """Everything but ``results.json``."""
    answers, truths = said["reset"], [task.truth(record) for record in records]
    scores = task.scores(records, answers)
    folder.mkdir(parents=True, exist_ok=True)
    task.write(folder, records, answers)
    rows = []
    for number, record in enumerate(records):
        rows.append(
            {
                "id": record.id,
                "images": " ".join(record.images),
                "text": task.text(record),
                "kind": task.kind_of(record),
                "truth": truths[number],
                **{name: one[number] for name, one in said.items()},
                "score": round(scores[number], 4),
            }
        )
    write_csv(folder / "items.csv", rows)
    write_csv(folder / "confusion.csv", confusion(truths, answers))
    examples = [
        Example(
            [data.open_image(name) for name in records[i].images],
            task.text(records[i]),
            truths[i],
            answers[i],
            scores[i],
        )
        for i in chosen_examples(scores, seed)
    ]
    table = [
        {"": name, "accuracy": float(metrics["accuracy"]), "n": metrics["n"], "changed": metrics.get("changed", "")}
        for part in ("variants", "baselines")
        for name, metrics in found[part].items()
    ]
    write_atomically(folder / "examples.html", examples_page(title, subject, table, examples).encode())


def confusion(truths: Sequence[str], said: Sequence[str]) -> list[dict[str, Any]]:
    """Rows ``{"truth", "said", "count"}`` of what occurs, most frequent first.

    Raises:
        InputError: nothing to count.
    """
    if not truths:
        raise InputError("there is nothing to count: give at least one item")
    counts = Counter(zip(truths, said, strict=True))
    order = sorted(counts, key=lambda pair: (-counts[pair], pair))
    return [{"truth": truth, "said": one, "count": counts[truth, one]} for truth, one in order]


def chosen_examples(scores: Sequence[float], seed: int) -> list[int]:
    """A draw of wrong items and of right ones, `EXAMPLES` of each at most, in the order of the data."""
    order = np.random.default_rng(seed).permutation(len(scores)).tolist()
    wrong = [i for i in order if scores[i] < 0.5][:EXAMPLES]
    right = [i for i in order if scores[i] >= 0.5][:EXAMPLES]
    return sorted([*wrong, *right])
