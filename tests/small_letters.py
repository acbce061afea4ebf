"""A small model that reads the letters a to j, saved as a folder that ``from_pretrained`` loads."""

from __future__ import annotations

from pathlib import Path

from ashnets import AshNetsConfig, AshNetsProcessor
from ashnets.model.pretrained import AshNetsPreTrainedModel
from ashnets.zoo import create

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghij"]
SMALL = {
    "backbone_widths": [8, 12],
    "image_size": 16,
    "spiking_channels": [4, 5, 6],
    "hidden_size": 24,
    "num_concepts": 8,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "vocab_size": len(PIECES),
    "max_text_length": 8,
    "time_steps": 3,
}


def letters_model(seed: int = 0, **sizes: int) -> AshNetsPreTrainedModel:
    """A retrieval model with random weights."""
    return create("ashnets-tiny", task="retrieval", seed=seed, **{**SMALL, **sizes})


def save_letters(model: AshNetsPreTrainedModel, folder: Path) -> Path:
    """Save the model and its processor in ``folder``."""
    model.save_pretrained(folder)
    AshNetsProcessor.from_config(AshNetsConfig(**model.config.to_dict()), PIECES).save_pretrained(folder)
    return folder
