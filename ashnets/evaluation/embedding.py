"""Images and texts to the unit vectors of ITC, and images to visual tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from ashnets.data.batches import Share
from ashnets.data.loading import Batches, load_epoch
from ashnets.data.vocabulary import tokenize
from ashnets.evaluation.options import DEFAULT, RESET, EvaluationOptions, Variant
from ashnets.evaluation.prediction import branches_of, shares_of, shown
from ashnets.model.heads import AshNetsForRetrieval
from ashnets.model.sampling import image_key
from ashnets.processor import AshNetsProcessor
from ashnets.tasks.data import TaskData
from ashnets.tasks.items import GRAY

IMAGES, TEXTS = 32, 256  # of one pass


class ImageSet(Protocol):
    """Images by index, such as `ashnets.data.pairs.Pairs` and `TaskImages`.

    Attributes:
        side: side of the decoded images in pixels.
        image_ids: names of the images.
    """

    side: int

    @property
    def image_ids(self) -> Sequence[str]: ...

    def __len__(self) -> int: ...

    def on_white(self, indices: Sequence[int] | np.ndarray) -> torch.Tensor:
        """(B, 3, S, S) in [0, 1]. Raises DataError or InputError if an image cannot be read."""


class TaskImages:
    """Images of a data set by name, from the processor."""

    def __init__(self, data: TaskData, names: Sequence[str], processor: AshNetsProcessor) -> None:
        self.data, self.image_ids, self.processor = data, list(names), processor.image_processor
        self.side = self.processor.image_size

    def __len__(self) -> int:
        return len(self.image_ids)

    def on_white(self, indices: Sequence[int] | np.ndarray) -> torch.Tensor:
        """See `ImageSet.on_white`."""
        opened = [self.data.open_image(self.image_ids[int(i)]) for i in indices]
        # these ids are not used; without ids, the pixels of each image would be hashed
        return self.processor.preprocess(opened, [0] * len(opened))["pixel_values"]  # (B, 3, S, S)


class ImageBatches(Batches[tuple[torch.Tensor, list[int]]]):
    """Batches of images alone: (B, 3, S, S) of each share, and their keys for the sampler."""

    def __init__(self, images: ImageSet, shares: Sequence[Share]) -> None:
        self.images, self.shares = images, shares

    def read(self, number: int) -> tuple[torch.Tensor, list[int]]:
        """Micro-batch ``number``. Raises DataError or InputError if an image cannot be read."""
        indices = self.shares[number].indices
        return self.images.on_white(indices), [image_key(self.images.image_ids[int(i)]) for i in indices]


def images_at_reset(
    images: ImageSet, indices: Sequence[int] | np.ndarray, workers: int = 0
) -> Iterator[tuple[torch.Tensor, list[int]]]:
    """Images (B, 3, S, S) in batches of `IMAGES` with their keys, read by ``workers`` processes.

    Raises:
        DataError: an image cannot be read.
    """
    return load_epoch(ImageBatches(images, shares_of(indices, 1, IMAGES)), 0, workers, pin=False)


@torch.inference_mode()
def embed_images(
    model: AshNetsForRetrieval,
    images: ImageSet,
    indices: Sequence[int] | np.ndarray | None = None,
    variant: Variant = RESET,
    options: EvaluationOptions = DEFAULT,
    keep_tokens: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Embeddings (n, D) and, on request, visual tokens (n, N, M1), on the CPU.

    Args:
        model: in evaluation mode; without ``encode_image``, as for ViLT, embeddings are (n, 0).
        indices: the images; all by default.
        keep_tokens: return the tokens; else they are empty, (0,).

    Raises:
        DataError: an image cannot be read.
    """
    chosen = np.arange(len(images)) if indices is None else np.asarray(indices, int)
    if variant.constant:  # one embedding for all images, so that ties are exact
        gray = torch.full((1, 3, images.side, images.side), GRAY, device=model.device)
        embed = model.encode_image(gray, image_keys=[0], concrete_only=variant.concrete_only)[0].float().cpu()  # (1, D)
        return embed.expand(len(chosen), -1).contiguous(), torch.empty(0)
    order = np.arange(len(chosen)) if variant.order is None else variant.order
    shares = shares_of(order, variant.group_size, options.batch)
    batches = ImageBatches(images, [Share(chosen[share.indices], share.group_size) for share in shares])
    embeds = hasattr(model, "encode_image")
    found, tokens = torch.empty(len(chosen), model.config.projection_size if embeds else 0), torch.empty(0)
    reading = shown(batches, options.workers, variant.name, options.progress)
    for share, (_, (pixels, keys)) in zip(shares, reading, strict=True):
        places, pixels = torch.as_tensor(share.indices), pixels.to(model.device)
        if embeds:
            options_of = branches_of(variant, model, pixels, torch.tensor(keys))
            options_of["group_size"] = share.group_size
            embed, visual = model.encode_image(pixels, image_keys=keys, **options_of)  # (B, D)
            if variant.spikes == "alone":
                embed = model.project_spiking(visual)  # (B, D)
        else:
            embed, visual = torch.empty(len(pixels), 0), model.ashnets.vision(pixels, image_keys=keys)
        found[places] = embed.float().cpu()
        if keep_tokens:
            assert visual.output is not None
            if not len(tokens):
                tokens = torch.empty(len(chosen), *visual.output.shape[1:], dtype=visual.output.dtype)
            tokens[places] = visual.output.cpu()  # (n, N, M1)
    return found, tokens


@torch.inference_mode()
def embed_texts(
    model: AshNetsForRetrieval,
    tokenizer: PreTrainedTokenizerBase,
    texts: list[str],
    for_spikes: bool = False,
) -> torch.Tensor:
    """Embeddings (n, D) of texts, float32 and on the CPU; ``for_spikes`` by STUA's h_w in the place of ITC's."""
    embeds = []
    for start in range(0, len(texts), TEXTS):
        tokens = tokenize(tokenizer, texts[start : start + TEXTS], model.config.max_text_length).to(model.device)
        ids, mask = tokens["input_ids"], tokens["attention_mask"]  # (b, L) each
        if for_spikes:
            embed = model.project_text_for_spikes(model.ashnets.transformer(ids, mask, None)[0])  # (b, D)
        else:
            embed = model.encode_text(ids, mask)  # (b, D)
        embeds.append(embed.float().cpu())
    return torch.cat(embeds)
