"""What the app computes, without a browser: one model, and one collection of images to search."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ashnets.data.folders import printable
from ashnets.data.images import load_image
from ashnets.errors import ConfigurationError, InputError, WeightsError
from ashnets.export.energy.profiles import load_profile, profile_names
from ashnets.export.energy.report import energy_report
from ashnets.export.graph import from_model
from ashnets.export.placement.chips import Chip, load_chip
from ashnets.files import JsonObject
from ashnets.hub.loading import from_pretrained
from ashnets.hub.resolving import weights_sha256
from ashnets.image_search.asking import Answer, ImageQuestions
from ashnets.image_search.searching import Hit, ImageSearch
from ashnets.image_search.showing import ImageSpikes
from ashnets.image_search.shown import Shown
from ashnets.processor import AshNetsProcessor
from ashnets.zoo.comparing import weights_of
from ashnets.zoo.gallery_images import FOLDER, Images

UPLOAD_BYTES = 32 * 2**20  # of an uploaded file
UPLOAD_PIXELS = 36_000_000  # of an uploaded image, before any decoding
PREVIEW = 512  # px, the longer side of an image that is shown


@dataclass(frozen=True)
class Given:
    """An image from the visitor.

    Attributes:
        name: of the file.
        preview: scaled down, to be shown.
        square: as the model sees it; the processor takes it as it is, so results equal those of the file itself.
    """

    name: str
    preview: Image.Image
    square: Image.Image


class Session:
    """A model with its collection.

    Args:
        model: a name, folder or Hub repository with weights.
        images: folder of images or index to search; the bundled gallery by default.
        chip: name of a bundled chip, or a chip file.
        device: of search and questions; a GPU where there is one. Spikes are counted on the CPU.

    Attributes:
        name: of the model.
        search, questions, spiking: None if the model cannot; ``cannot`` has the reason.
        cannot: ``search``, ``ask`` or ``spikes`` → why this model cannot do it.

    Raises:
        UnknownModelError, WeightsError: no such model, or one without weights.
        ConfigurationError: an unusable chip, or no processor.
        DataError: no such folder or index, or no images in it.
    """

    def __init__(
        self,
        model: str | os.PathLike,
        images: str | os.PathLike | None = None,
        chip: str | os.PathLike | None = None,
        *,
        device: str | torch.device | None = None,
    ) -> None:
        self.name = os.fspath(model)
        self.chip: Chip | None = None if chip is None else load_chip(os.fspath(chip))
        self.processor = AshNetsProcessor.from_pretrained(model)
        self.search: ImageSearch | None = None
        self.questions: ImageQuestions | None = None
        self.spiking: ImageSpikes | None = None
        self.cannot: dict[str, str] = {}
        no_search = None
        try:
            self.search = ImageSearch(FOLDER if images is None else images, model, device=device)
        except WeightsError as error:
            no_search = error
            self.cannot["search"] = str(error)
        try:
            self.questions = ImageQuestions(model, device=device)
        except WeightsError as error:
            self.cannot["ask"] = str(error)
        loaded = [one.model for one in (self.search, self.questions) if one is not None]
        on_cpu = [one for one in loaded if one.device.type == "cpu"]  # where energy is counted
        self.model = on_cpu[0] if on_cpu else from_pretrained(model)
        if no_search is not None and hasattr(self.model, "encode_image"):  # the index was made by other weights
            raise no_search
        try:
            from_model(self.model, self.name)
            self.spiking = ImageSpikes(self.model, processor=self.processor)
        except ConfigurationError as error:
            self.cannot["spikes"] = str(error)

    def read(self, path: str | os.PathLike, name: str | None = None) -> Given:
        """Decode an image file.

        Raises:
            InputError: too large, damaged, or no image.
        """
        name = printable(name or Path(path).name)
        try:
            image = load_image(path, max_pixels=UPLOAD_PIXELS)
        except InputError as error:  # the visitor knows the name of the file, not the place of its copy
            raise InputError(str(error).replace(repr(os.fspath(path)), repr(name))) from None
        pixels = self.processor.image_processor(image)["pixel_values"][0]  # (3, S, S), multiples of 1/255
        square = Image.fromarray((pixels * 255).round().byte().permute(1, 2, 0).contiguous().numpy())
        image.thumbnail((PREVIEW, PREVIEW))
        return Given(name, image, square)

    def draw(self) -> Given:
        """A random image of the collection.

        Raises:
            InputError: it can no longer be read.
        """
        search = self._searching()
        row = search.index.contents.rows[int(np.random.default_rng().integers(len(search)))]
        return self.read(search.root / row.path, row.path)

    def by_text(self, text: str, top: int, rerank: int = 0) -> list[Hit]:
        """The images of the collection that match a text; see `ImageSearch.__call__`."""
        return self._searching()(text, top, rerank)

    def by_image(self, given: Given, top: int) -> list[Hit]:
        """The images of the collection that are similar to an image; see `ImageSearch.similar`."""
        return self._searching().similar(given.square, top)

    def ask(self, given: Given, question: str, top: int = 5) -> list[Answer]:
        """The best answers; see `ImageQuestions.__call__`."""
        if self.questions is None:
            raise WeightsError(self.cannot["ask"])
        return self.questions(given.square, question, top)

    def spikes(self, given: Given, texts: Sequence[str] = ()) -> Shown:
        """The spiking branch of an image; see `ImageSpikes.__call__`. By default with the names of the gallery."""
        shown = self._spiking()(given.square, texts=texts or None)
        return replace(shown, name=given.name, model=self.name)

    def energy(self, given: Given, mapping: str = "best") -> JsonObject:
        """The energy report of one image, as `ashnets.energy` gives it for a folder of this image alone."""
        self._spiking()
        batch = self.processor(images=given.square)
        return energy_report(
            self.model,
            Images(batch["pixel_values"], batch["image_keys"].tolist(), f"one image, {given.name}"),
            [load_profile(one) for one in profile_names(every=True)],
            name=self.name,
            weights=f"trained: {weights_of(self.name)}",
            weights_sha256=weights_sha256(self.name),
            chip=self.chip,
            mapping=mapping,
            must_fit=self.chip is not None,
            progress=False,
        )

    def _searching(self) -> ImageSearch:
        if self.search is None:
            raise WeightsError(self.cannot["search"])
        return self.search

    def _spiking(self) -> ImageSpikes:
        if self.spiking is None:
            raise ConfigurationError(self.cannot["spikes"])
        return self.spiking
