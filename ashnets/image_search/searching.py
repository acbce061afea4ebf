"""Search images by text or by image in an index, with optional re-ranking by the matching head (ITM).

    from ashnets import ImageSearch
    search = ImageSearch("my-images")
    search("a red car", top=3)              [{"image": "cars/7.jpg", "path": ..., "score": 0.41}, ...]

The score is ITC's cosine of text and image.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NotRequired, TypedDict, overload

import torch

from ashnets.data.folders import printable
from ashnets.data.images import ImageSource
from ashnets.data.vocabulary import unknown_words
from ashnets.device import own_device
from ashnets.errors import DataError, InputError
from ashnets.evaluation.two_stage import log_odds
from ashnets.files import require_writable, write_atomically
from ashnets.hub.loading import from_pretrained
from ashnets.image_search.collection import read_image, refuse_url
from ashnets.image_search.identity import identify
from ashnets.image_search.indexing import check_model, default_name, index
from ashnets.image_search.sheet import contact_sheet
from ashnets.image_search.store import HEAD, LOCK, StoredIndex, index_folder, is_index, read_head
from ashnets.processor import AshNetsProcessor
from ashnets.words import without_place

MODEL = "ashnets-tiny"


class Hit(TypedDict):
    """An image that was found; see `ImageSearch.__call__`."""

    image: str
    path: str
    score: float
    matching: NotRequired[float | None]


def search(
    images: str | os.PathLike,
    query: str,
    *,
    top: int = 10,
    rerank: int = 0,
    model: str | os.PathLike | None = None,
    page: str | os.PathLike | None = None,
    progress: bool = True,
    device: str | torch.device | None = None,
) -> list[Hit]:
    """The images that match a text best. For several texts, create an :class:`ImageSearch` once and call it.

        ashnets.search("my-images", "a red car", top=3)

    Args:
        images: a folder of images or an index.
        query, top, rerank: as in :meth:`ImageSearch.__call__`, and so are the hits.
        page: an HTML file to write, a contact sheet of the hits.
        model, progress, device: as for :class:`ImageSearch`.

    Raises:
        DataError, WeightsError, InputError: as there.
        OutputError: ``page`` cannot be written; found before the search.
    """
    require_query(query)
    if page is not None:
        require_writable(page)
    found = ImageSearch(images, model, progress=progress, device=device)
    hits = found(query, top, rerank)
    if page is not None:
        found.write_page(page, query, hits)
    return hits


class ImageSearch:
    """A model and an index to search by text or by image.

    Args:
        images: a folder of images, whose index is created or updated first; or the name or folder of an index,
            which is searched without an update.
        model: by default the one that made the index, ``ashnets-tiny`` for a folder of images.
        progress: show a progress bar while embedding.
        device: of the model; a GPU where there is one.

    Attributes:
        unreadable: path → reason, of images that are not in the index.

    Raises:
        DataError: ``images`` is neither a folder nor an index, the folder contains no images, or the index is damaged.
        WeightsError: the index was made by other weights, or the model has no retrieval head.
    """

    def __init__(
        self,
        images: str | os.PathLike,
        model: str | os.PathLike | None = None,
        *,
        progress: bool = True,
        device: str | torch.device | None = None,
    ) -> None:
        folder = _existing(images)
        if folder is None:
            identity = identify(model or MODEL)
            name = default_name(Path(images).resolve(), identity)
            folder = Path(index(images, name, model or MODEL, progress=progress, device=device)["folder"])
        self.index = StoredIndex(folder)
        contents = self.index.contents
        model = model or contents.model.name
        check_model(contents.model, identify(model), folder, contents.root)
        self.root, self.unreadable = Path(contents.root), dict(contents.unreadable)
        self.model = from_pretrained(model, task="retrieval").to(own_device(device))
        self.processor = AshNetsProcessor.from_pretrained(model)

    def __len__(self) -> int:
        return len(self.index)

    @overload
    def __call__(self, query: str, top: int = 10, rerank: int = 0) -> list[Hit]: ...

    @overload
    def __call__(self, query: list[str], top: int = 10, rerank: int = 0) -> list[list[Hit]]: ...

    @torch.inference_mode()
    def __call__(self, query: str | list[str], top: int = 10, rerank: int = 0) -> list[Hit] | list[list[Hit]]:
        """The best images for a text, or for each of several.

        Args:
            query: a text or a list of texts.
            top: images to return.
            rerank: candidates of each text that ITC and the matching head (ITM) order anew together, ahead of the
                others (:mod:`ashnets.evaluation.two_stage`); they are read and encoded again, and those that cannot be
                keep their place behind. 0 leaves it at ITC.

        Returns:
            Hits, best first: ``image`` (path within the folder), ``path``, ``score`` (ITC: cosine in [-1, 1]), and
            with ``rerank`` ``matching`` (ITM: probability that image and text match; None where none was computed).

        Raises:
            InputError: an empty text, or numbers out of range.
        """
        if top < 1 or rerank < 0:
            raise InputError(f"top={top}, rerank={rerank}: give at least 1, and at least 0")
        texts = self.processor(text=query).to(self.model.device)
        embeds = self.model.encode_text(texts["input_ids"], texts["attention_mask"])
        scores, rows = self.index.search(embeds.float().cpu().numpy(), max(top, rerank))
        found = []
        for i in range(len(embeds)):
            hits = [self._hit(int(row), float(score)) for row, score in zip(rows[i], scores[i], strict=True)]
            if rerank:
                best = self._matched(hits[:rerank], texts["input_ids"][i], texts["attention_mask"][i])
                hits = best + [{**hit, "matching": None} for hit in hits[rerank:]]
            found.append(hits[:top])
        return found[0] if isinstance(query, str) else found

    def unknown_words(self, query: str) -> list[str]:
        """Words of a text that the model does not know: its vocabulary has only fragments of them."""
        return unknown_words(self.processor.tokenizer, query)

    def write_page(self, path: str | os.PathLike, query: str, hits: Sequence[Hit]) -> Path:
        """Write a self-contained HTML page: a contact sheet of hits with their scores, and the unknown words."""
        model = without_place(self.index.contents.model.name)
        about = f"{len(hits)} of {len(self)} images of {printable(self.root.name)}, by {model}"
        return write_atomically(path, contact_sheet(query, about, hits, self.unknown_words(query)).encode())

    @torch.inference_mode()
    def similar(self, image: ImageSource, top: int = 10) -> list[Hit]:
        """The images whose ITC embeddings are nearest to that of an image, best first.

        Args:
            image: a path, a PIL image, bytes or an array; it need not be in the index.
            top: images to return.

        Raises:
            InputError: an image that cannot be used, or ``top`` below 1.
        """
        if top < 1:
            raise InputError(f"top={top} must be at least 1")
        batch = self.processor(images=image)
        pixels = batch["pixel_values"].to(self.model.device)
        embeds, _ = self.model.encode_image(pixels, image_keys=batch["image_keys"].tolist())
        scores, rows = self.index.search(embeds.float().cpu().numpy(), top)
        return [self._hit(int(row), float(score)) for row, score in zip(rows[0], scores[0], strict=True)]

    def _hit(self, row: int, score: float) -> Hit:
        path = self.index.contents.rows[row].path
        return {"image": path, "path": str(self.root / path), "score": score}

    def _matched(self, hits: list[Hit], ids: torch.Tensor, mask: torch.Tensor) -> list[Hit]:
        read = [read_image(hit["path"], self.processor, {}) for hit in hits]
        # Equal files are matched once: in two places of a batch their log-odds would differ by rounding.
        readable = list({one.sha256: one for one in read if one.pixels is not None}.values())
        odds: dict[str, torch.Tensor] = {}
        for start in range(0, len(readable), 64):
            some = readable[start : start + 64]
            pixels = torch.cat([one.pixels for one in some if one.pixels is not None]).to(self.model.device)
            _, visual = self.model.encode_image(pixels, image_keys=[one.key for one in some])
            logits = self.model.match(visual.output, ids.expand(len(some), -1), mask.expand(len(some), -1))
            odds |= zip((one.sha256 for one in some), log_odds(logits).cpu(), strict=True)
        both, tau = [float("-inf")] * len(hits), float(self.model.temperature())
        for i, (hit, one) in enumerate(zip(hits, read, strict=True)):
            own = odds.get(one.sha256)
            hit["matching"] = None if own is None else float(own.sigmoid())
            if own is not None:
                both[i] = hit["score"] / tau + float(own)
        return [hits[i] for i in sorted(range(len(hits)), key=lambda i: both[i], reverse=True)]


def require_query(query: str) -> None:
    """Raise InputError if a query is empty; called before a folder is indexed."""
    if not query.strip():
        raise InputError(f"the query {query!r} is empty: give at least one word")


def _existing(images: str | os.PathLike) -> Path | None:
    """The folder of the index that ``images`` names; None for a folder of images."""
    path, text = Path(images), os.fspath(images)
    if path.is_dir():
        damaged = (path / HEAD).exists() and (path / LOCK).exists()
        return path if damaged or is_index(path) else None
    if path.is_file():
        raise DataError(f"{printable(path)} is a file: give the folder that holds it, or the name of an index")
    folder = index_folder(text)
    if not folder.is_dir():
        refuse_url(text)
        raise DataError(
            f"{printable(path)} is neither a folder of images nor the name of an index (indexes are in "
            f"{folder.parent}): `ashnets index IMAGES --name NAME` makes one"
        )
    read_head(folder)
    return folder
