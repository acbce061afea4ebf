"""The log of a run: records of steps and epochs, TensorBoard events, a progress bar, warnings."""

from __future__ import annotations

import json
import math
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

import psutil
import torch
from tqdm import tqdm

from ashnets.errors import TrainingError
from ashnets.files import JsonObject, write_atomically
from ashnets.words import install

EPOCHS, STEPS, EVENTS = "log.jsonl", "steps.jsonl", "events"


def read_records(path: Path) -> list[JsonObject]:
    """The records of a log, one per line; a missing log is empty, an unreadable line is skipped.

    A line is unreadable if its writer was killed while writing it.
    """
    records = []
    for line in path.read_bytes().splitlines() if path.exists() else []:
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict):
            records.append(record)
    return records


class Journal:
    """The log of a run, written only by its main process.

    ``log.jsonl`` has a line for each finished epoch, ``steps.jsonl`` one for each logged step, warning and note
    (``"kind": "warning"`` or ``"note"``), ``events/`` the same for TensorBoard. A line is flushed when the call
    returns. A number that is not finite is written as ``null``, which every JSON reader accepts. Without TensorBoard
    a run continues with a warning: nothing is lost, since the events repeat the two logs.

    Args:
        folder: of the run; made if it is missing.
        after: (epoch, step) of the checkpoint that the run continues from; records after it are removed. None for a
            new run.

    Attributes:
        seconds_before: time spent by earlier parts of the run, from the field ``seconds`` of their records.

    Raises:
        TrainingError: the run is new, but the folder contains a log.
        OSError: here and in every later call, if the disk is full or the folder is gone.
    """

    def __init__(self, folder: Path, after: tuple[int, int] | None = None) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        paths = {name: self.folder / name for name in (EPOCHS, STEPS)}
        kept: dict[str, list[JsonObject]] = {EPOCHS: [], STEPS: []}
        for name, path in paths.items():
            if after is not None:
                key, last = ("epoch", after[0]) if name == EPOCHS else ("step", after[1])
                kept[name] = [record for record in read_records(path) if record.get(key, 0) <= last]
                write_atomically(path, "".join(_line(record) for record in kept[name]).encode())
            elif path.exists() and path.stat().st_size:
                raise TrainingError(f"{path} already contains a log: resume that run, or choose another folder")
        self.seconds_before = max((r.get("seconds") or 0.0 for records in kept.values() for r in records), default=0.0)
        self._step, self._epoch = (after[1], after[0]) if after else (0, 0)
        self._files = {name: open(path, "a", encoding="utf-8") for name, path in paths.items()}  # noqa: SIM115
        self._events = self._open_events(None if after is None else after[1])
        if self._events is None:
            self.warn(f"TensorBoard is not installed, so events/ is not written; {install('train')}")
        elif after is not None:
            # Events can be purged by step only, and a removed epoch may have ended at this same step: all events of
            # the step are purged, and those of the records that were kept are written again.
            for name in (STEPS, EPOCHS):
                for record in kept[name]:
                    if record.get("step") == after[1]:
                        self._add_events(name, record)

    def _open_events(self, purge_step: int | None) -> Any:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            return None
        return SummaryWriter(str(self.folder / EVENTS), purge_step=purge_step)

    def step(self, record: JsonObject) -> None:
        """Log a step: ``step`` (optimizer steps done so far), ``epoch``, and numbers or strings."""
        self._write(STEPS, record)

    def epoch(self, record: JsonObject) -> None:
        """Log a finished epoch: ``epoch`` (from 1), ``step``, ``phase``, and numbers or strings."""
        self._write(EPOCHS, record)

    def warn(self, text: str, **where: object) -> None:
        """Log a warning and print it; ``where`` adds fields; ``step`` and ``epoch`` default to the last ones logged."""
        record = {"kind": "warning", "step": self._step, "epoch": self._epoch, **where, "text": text}
        self._write(STEPS, record)
        tqdm.write(f"warning: {text}", file=sys.stderr)

    def note(self, text: str) -> None:
        """Log a remark for the reader of the log (``"kind": "note"``) and print it."""
        self._write(STEPS, {"kind": "note", "step": self._step, "epoch": self._epoch, "text": text})
        tqdm.write(f"note: {text}", file=sys.stderr)

    def _write(self, name: str, record: JsonObject) -> None:
        self._step, self._epoch = record["step"], record["epoch"]
        self._files[name].write(_line(record))
        self._files[name].flush()
        if self._events is not None:
            self._add_events(name, record)

    def _add_events(self, name: str, record: JsonObject) -> None:
        if "kind" in record:
            self._events.add_text(record["kind"], record["text"], record["step"])
        else:
            for key, value in record.items():
                if key != "step" and value is not None and not isinstance(value, str):
                    self._events.add_scalar(_tag(name, key), float(value), record["step"])
        # A killed run must not lose events from before its last checkpoint.
        self._events.flush()

    def close(self) -> None:
        """Close all files; nothing can be logged afterwards."""
        for stream in (*self._files.values(), self._events):
            if stream is not None:
                with suppress(OSError):  # a full disk was reported at the write that failed
                    stream.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _line(record: JsonObject) -> str:
    return json.dumps({key: _plain(value) for key, value in record.items()}, ensure_ascii=False) + "\n"


