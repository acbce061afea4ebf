"""The folder of a run: its contents, which rank writes, and where a resumed run continues."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import torch
import yaml
from torch import nn

from ashnets.errors import TrainingError
from ashnets.files import JsonObject, write_atomically, write_json
from ashnets.result_folder import MODEL_MARK, check_place
from ashnets.training.checkpoint import checkpoint_name, checkpoints, discard_old, read_state, save_checkpoint
from ashnets.training.journal import Journal
from ashnets.training.plots import plot_run
from ashnets.training.recipe import Recipe, differences

ENVIRONMENT = "environment.json"
MODEL = "model"  # the published form of a finished run, in its folder


class RunFolder:
    """``recipe.yaml``, ``environment.json``, logs, ``checkpoints/``, ``phase-NAME/`` and, at the end, ``model/``.

    Every rank has one and may read; only the first rank (``main``) writes.
    """

    def __init__(self, path: Path, recipe: Recipe, ranks: int, main: bool) -> None:
        self.path, self.recipe, self.ranks, self.main = path, recipe, ranks, main
        self.journal: Journal | None = None

    def check(self, resume: bool) -> Path | None:
        """The checkpoint to continue from; None for a run from the start. Nothing is written.

        ``recipe.precision: auto`` becomes what the first start chose.

        Raises:
            TrainingError: there is a run but ``resume`` is False, ``checkpoints`` has files of another program, there
                is none to resume, or it has another recipe or another number of processes.
            OutputError: there is a folder ``model`` that no run wrote.
        """
        saved_recipe = self.path / "recipe.yaml"
        found = checkpoints(self.path / "checkpoints")
        if not resume:
            if found or saved_recipe.exists():
                raise TrainingError(
                    f"{self.path} already contains a run: resume it with --resume, or choose another folder"
                )
            strange = next((self.path / "checkpoints").glob("*"), None)
            if strange is not None:
                raise TrainingError(f"{strange} was not written by a run: move it away, or choose another folder")
            check_place(self.path / MODEL, MODEL_MARK, "refuse")
            return None
        if not saved_recipe.is_file():
            raise TrainingError(f"{self.path} contains no run to resume; omit --resume")
        saved = yaml.safe_load(saved_recipe.read_text(encoding="utf-8"))
        self.recipe = self.recipe.settled(saved)
        lines = differences(saved, self.recipe.to_dict())
        if lines:
            raise TrainingError(
                f"{self.path} was made with another recipe; resume it with the same one, or choose another folder:\n  "
                + "\n  ".join(lines)
            )
        check_place(self.path / MODEL, MODEL_MARK)
        if not found:
            return None
        ranks = read_state(found[-1])["ranks"]
        if ranks != self.ranks:
            raise TrainingError(
                f"{found[-1]} was written by {ranks} processes, this run has {self.ranks}: start {ranks} "
                "processes, so that the same steps follow"
            )
        return found[-1]

    def open(self, resume: bool, after: tuple[int, int], environment: JsonObject) -> None:
        """Start writing; ``after`` is (finished epochs, steps) before a resumed run continues."""
        if not self.main:
            return
        changed = differences(self.environment(), environment) if resume else []
        if not resume:
            write_json(self.path / ENVIRONMENT, environment)
            text = yaml.safe_dump(self.recipe.to_dict(), sort_keys=False, allow_unicode=True)
            write_atomically(self.path / "recipe.yaml", text.encode())
        discard_old(self.path / "checkpoints")
        self.journal = Journal(self.path, after if resume else None)
        if changed:
            self.journal.warn(
                f"resumed in another environment, results may differ in the last bits: {'; '.join(changed)}",
                step=after[1] + 1,
            )

    def environment(self) -> JsonObject:
        """The environment of the run's first start."""
        return json.loads((self.path / ENVIRONMENT).read_text(encoding="utf-8"))

    @property
    def seconds_before(self) -> float:
        """Time that earlier parts of a resumed run took."""
        return 0.0 if self.journal is None else self.journal.seconds_before

    def save(
        self,
        step: int,
        modules: Mapping[str, nn.Module],
        state: Mapping[str, object],
        optimizers: Mapping[str, torch.optim.Optimizer],
        order: dict[str, torch.Tensor] | None = None,
    ) -> None:
        """The state after a step, from which a run can be resumed; see `save_checkpoint`."""
        if self.main:
            save_checkpoint(self.path / "checkpoints" / checkpoint_name(step), modules, state, optimizers, order)
            discard_old(self.path / "checkpoints")

    def save_phase(self, name: str, model: nn.Module, state: Mapping[str, object]) -> None:
        """The model at the end of a phase, from which other runs can start."""
        if self.main:
            save_checkpoint(self.path / f"phase-{name}", {"model": model}, state)

    def write(self, name: str, data: Mapping[str, object]) -> Path:
        """Write a JSON file next to the logs; returns its path on every rank."""
        if self.main:
            write_json(self.path / name, data)
        return self.path / name

    def close(self) -> None:
        """Close the logs and plot them, whether or not the run succeeded."""
        if self.journal is None:
            return
        self.journal.close()
        with suppress(OSError):  # a full disk has already been reported
            plot_run(self.path)
