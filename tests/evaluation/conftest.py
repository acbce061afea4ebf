"""Fixtures of tasks, and a random retrieval model whose spiking layers fire."""

from __future__ import annotations

import string

import pytest
import torch

from tests.small_tasks import benchmarks, drawings, saved_models, small_model

__all__ = ["benchmarks", "drawings", "saved_models", "small_model"]

LETTERS = string.ascii_lowercase
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *(f"##{letter}" for letter in LETTERS)]
SMALL = {
    "image_size": 64,
    "backbone_widths": [8, 16, 32],
    "spiking_channels": [4, 4, 8, 8],
    "hidden_size": 24,
    "num_concepts": 12,
    "time_steps": 3,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "vocab_size": len(PIECES),
    "max_text_length": 48,
    "max_position_embeddings": 48,
    "projection_size": 16,
    "initializer_range": 0.2,
}


@pytest.fixture(scope="session")
def retrieval_model():
    """(AshNetsForRetrieval, AshNetsProcessor)."""
    from ashnets import AshNetsProcessor
    from ashnets.model.tdbn import calibrate
    from ashnets.zoo import create

    model = create("ashnets-tiny", task="retrieval", seed=0, **SMALL).eval()
    vision = model.ashnets.vision
    pixels = torch.rand(8, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    calibrate(vision.abstract_encoder, [vision.sample(pixels)], run=vision.abstract_encoder.run)
    return model, AshNetsProcessor.from_config(model.config, PIECES)
