"""Questions about images, answered by a model that was fine-tuned for VQA.

    from ashnets import ImageQuestions
    ask = ImageQuestions("my-vqa-model")
    ask("street.jpg", "how many cars are there?")      [{"answer": "2", "score": 0.83}, ...]

The answers that a model can give are the ``id2label`` of its configuration, as in transformers.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TypedDict

import torch
from tqdm import tqdm

from ashnets.data.images import ImageSource
from ashnets.device import own_device
from ashnets.errors import InputError, WeightsError
from ashnets.files import JsonObject
from ashnets.hub.loading import check_task, from_pretrained
from ashnets.hub.resolving import resolve
from ashnets.image_search.collection import read_image, scan
from ashnets.processor import AshNetsProcessor
from ashnets.ties import best
from ashnets.zoo.registry import config_of

TASK = "vqa"
_BATCH = 32


class Answer(TypedDict):
    """An answer and the model's confidence in it; see `ImageQuestions.__call__`."""

    answer: str
    score: float


def ask(
    image: ImageSource,
    question: str,
    *,
    model: str | os.PathLike,
    top: int = 5,
    device: str | torch.device | None = None,
) -> list[Answer]:
    """The best answers to one question. For several questions, create an :class:`ImageQuestions` once and call it.

        ashnets.ask("street.jpg", "how many cars are there?", model="runs/vqa/model")

    Args:
        image, question, top: as in :meth:`ImageQuestions.__call__`, and so are the answers.
        model, device: as for :class:`ImageQuestions`.

    Raises:
        WeightsError, InputError: as there.
    """
    return ImageQuestions(model, device=device)(image, question, top)


class ImageQuestions:
    """A VQA model that answers questions about images.

    Args:
        model: a name, folder or Hub repository with a VQA head and the names of its answers.
        device: of the model; a GPU where there is one.

    Attributes:
        answers: all answers that the model can give.

    Raises:
        WeightsError: the model is not fine-tuned for VQA, or its answers have no names.
    """

    def __init__(self, model: str | os.PathLike, *, device: str | torch.device | None = None) -> None:
        self.answers = _answers(model)
        self.model = from_pretrained(model, task=TASK).to(own_device(device))
        self.processor = AshNetsProcessor.from_pretrained(model)

    def __call__(self, image: ImageSource, question: str, top: int = 5) -> list[Answer]:
        """The best answers about one image (a path, a PIL image, bytes or an array).

        Returns:
            Best first: ``answer``, and ``score`` in [0, 1], the model's confidence; scores of different answers
            do not sum to 1.

        Raises:
            InputError: an image that cannot be used, an empty question, or ``top`` below 1.
        """
        batch = self.processor(images=image)
        return self._answer(batch["pixel_values"], batch["image_keys"].tolist(), question, top)[0]

    def over(
        self, images: str | os.PathLike, question: str, top: int = 5, progress: bool = True
    ) -> Iterator[JsonObject]:
        """The same question about every image below a folder.

        Yields:
            ``image`` (path within the folder), ``path``, and ``answers``, or the reason under ``unreadable``; first
            the folders and entries that cannot be read, then the images in alphabetical order.

        Raises:
            DataError: no such folder, or no image in it.
        """
        root, found = Path(images), scan(images)
        paths = list(found.images)
        for path, why in found.faults.items():
            yield {"image": path, "path": str(root / path), "unreadable": why}
        with tqdm(total=len(paths), desc="asking", unit="image", leave=False, disable=not progress or None) as bar:
            for start in range(0, len(paths), _BATCH):
                part = paths[start : start + _BATCH]
                read = [read_image(root / path, self.processor, {}) for path in part]
                pixels = [one.pixels for one in read if one.pixels is not None]
                keys = [one.key for one in read if one.pixels is not None]
                answers = iter(self._answer(torch.cat(pixels), keys, question, top) if pixels else ())
                for path, one in zip(part, read, strict=True):
                    said = {"unreadable": one.fault} if one.fault else {"answers": next(answers)}
                    yield {"image": path, "path": str(root / path), **said}
                bar.update(len(part))

    @torch.inference_mode()
    def _answer(self, pixels: torch.Tensor, keys: list[int], question: str, top: int) -> list[list[Answer]]:
        if top < 1:
            raise InputError(f"top={top} must be at least 1")
        text = self.processor(text=question).to(self.model.device)
        ids, mask = (text[key].expand(len(pixels), -1) for key in ("input_ids", "attention_mask"))
        logits = self.model(pixels.to(self.model.device), ids, mask, image_keys=keys).logits.float()
        order = best(logits, min(top, len(self.answers)))
        return [
            [{"answer": self.answers[i], "score": score} for i, score in zip(places, scores, strict=True)]
            for places, scores in zip(order.tolist(), logits.sigmoid().gather(1, order).tolist(), strict=True)
        ]


def _answers(model: str | os.PathLike) -> list[str]:
    """The answers by their numbers, before any weights are read."""
    folder = Path(resolve(model))
    check_task(model, folder, TASK)
    config = config_of(folder)
    names = [name for _, name in sorted((config.id2label or {}).items())]
    if len(names) != config.num_answers:
        raise WeightsError(
            f"the weights of {os.fspath(model)} have {config.num_answers} answers, but config.json names {len(names)} "
            "(id2label): give a model that was saved with its answers"
        )
    return names
