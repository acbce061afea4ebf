"""Which kernels a device gets, and their compilation ahead of use."""

from __future__ import annotations

import logging
import os
import time
from functools import cache
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from ashnets.kernels import reference

log = logging.getLogger("ashnets.kernels")


@cache
def kernels_for(device: str) -> Any:
    """The module of kernels for a type of device: numba's, Triton's, or the definitions in torch.

    ``ASHNETS_KERNELS=reference`` in the environment asks for the last.
    """
    if os.environ.get("ASHNETS_KERNELS") == "reference":
        return reference
    if device == "cpu" and find_spec("numba") is not None:
        return _compiled()
    if device == "cuda" and find_spec("triton") is not None:
        return _compiled_by_triton()
    return reference


def _compiled() -> ModuleType:
    from ashnets.kernels import cpu

    if not cpu.is_compiled():
        log.warning("compiling the spiking kernels for this processor: some seconds, once for each installation")
        start = time.perf_counter()
        cpu.compile_all()
        log.warning("compiled in %.0f s", time.perf_counter() - start)
    return cpu


def _compiled_by_triton() -> ModuleType:
    from ashnets.kernels import gpu

    if not gpu.is_compiled():
        log.warning(
            "Triton compiles the spiking kernels for this GPU at their first calls: some seconds for each form, "
            "once, since its cache keeps them"
        )
    return gpu
