"""Access to weights that accelerate keeps on disk or on another device (``device_map``).

accelerate loads a module's tensors before its ``forward`` and unloads them after it. Code that reads a tensor of a
module without calling the module finds a meta tensor, which has no values.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from torch import nn


def at_hand(*modules: nn.Module) -> AbstractContextManager[None]:
    """Inside, the tensors of ``modules``, but not of their children, have values on their execution device."""
    hooked = [module for module in modules if hasattr(module, "_hf_hook")]
    return _brought(hooked) if hooked else nullcontext()


@contextmanager
def _brought(modules: list[nn.Module]) -> Iterator[None]:
    hooks = [getattr(module, "_hf_hook") for module in modules]  # noqa: B009 - nn.Module types attributes as tensors
    for module, hook in zip(modules, hooks, strict=True):
        hook.pre_forward(module)
    try:
        yield
    finally:
        for module, hook in zip(modules, hooks, strict=True):
            hook.post_forward(module, None)
