"""Tasks with a classifier: predictions of each variant, official metrics, text-only baselines.

If the answers are not public, predictions are written for the evaluation server, and nothing is measured.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ashnets.data.benchmarks.records import Record
from ashnets.errors import ConfigurationError, DataError, InputError
from ashnets.evaluation.options import EvaluationOptions, variants_of
from ashnets.evaluation.page import Example, chosen_examples, examples_page
from ashnets.evaluation.prediction import Questions, predicted_labels
from ashnets.evaluation.text_baselines import baselines
from ashnets.files import JsonObject, Row, write_atomically, write_csv
from ashnets.model.pretrained import AshNetsPreTrainedModel
from ashnets.tasks.data import TaskData
from ashnets.tasks.task import Classification

LEFT_OUT, SECRET = "baselines left out", "answers"  # keys of a result, present only if not empty


@dataclass
class Classified:
    """The result of a classifier on a split.

    Attributes:
        predicted: labels by variant.
        variants, baselines: metrics by name. All variants except ``reset`` have ``changed``, the share of items whose
            label differs from ``reset``.
        left_out: the reason why ``baselines`` is empty.
        secret: a remark that the answers are not public; ``reset`` then has only ``n``.
    """

    predicted: dict[str, list[str]]
    variants: dict[str, JsonObject]
    baselines: dict[str, JsonObject] = field(default_factory=dict)
    left_out: str = ""
    secret: str = ""

    def to_dict(self) -> JsonObject:
        """The result in JSON's types."""
        remarks = {SECRET: self.secret, LEFT_OUT: self.left_out}
        return {
            "variants": self.variants,
            "baselines": self.baselines,
            **{key: text for key, text in remarks.items() if text},
        }

    def rows(self) -> list[Row]:
        """Flat rows, one for each variant and each baseline."""
        return [
            {
                "variant": name,
                "n": metrics["n"],
                **{key: round(one, 5) for key, one in flat_metrics(metrics) if key != "n"},
            }
            for name, metrics in [*self.variants.items(), *self.baselines.items()]
        ]


def evaluate_classification(
    model: AshNetsPreTrainedModel, asked: Questions, learned: Sequence[Record], secret: str, options: EvaluationOptions
) -> Classified:
    """Predict and evaluate all variants.

    Args:
        learned: training items of the text-only baselines, which are left out if there are none.
        secret: see `secret_answers`; if not empty, only the predictions of ``reset`` are made.
    """
    task, records = asked.task, asked.records
    if secret:
        options = replace(options, variants=False, ablate=False)
    predicted = {
        variant.name: predicted_labels(model, asked, variant, options)
        for variant in variants_of(model.config, len(records), options)
    }
    if secret:
        return Classified(predicted, {"reset": {"n": len(records)}}, secret=secret)
    variants = {name: dict(task.metrics(records, labels)) for name, labels in predicted.items()}
    for name, labels in predicted.items():
        if name != "reset":
            differ = sum(a != b for a, b in zip(labels, predicted["reset"], strict=True))
            variants[name]["changed"] = differ / len(labels)
    return Classified(predicted, variants, baselines(task, learned, records) if learned else {})


def learnable(task: Classification, data: TaskData, splits: Sequence[str]) -> tuple[list[Record], str]:
    """The training items of the text-only baselines; or none, and the reason."""
    absent = [split for split in splits if split not in data.splits]
    if absent:
        return [], f"{data.folder} does not hold {data.title}'s split {', '.join(absent)}, which they learn from"
    found = [record for split in splits for record in data.records(split) if task.can_learn(record)]
    if not found:
        return [], f"{', '.join(splits)} of {data.title} in {data.folder} has no item that they could learn from"
    return found, ""


def secret_answers(data: TaskData, split: str, records: Sequence[Record], output: Path | None, part: bool) -> str:
    """A remark that the answers are not public; empty if they are.

    Args:
        part: the records are not the whole split.

    Raises:
        DataError: no ``output`` for the predictions.
        ConfigurationError: a part of such a split.
    """
    secret = sum(getattr(record, "answer", "") is None for record in records)
    if not secret:
        return ""
    about = f"{secret} answers of {data.title}'s {split} are kept by its makers"
    if output is None:
        raise DataError(
            f"{about}: choose another split, or write the predictions, which their server takes, by --output FOLDER"
        )
    if part:
        raise ConfigurationError(
            f"{about}, and their server takes no part of a split: leave --sample out to predict all"
        )
    return "answers are not public: predictions alone"


def write_items(folder: Path, asked: Questions, found: Classified, heading: tuple[str, str], seed: int) -> None:
    """Write the predictions in the format of their benchmark; if answers are public, also ``items.csv``,
    ``confusion.csv`` and ``examples.html``.

    Args:
        heading: title and subject of the page.
    """
    task, records, labels = asked.task, asked.records, found.predicted["reset"]
    folder.mkdir(parents=True, exist_ok=True)
    task.write(folder, records, labels)
    if found.secret:
        return
    truths, scores = [task.truth(record) for record in records], task.scores(records, labels)
    rows = [
        {
            "id": record.id,
            "images": " ".join(record.images),
            "text": task.text(record),
            "kind": task.kind_of(record),
            "truth": truths[number],
            **{name: one[number] for name, one in found.predicted.items()},
            "score": round(scores[number], 4),
        }
        for number, record in enumerate(records)
    ]
    write_csv(folder / "items.csv", rows)
    write_csv(folder / "confusion.csv", confusion(truths, labels))
    examples = [
        Example(
            [asked.data.open_image(name) for name in records[i].images],
            task.text(records[i]),
            truths[i],
            labels[i],
            scores[i],
        )
        for i in chosen_examples(scores, seed)
    ]
    table = [
        {"": name, "accuracy": float(metrics["accuracy"]), "n": metrics["n"], "changed": metrics.get("changed", "")}
        for name, metrics in [*found.variants.items(), *found.baselines.items()]
    ]
    write_atomically(folder / "examples.html", examples_page(*heading, table, examples).encode())


def confusion(truths: Sequence[str], predicted: Sequence[str]) -> list[Row]:
    """Rows ``{"truth", "said", "count"}`` of all pairs that occur, the most frequent first.

    Raises:
        InputError: there is nothing to count.
    """
    if not truths:
        raise InputError("there is nothing to count: give at least one item")
    counts = Counter(zip(truths, predicted, strict=True))
    order = sorted(counts, key=lambda pair: (-counts[pair], pair))
    return [{"truth": truth, "said": label, "count": counts[truth, label]} for truth, label in order]


def flat_metrics(metrics: JsonObject, before: str = "") -> Iterator[tuple[str, float]]:
    """Numbers with their keys; the key of an inner mapping is put before its keys."""
    for key, value in metrics.items():
        if isinstance(value, dict):
            yield from flat_metrics(value, f"{before}{key} ")
        elif isinstance(value, int | float):
            yield f"{before}{key}", value
