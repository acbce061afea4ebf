"""The full vector width of a processor for compiled functions.

On processors with 512-bit vectors, LLVM uses 256-bit vectors unless a function requests more, since early processors
ran slower with full vectors. The backward pass of the kernels takes a quarter less time with full vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite.ir import IRBuilder, Value
from numba import types
from numba.core.base import BaseContext
from numba.core.typing.context import Context
from numba.core.typing.templates import Signature
from numba.extending import intrinsic

from ashnets.kernels.halves import Intrinsic

_WIDE = '"prefer-vector-width"="512"'


def _full_vectors(typing_context: Context) -> Intrinsic:
    def code(context: BaseContext, builder: IRBuilder, signature: Signature, arguments: Sequence[Value]) -> Value:
        set.add(builder.function.attributes, _WIDE)  # llvmlite's own ``add`` knows LLVM's keywords only
        return context.get_dummy_value()

    return types.void(), code


full_vectors: Any = intrinsic(_full_vectors)  # call it in the function; it has no effect on other processors
