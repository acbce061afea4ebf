"""Prefetching of memory into the cache before a compiled function writes to it.

The steps of a block of neurons are far apart in memory, so the processor's own prefetching starts again at each row,
and a store waits for memory unless the row is requested while the previous one is computed. For rows that are read it
made no difference, nor for the backward pass, which is limited by its arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.base import BaseContext
from numba.core.typing.context import Context
from numba.core.typing.templates import Signature
from numba.extending import intrinsic

from ashnets.kernels.compiling import kernel
from ashnets.kernels.halves import Intrinsic

_LINE = 64  # bytes of a cache line
_BYTE, _INT = ir.IntType(8), ir.IntType(32)
_TO_WRITE, _KEEP, _DATA = _INT(1), _INT(3), _INT(1)  # llvm.prefetch: rw, locality, cache type


def _line(typing_context: Context, row: types.Array, index: types.Integer) -> Intrinsic:
    def code(
        context: BaseContext, builder: ir.IRBuilder, signature: Signature, arguments: Sequence[ir.Value]
    ) -> ir.Value:
        start = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        address = builder.bitcast(builder.gep(start, [arguments[1]]), _BYTE.as_pointer())
        form = ir.FunctionType(ir.VoidType(), [_BYTE.as_pointer(), _INT, _INT, _INT])
        prefetch = cgutils.get_or_insert_function(builder.module, form, "llvm.prefetch.p0i8")
        builder.call(prefetch, [address, _TO_WRITE, _KEEP, _DATA])
        return context.get_dummy_value()

    return types.void(row, types.intp), code


_line_of: Callable[..., None] = intrinsic(_line)  # (array of one dimension, index): the cache line of the element


@kernel
def written_next(row):
    """Prefetch all cache lines of a contiguous row that will be written."""
    for j in range(0, row.size, _LINE // row.itemsize):
        _line_of(row, j)
