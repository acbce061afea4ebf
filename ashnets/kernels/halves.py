"""bfloat16 in compiled functions, where it is a uint16: the upper half of a float32.

A function that reads with :func:`single` and writes with :func:`rounded` takes arrays of float32 and of bfloat16
without a copy; numba compiles it once for each type.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from llvmlite.ir import IRBuilder, Value
from numba import types
from numba.core.base import BaseContext
from numba.core.errors import TypingError
from numba.core.typing.context import Context
from numba.core.typing.templates import Signature
from numba.extending import intrinsic

Intrinsic = tuple[Signature, Callable[..., Value]]  # the type of a function, and the writer of its code


def _single(typing_context: Context, x: types.Type) -> Intrinsic:
    def widened(context: BaseContext, builder: IRBuilder, signature: Signature, arguments: Sequence[Value]) -> Value:
        word, single = context.get_value_type(types.uint32), context.get_value_type(types.float32)
        return builder.bitcast(builder.shl(builder.zext(arguments[0], word), word(16)), single)

    def same(context: BaseContext, builder: IRBuilder, signature: Signature, arguments: Sequence[Value]) -> Value:
        return arguments[0]

    if x == types.float32:
        return types.float32(x), same
    if x == types.uint16:
        return types.float32(x), widened
    raise TypingError(f"{x} is neither float32 nor bfloat16")


def _rounded(typing_context: Context, x: types.Type, like: types.Array) -> Intrinsic:
    def narrowed(context: BaseContext, builder: IRBuilder, signature: Signature, arguments: Sequence[Value]) -> Value:
        word, half = context.get_value_type(types.uint32), context.get_value_type(types.uint16)
        bits = builder.bitcast(arguments[0], word)
        upper = builder.lshr(bits, word(16))
        # half a unit of the last remaining bit; slightly less if this bit is even
        carry = builder.add(word(0x7FFF), builder.and_(upper, word(1)))
        nearest = builder.trunc(builder.lshr(builder.add(bits, carry), word(16)), half)
        is_nan = builder.fcmp_unordered("uno", arguments[0], arguments[0])
        return builder.select(is_nan, half(0x7FC0), nearest)

    def same(context: BaseContext, builder: IRBuilder, signature: Signature, arguments: Sequence[Value]) -> Value:
        return arguments[0]

    if x == types.float32 and like.dtype == types.float32:
        return types.float32(x, like), same
    if x == types.float32 and like.dtype == types.uint16:
        return types.uint16(x, like), narrowed
    raise TypingError(f"{x} cannot be rounded for {like}")


single: Callable[..., float] = intrinsic(_single)  # (number of an array): its value as float32
rounded: Callable[..., float] = intrinsic(
    _rounded
)  # (float32, array): the number in the array's type; to nearest, ties to even
