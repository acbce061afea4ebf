"""The kernels for each device, and their compilation before use."""

from __future__ import annotations

import logging
import os
import threading
import time
from functools import cache
from importlib.util import find_spec
from types import ModuleType

import torch

from ashnets.kernels import integer_reference, reference

log = logging.getLogger("ashnets.kernels")
_one_at_a_time = threading.Lock()  # threads that ask first at the same time compile only once


@cache
def kernels_for(device: str) -> ModuleType:
    """The module of kernels for a device type: numba's, Triton's if it works here, or the definitions in torch.

    ``ASHNETS_KERNELS=reference`` in the environment selects the last.
    """
    if os.environ.get("ASHNETS_KERNELS") == "reference":
        return reference
    if device == "cpu" and find_spec("numba") is not None:
        with _one_at_a_time:
            return _compiled()
    if device == "cuda" and find_spec("triton") is not None:
        with _one_at_a_time:
            return _compiled_by_triton()
    return reference


@cache
def integer_kernels_for(device: str) -> ModuleType:
    """The same for integer neurons; they have no GPU kernel, so a GPU uses the definition in torch."""
    if device != "cpu" or kernels_for("cpu") is reference:
        return integer_reference
    from ashnets.kernels import integer_cpu

    return integer_cpu


@cache
def _compiled() -> ModuleType:
    from numba.core import event

    from ashnets.kernels import cpu, integer_cpu

    class Announcement(event.Listener):
        """Logs one line when the first function is compiled; functions that are read from disk are not compiled."""

        start: float | None = None

        def on_start(self, event: event.Event) -> None:
            if self.start is None:
                self.start = time.perf_counter()
                log.warning("compiling the spiking kernels for this processor, once per installation: up to a minute")

        def on_end(self, event: event.Event) -> None:
            pass

    announcement = Announcement()
    with event.install_listener("numba:compile", announcement):
        cpu.compile_all()
        integer_cpu.compile_all()
    if announcement.start is not None:
        log.warning("compiled in %.0f s", time.perf_counter() - announcement.start)
    return cpu


def _compiled_by_triton() -> ModuleType:
    from ashnets.kernels import gpu

    if not _works(gpu):
        return reference
    if not gpu.is_compiled():
        log.warning(
            "Triton compiles the spiking kernels for this GPU at their first calls: a few seconds for each variant, "
            "once, since they are kept in its cache"
        )
    return gpu


@cache
def _works(gpu: ModuleType) -> bool:
    """Whether Triton's smallest kernel runs; without a GPU, where kernels are only compiled, it is not tried."""
    try:
        if torch.cuda.is_available():
            gpu.try_out("cuda")
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # of Triton, its compilers or the driver; there is no common class
        log.warning(
            "Triton cannot run kernels here (%s: %s), so the spiking branch runs in plain torch, with equal spikes but "
            "many times slower. Triton needs a C compiler and the headers of Python: install them (apt-get install gcc "
            "python3-dev), or set CC to a compiler",
            type(error).__name__,
            " ".join(str(error).split())[:300],
        )
        return False
    return True
