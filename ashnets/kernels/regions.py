"""Parallel regions of compiled functions: the threads of OpenMP run them without Python and its interpreter's lock.

Threads that call a compiled function from Python wait for this lock before and after each call. For a small layer these
waits take longer than its arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.typing.context import Context
from numba.core.typing.templates import Signature
from numba.extending import intrinsic

from ashnets.kernels.halves import Intrinsic

_NEXT, _COUNT, _BLOCK, _LOW, _HIGH, _FAILED, _GIVEN = range(7)  # fields of what the threads of a region share
_DATA, _INT = ir.IntType(8).as_pointer(), ir.IntType(32)


def _in_shares(
    typing_context: Context,
    parallel: types.Integer,
    workers: types.Integer,
    count: types.Integer,
    block: types.Integer,
    low: types.Integer,
    high: types.Integer,
    kernel: Any,
    arguments: Any,
) -> Intrinsic:
    called = kernel.get_call_type(typing_context, (*arguments.types, *[types.intp] * 3), {})

    def code(context: Any, builder: ir.IRBuilder, signature: Signature, given: Sequence[ir.Value]) -> ir.Value:
        parallel, workers, count, block, low, high, _, values = given
        word = parallel.type
        fields = [word(0), count, block, low, high, word(0), *cgutils.unpack_tuple(builder, values)]
        shared = cgutils.alloca_once(builder, ir.LiteralStructType([field.type for field in fields]))
        for i, field in enumerate(fields):
            builder.store(field, cgutils.gep_inbounds(builder, shared, 0, i))
        work = _work(context, builder, shared.type, kernel.dispatcher.get_compile_result(called), called)
        data = builder.bitcast(shared, _DATA)
        with builder.if_else(builder.icmp_signed("<=", workers, word(1))) as (one, several):
            with one:
                builder.call(work, [data])
            with several:
                form = ir.FunctionType(ir.VoidType(), [work.type, _DATA, _INT, _INT])  # of GOMP_parallel
                region = builder.inttoptr(parallel, form.as_pointer())
                builder.call(region, [work, data, builder.trunc(workers, _INT), _INT(0)])
        failed = builder.load(cgutils.gep_inbounds(builder, shared, 0, _FAILED))
        with builder.if_then(builder.icmp_signed("!=", failed, word(0)), likely=False):
            context.call_conv.return_user_exc(builder, MemoryError)  # nothing else fails in a kernel
        return context.get_dummy_value()

    return types.void(parallel, workers, count, block, low, high, kernel, arguments), code


def _work(context: Any, caller: ir.IRBuilder, shared: ir.PointerType, compiled: Any, called: Signature) -> ir.Function:
    """``void work(void *shared)``: take the next share and call the kernel for it, until none is left."""
    context.add_linking_libs([compiled.library])
    kernel = context.declare_function(caller.module, compiled.fndesc)
    form = ir.FunctionType(ir.VoidType(), [_DATA])
    work = ir.Function(caller.module, form, caller.module.get_unique_name(f"{caller.function.name}.work"))
    work.linkage = "internal"
    builder = ir.IRBuilder(work.append_basic_block("entry"))
    place = builder.bitcast(work.args[0], shared)

    def field(i: int) -> ir.Value:
        return cgutils.gep_inbounds(builder, place, 0, i)

    count, block, low, high = (builder.load(field(i)) for i in (_COUNT, _BLOCK, _LOW, _HIGH))
    given = [builder.load(field(i)) for i in range(_GIVEN, len(shared.pointee.elements))]
    one = count.type(1)
    blocks = builder.sdiv(builder.add(builder.sub(high, low), builder.sub(block, one)), block)

    def edge(share: ir.Value) -> ir.Value:
        end = builder.add(low, builder.mul(block, builder.sdiv(builder.mul(blocks, share), count)))
        return builder.select(builder.icmp_signed("<", end, high), end, high)

    following, sharing, done = (work.append_basic_block(name) for name in ("following", "sharing", "done"))
    builder.branch(following)
    builder.position_at_end(following)
    share = builder.atomic_rmw("add", field(_NEXT), one, "monotonic")
    builder.cbranch(builder.icmp_signed("<", share, count), sharing, done)
    builder.position_at_end(sharing)
    arguments = [*given, block, edge(share), edge(builder.add(share, one))]
    status, _ = context.call_conv.call_function(builder, kernel, called.return_type, called.args, arguments)
    with builder.if_then(status.is_error, likely=False):
        builder.store(one, field(_FAILED))
    builder.branch(following)
    builder.position_at_end(done)
    builder.ret_void()
    return work


# (address of GOMP_parallel, workers, count, block, low, high, kernel, arguments): divide the neurons from ``low`` to
# ``high`` into ``count`` shares of whole blocks, and call kernel(*arguments, block, low, high) for each share, in
# ``workers`` threads. A thread that is done takes the next share, so that one delayed thread does not delay the others.
# Raises MemoryError if a kernel does.
in_shares: Callable[..., Any] = intrinsic(_in_shares)
