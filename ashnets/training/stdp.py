r"""STDP before training: the first spiking layers learn from spike timing only, without labels or gradients.

The pair rule with exponential traces (Morrison, Diesmann & Gerstner, Biol. Cybern. 98, 2008; spikingjelly's
``STDPLearner``), with x the input spikes of a convolution and s the spikes of its LIF neurons:

    x̄[t] = (1 − 1/τ_pre)·x̄[t−1] + x[t],    s̄[t] = (1 − 1/τ_post)·s̄[t−1] + s[t]
    Δw = a·Σ_t (s[t]·x̄[t] − x[t]·s̄[t]),    w ← w + lr·Δw

Δw is a mean over images and output positions, and a the mean standard deviation of a filter's weights: lr has the
same meaning for any batch, image size and layer. The rule is additive (f_pre and f_post constant): both orders of
input and output spike are nearly equally frequent, so that soft bounds would mostly shrink weights. Instead, the mean
and standard deviation of each filter are restored after each update. Restoring the mean removes the part that
strengthens all synapses equally, which would make all filters equal (subtractive normalization, Miller & MacKay,
Neural Computation 6, 1994); restoring the standard deviation is synaptic scaling. Optimizers that follow find weights
of the usual size.

tdBN lies between synapse and neuron and uses batch statistics while its layer learns: fixed statistics would not match
the changing weights, and the layer would fall silent or saturate. At the end its running statistics are those of the
trained weights; layers that did not learn keep theirs, which ``calibrate()`` or training must update.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import cast

import torch
from spikingjelly.activation_based import functional
from spikingjelly.activation_based.learning import STDPLearner
from tqdm import tqdm

from ashnets.errors import ConfigurationError, InputError, TrainingError
from ashnets.files import JsonObject
from ashnets.model.abstract_encoder import AbstractEncoder
from ashnets.model.spiking_layer import SpikingLayer
from ashnets.model.tdbn import calibrating


@dataclass
class STDP:
    """Settings of the stage.

    Attributes:
        layers: spiking layers to train, from the first.
        images: training images for each layer.
        batch: images for one update of the weights. A batch needs about 4·B·C_in·C_out·h·w extra bytes.
        lr: weight change for a Δw/a of 1, in standard deviations of a filter's weights.
        tau_pre, tau_post: τ of the traces of input and output spikes, in time steps, 1 or more. Unequal values
            favor one order of the spikes, and filters soon become similar: see ``filter_similarity_after``.

    Raises:
        ConfigurationError: a value out of range.
    """

    layers: int = 2
    images: int = 2000
    batch: int = 16
    lr: float = 1.0
    tau_pre: float = 2.0
    tau_post: float = 2.0

    def __post_init__(self) -> None:
        for name, least in (("layers", 1), ("images", 1), ("batch", 1), ("tau_pre", 1), ("tau_post", 1)):
            value = getattr(self, name)
            if not least <= value < math.inf:
                raise ConfigurationError(f"stdp.{name}={value!r} must be {least} or more")
        if not 0 < self.lr < math.inf:
            raise ConfigurationError(f"stdp.lr={self.lr!r} must be positive")


@torch.no_grad()
def stdp_stage(
    encoder: AbstractEncoder, batches: Iterable[torch.Tensor], settings: STDP, progress: bool = True
) -> dict[str, JsonObject]:
    """Train the first layers of an abstract encoder by STDP, one after another, each on the spikes of those before it.

    Args:
        encoder: changed in place, in its dtype and on its device; only weights and running statistics of the trained
            layers change.
        batches: P_binary, (T, B, 3, H, W) each, read three times per layer: a list, or another object that
            gives the same spikes in each iteration. Every image starts from a reset state.
        settings: :class:`STDP`; its ``images`` and ``batch`` are used by the caller, which draws the batches.
        progress: show a bar for each layer.

    Returns:
        Layer name → ``relative_change``, ‖ΔW‖/‖W‖; ``firing_rate_before`` and ``firing_rate_after``, spikes /
        (neurons·T) over all images, under the statistics of each batch; ``lowest_channel_rate`` and
        ``highest_channel_rate`` after; ``filter_similarity_before`` and ``filter_similarity_after``, the mean |cosine|
        of two filters, 1 if all are equal; ``images`` used.

    Raises:
        InputError: no batches, an iterator that can be read only once, or batches with a wrong shape.
        TrainingError: more layers than the encoder has, or weights that are no longer finite.
    """
    names = list(encoder.layers)
    if settings.layers > len(names):
        raise TrainingError(
            f"stdp.layers={settings.layers}, but the encoder has {len(names)} spiking layers "
            f"({', '.join(names)}): set it to 1..{len(names)}"
        )
    _check(batches)
    chosen = names[: settings.layers]
    blocks = [cast(SpikingLayer, encoder.layers[name]) for name in chosen]
    modes = {module: module.training for module in encoder.modules()}
    encoder.eval()
    report = {}
    try:
        for i, name in enumerate(chosen):
            report[name] = _train(name, blocks[i], blocks[:i], batches, settings, progress)
    finally:
        for module, training in modes.items():
            module.training = training
        for block in blocks:
            functional.reset_net(block)
    return report


def _check(batches: Iterable[torch.Tensor]) -> None:
    if isinstance(batches, Iterator):
        raise InputError(
            f"batches is a {type(batches).__name__}, which can be read only once, but each layer reads it three times: "
            "give a list, or an object whose __iter__ starts again"
        )
    first = next(iter(batches), None)
    if first is None:
        raise InputError("STDP needs at least one batch of spikes, got none")
    if first.dim() != 5 or first.shape[2] != 3 or not first.numel():
        raise InputError(f"STDP needs spikes (T, B, 3, H, W), got a tensor of shape {tuple(first.shape)}")


def _train(
    name: str,
    block: SpikingLayer,
    trained: list[SpikingLayer],
    batches: Iterable[torch.Tensor],
    settings: STDP,
    progress: bool,
) -> JsonObject:
    """STDP on the layer after the trained ones; returns its part of the report."""
    weight = block.conv.weight
    start = weight.clone()
    mean, spread = _moments(start)
    amplitude = spread.mean()
    before = _calibrated_rates(block, _inputs(trained, batches, weight))

    gradient, weight.grad = weight.grad, None
    optimizer = torch.optim.SGD([weight], lr=settings.lr)
    learner = STDPLearner(
        "m",
        block.conv,
        block.lif,
        settings.tau_pre,
        settings.tau_post,
        f_pre=lambda w: amplitude,
        f_post=lambda w: amplitude,
    )
    seen = 0
    block.norm.train()
    try:
        bar = tqdm(batches, desc=f"STDP {name}", unit="batch", disable=not progress or None)
        for x in _inputs(trained, bar, weight):
            learner.reset()  # traces of other images
            spikes = _fire(block, x)  # (T, B, C, h, w)
            optimizer.zero_grad()
            learner.step(on_grad=True, scale=1 / spikes[0, :, 0].numel())
            optimizer.step()
            shifted, grown = _moments(weight)
            seen += x.shape[1]
            if not grown.isfinite().all():
                raise TrainingError(
                    f"the weights of spiking layer {name} are not finite after {seen} images of STDP: "
                    f"check its weights and input spikes, or lower stdp.lr={settings.lr}"
                )
            weight.sub_(shifted).mul_(spread / grown.clamp_min(1e-30)).add_(mean)
    finally:
        learner.close()
        weight.grad = gradient
        block.norm.eval()

    after = _calibrated_rates(block, _inputs(trained, batches, weight))
    return {
        "relative_change": ((weight - start).norm() / start.norm()).item(),
        "firing_rate_before": before.mean().item(),
        "firing_rate_after": after.mean().item(),
        "lowest_channel_rate": after.min().item(),
        "highest_channel_rate": after.max().item(),
        "filter_similarity_before": _similarity(start),
        "filter_similarity_after": _similarity(weight),
        "images": seen,
    }


def _inputs(trained: list[SpikingLayer], batches: Iterable[torch.Tensor], like: torch.Tensor) -> Iterator[torch.Tensor]:
    """The input spikes of the layer after the trained ones, (T, B, C_in, h, w), in the dtype of the weights."""
    for x in batches:
        x = x.to(like)
        for block in trained:
            x = _fire(block, x)
        yield x


def _fire(block: SpikingLayer, x: torch.Tensor) -> torch.Tensor:
    """A layer's spikes, from a reset state."""
    functional.reset_net(block)
    return block(x)


def _calibrated_rates(block: SpikingLayer, inputs: Iterable[torch.Tensor]) -> torch.Tensor:
    """Set the layer's running statistics from the inputs, and return the firing rate of each channel, (C,)."""
    fired = torch.zeros_like(block.norm.weight, dtype=torch.float64)
    steps = 0
    with calibrating(block):
        for x in inputs:
            spikes = _fire(block, x)
            fired += spikes.sum((0, 1, 3, 4), dtype=torch.float64)
            steps += spikes[:, :, 0].numel()
    return fired / steps


def _moments(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of each filter's weights, (C_out, 1, 1, 1)."""
    return weight.mean((1, 2, 3), keepdim=True), weight.std((1, 2, 3), correction=0, keepdim=True)


def _similarity(weight: torch.Tensor) -> float:
    """Mean |cosine| over the pairs of filters."""
    directions = torch.nn.functional.normalize(weight.flatten(1).double(), dim=1)
    cosines = (directions @ directions.T).abs().fill_diagonal_(0)
    return cosines.sum().item() / max(1, len(cosines) * (len(cosines) - 1))
