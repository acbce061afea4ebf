"""What the spiking branch makes of one image: its spikes, its summary ratio, and the texts nearest to it.

from ashnets import ImageSpikes
spikes = ImageSpikes("ashnets-tiny")
shown = spikes("cat.png")
shown.rates, shown.summary_ratio, shown.texts["spikes alone"]
shown.summary_ratio_image()                 a PIL image
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

import torch

from ashnets.data.corpus import open_gallery
from ashnets.data.images import ImageSource, load_image
from ashnets.data.sources.opening import open_source
from ashnets.device import own_device
from ashnets.errors import ConfigurationError, DataError, InputError
from ashnets.evaluation.embedding import embed_texts
from ashnets.files import require_writable, write_atomically
from ashnets.hub.loading import from_pretrained
from ashnets.image_search.encoding import processor_of
from ashnets.image_search.shown import SPIKES_ALONE, WITH_SPIKES, WITHOUT_SPIKES, Shown
from ashnets.model.heads import AshNetsForRetrieval
from ashnets.model.outputs import VisualOutput
from ashnets.model.pretrained import AshNetsPreTrainedModel
from ashnets.processor import AshNetsProcessor
from ashnets.ties import best, products

MODEL = "ashnets-tiny"
Texts = Sequence[str] | str | os.PathLike


def show(
    image: ImageSource,
    *,
    model: str | os.PathLike = MODEL,
    texts: Texts | None = None,
    top: int = 5,
    page: str | os.PathLike | None = None,
    device: str | torch.device | None = None,
) -> Shown:
    """Show what the spiking branch makes of an image. For several images, create an :class:`ImageSpikes` once.

        ashnets.show("cat.png", page="cat.html")

    Args:
        image, top: as in :meth:`ImageSpikes.__call__`.
        model, texts, device: as for :class:`ImageSpikes`.
        page: an HTML file to write, `Shown.page`.

    Raises:
        ConfigurationError, DataError, WeightsError, InputError: as there.
        OutputError: ``page`` cannot be written; found before the model is loaded.
    """
    if page is not None:
        require_writable(page)
    shown = ImageSpikes(model, texts, device=device)(image, top)
    if page is not None:
        write_atomically(page, shown.page().encode())
    return shown


class ImageSpikes:
    """A model, and texts to compare images with.

    Args:
        model: a name, folder or Hub repository with a spiking branch and a retrieval head; or a loaded model with a
            spiking branch, which is set to evaluation. Without a retrieval head, it shows no texts.
        texts: a list; a text file with one text a line; or captioned images in any form that ``open_source`` accepts,
            whose names, or first captions, are the texts. By default the names of the bundled gallery.
        processor: of a loaded model; by default the one in its folder.
        device: to which the model is moved; by default a GPU where there is one, and for a loaded model where it is.

    Raises:
        ConfigurationError: the model has no spiking branch.
        DataError: the texts cannot be read, or there are none.
        InputError: a loaded model that has no folder, without its processor.
        WeightsError: the model has no retrieval head.
    """

    def __init__(
        self,
        model: str | os.PathLike | AshNetsPreTrainedModel = MODEL,
        texts: Texts | None = None,
        *,
        processor: AshNetsProcessor | None = None,
        device: str | torch.device | None = None,
    ) -> None:
        self.texts = _texts(texts)
        self.model: Any
        if isinstance(model, str | os.PathLike):
            self.name = os.fspath(model)
            self.model = from_pretrained(model, task="retrieval").to(own_device(device))
            processor = processor or AshNetsProcessor.from_pretrained(model)
        else:
            self.name = model.name_or_path or type(model).__name__
            self.model = model.eval().to(own_device(device or model.device))
        if not self.model.config.has_spiking_branch:
            raise ConfigurationError(f"{self.name} has no spiking branch to show: give a model that has one")
        self.processor = processor or processor_of(self.model)

    @torch.inference_mode()
    def __call__(self, image: ImageSource, top: int = 5, texts: Texts | None = None) -> Shown:
        """The spikes of one image (a path, a PIL image, bytes or an array), from the reset state.

        Args:
            top: number of nearest texts.
            texts: for this image, in the place of the object's.

        Raises:
            InputError: an image that cannot be used, or ``top`` below 1.
            DataError: the texts cannot be read, or there are none.
        """
        if top < 1:
            raise InputError(f"top={top} must be at least 1")
        opened = load_image(image)
        batch = self.processor(images=opened).to(self.model.device)
        vision = self.model.base_model.vision
        drawn = vision.sample(batch["pixel_values"], batch["image_keys"])  # (T, 1, 3, H, W)
        layers, _ = vision.abstract_encoder.run(drawn)
        visual = vision(batch["pixel_values"], spikes=drawn)
        side = int(visual.summary_ratio.shape[1] ** 0.5)
        return Shown(
            image=opened,
            name=Path(image).name if isinstance(image, str | os.PathLike) else "image",
            model=self.name,
            spikes={name: fired[:, 0].bool().flatten(1).cpu().numpy() for name, fired in layers.items()},
            summary_ratio=visual.summary_ratio.view(side, side).float().cpu().numpy(),
            texts=self._nearest(visual, texts, top) if self.reads_texts else {},
        )

    @property
    def reads_texts(self) -> bool:
        """Whether the model has the retrieval head that compares images with texts."""
        return isinstance(self.model, AshNetsForRetrieval)

    def _nearest(self, visual: VisualOutput, given: Texts | None, top: int) -> dict[str, list[tuple[str, float]]]:
        assert visual.output is not None
        images = {WITH_SPIKES: self.model.project_image(visual.output)}  # (1, D) each
        if visual.concrete is not None:
            images[WITHOUT_SPIKES] = self.model.project_image(visual.concrete)
        images[SPIKES_ALONE] = self.model.project_spiking(visual)
        texts = self.texts if given is None else _texts(given)
        embeds = self._own_embeds if given is None else self._embed(texts)
        nearest = {}
        for name, embed in images.items():
            scores = products(embed.float().cpu(), embeds[name == SPIKES_ALONE])  # (1, n)
            order = best(scores, min(top, len(texts)))[0]
            nearest[name] = [(texts[i], float(scores[0, i])) for i in order.tolist()]
        return nearest

    @cached_property
    def _own_embeds(self) -> dict[bool, torch.Tensor]:
        return self._embed(self.texts)

    def _embed(self, texts: list[str]) -> dict[bool, torch.Tensor]:
        """Embeddings of texts (n, D), False for images, and True for spikes alone."""
        return {
            alone: embed_texts(self.model, self.processor.tokenizer, texts, for_spikes=alone) for alone in (False, True)
        }


def _texts(given: Texts | None) -> list[str]:
    if given is None:
        gallery = open_gallery(Path(str(resources.files("ashnets.zoo") / "gallery")))
        found = [str(row["name"]) for row in gallery.rows]
    elif not isinstance(given, str | os.PathLike):
        found = list(given)
    elif Path(given).suffix.lower() == ".txt":
        try:
            found = Path(given).read_text(encoding="utf-8-sig").splitlines()
        except (OSError, ValueError) as error:
            raise DataError(f"{given} cannot be read ({error}): give a text file in UTF-8, one text a line") from None
    else:
        found = open_source(given, hold_out=0).rows["name"].to_pylist()
    texts = list(dict.fromkeys(text.strip() for text in found if text.strip()))
    if not texts:
        raise DataError("there are no texts to compare with: give at least one")
    return texts
