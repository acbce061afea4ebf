"""What a run will cost, from one real step: parameters, operations, memory, time."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from ashnets.errors import ConfigurationError
from ashnets.training.learner import Learner
from ashnets.training.optim import part_of

TIMED_STEPS = 2


def estimate(
    model: nn.Module,
    run_step: Callable[[], object],
    *,
    optimizers: Mapping[str, torch.optim.Optimizer],
    copies: int,
    queue_bytes: int,
    pairs: int,
    steps: int,
    device: torch.device | str,
    ranks: int = 1,
    beside: Iterable[nn.Module] = (),
) -> dict[str, int | float]:
    """Run a step three times and estimate what a run of ``steps`` costs; the state of all modules is restored.

    A step is here the forward and backward pass of one micro-batch.

    ``flops_*`` are those of torch's counter over forward and backward pass: two for each multiply-accumulate of a
    convolution, matrix product or attention. Spiking layers are counted as dense, as if every input were a spike. Not
    counted are normalization, activations, neurons, the optimizer, and kernels that torch's counter does not know,
    such as the fused attention on CPU.

    ``bytes_activations`` is the peak size of all tensors that autograd keeps for the backward pass, including the input
    batch; a storage that is kept twice counts once. It excludes the workspace of kernels and, under activation
    checkpointing, the tensors that the current block recomputes.
    ``bytes_total`` is the sum of weights, gradients, buckets, optimizer, copies, queues and activations; on CUDA the
    allocator's peak over the step, ``bytes_step_peak``, replaces gradients and activations. Not included are
    libraries, the CUDA context, the data and the loaders.

    ``seconds_a_step`` is the median of two steps after a first step that counts operations. It does not include
    the optimizer, loading, validation or logging.

    Args:
        model: ready for a step: parameters that do not require a gradient count as frozen.
        run_step: forward and backward pass of one real batch on ``device``, no optimizer step.
        optimizers: those of the run: SGD, Adam or AdamW, whose state per parameter is known.
        copies: how many averaged copies of the model the run keeps (momentum encoder, EMA).
        queue_bytes: of queues of embeddings.
        pairs, steps: image-text pairs of a step over all devices, and micro-batches of the run.
        ranks: processes that train together; on each, DistributedDataParallel keeps a second copy of the gradients.
        beside: further modules whose state a step changes, such as a momentum encoder or a queue.

    Returns:
        ``parameters``, ``parameters_trainable``, and ``parameters_PART`` of each part of the model;
        ``flops_a_step``, ``flops_a_pair``, ``flops_run``; ``bytes_weights`` (buffers included), ``bytes_gradients``,
        ``bytes_buckets``, ``bytes_optimizers``, ``bytes_copies``, ``bytes_queues``, ``bytes_activations``,
        ``bytes_total``, on CUDA ``bytes_step_peak``; ``seconds_a_step``, ``pairs_a_second``, ``seconds_run``.

    Raises:
        ConfigurationError: an optimizer of another kind.
    """
    device = torch.device(device)
    result: dict[str, int | float] = {**count_parameters(model), **_fixed_bytes(model, optimizers)}
    result |= {"bytes_copies": copies * result["bytes_weights"], "bytes_queues": queue_bytes}
    result["bytes_buckets"] = result["bytes_gradients"] if ranks > 1 else 0
    modules = [model, *beside]
    with unchanged(*modules):
        kept = _Kept(modules)
        with FlopCounterMode(display=False) as counter, saved_tensors_hooks(kept.pack, kept.unpack):
            run_step()
        flops = counter.get_total_flops()
    seconds = []
    for _ in range(TIMED_STEPS):
        with unchanged(*modules):
            before = _start_peak(device)
            began = time.perf_counter()
            run_step()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
                result["bytes_step_peak"] = torch.cuda.max_memory_allocated(device) - before
            seconds.append(time.perf_counter() - began)
    a_step = statistics.median(seconds)
    result["bytes_activations"] = kept.peak
    passing = result.get("bytes_step_peak", result["bytes_gradients"] + kept.peak)
    resident = ("weights", "buckets", "optimizers", "copies", "queues")
    return {
        **result,
        "bytes_total": sum(result[f"bytes_{part}"] for part in resident) + passing,
        "flops_a_step": flops,
        "flops_a_pair": flops / pairs,
        "flops_run": flops * steps,
        "seconds_a_step": a_step,
        "pairs_a_second": pairs / a_step,
        "seconds_run": a_step * steps,
    }


def estimate_step(learner: Learner, batch: Any, pairs: int, steps: int) -> dict[str, int | float]:
    """`estimate` for a learner that is prepared for a phase, from one batch."""
    return estimate(
        learner.model,
        lambda: learner.forward(batch)[0].backward(),
        optimizers=learner.optimizers,
        copies=len(learner.copies),
        queue_bytes=0 if learner.queue is None else bytes_of(learner.queue),
        pairs=pairs,
        steps=steps,
        device=learner.device,
        ranks=learner.ranks,
        beside=list(learner.modules.values())[1:],
    )


def bytes_of(module: nn.Module) -> int:
    """Bytes of parameters and buffers; shared tensors count once."""
    return sum(t.numel() * t.element_size() for t in {*module.parameters(), *module.buffers()})


def count_parameters(model: nn.Module) -> dict[str, int]:
    """Parameters in total, trainable ones, and those of each part that has its own optimizer."""
    counts = {"parameters": 0, "parameters_trainable": 0}
    for name, parameter in model.named_parameters():
        part = f"parameters_{part_of(name)}"
        counts["parameters"] += parameter.numel()
        counts["parameters_trainable"] += parameter.numel() * parameter.requires_grad
        counts[part] = counts.get(part, 0) + parameter.numel()
    return counts


def _fixed_bytes(model: nn.Module, optimizers: Mapping[str, torch.optim.Optimizer]) -> dict[str, int]:
    trainable = [p for p in model.parameters() if p.requires_grad]
    state = 0
    for part, optimizer in optimizers.items():
        for group in optimizer.param_groups:
            copies = _state_copies(part, optimizer, group)
            state += copies * sum(p.numel() * p.element_size() for p in group["params"] if p.requires_grad)
    return {
        "bytes_weights": bytes_of(model),
        "bytes_gradients": sum(p.numel() * p.element_size() for p in trainable),
        "bytes_optimizers": state,
    }


def _state_copies(part: str, optimizer: torch.optim.Optimizer, group: Mapping[str, object]) -> int:
    """How many tensors like the parameter the optimizer keeps for it."""
    if isinstance(optimizer, torch.optim.Adam):  # AdamW is one
        return 3 if group["amsgrad"] else 2
    if isinstance(optimizer, torch.optim.SGD):
        return 1 if group["momentum"] else 0
    kind = type(optimizer).__name__
    raise ConfigurationError(f"optimizers.{part}: the state that {kind} keeps is not known; use SGD, Adam or AdamW")


class _Kept:
    """Counts the bytes that autograd keeps for the backward pass, without weights and buffers."""

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        self.own = {t.untyped_storage().data_ptr() for m in modules for t in (*m.parameters(), *m.buffers())}
        self.holders: dict[int, int] = {}
        self.bytes = self.peak = 0

    def pack(self, tensor: torch.Tensor) -> _Holder:
        return _Holder(tensor.detach(), self)

    def unpack(self, holder: _Holder) -> torch.Tensor:
        return holder.tensor


class _Holder:
    """One kept tensor. It keeps the storage alive, so that no other storage gets its address while it is counted."""

    def __init__(self, tensor: torch.Tensor, kept: _Kept) -> None:
        storage = tensor.untyped_storage()
        self.tensor, self.kept, self.address, self.size = tensor, kept, storage.data_ptr(), storage.nbytes()
        if self.address in kept.own:
            return
        holders = kept.holders[self.address] = kept.holders.get(self.address, 0) + 1
        if holders == 1:
            kept.bytes += self.size
            kept.peak = max(kept.peak, kept.bytes)

    def __del__(self) -> None:
        if self.address in self.kept.own:
            return
        self.kept.holders[self.address] -= 1
        if not self.kept.holders[self.address]:
            del self.kept.holders[self.address]
            self.kept.bytes -= self.size


def _start_peak(device: torch.device) -> int:
    """On CUDA, restart the allocator's peak measurement; returns the bytes allocated now."""
    if device.type != "cuda":
        return 0
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.memory_allocated(device)


@contextmanager
def unchanged(*modules: nn.Module) -> Iterator[None]:
    """Restore buffers, gradients, modes and torch's random state afterwards; inside, gradients start as None.

    Parameters are not copied: the code inside must not step an optimizer.
    """
    owners = {id(m): m for module in modules for m in module.modules()}.values()
    modes = [(m, m.training) for m in owners]
    buffers = [(m, name, t, t.clone()) for m in owners for name, t in m._buffers.items() if t is not None]
    parameters = {p for module in modules for p in module.parameters()}
    gradients = [(p, p.grad) for p in parameters]
    for parameter in parameters:
        parameter.grad = None
    try:
        with torch.random.fork_rng(devices={p.device for p in parameters if p.device.type == "cuda"}):
            yield
    finally:
        for module, training in modes:
            module.training = training
        for module, name, tensor, value in buffers:
            with torch.no_grad():
                module._buffers[name] = tensor.copy_(value)
        for parameter, gradient in gradients:
            parameter.grad = gradient
