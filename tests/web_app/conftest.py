"""Small saved models, a folder of images, and a recorder of connections that leave the machine."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ashnets.model.tdbn import calibrate
from ashnets.zoo import create
from tests.small_letters import SMALL, save_letters

ANSWERS = {0: "yes", 1: "no", 2: "two"}


def save_model(folder: Path, task: str, **changes: Any) -> Path:
    """A random model whose spiking layers fire."""
    model = create("ashnets-tiny", task=task, seed=0, **{**SMALL, **changes}).eval()
    vision = model.ashnets.vision
    pixels = torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    calibrate(vision.abstract_encoder, [vision.sample(pixels)], run=vision.abstract_encoder.run)
    return save_letters(model, folder)


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("app") / "retrieval", "retrieval")


@pytest.fixture(scope="session")
def vqa_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("app") / "vqa", "vqa", num_answers=3, id2label=ANSWERS)


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven images that are not square, and a damaged one."""
    folder = tmp_path_factory.mktemp("app") / "some images"
    folder.mkdir()
    for i in range(7):
        pixels = np.random.default_rng(i).integers(0, 256, (12, 15, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((45, 36), Image.Resampling.NEAREST).save(folder / f"{i}.png")
    (folder / "damaged.png").write_bytes((folder / "0.png").read_bytes()[:300])
    return folder


@pytest.fixture(scope="module")
def outside() -> Iterator[list[Any]]:
    """Addresses beyond this machine to which this process has tried to connect, or whose names it has looked up."""
    found: list[Any] = []
    own = ("127.0.0.1", "localhost", "::1", None)

    def connect(self: socket.socket, address: Any, before: Any = socket.socket.connect) -> None:
        if self.family != socket.AF_UNIX and address[0] not in own:
            found.append(address)
        before(self, address)

    def look_up(host: Any, *words: Any, before: Any = socket.getaddrinfo, **more: Any) -> Any:
        if (host.decode() if isinstance(host, bytes) else host) not in own:
            found.append(host)
        return before(host, *words, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", connect)
        patch.setattr(socket, "getaddrinfo", look_up)
        yield found
