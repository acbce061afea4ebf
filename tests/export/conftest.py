"""A small abstract encoder with calibrated tdBN, its graph, and input spikes that were really drawn."""

from __future__ import annotations

import copy

import pytest
import torch

from ashnets.configuration import AshNetsConfig
from ashnets.export.graph import SpikingGraph, from_model
from ashnets.model.abstract_encoder import AbstractEncoder
from ashnets.model.sampling import probabilistic_sampling
from ashnets.model.tdbn import calibrate


@pytest.fixture(scope="session")
def config() -> AshNetsConfig:
    return AshNetsConfig(
        backbone="resnet-tiny",
        backbone_widths=[8, 12],
        image_size=40,
        hidden_size=24,
        num_concepts=20,
        time_steps=6,
        spiking_channels=[4, 8, 12],
        decay_k=1400,
        threshold=0.8,
        sampling_seed=3,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        vocab_size=50,
        max_text_length=12,
        max_position_embeddings=16,
    )


@pytest.fixture(scope="session")
def spikes(config: AshNetsConfig) -> torch.Tensor:
    """(T, 4, 3, 40, 40)."""
    images = torch.rand(4, 3, config.image_size, config.image_size, generator=torch.Generator().manual_seed(0))
    return probabilistic_sampling(images, [7, 8, 9, 10], config.time_steps, config.sampling_seed)


@pytest.fixture(scope="session")
def encoder(config: AshNetsConfig, spikes: torch.Tensor) -> AbstractEncoder:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = AbstractEncoder(config).eval()
        for name, parameter in encoder.named_parameters():
            if name.endswith("norm.bias"):
                torch.nn.init.normal_(parameter, std=0.1)
    calibrate(encoder, [spikes], run=encoder.run)
    return encoder


@pytest.fixture(scope="session")
def graph(encoder: AbstractEncoder) -> SpikingGraph:
    return from_model(encoder, "small")


@pytest.fixture(scope="session")
def dyadic_encoder(encoder: AbstractEncoder) -> AbstractEncoder:
    """The same with weights and statistics of few binary digits, so that folding them rounds nothing."""
    dyadic = copy.deepcopy(encoder)
    for block in dyadic.layers.values():
        for tensor in (block.conv.weight.data, block.norm.running_mean, block.norm.bias.data):
            tensor.mul_(64).round_().div_(64)
        block.norm.eps = 0.0
        block.norm.running_var.fill_(0.25)
        block.norm.weight.data.fill_(1.0)
    return dyadic
