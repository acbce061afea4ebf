"""Results of an evaluation, for a split, a model and all models: as JSON, as rows of a table, as remarks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ashnets.digests import WEIGHTS_SHA256
from ashnets.evaluation.classification import LEFT_OUT, Classified
from ashnets.evaluation.own_images import IMAGES
from ashnets.evaluation.record import TRAINED_ON
from ashnets.evaluation.retrieval import Retrieved
from ashnets.files import JsonObject, Row

END = ("pairs_seen", "training_seconds", WEIGHTS_SHA256, "device", "torch")  # the last columns of a table


@dataclass
class SplitResult:
    """The result of a model on a split.

    Attributes:
        n: number of items, or of images for retrieval.
        branch: ``both``, or ``concrete`` for a model without a spiking branch.
        found: the metrics.
        trained_on: the training splits, if they include this split.
        warnings: about silent and saturated spiking layers.
    """

    task: str
    data: str
    split: str
    n: int
    branch: str
    found: Retrieved | Classified
    trained_on: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def to_dict(self) -> Any:
        """The result in JSON's types; for captioned images, the list of `Retrieved.to_dict`."""
        found = self.found.to_dict()
        if isinstance(found, list):
            return found
        about = {"task": self.task, "data": self.data, "split": self.split, "n": self.n, "branch": self.branch}
        trained = {TRAINED_ON: self.trained_on} if self.trained_on else {}
        return {**about, **trained, **found, **({"warnings": self.warnings} if self.warnings else {})}

    def learned(self) -> str:
        """The part of this split that the model was trained on, for a table; empty if there is none."""
        if isinstance(self.found, Retrieved) and self.found.own:
            found = self.found.learned or {"images": 0, "of": self.n}
            return f"{found['images']} of {found['of']} images"
        return " ".join(self.trained_on)

    @property
    def was_learned(self) -> bool:
        """Whether the model was trained on a part of this split."""
        return bool(self.trained_on or (isinstance(self.found, Retrieved) and self.found.learned))

    def remarks(self, name: str) -> list[str]:
        """Remarks on the rows of the model ``name``, one sentence each."""
        said = []
        if self.trained_on:
            said.append(f"{TRAINED_ON}: {name} learned from {self.split} itself ({', '.join(self.trained_on)})")
        if isinstance(self.found, Classified):
            said += [f"{self.split}: {self.found.secret}"] if self.found.secret else []
            said += [f"{LEFT_OUT}: {self.found.left_out}"] if self.found.left_out else []
        elif found := self.found.learned:
            these = f"{found['images']} of these {found['of']} images of {self.split}"
            said.append(f"{TRAINED_ON}: {name} learned from {these}")
        return said


@dataclass
class ModelResult:
    """The results of a model on its splits.

    Attributes:
        training: the training record; None if there is none.
        on_record: for captioned images, whether the model records its training images.
    """

    name: str
    training: JsonObject | None
    weights_sha256: str | None
    splits: list[SplitResult]
    on_record: bool | None = None

    def to_dict(self) -> JsonObject:
        """The result in JSON's types; for captioned images, the warnings occur once for the model."""
        own = self.on_record is not None
        warnings = self.warnings() if own else []
        return {
            "training": self.training,
            **({"images_on_record": self.on_record} if own else {}),
            WEIGHTS_SHA256: self.weights_sha256,
            "splits": {one.split: one.to_dict() for one in self.splits},
            **({"warnings": warnings} if warnings else {}),
        }

    def warnings(self) -> list[str]:
        """The warnings of all splits; for captioned images, only those of the first split."""
        splits = self.splits if self.on_record is None else self.splits[:1]
        return [text for one in splits for text in one.warnings]

    def remarks(self) -> list[str]:
        """Remarks on the rows, one sentence each."""
        unknown = f"{self.name} does not say which images it learned from: these may be among them"
        said = [] if self.on_record in (None, True) else [unknown]
        return said + [text for one in self.splits for text in one.remarks(self.name)]


@dataclass
class Evaluation:
    """The results of models on splits of a data set."""

    task: str
    data: str
    models: list[ModelResult]
    environment: dict[str, str | int]

    def to_dict(self) -> JsonObject:
        """The result in JSON's types; ``warnings`` has those of all models, with their names."""
        found = [f"{model.name}: {text}" for model in self.models for text in model.warnings()]
        return {
            "task": self.task,
            "data": self.data,
            "models": {model.name: model.to_dict() for model in self.models},
            "environment": self.environment,
            **({"warnings": list(dict.fromkeys(found))} if found else {}),
        }

    def remarks(self) -> list[str]:
        """Remarks on the rows, one sentence each."""
        return list(dict.fromkeys(text for model in self.models for text in model.remarks()))

    def as_rows(self) -> list[Row]:
        """Flat rows with the same keys, for a table or a CSV file.

        A row is a variant, a ranking or a baseline, for retrieval in one direction. ``model`` is the initial model of
        the training, if it is known; ``measured`` is the given name, if it tells more. ``trained on`` exists if a
        model was trained on evaluated data. With ITM, columns for its cost follow the recalls: scored pairs, seconds
        for both directions, and the R@1 lost against the exhaustive ranking, empty without one.
        """
        own, rows = self.data == IMAGES, []
        told = len(self.models) > 1 or any(
            (one.training or {}).get("model", one.name) != one.name for one in self.models
        )
        seen = any(one.was_learned for model in self.models for one in model.splits)
        end = [key for key in END if own or key != "training_seconds"]
        for model in self.models:
            training = model.training or {}
            changes = " ".join(f"{key}={value}" for key, value in training.get("changes", {}).items())
            last = {
                "pairs_seen": training.get("pairs_seen", ""),
                "training_seconds": training.get("seconds", ""),
                WEIGHTS_SHA256: model.weights_sha256,
                **self.environment,
            }
            for one in model.splits:
                about = {
                    "model": training.get("model", model.name),
                    **({"measured": model.name} if told else {}),
                    **({} if own else {"changes": changes}),
                    "recipe": training.get("recipe", ""),
                    "seed": training.get("seed", ""),
                    **({} if own else {"data": one.data}),
                    "split": one.split,
                    **({TRAINED_ON: one.learned()} if seen else {}),
                }
                rows += [{**about, **row, **{key: last[key] for key in end}} for row in one.found.rows()]
        keys = dict.fromkeys(key for row in rows for key in row if key not in end)
        return [{key: row.get(key, "") for key in [*keys, *end]} for row in rows]
