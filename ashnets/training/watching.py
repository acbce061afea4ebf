"""No rank waits alone: when one fails, is killed or stands still, all end with a message that says why.

A rank that waits in a collective cannot look around. On each rank a thread therefore reads and writes the store of
torch's rendezvous once a second: it announces the rank's own failure, and ends the process after that of another one.

    what happens to a rank              how the others learn of it
    it raises an error                  the announcement in the store
    it is killed                        torchrun's SIGTERM, a broken connection, or no sign of life for `SILENT_S`
    it stands still                     collectives time out after ``rank_timeout`` seconds

NCCL, other than gloo, ends the process of a collective that timed out, with a C++ trace. A note before it says what it
means.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch.distributed as dist

from ashnets.errors import AshNetsError, TrainingError

SILENT_S = 40  # without a sign of life; a busy machine may delay a thread by seconds
_BEAT_S = 1.0
_FAILED, _DONE = "failed", "done"
_REMEDY = "the last checkpoint is complete: start all processes again with --resume"
_current: _Watch | None = None


def step_ended() -> None:
    """What the main thread calls after each optimizer step."""
    if _current is not None:
        _current.step_ended = time.monotonic()


@contextmanager
def watched(rank_timeout: int) -> Iterator[None]:
    """While the block runs, watch the other ranks; without torchrun there are none.

    Raises:
        TrainingError: another rank failed, was lost or stood still.
    """
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    if ranks < 2 or "MASTER_ADDR" not in os.environ or not dist.is_available():
        yield
        return
    global _current
    watch = _current = _Watch(int(os.environ["RANK"]), ranks, rank_timeout)
    try:
        yield
    except Exception as error:
        raise watch.explained(error) from error
    finally:
        watch.close()
        _current = None


class _Watch:
    def __init__(self, rank: int, ranks: int, rank_timeout: int) -> None:
        self.rank, self.ranks, self.rank_timeout = rank, ranks, rank_timeout
        host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        master = rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
        # of its own: a store's client serves one thread at a time; the master's process opens the store when it joins
        wait = timedelta(seconds=rank_timeout)
        self.store: Any = None if master else dist.TCPStore(host, port, is_master=False, timeout=wait)
        self.place = (host, port)
        self.step_ended = time.monotonic()
        self.noted = False
        self.stopping = threading.Event()
        self.ear, self.mouth = socket.socketpair()
        for end in (self.ear, self.mouth):
            end.setblocking(False)
        self.before: Any = None
        if threading.current_thread() is threading.main_thread():
            # written to by the handler in C: Python's own handlers do not run while a collective waits
            self.before = signal.signal(signal.SIGTERM, lambda *_: None), signal.set_wakeup_fd(self.mouth.fileno())
        self.thread = threading.Thread(target=self._look, name="watching ranks", daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.stopping.set()
        self.thread.join(2 * _BEAT_S)
        self._set(f"alive/{self.rank}", _DONE)
        if self.before is not None:
            signal.signal(signal.SIGTERM, self.before[0])
            signal.set_wakeup_fd(self.before[1])

    def explained(self, error: Exception) -> Exception:
        """The error to raise on this rank; the others are told, if they do not know yet."""
        lost = isinstance(error, dist.DistError) or (
            isinstance(error, RuntimeError) and not isinstance(error, AshNetsError) and _of_a_connection(error)
        )
        if lost:
            if told := self._told(wait_s=4 * _BEAT_S):
                return TrainingError(told)
            what = f"lost the connection to another one, which was killed or whose machine stopped ({_line(error)})"
            if "timed out" in str(error).lower():
                what = f"waited {self.rank_timeout} s (rank_timeout) for another one, which stands still"
            error = TrainingError(f"process {self.rank} of {self.ranks} {what}; {_REMEDY}")
        self._set(_FAILED, f"{self.rank}:{type(error).__name__}: {_line(error)}")
        time.sleep(3 * _BEAT_S)  # torchrun ends the others as soon as this one has ended: let them read the reason
        return error

    def _look(self) -> None:
        """The thread: signs of life, and the end of this process once another one has failed."""
        seen: dict[int, tuple[str, float]] = {}
        count = 0
        while not self.stopping.is_set():
            if select.select([self.ear], [], [], _BEAT_S)[0]:
                if signal.SIGTERM in self.ear.recv(64):
                    told = self._told(wait_s=3 * _BEAT_S)
                    self._end(told or f"another process has ended, or the run was stopped (SIGTERM); {_REMEDY}")
                continue
            if self.store is None:
                self.store = self._joined()
                continue
            count += 1
            self._set(f"alive/{self.rank}", str(count))
            self._note()
            if told := self._told():
                if not self.stopping.wait(2 * _BEAT_S):  # the main thread may be about to raise by itself
                    self._end(told)
                return
            for other in range(self.ranks):
                beat = self._get(f"alive/{other}")
                if other == self.rank or beat is None or beat == _DONE:
                    seen.pop(other, None)
                elif other not in seen or seen[other][0] != beat:
                    seen[other] = (beat, time.monotonic())
                elif time.monotonic() - seen[other][1] > SILENT_S:
                    text = f"process {other} of {self.ranks} gives no sign of life since {SILENT_S} s"
                    self._set(_FAILED, f"{self.rank}:TrainingError: {text}")
                    self._end(f"{text}; {_REMEDY}")

    def _note(self) -> None:
        """Shortly before NCCL can end a process that waits, say why it will; a long validation is no fault."""
        idle = time.monotonic() - self.step_ended
        if self.noted or idle < self.rank_timeout - 2 * _BEAT_S or not dist.is_initialized():
            return
        if "nccl" in dist.get_backend():
            self.noted = True
            print(
                f"note: process {self.rank} of {self.ranks} has ended no step for {idle:.0f} s; if NCCL now ends it, "
                f"it waited {self.rank_timeout} s (rank_timeout) for another one, which stands still; {_REMEDY}",
                file=sys.stderr,
                flush=True,
            )

    def _joined(self) -> Any:
        """A client of the store that this process has opened; None before it has."""
        if not dist.is_initialized():
            return None
        return dist.TCPStore(*self.place, is_master=False, timeout=timedelta(seconds=self.rank_timeout))

    def _told(self, wait_s: float = 0.0) -> str | None:
        """What another rank has announced."""
        until = time.monotonic() + wait_s
        while True:
            found = self._get(_FAILED)
            if found is not None and not found.startswith(f"{self.rank}:"):
                number, _, text = found.partition(":")
                return f"process {number} of {self.ranks} has failed: {text}; {_REMEDY}"
            if time.monotonic() >= until:
                return None
            time.sleep(_BEAT_S / 4)

    def _get(self, key: str) -> str | None:
        try:
            name = _name(key)
            return self.store.get(name).decode() if self.store is not None and self.store.check([name]) else None
        except RuntimeError:  # the store has ended with its process: the collectives fail too
            return None

    def _set(self, key: str, value: str) -> None:
        try:
            if self.store is not None:
                self.store.set(_name(key), value)
        except RuntimeError:
            pass

    def _end(self, message: str) -> None:
        print(f"error: {message}", file=sys.stderr, flush=True)
        os._exit(TrainingError.exit_code)


def _name(key: str) -> str:
    """In the store, which outlives a failed attempt where torchrun starts all processes again."""
    return f"ashnets/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}/{key}"


def _of_a_connection(error: RuntimeError) -> bool:
    text = str(error).lower()
    return any(part in text for part in ("gloo", "nccl", "connection", "timed out", "broken pipe", "socket"))


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:400]
