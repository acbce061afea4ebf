"""Images and texts to vectors in one call, as with sentence-transformers.

from ashnets import encode
images = encode([Path("cat.jpg"), Path("dog.jpg")])     (2, 256)
texts = encode(["a cat", "a dog", "a bird"])            (3, 256)
images @ texts.T                                        cosines, (2, 3)
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
import torch
from torch.nn.functional import normalize
from tqdm import tqdm
from transformers import BatchFeature

from ashnets.data.images import ImageSource, is_image
from ashnets.device import own_device
from ashnets.errors import ConfigurationError, InputError
from ashnets.hub.loading import from_pretrained
from ashnets.model.heads import AshNetsForRetrieval
from ashnets.model.pretrained import AshNetsPreTrainedModel
from ashnets.processor import AshNetsProcessor

Input = ImageSource | torch.Tensor  # a string is a text


@overload
def encode(
    inputs: Input | Sequence[Input],
    model: str | os.PathLike | AshNetsForRetrieval = ...,
    *,
    processor: AshNetsProcessor | None = ...,
    batch_size: int = ...,
    show_progress_bar: bool | None = ...,
    normalize_embeddings: bool = ...,
    convert_to_tensor: Literal[False] = ...,
    device: str | torch.device | None = ...,
) -> np.ndarray: ...


@overload
def encode(
    inputs: Input | Sequence[Input],
    model: str | os.PathLike | AshNetsForRetrieval = ...,
    *,
    processor: AshNetsProcessor | None = ...,
    batch_size: int = ...,
    show_progress_bar: bool | None = ...,
    normalize_embeddings: bool = ...,
    convert_to_tensor: Literal[True],
    device: str | torch.device | None = ...,
) -> torch.Tensor: ...


def encode(
    inputs: Input | Sequence[Input],
    model: str | os.PathLike | AshNetsForRetrieval = "ashnets-tiny",
    *,
    processor: AshNetsProcessor | None = None,
    batch_size: int = 32,
    show_progress_bar: bool | None = None,
    normalize_embeddings: bool = True,
    convert_to_tensor: bool = False,
    device: str | torch.device | None = None,
) -> np.ndarray | torch.Tensor:
    """The ITC embeddings of images and texts; the dot product of two is their cosine.

        ashnets.encode(["a red car", "a blue boat"], batch_size=64)

    Each image is encoded alone, with spikes that its content determines.

    Args:
        inputs: a string is a text; a path (``pathlib.Path``), a PIL image, bytes, a binary file, or an array or tensor
            of three dimensions is an image. A list may mix them; an array or tensor of four dimensions is a batch of
            images.
        model: a name, folder or Hub repository with a retrieval head, which is loaded at each call; or a loaded model.
        processor: of a loaded model; by default the one in its folder.
        batch_size: images or texts at a time.
        show_progress_bar: by default only on a terminal.
        normalize_embeddings: scale each to length 1; in sentence-transformers this is off by default.
        convert_to_tensor: return a tensor on the model's device, not an array.
        device: to which the model is moved; by default a GPU if there is one, and for a loaded model where it is.

    Returns:
        (n, D) float32 in the order of the inputs; (D,) for a single input.

    Raises:
        InputError: an input that cannot be used, with its place; or a loaded model without a retrieval head or
            processor.
        UnknownModelError, WeightsError, ConfigurationError: as `ashnets.from_pretrained`.
    """
    if batch_size < 1:
        raise ConfigurationError(f"batch_size={batch_size} must be at least 1")
    if isinstance(inputs, np.ndarray | torch.Tensor) and inputs.ndim in (1, 4):  # of strings, of images
        inputs = list(inputs)
    single = not isinstance(inputs, list | tuple)
    items: list[Any] = [inputs] if single else list(inputs)  # type: ignore[arg-type]
    texts = [i for i, item in enumerate(items) if isinstance(item, str)]
    images = [i for i, item in enumerate(items) if not isinstance(item, str)]
    for i in texts:
        if is_image(items[i]) and Path(items[i]).is_file():
            raise InputError(f"inputs[{i}] is the name of an image file: give Path({items[i]!r}) to encode the image")
    texts.sort(key=lambda i: len(items[i]), reverse=True)  # texts of one length need no padding
    loaded, processor = _ready(model, processor, device)
    found = torch.empty(len(items), loaded.config.projection_size, device=loaded.device)
    hidden = None if show_progress_bar is None else not show_progress_bar
    with _evaluating(loaded), tqdm(total=len(items), desc="encoding", unit="input", disable=hidden) as bar:
        for places in _batches(images, batch_size):
            pixels, keys = _read(processor, items, places)
            found[places] = loaded.get_image_features(pixels.to(loaded.device), image_keys=keys).pooler_output
            bar.update(len(places))
        for places in _batches(texts, batch_size):
            batch = _tokens(processor, items, places).to(loaded.device)
            found[places] = loaded.get_text_features(**batch).pooler_output
            bar.update(len(places))
    if normalize_embeddings:
        found = normalize(found, dim=-1)
    vectors = found[0] if single else found
    return vectors if convert_to_tensor else vectors.cpu().numpy()


def _ready(
    model: str | os.PathLike | AshNetsForRetrieval,
    processor: AshNetsProcessor | None,
    device: str | torch.device | None,
) -> tuple[AshNetsForRetrieval, AshNetsProcessor]:
    """The model with a retrieval head, on its device, and its processor."""
    if isinstance(model, str | os.PathLike):
        loaded = from_pretrained(model, task="retrieval", device=own_device(device))
        return loaded, processor or AshNetsProcessor.from_pretrained(model)
    if not isinstance(model, AshNetsForRetrieval):
        raise InputError(f"model is a {type(model).__name__}, which has no embeddings: load it with task='retrieval'")
    chosen = own_device(device or model.device)
    if device is not None:
        model.to(chosen)  # type: ignore[arg-type]
    return model, processor or processor_of(model)


def processor_of(model: AshNetsPreTrainedModel) -> AshNetsProcessor:
    """The processor in the folder of a loaded model. Raises InputError if it has none."""
    if not model.name_or_path:
        raise InputError("this model was not loaded from a folder: give its processor too, processor=...")
    return AshNetsProcessor.from_pretrained(model.name_or_path)


@contextmanager
def _evaluating(model: AshNetsForRetrieval) -> Iterator[None]:
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        model.train(training)


def _batches(places: list[int], size: int) -> Iterator[list[int]]:
    return (places[start : start + size] for start in range(0, len(places), size))


def _read(
    processor: AshNetsProcessor, items: Sequence[ImageSource], places: list[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Pixels (B, 3, S, S) and keys (B,) of images."""

    def one(i: int) -> Any:
        try:
            return processor(images=[items[i]])
        except InputError as error:
            raise InputError(f"inputs[{i}]: {error}") from None

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # Pillow decodes outside the interpreter's lock
        read = list(pool.map(one, places))
    return torch.cat([one["pixel_values"] for one in read]), torch.cat([one["image_keys"] for one in read])


def _tokens(processor: AshNetsProcessor, items: Sequence[str], places: list[int]) -> BatchFeature:
    try:
        return processor(text=[items[i] for i in places])
    except InputError as fault:
        for i in places:
            try:
                processor(text=items[i])
            except InputError as error:
                raise InputError(f"inputs[{i}]: {error}") from None
        raise fault
