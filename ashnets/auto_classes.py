"""Registration of our classes with transformers' Auto classes, without loading torch or transformers.

Registration needs our classes, and these need torch. So it waits until an Auto class or a pipeline is first used:
``transformers`` is a module that imports its names on first use, and :func:`offer` adds one step before that.
"""

from __future__ import annotations

import importlib.util
import sys
import threading
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

NAMES = (
    "AutoConfig",
    "AutoModel",
    "AutoModelForZeroShotImageClassification",
    "AutoProcessor",
    "AutoImageProcessor",
    "AutoTokenizer",
    "pipeline",
)


def offer(register: Callable[[], object]) -> None:
    """Call ``register`` when one of ``NAMES`` of transformers is first used; at once if they are already loaded."""
    module = sys.modules.get("transformers")
    if module is not None:
        _watch(module, register)
    elif not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder(register))


def _watch(module: ModuleType, register: Callable[[], object]) -> None:
    if any(f"transformers.models.auto.{part}_auto" in sys.modules for part in ("configuration", "processing")):
        register()
        return
    kind: Any = type(module)
    registering = threading.local()

    class Watched(kind):
        def __getattr__(self, name: str) -> Any:
            # Registration uses these names itself; other threads that use them meanwhile wait at the same imports.
            if name in NAMES and type(self) is Watched and not hasattr(registering, "here"):
                registering.here = True
                try:
                    register()
                finally:
                    del registering.here
                self.__class__ = kind
                return getattr(self, name)
            return kind.__getattr__(self, name)

    module.__class__ = Watched


class _Finder(MetaPathFinder):
    """Acts on the first ``import transformers``, once."""

    def __init__(self, register: Callable[[], object]) -> None:
        self._register = register

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != "transformers":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, self._register)
        return spec


class _Loader(Loader):
    def __init__(self, loader: Loader, register: Callable[[], object]) -> None:
        self._loader, self._register = loader, register

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        _watch(sys.modules["transformers"], self._register)  # not `module`: transformers replaces itself there
