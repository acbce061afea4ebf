"""ASH-Nets and its baselines with the same small budget: one training loop, the same pairs, the same test items.

Each model is pre-trained by its recipe on the same number of pairs, then fine-tuned on the same number of questions.
Finished runs in the folder are reused, interrupted runs are resumed. The table also has rows for chance and for
text-only baselines.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ashnets.baselines.speed import Speed, time_steps
from ashnets.baselines.starting import HEADS, baseline_processor
from ashnets.data.benchmarks.records import Record
from ashnets.data.pairs import Pairs
from ashnets.data.sources.opening import open_source
from ashnets.device import own_device
from ashnets.environment import environment
from ashnets.errors import ConfigurationError, TrainingError
from ashnets.evaluation.options import EvaluationOptions, Variant
from ashnets.evaluation.own_images import sampled
from ashnets.evaluation.prediction import Questions, predicted_labels
from ashnets.evaluation.record import TRAINING_RECORD
from ashnets.evaluation.retrieval import RetrievalSet, rank
from ashnets.evaluation.text_baselines import baselines
from ashnets.files import JsonObject, Row
from ashnets.hub.loading import from_pretrained
from ashnets.metrics.retrieval import KS
from ashnets.processor import AshNetsProcessor
from ashnets.runs import finetune, train
from ashnets.tasks.data import drawn, open_task_data
from ashnets.tasks.registry import CLASSIFICATIONS
from ashnets.tasks.task import Classification
from ashnets.training.reading import load_recipe
from ashnets.training.recipe import Recipe, TaskRecipe, differences
from ashnets.zoo.registry import ROOT

RECIPES = ROOT / "recipes"
QUESTIONS = "baseline-questions"
SPLIT = "test-twitter-seen"
WAYS = {"text_to_image": "t2i", "image_to_text": "i2t"}


@dataclass(frozen=True)
class Contestant:
    """One model of the table.

    Attributes:
        baseline: None for ASH-Nets itself.
        recipe: for its pre-training.
        overrides: for the recipe of questions, besides the model.
    """

    title: str
    baseline: str | None
    recipe: str
    overrides: tuple[str, ...] = ()


CONTESTANTS = {
    "ashnets": Contestant("ashnets-tiny", None, "baseline-ashnets"),
    "vilt": Contestant("ViLT, equal layers and width", "vilt", "baseline-vilt", ("baseline=vilt",)),
    "frozen": Contestant(
        "frozen ResNet-50 + head", "frozen", "baseline-frozen", ("baseline=frozen", "phases.0.frozen=[concrete]")
    ),
}


def build_table(
    corpus: Path,
    output: Path,
    *,
    names: Sequence[str] = tuple(CONTESTANTS),
    recipes: Path = RECIPES,
    overrides: Sequence[str] = (),
    task_overrides: Sequence[str] = (),
    sample: int = 128,
    items: int = 1000,
    rounds: int = 5,
    progress: bool = True,
) -> list[Row]:
    """Train the models that are not trained yet, evaluate all, and return the rows of the table.

    Args:
        corpus: pictograms, or another corpus of the same form.
        output: a folder for the runs; each model has two, ``NAME`` and ``NAME-questions``.
        overrides, task_overrides: for all recipes of pre-training, and for the recipe of questions.
        sample: number of images of `SPLIT` for retrieval; ITM on all pairs takes quadratic time.
        items: number of questions of `SPLIT`, a random sample; 0 uses all.
        rounds: of the benchmark of training steps.

    Raises:
        ConfigurationError: ``rounds`` is below 1, or as in training.
        DataError, WeightsError, TrainingError: as in training.
    """
    if rounds < 1:
        raise ConfigurationError(f"rounds={rounds}: the training steps are timed in one round at least")
    steps = {}
    for name in names:
        chosen = CONTESTANTS[name]
        recipe = recipes / f"{chosen.recipe}.yaml"
        _train(recipe, corpus, output / name, list(overrides), progress)
        extra = [*chosen.overrides, f"model={output / name / 'model'}", *task_overrides]
        _finetune(recipes / f"{QUESTIONS}.yaml", corpus, output / f"{name}-questions", extra, progress)
        steps[name] = load_recipe(recipe, list(overrides))
    questions = load_recipe(recipes / f"{QUESTIONS}.yaml", list(task_overrides))
    assert isinstance(questions, TaskRecipe)
    measured = {name: _retrieval(name, corpus, output / name, sample, progress) for name in names}
    answered = _answers(names, corpus, output, questions, items, progress)
    gc.collect()
    return rows(measured, answered, time_steps(steps, open_source(corpus), rounds), output)


def _train(recipe: Path, corpus: Path, folder: Path, overrides: list[str], progress: bool) -> None:
    if not _finished(folder, load_recipe(recipe, overrides)):
        train(recipe, corpus=corpus, output=folder, overrides=overrides, resume=_begun(folder), progress=progress)


def _finetune(recipe: Path, data: Path, folder: Path, overrides: list[str], progress: bool) -> None:
    if not _finished(folder, load_recipe(recipe, overrides)):
        finetune("vqa", recipe, data=data, output=folder, overrides=overrides, resume=_begun(folder), progress=progress)


def _begun(folder: Path) -> bool:
    return (folder / "recipe.yaml").is_file()


def _finished(folder: Path, recipe: Recipe) -> bool:
    """Whether a run is finished. Raises TrainingError if another recipe made it: a table must not mix recipes."""
    if not (folder / "model" / TRAINING_RECORD).is_file():
        return False
    saved = yaml.safe_load((folder / "recipe.yaml").read_text(encoding="utf-8"))
    lines = differences(saved, recipe.settled(saved).to_dict())
    if lines:
        raise TrainingError(f"{folder} was made by another recipe; choose another folder:\n  " + "\n  ".join(lines))
    return True


def _load(name: str, folder: Path, head: str) -> tuple[Any, AshNetsProcessor]:
    baseline = CONTESTANTS[name].baseline
    processor = baseline_processor(folder)
    if baseline is None:
        model: Any = from_pretrained(folder, task="retrieval" if head == "pretraining" else head)
    else:
        model = HEADS[baseline, head].from_pretrained(folder)
    return model.to(own_device()), processor


def _retrieval(name: str, corpus: Path, run: Path, sample: int, progress: bool) -> JsonObject:
    model, processor = _load(name, run / "model", "pretraining")
    pairs = Pairs(open_source(corpus), [SPLIT], model.config.image_size)
    measured, options = RetrievalSet.of_pairs(pairs, sampled(pairs, sample)), EvaluationOptions(progress=progress)
    return rank(model, processor.tokenizer, measured, options=options).to_list()[0]


def _answers(
    names: Sequence[str], corpus: Path, output: Path, recipe: TaskRecipe, items: int, progress: bool
) -> dict[str, JsonObject]:
    """Name → accuracy with images and with blank images; and text-only baselines, trained on the same items."""
    data = open_task_data(recipe.data, corpus)
    records = drawn(data.records(SPLIT), items, recipe.seed)
    found: dict[str, JsonObject] = {}
    for name in names:
        model, processor = _load(name, output / f"{name}-questions" / "model", "vqa")
        task = CLASSIFICATIONS["vqa"].of_config(model.config)
        asked, options = Questions(task, data, records, processor), EvaluationOptions(progress=progress)
        shown = {
            key: predicted_labels(model, asked, Variant("answering", constant=key == "blind"), options)
            for key in ("accuracy", "blind")
        }
        found[name] = {key: task.metrics(records, said)["accuracy"] for key, said in shown.items()}
        found[name].update(n=len(records), **_by_kind(task, records, shown["accuracy"]))
    learned = [record for split in recipe.train for record in data.records(split) if task.can_learn(record)]
    for name, metrics in baselines(task, drawn(learned, recipe.train_items, recipe.seed), records).items():
        found[name] = {"accuracy": metrics["accuracy"], "n": len(records)}
    return found


def _by_kind(task: Classification, records: Sequence[Record], said: Sequence[str]) -> dict[str, float]:
    scores = task.scores(records, said)
    kinds = sorted({task.kind_of(record) for record in records})
    parts = {
        kind: [score for record, score in zip(records, scores, strict=True) if task.kind_of(record) == kind]
        for kind in kinds
    }
    return {f"accuracy {kind}": sum(part) / len(part) for kind, part in parts.items()}


def rows(
    measured: Mapping[str, JsonObject],
    answered: Mapping[str, JsonObject],
    speeds: Mapping[str, Speed],
    output: Path,
) -> list[Row]:
    """The rows of the results file: one for each model and one for each text-only baseline; shares in [0, 1]."""
    about = {key: value for key, value in environment().items() if key != "python"}
    found: list[Row] = []
    for name, recall in measured.items():
        record = _record(output / name)
        questions, speed = _record(output / f"{name}-questions"), speeds[name]
        found.append(
            {
                "baseline": CONTESTANTS[name].title,
                "recipe": record["recipe"],
                "seed": record["seed"],
                "parameters": speed.parameters,
                "trained": speed.trained,
                "pairs_seen": record["pairs_seen"],
                "training_seconds": record["seconds"],
                "pairs_per_second": round(speed.pairs_per_second, 2),
                "time_ratio": round(speed.ratio, 3),
                "time_ratio_low": round(speed.low, 3),
                "time_ratio_high": round(speed.high, 3),
                "rounds": speed.rounds,
                "split": SPLIT,
                "images": recall["images"],
                "texts": recall["texts"],
                "ranking": recall["ranking"],
                **_recall_cells(recall),
                "pairs_scored": recall["cost"]["pairs"],
                "ranking_seconds": round(recall["cost"]["seconds"], 2),
                "task": questions["data"],
                "items_seen": questions["pairs_seen"],
                "task_seconds": questions["seconds"],
                **_answer_cells(answered[name]),
                **about,
            }
        )
    blank = dict.fromkeys(found[0], "")
    first = next(iter(measured.values()))
    shared = {key: found[0][key] for key in ("split", "images", "texts", "task")}
    for name, metrics in answered.items():
        if name not in measured:
            by_chance = _recall_cells(first["chance"]) if name == "chance" else {}
            line = {"baseline": name, **shared, **by_chance, **_answer_cells(metrics)}
            found.append({**blank, **{key: value for key, value in line.items() if key in blank}})
    return found


def _recall_cells(recall: JsonObject) -> dict[str, float]:
    return {f"{short} R@{k}": round(recall[way][f"R@{k}"], 4) for way, short in WAYS.items() for k in KS}


def _answer_cells(metrics: JsonObject) -> dict[str, float]:
    return {key: round(value, 4) if key != "n" else value for key, value in metrics.items()}


def _record(run: Path) -> JsonObject:
    return json.loads((run / "model" / TRAINING_RECORD).read_text(encoding="utf-8"))
