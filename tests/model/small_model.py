"""A configuration small enough for loops in plain Python, and the loops."""

from __future__ import annotations

import numpy as np
import torch

from ashnets.configuration import AshNetsConfig


def small_config(**changes) -> AshNetsConfig:
    """resnet-tiny with two stages: stride 8, a 16 px image is 2 × 2 tokens."""
    settings = {
        "backbone": "resnet-tiny",
        "backbone_widths": [8, 12],
        "image_size": 16,
        "hidden_size": 16,
        "num_concepts": 10,
        "time_steps": 3,
        "group_size": 2,
        "spiking_channels": [4, 5, 6],
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 24,
        "vocab_size": 40,
        "max_position_embeddings": 16,
        "max_text_length": 12,
        "projection_size": 8,
        "num_answers": 7,
    }
    return AshNetsConfig(**{**settings, **changes})


def random_images(count: int, size: int = 16, seed: int = 0) -> torch.Tensor:
    """(B, 3, H, W), uniform noise in [0, 1]."""
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def random_spikes(*shape: int, rate: float = 0.5, seed: int = 0) -> torch.Tensor:
    return (torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) < rate).float()


def wake(encoder: torch.nn.Module, seed: int = 0) -> None:
    """Give every tdBN of an abstract encoder statistics, scales and shifts that let all layers fire."""
    generator = torch.Generator().manual_seed(seed)
    for block in encoder.layers.values():
        fan_in = block.conv.weight[0].numel()
        with torch.no_grad():
            block.conv.weight.normal_(generator=generator).div_(fan_in**0.5)
            block.norm.running_mean.uniform_(-0.2, 0.2, generator=generator)
            block.norm.running_var.uniform_(0.05, 0.15, generator=generator)
            block.norm.weight.uniform_(0.8, 1.2, generator=generator)
            block.norm.bias.uniform_(0.0, 0.5, generator=generator)


def loop_lif(x: np.ndarray, v: np.ndarray, beta: float, theta: float) -> tuple[np.ndarray, np.ndarray]:
    """Decision 1, one neuron and one step at a time, in double precision; x (T, ...), v (...)."""
    spikes = np.zeros(x.shape)
    v = np.array(v, dtype=np.float64)
    for i in np.ndindex(*v.shape):
        for t in range(x.shape[0]):
            h = beta * v[i] + x[(t, *i)]
            if h > theta:
                spikes[(t, *i)] = 1.0
                v[i] = 0.0
            else:
                v[i] = h
    return spikes, v


def loop_conv(x: np.ndarray, weight: np.ndarray, stride: int, padding: int, bias=None) -> np.ndarray:
    """A convolution, tap by tap; x (C, H, W), weight (O, C, k, k)."""
    outputs, channels, k, _ = weight.shape
    height = (x.shape[1] + 2 * padding - k) // stride + 1
    width = (x.shape[2] + 2 * padding - k) // stride + 1
    y = np.zeros((outputs, height, width))
    for o, r, c in np.ndindex(outputs, height, width):
        total = 0.0 if bias is None else float(bias[o])
        for i, dr, dc in np.ndindex(channels, k, k):
            row, column = r * stride + dr - padding, c * stride + dc - padding
            if 0 <= row < x.shape[1] and 0 <= column < x.shape[2] and x[i, row, column] != 0:
                total += float(weight[o, i, dr, dc]) * float(x[i, row, column])
        y[o, r, c] = total
    return y


def loop_batch_norm(x: np.ndarray, mean, var, gamma, shift, eps: float = 1e-5) -> np.ndarray:
    """γ·(x − μ)/√(σ² + ε) + β_bn for each channel of (C, H, W)."""
    y = np.zeros(x.shape)
    for c in range(x.shape[0]):
        y[c] = gamma[c] * (x[c] - mean[c]) / np.sqrt(var[c] + eps) + shift[c]
    return y


def array(x: torch.Tensor) -> np.ndarray:
    return x.detach().double().numpy()
