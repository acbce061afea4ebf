"""A page of search results: the images that were found, with their scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ashnets.data.folders import printable
from ashnets.data.images import load_image
from ashnets.errors import InputError
from ashnets.evaluation.page import cards, image_tag, page, paragraph

SIDE = 256


def contact_sheet(query: str, about: str, hits: Sequence[Mapping[str, object]], unknown: Sequence[str]) -> str:
    """The page, self-contained.

    Args:
        about: a line about images and model.
        hits: as `ImageSearch` returns them, best first.
        unknown: words of the query that the model does not know.
    """
    parts = [paragraph(words_unknown(unknown), "bad")] if unknown else []
    return page(
        query, about, [*parts, cards((_card(place, hit) for place, hit in enumerate(hits, start=1)), large=True)]
    )


def words_unknown(words: Sequence[str]) -> str:
    """A sentence that names them."""
    return f"The model does not know {', '.join(words)}: it reads fragments of them, and what it finds is a guess."


def _card(place: int, hit: Mapping[str, object]) -> str:
    name = printable(str(hit["image"]))
    try:
        shown = image_tag(load_image(str(hit["path"])), name, SIDE)
    except InputError as error:
        shown = paragraph(str(error), "bad")
    matching = hit.get("matching")
    said = f"{place}. score {hit['score']:.3f}" + (f", matching {matching:.3f}" if isinstance(matching, float) else "")
    return f"{shown}{paragraph(said)}{paragraph(name, 'soft')}"
