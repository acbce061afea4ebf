"""Models on splits of a data set: one entry for every task and every kind of data.

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
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ashnets.data.benchmarks import Benchmark, Captioned
from ashnets.data.learned import images_learned, read_sketch
from ashnets.device import own_device
from ashnets.environment import environment
from ashnets.errors import ConfigurationError
from ashnets.evaluation.classification import (
    Classified,
    evaluate_classification,
    learnable,
    secret_answers,
    write_items,
)
from ashnets.evaluation.embedding import ImageSet, TaskImages, images_at_reset
from ashnets.evaluation.options import EvaluationOptions
from ashnets.evaluation.own_images import IMAGES, OwnImages, sampled
from ashnets.evaluation.prediction import Questions
from ashnets.evaluation.record import trained_splits, training_record
from ashnets.evaluation.results import Evaluation, ModelResult, SplitResult
from ashnets.evaluation.retrieval import RetrievalSet, Retrieved, evaluate_retrieval, write_examples
from ashnets.evaluation.two_stage import CANDIDATES
from ashnets.files import JsonObject, require_writable, write_csv, write_json
from ashnets.hub.loading import from_pretrained
from ashnets.hub.resolving import resolve, weights_sha256
from ashnets.model.firing import MEASURED, layer_rates, rates_warnings
from ashnets.processor import AshNetsProcessor
from ashnets.result_folder import result_folder
from ashnets.tasks.data import TaskData, drawn, open_task_data, require_images, require_kind
from ashnets.tasks.registry import CLASSIFICATIONS, TASKS

RESULTS = "results.json"


@dataclass(frozen=True)
class DataPlace:
    """Where a data set is.

    Attributes:
        folder: of the data set.
        dataset: its name; by default the one that the models were fine-tuned on, and for retrieval else ``images``.
        images: where the images lie, if not in ``folder``.
    """

    folder: str | os.PathLike
    dataset: str | None = None
    images: str | os.PathLike | None = None


@dataclass
class Subject:
    """A loaded model that is evaluated.

    Attributes:
        model: with the head of the task, in evaluation mode.
        trained_on: splits of the data that the model was trained on. The text baselines learn from them too, and from
            ``train`` where there are none.
        sketch: what the model says of the images that it learned from.
    """

    model: Any
    processor: AshNetsProcessor
    title: str = ""
    trained_on: Sequence[str] = ()
    sketch: Sequence[str] = field(default_factory=list)


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
) -> JsonObject:
    """Evaluate models on a task, each on each split.

        ashnets.evaluate("ashnets-tiny", "retrieval", "data/pictograms", splits=["test-twitter-seen"])

    Args:
        names: of a model or of several, or folders of trained ones.
        task: ``vqa``, ``nlvr2``, ``ve`` or ``retrieval``.
        data: folder of the data set.
        dataset: its name; by default the one that the models were fine-tuned on, and for retrieval else ``images``.
        splits: by default the one that is customary, which no model must then have been trained on; of ``images``
            ``test``, or ``valid`` where there is none, and ``all`` is all of them together.
        images: where the images lie, if not in ``data``.
        output: a file, ``.csv`` or ``.json``, for the table of results; or a folder, which receives it as
            ``results.json`` and ``results.csv``, and also predictions, items and a page of examples: in folders of
            their own, MODEL/SPLIT, where there are several.
        sample: items of a split, or images; 0 takes all.
        candidates, exhaustive, ablate, variants: see `EvaluationOptions`; for ``images``, each of which is from a
            reset state, there are no variants, and no candidates unless asked for.
        workers: processes that read images; 0 reads them in a thread of this process, as those of ``images`` are.

    Returns:
        ``{"task", "data", "models": {name: {"training": record, "weights_sha256", "splits": {split: result}}},
        "environment"}``. A result is ``{"task", "data", "split", "n", "branch", "variants": {name: metrics},
        "baselines": {name: metrics}}``, for retrieval that ITM ranks too with ``rankings``, and for ``images`` a list
        of all rankings. Where they say something, there are also ``trained on``, ``baselines left out``, ``answers``
        (where these are not public) and ``warnings``, which name silent and saturated spiking layers.

    Raises:
        ConfigurationError: no such task, a data set that is not named, options that do not fit.
        OutputError: ``output`` cannot be written; found before anything is measured.
        DataError, UnknownModelError, WeightsError: as elsewhere.
    """
    given = [names] if isinstance(names, str | os.PathLike) else names
    options = EvaluationOptions(
        splits=tuple(dict.fromkeys(splits)),
        sample=sample,
        candidates=candidates,
        exhaustive=exhaustive,
        ablate=ablate,
        variants=variants,
        workers=workers,
        progress=progress,
    )
    return evaluate_models(given, task, DataPlace(data, dataset, images), options, output).to_dict()


def evaluate_models(
    names: Sequence[str | os.PathLike],
    task: str,
    place: DataPlace,
    options: EvaluationOptions,
    output: str | os.PathLike | None = None,
) -> Evaluation:
    """`evaluate`, whose arguments and errors these are, with the result as an object."""
    if task not in TASKS:
        raise ConfigurationError(f"task={task!r} is not one of {', '.join(TASKS)}")
    models = list(dict.fromkeys(map(str, names)))
    table, folder = _places(output)
    if output is not None:
        require_writable(table or Path(output) / RESULTS)
    dataset = place.dataset or _dataset_of(models, task)
    data = _open(dataset, task, place, options)
    records = {name: training_record(name) for name in models}
    splits: list[str | None] = [*options.splits] or [None]
    own, several = as_folders(models), len(models) * len(splits) > 1
    _check_splits(data, splits, records, replace(options, output=folder))
    found = []
    for name in models:
        result = ModelResult(name, records[name], weights_sha256(name), [])
        subject, measured = _subject(name, task, records[name], data)
        if isinstance(data, OwnImages):
            result.on_record = read_sketch(Path(resolve(name))) is not None
        for split in splits:
            place_of_split = folder / own[name] / (split or "") if folder and several else folder
            with result_folder(place_of_split, RESULTS, "keep") if place_of_split else nullcontext() as made:
                one = evaluate_split(subject, task, measured, split, replace(options, output=made))
            result.splits.append(one)
        found.append(result)
    evaluation = Evaluation(task, dataset, found, environment())
    if folder is not None:
        write_json(folder / RESULTS, evaluation.to_dict())
        table = folder / "results.csv"
    if table is not None:
        as_json = table.suffix == ".json"
        write_json(table, evaluation.to_dict()) if as_json else write_csv(table, evaluation.as_rows())
    return evaluation


def evaluate_split(
    subject: Subject, task: str, data: TaskData | OwnImages, split: str | None, options: EvaluationOptions
) -> SplitResult:
    """Measure a loaded model on a split; the customary one if None, which it must then not have been trained on.

    ``options.output`` receives ``results.json``, the predictions in their benchmark's form, ``items.csv``,
    ``confusion.csv`` (truth, said, count) and ``examples.html``. Of a split whose answers are kept by the makers it
    receives ``results.json`` and the predictions, which their server takes.

    Raises:
        ConfigurationError: data of another task, no such task, or candidates for another than retrieval; no split is
            given and the model was trained on the customary one; a part of a split whose answers are not public.
        DataError: a split or images that are missing; answers that are not public, and no ``output``.
    """
    if task != "retrieval" and (options.candidates is not None or options.exhaustive):
        raise ConfigurationError(f"candidates and exhaustive are for retrieval, where ITM ranks; {task} ranks nothing")
    if task not in TASKS:
        raise ConfigurationError(f"task={task!r} is not one of {', '.join(TASKS)}")
    split = split_to_measure(data, split, subject.trained_on)
    trained_on = list(subject.trained_on) if split in subject.trained_on else []
    found: Retrieved | Classified
    if isinstance(data, OwnImages):
        found, n, images = _own_images(subject, data, split, options)
    else:
        found, n, images = _benchmark(subject, task, data, split, options)
    rates = layer_rates(subject.model, images_at_reset(images, range(len(images))[:MEASURED], workers=options.workers))
    branch = "both" if subject.model.config.has_spiking_branch else "concrete"
    result = SplitResult(task, data.name, split, n, branch, found, trained_on, rates_warnings(rates))
    if options.output is not None:
        said = result.to_dict()
        said = {"rankings": said} if isinstance(said, list) else said
        write_json(options.output / RESULTS, {**said, "environment": environment()})
    return result


def _own_images(
    subject: Subject, data: OwnImages, split: str, options: EvaluationOptions
) -> tuple[Retrieved, int, ImageSet]:
    pairs = data.pairs(split, subject.model.config.image_size)
    chosen = sampled(pairs, options.sample, options.seed)
    measured = RetrievalSet.of_pairs(pairs, chosen)
    found = evaluate_retrieval(subject.model, subject.processor.tokenizer, measured, options, own=True)
    if learned := images_learned(subject.sketch, pairs, chosen):
        found.learned = {"images": learned, "of": len(measured.indices)}
    if options.output is not None:
        about = f"{data.folder.resolve().name}, split {split}, n = {len(measured.indices)}."
        about += f" The model was trained on {learned} of these images." if learned else ""
        write_examples(options.output, pairs.shown, found, (f"{subject.title} · retrieval", about), options.seed)
    return found, len(measured.indices), pairs


def _benchmark(
    subject: Subject, task: str, data: TaskData, split: str, options: EvaluationOptions
) -> tuple[Retrieved | Classified, int, ImageSet]:
    whole = data.records(split)
    records = drawn(whole, options.sample, options.seed)
    model, processor, output = subject.model, subject.processor, options.output
    about = f"{data.title}, split {split}, n = {len(records)}."
    about += " The model was trained on this split." if split in subject.trained_on else ""
    title = f"{subject.title} · {task}"
    if task == "retrieval":
        captioned = require_kind(data, records, Captioned, task)
        require_images(data, records)
        if options.candidates is None:
            options = replace(options, candidates=CANDIDATES.get(data.name, 0))
        images = TaskImages(data, [record.image for record in captioned], processor)
        measured = RetrievalSet.of_records(captioned, images)
        retrieved = evaluate_retrieval(model, processor.tokenizer, measured, options)
        if output is not None:
            write_examples(output, data.open_image, retrieved, (title, about), options.seed)
        found: Retrieved | Classified = retrieved
    else:
        kind = CLASSIFICATIONS[task]
        require_kind(data, records, kind.kind, task)
        secret = secret_answers(data, split, records, output, part=len(records) < len(whole))
        require_images(data, records)
        asked = Questions(kind.of_config(model.config), data, records, processor)
        learned, missing = ([], "") if secret else learnable(asked.task, data, subject.trained_on or ["train"])
        classified = evaluate_classification(model, asked, learned, secret, options)
        classified.left_out = missing
        if output is not None:
            about += f" Baselines are left out: {missing}." if missing else ""
            write_items(output, asked, classified, (title, about), options.seed)
        found = classified
    names = list(dict.fromkeys(name for record in records for name in record.images))
    return found, len(records), TaskImages(data, names, processor)


def _subject(
    name: str, task: str, record: JsonObject | None, data: TaskData | OwnImages
) -> tuple[Subject, TaskData | OwnImages]:
    """A model, loaded, and the data that it is measured on: its own validation images, and no others, are held out."""
    model = from_pretrained(name, task=task).to(own_device())
    processor = AshNetsProcessor.from_pretrained(name)
    if not isinstance(data, OwnImages):
        return Subject(model, processor, name, trained_splits(record, data.name)), data
    sketch = read_sketch(Path(resolve(name))) or []
    return Subject(model, processor, name, sketch=sketch), OwnImages(data.folder, record)


def split_to_measure(
    data: TaskData | OwnImages, split: str | None, trained_on: Sequence[str], name: str = "the model"
) -> str:
    """``split``, or the one that is customary.

    Raises:
        ConfigurationError: it is not given, and the model was trained on the customary one.
    """
    if split is None and data.default_split in trained_on and not isinstance(data, OwnImages):
        known = data.all_splits() if isinstance(data, Benchmark) else data.splits
        others = [one for one in known if one not in trained_on]
        there = f"give one of {', '.join(others)} by --split" if others else f"{data.title} has no other"
        raise ConfigurationError(
            f"{name} was trained on {', '.join(trained_on)} of {data.title}, and {data.default_split} is what is "
            f"measured by default: {there}, or measure what it was trained on by --split {data.default_split}"
        )
    return data.default_split if split is None else split


def _check_splits(
    data: TaskData | OwnImages,
    splits: Sequence[str | None],
    records: dict[str, JsonObject | None],
    options: EvaluationOptions,
) -> None:
    """Raises what `evaluate_split` would of a split that is missing, or secret, before the first takes its time."""
    chosen = [
        split_to_measure(data, split, trained_splits(record, data.name), name)
        for name, record in records.items()
        for split in splits
    ]
    for split in dict.fromkeys(chosen):
        if isinstance(data, OwnImages):
            data.require(split)
        elif len(chosen) > 1:
            whole = data.records(split)
            secret_answers(data, split, whole, options.output, part=0 < options.sample < len(whole))


def _open(dataset: str, task: str, place: DataPlace, options: EvaluationOptions) -> TaskData | OwnImages:
    if dataset != IMAGES:
        return open_task_data(dataset, place.folder, place.images)
    if task != "retrieval" or place.images is not None:
        wrong = f"--images {place.images}" if task == "retrieval" else f"task {task}"
        raise ConfigurationError(f"{wrong} needs the name of a data set: give it with --dataset")
    if options.workers:
        raise ConfigurationError(
            f"--workers {options.workers} is for data sets with a name; leave it out for {place.folder}"
        )
    return OwnImages(place.folder)


def _dataset_of(names: Sequence[str], task: str) -> str:
    known = {str(name): (training_record(name) or {}).get("data") for name in names}
    found = {data for data in known.values() if data}
    if len(found) > 1:
        told = ", ".join(f"{name} on {data}" for name, data in known.items() if data)
        raise ConfigurationError(f"the models were fine-tuned on several data sets ({told}): name one with --dataset")
    if found:
        return found.pop()
    if task == "retrieval":
        return IMAGES
    raise ConfigurationError(f"{names[0]} does not say what it was fine-tuned on: name the data set with --dataset")


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
