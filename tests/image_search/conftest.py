"""Saved small models, and folders of images that a test may change."""

from __future__ import annotations

import os
import string
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

LETTERS = string.ascii_lowercase
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *(f"##{letter}" for letter in LETTERS)]
SMALL = {
    "image_size": 32,
    "backbone_widths": [8, 16],
    "spiking_channels": [4, 6, 8],
    "hidden_size": 24,
    "num_concepts": 12,
    "time_steps": 3,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "vocab_size": len(PIECES),
    "max_text_length": 48,
    "max_position_embeddings": 48,
    "projection_size": 16,
    "initializer_range": 0.3,
}


def write_model(folder: Path, task: str = "retrieval", seed: int = 0, **changes) -> Path:
    """A random model whose spiking layers fire, with its processor."""
    from ashnets import AshNetsProcessor
    from ashnets.model.tdbn import calibrate
    from ashnets.zoo import create

    model = create("ashnets-tiny", task=task, seed=seed, **SMALL, **changes).eval()
    vision = model.ashnets.vision
    pixels = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    calibrate(vision.abstract_encoder, [vision.sample(pixels)], run=vision.abstract_encoder.run)
    model.save_pretrained(folder)
    AshNetsProcessor.from_config(model.config, PIECES).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "small")


@pytest.fixture(scope="session")
def other_model(tmp_path_factory) -> Path:
    """The same architecture with other weights."""
    return write_model(tmp_path_factory.mktemp("models") / "other", seed=1)


@pytest.fixture(scope="session")
def vqa_model(tmp_path_factory) -> Path:
    """A VQA head with the names of its answers."""
    answers = ["yes", "no", "two", "red"]
    return write_model(
        tmp_path_factory.mktemp("models") / "vqa", "vqa", num_answers=4, id2label=dict(enumerate(answers))
    )


def draw_image(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (12, 15, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((45, 36), Image.Resampling.NEAREST).save(path)
    return path


def fill_folder(folder: Path, count: int = 21) -> Path:
    """Images in two folders, one broken, one empty, one hidden, and a text."""
    for i in range(count):
        draw_image(folder / ("a" if i % 3 else "b/c") / f"{i:02}.png", seed=i)
    (folder / "a" / "broken.jpg").write_bytes((folder / "a" / "01.png").read_bytes()[:200])
    (folder / "empty.png").touch()
    (folder / ".thumbnails").mkdir()
    draw_image(folder / ".thumbnails" / "1.png", seed=99)
    (folder / "notes.txt").write_text("no image")
    return folder


@pytest.fixture(scope="session")
def draw():
    """`draw_image`."""
    return draw_image


@pytest.fixture(scope="session")
def fill():
    """`fill_folder`."""
    return fill_folder


@pytest.fixture
def images(tmp_path) -> Path:
    return fill_folder(tmp_path / "images")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch) -> Path:
    """Each test has its own indexes."""
    monkeypatch.setenv("ASHNETS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def one_thread() -> dict[str, str]:
    """An environment for processes whose vectors must be bit-identical."""
    return {**os.environ, "OMP_NUM_THREADS": "1"}
