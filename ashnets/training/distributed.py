r"""One batch over many ranks: what the objectives and the normalization layers need from the other ranks.

A run on W ranks computes what one process would compute on the whole batch: contrastive losses use the keys of all
ranks, means are over all items, and batch normalization uses statistics over all ranks.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from ashnets.model.collector import RateNorm
from ashnets.model.tdbn import TdBN


def world_size() -> int:
    """Number of ranks; 1 without torch.distributed."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """This process among the ranks, from 0."""
    return dist.get_rank() if world_size() > 1 else 0


class _Gather(torch.autograd.Function):
    """Concatenate equal shapes of all ranks; the gradient of a rank's part is the sum of its gradients on all ranks."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        parts = [torch.empty_like(x) for _ in range(world_size())]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)  # (W·B, ...)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        grad = grad.contiguous()
        dist.all_reduce(grad)
        return grad.chunk(world_size())[rank()]


def gather(x: torch.Tensor) -> torch.Tensor:
    """(B_r, ...) of each rank to (ΣB_r, ...) in rank order, with gradients; batches may differ in length."""
    if world_size() == 1:
        return x
    sizes = _sizes(x)
    longest = max(sizes)
    padded = x if len(x) == longest else torch.cat([x, x.new_zeros((longest - len(x), *x.shape[1:]))])
    everything = _Gather.apply(padded).split(longest)
    return torch.cat([part[:size] for part, size in zip(everything, sizes, strict=True)])


def _sizes(x: torch.Tensor) -> list[int]:
    own = torch.tensor([len(x)], device=x.device)
    sizes = [torch.empty_like(own) for _ in range(world_size())]
    dist.all_gather(sizes, own)
    return [int(size) for size in sizes]


def pad_to_longest(x: torch.Tensor) -> torch.Tensor:
    """(B, L_r) to (B, max L_r) over all ranks, with zeros."""
    if world_size() == 1:
        return x
    length = torch.tensor(x.shape[1], device=x.device)
    dist.all_reduce(length, op=dist.ReduceOp.MAX)
    return nn.functional.pad(x, (0, int(length) - x.shape[1]))


def shares(counts: torch.Tensor) -> torch.Tensor:
    """Weights of this rank's means: n_r·W/Σn_r for counts n_r, so that the mean over ranks is the mean over items."""
    if world_size() == 1:
        return torch.ones_like(counts)
    total = counts.clone()
    dist.all_reduce(total)
    return counts * world_size() / total.clamp_min(1)


def mean_over_ranks(x: torch.Tensor) -> torch.Tensor:
    """The mean over ranks of a tensor that every rank has."""
    if world_size() == 1:
        return x
    x = x.clone(memory_format=torch.contiguous_format)  # gradients may be transposed, which NCCL refuses
    dist.all_reduce(x)
    return x / world_size()


class _SyncedNormalization(torch.autograd.Function):
    """Batch normalization of (n, C, ...) with mean and variance over all ranks.

    With x̂ = (x − μ)/√(σ² + ε) and N items a channel over all ranks:
    ∂x = γ/√(σ² + ε)·(∂y − Σ∂y/N − x̂·Σ(∂y·x̂)/N), both sums over all ranks.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, eps: float) -> Any:
        axes = [0, *range(2, x.dim())]
        shape = [1, -1, *[1] * (x.dim() - 2)]
        wide = x.float()
        moments = torch.cat([wide.sum(axes), wide.new_full((1,), x.numel() // x.shape[1])])  # (C + 1,)
        dist.all_reduce(moments)
        count = moments[-1]
        mean = moments[:-1] / count
        centered = wide - mean.view(shape)
        square = centered.square().sum(axes)
        dist.all_reduce(square)
        variance = square / count  # (C,)
        scale = (variance + eps).rsqrt()
        normed = centered.mul_(scale.view(shape))
        ctx.save_for_backward(normed, weight, scale, count)
        ctx.dtype = x.dtype
        y = (normed * weight.view(shape) + bias.view(shape)).to(x.dtype)
        ctx.mark_non_differentiable(mean, variance, count)
        return y, mean, variance, count

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor, *_: Any) -> Any:
        normed, weight, scale, count = ctx.saved_tensors
        axes = [0, *range(2, grad.dim())]
        shape = [1, -1, *[1] * (grad.dim() - 2)]
        grad = grad.float()
        grad_bias, grad_weight = grad.sum(axes), (grad * normed).sum(axes)
        sums = torch.stack([grad_bias, grad_weight])
        dist.all_reduce(sums)
        means = sums / count
        grad_x = (grad - means[0].view(shape) - normed * means[1].view(shape)) * (weight * scale).view(shape)
        return grad_x.to(ctx.dtype), grad_weight, grad_bias, None


def _synced_forward(norm: Any, x: torch.Tensor) -> torch.Tensor:
    weight, bias = norm.weight, norm.bias
    if weight is None:
        weight, bias = torch.ones_like(norm.running_var), torch.zeros_like(norm.running_mean)
    y, mean, variance, count = _SyncedNormalization.apply(x, weight, bias, norm.eps)
    with torch.no_grad():
        norm.num_batches_tracked += 1
        momentum = norm.momentum if norm.momentum is not None else 1 / float(norm.num_batches_tracked)
        norm.running_mean.lerp_(mean, momentum)
        norm.running_var.lerp_(variance * count / (count - 1), momentum)
    return y


class SyncedBatchNorm2d(nn.BatchNorm2d):
    """Batch normalization over all ranks while it trains, on any device (torch's own needs a GPU)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return _synced_forward(self, x) if self.training else super().forward(x)


class SyncedRateNorm(RateNorm):
    """The rates of each concept, normalized over all ranks while it trains."""

    def normalize(self, rates: torch.Tensor) -> torch.Tensor:
        return _synced_forward(self, rates) if self.training else super().normalize(rates)


class SyncedTdBN(TdBN):
    """tdBN over the steps, images and space of all ranks while it trains."""

    def sum_over_ranks(self, x: torch.Tensor) -> torch.Tensor:
        x = x.clone()
        dist.all_reduce(x)
        return x

    def super_forward(self, x: torch.Tensor) -> torch.Tensor:
        return _synced_forward(self, x) if self.training else super().super_forward(x)


def synchronize_norms(model: nn.Module) -> None:
    """Make every batch normalization of ``model`` work over all ranks; tensors and their names do not change."""
    for module in model.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SyncedBatchNorm2d
        elif type(module) is RateNorm:
            module.__class__ = SyncedRateNorm
        elif type(module) is TdBN:
            module.__class__ = SyncedTdBN