def _plain(value: Any) -> str | int | float | None:
    if value is None or isinstance(value, str | int):
        return value
    number = float(value)
    return number if math.isfinite(number) else None


def _tag(name: str, key: str) -> str:
    """TensorBoard groups tags by the part before the slash."""
    for group in ("valid", "rate", "branch") if name == EPOCHS else ("lr", "training_rate", "grad"):
        if key.startswith(f"{group}_"):
            return f"{group}/{key.removeprefix(f'{group}_')}"
    return f"{'train' if name == STEPS else 'epoch'}/{key}"


class Progress:
    """A progress bar for one epoch: throughput, time left in the epoch and in the run, loss, memory.

    On a terminal it is drawn in place. Elsewhere, such as in a file, a line is printed each minute and at the end.

    Args:
        total, done: steps of the epoch, and steps already done.
        description: text in front of the bar.
        run_left: steps left in the run, including this epoch's; None omits the run's time.
        device: for a CUDA device its peak allocation is shown, else the resident memory of this process.
        enabled: False shows nothing.
        stream: where it is drawn; standard error by default.
        seconds_a_line: minimum time between two lines, where the stream is not a terminal.
    """

    def __init__(
        self,
        total: int,
        done: int = 0,
        description: str = "",
        *,
        run_left: int | None = None,
        device: torch.device | str = "cpu",
        enabled: bool = True,
        stream: TextIO | None = None,
        seconds_a_line: float = 60.0,
    ) -> None:
        self.total, self.done, self.description, self.run_left = total, done, description, run_left
        self.device, self.enabled, self.seconds_a_line = torch.device(device), enabled, seconds_a_line
        self.stream = stream if stream is not None else sys.stderr
        self.pairs, self.steps, self.loss = 0, 0, math.nan
        self.began = self.last_line = time.monotonic()
        self.bar = None
        if enabled and self.stream.isatty():
            self.bar = tqdm(
                total=total,
                initial=done,
                desc=description,
                file=self.stream,
                dynamic_ncols=True,
                bar_format="{desc}: {n_fmt}/{total_fmt} |{bar}| {elapsed}<{remaining}{postfix}",
            )

    def advance(self, pairs: int, loss: float | None = None) -> None:
        """Count one finished step of ``pairs`` pairs; without ``loss`` the last loss stays."""
        self.pairs, self.steps = self.pairs + pairs, self.steps + 1
        self.loss = self.loss if loss is None else loss
        if self.bar is not None:
            self.bar.set_postfix_str(self._figures(), refresh=False)
            self.bar.update()
        elif self.enabled and time.monotonic() - self.last_line >= self.seconds_a_line:
            self._print_line()

    def close(self) -> None:
        """Finish the bar of this epoch."""
        if self.bar is not None:
            self.bar.close()
        elif self.enabled and self.steps:
            self._print_line()
        self.enabled = False

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _figures(self) -> str:
        spent = max(time.monotonic() - self.began, 1e-9)
        figures = [f"{self.pairs / spent:.0f} pairs/s", f"loss {self.loss:.3f}", f"{_memory(self.device) / 1e9:.1f} GB"]
        if self.run_left is not None:
            left = max(self.run_left - self.steps, 0) * spent / self.steps
            figures.append(f"run {tqdm.format_interval(left)} left")
        return ", ".join(figures)

    def _print_line(self) -> None:
        self.last_line = time.monotonic()
        done = self.done + self.steps
        left = max(self.total - done, 0) * (self.last_line - self.began) / self.steps
        print(
            f"{self.description}: step {done}/{self.total}, {tqdm.format_interval(left)} left, {self._figures()}",
            file=self.stream,
            flush=True,
        )


def _memory(device: torch.device) -> int:
    """Bytes: the peak allocation on a CUDA device, else the resident memory of this process."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else psutil.Process().memory_info().rss
