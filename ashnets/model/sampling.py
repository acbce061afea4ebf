r"""Probabilistic sampling of images into spikes (section III-A.2).

    P_binary[t] = 1 where u(seed, key, t) < I,   I in [0, 1],   u uniform on [0, 1)

u is a counter-based hash of (seed, image key, step, pixel). It has no state, so the draw is the same in any order,
batch and number of workers, and on any device. The sampler is not part of exported graphs: chips and simulators receive
its spikes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch

from ashnets.errors import InputError
from ashnets.kernels.choosing import kernels_for

ImageKeys = Sequence[int] | torch.Tensor  # (B,), integers, one for each image

_U64 = 0xFFFFFFFFFFFFFFFF


def image_key(name: str | int) -> int:
    """The key of an image, 63 bits: an integer keeps its lower bits, a name is hashed (BLAKE2b)."""
    if isinstance(name, int):
        return name & 0x7FFFFFFFFFFFFFFF
    return int.from_bytes(hashlib.blake2b(name.encode(errors="surrogatepass"), digest_size=8).digest(), "little") >> 1


def content_key(pixels: torch.Tensor) -> int:
    """The key of an image without a name: a hash of its pixels, so that equal images have equal spikes."""
    data = pixels.detach().to("cpu", torch.float32).contiguous().numpy()
    return int.from_bytes(hashlib.blake2b(data.tobytes(), digest_size=8).digest(), "little") >> 1


@torch.library.custom_op("ashnets::content_keys", mutates_args=())
def content_keys(pixels: torch.Tensor) -> torch.Tensor:
    """:func:`content_key` of each image, (B,), int64: a separate node for torch.compile."""
    return torch.tensor([content_key(image) for image in pixels], dtype=torch.int64)


@content_keys.register_fake
def _(pixels: torch.Tensor) -> torch.Tensor:
    return torch.empty(pixels.shape[0], dtype=torch.int64)


def probabilistic_sampling(
    pixels: torch.Tensor, image_keys: ImageKeys, time_steps: int, seed: int = 0, first_step: int = 0
) -> torch.Tensor:
    """Draw Bernoulli spikes whose probabilities are the pixel intensities; no gradient passes.

    Args:
        pixels: (B, C, H, W), intensities in [0, 1], before any normalization.
        image_keys: (B,), integers; see :func:`image_key`.
        time_steps: T.
        seed: of the whole stream.
        first_step: index of the first step, for streaming.

    Returns:
        (T, B, C, H, W), 0 and 1, in the type of ``pixels``.

    Raises:
        InputError: intensities outside [0, 1], or a wrong number of keys.
    """
    if not isinstance(image_keys, torch.Tensor):
        # A compiled graph has no integers beyond 64 bits; image_key returns 63.
        keys = list(image_keys) if torch.compiler.is_compiling() else [_signed(int(key), 64) for key in image_keys]
        image_keys = torch.tensor(keys, dtype=torch.int64)
    if image_keys.shape != pixels.shape[:1]:
        raise InputError(f"{image_keys.numel()} image keys for {pixels.shape[0]} images: give one key for each image")
    return _sample(pixels.detach(), image_keys.long(), time_steps, _signed(seed, 64), first_step)


@torch.library.custom_op("ashnets::sample", mutates_args=())
def _sample(
    pixels: torch.Tensor, image_keys: torch.Tensor, time_steps: int, seed: int, first_step: int
) -> torch.Tensor:
    """As an operator: torch.compile sees one node, with any kernel."""
    low, high = torch.stack(torch.aminmax(pixels)).tolist() if pixels.numel() else (0.0, 0.0)
    if not (low >= 0 and high <= 1):
        raise InputError(
            f"pixel intensities span [{low:.4g}, {high:.4g}]: give intensities in [0, 1], before ImageNet normalization"
        )
    # 24 bits of the hash are compared with 24 bits of intensity: exact in float32; 0 never fires, 1 always fires.
    bar = (pixels.float() * (1 << 24)).round().to(torch.int32)
    keys = _keys(seed, image_keys.tolist(), first_step + np.arange(time_steps))
    positions = torch.arange(pixels.shape[1:].numel(), dtype=torch.int32, device=pixels.device)
    spread = (positions * _signed(0x9E3779B9)).view(pixels.shape[1:])
    # channels last, the fastest format for the first convolution
    bar, spread = bar.permute(0, 2, 3, 1).flatten(1), spread.permute(1, 2, 0).flatten()
    spikes = _empty(pixels, time_steps)  # (T, B, C, H, W)
    rows = spikes.permute(0, 1, 3, 4, 2).flatten(2)  # (T, B, P)
    kernels = kernels_for(pixels.device.type)
    if hasattr(kernels, "sample") and pixels.dtype == torch.float32:
        kernels.sample(spread.numpy().view(np.uint32), bar, keys, rows)
    else:
        on_device = torch.from_numpy(keys.view(np.int64)).to(pixels.device)  # one copy: each waits for the work before
        for b, of_image in enumerate(on_device):
            rows[:, b] = _hash24(spread, of_image) < bar[b]
    return spikes


@_sample.register_fake
def _(pixels: torch.Tensor, image_keys: torch.Tensor, time_steps: int, seed: int, first_step: int) -> torch.Tensor:
    return _empty(pixels, time_steps)


def _empty(pixels: torch.Tensor, time_steps: int) -> torch.Tensor:
    """(T, B, C, H, W), channels last."""
    images, channels, height, width = pixels.shape
    return pixels.new_empty(time_steps, images, height, width, channels).permute(0, 1, 4, 2, 3)


def _hash24(spread: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """24 uniform bits (T, P) for each key (T,) and position (P,).

    A multiply–xorshift finalizer of two rounds, keyed by the lower half of the key, then by the upper one.
    """
    keys = keys.unsqueeze(1)  # (T, 1)
    x = spread ^ keys.int()
    x ^= (x >> 16) & 0xFFFF
    x *= _signed(0x7FEB352D)
    x += (keys >> 32).int()
    x ^= (x >> 15) & 0x1FFFF
    x *= _signed(0x846CA68B)
    x ^= (x >> 16) & 0xFFFF
    return (x >> 8) & 0xFFFFFF


def _signed(value: int, bits: int = 32) -> int:
    """The signed integer with the bits of an unsigned one."""
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value


def _keys(seed: int, ids: list[int], steps: np.ndarray) -> np.ndarray:
    """A 64-bit key for each image and step, (B, T): a chain of splitmix64 finalizers."""
    words = (
        np.array([[seed & _U64]], np.uint64),
        np.array([[i & _U64] for i in ids], np.uint64).reshape(-1, 1),
        steps[None],
    )
    state = np.zeros((1, 1), np.uint64)
    with np.errstate(over="ignore"):
        for word in words:
            z = (state ^ word.astype(np.uint64)) + np.uint64(0x9E3779B97F4A7C15)
            z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            state = z ^ (z >> np.uint64(31))
    return state
