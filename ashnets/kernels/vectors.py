"""The full width of a processor's vectors, for a compiled function that asks for it.

On processors with 512-bit vectors LLVM works with halves of them unless a function says otherwise, since early ones ran
slower with whole ones. The kernels' backward pass takes a quarter less time with whole ones.
"""

from __future__ import annotations

from typing import Any

from numba import types
from numba.extending import intrinsic

_WIDE = '"prefer-vector-width"="512"'


def _full_vectors(typing_context: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        set.add(builder.function.attributes, _WIDE)  # llvmlite's own ``add`` knows LLVM's keywords only
        return context.get_dummy_value()

    return types.void(), code


full_vectors: Any = intrinsic(_full_vectors)  # to be called in the function; on other processors it has no effect
