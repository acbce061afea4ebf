"""What a finished run is measured by: its model on the held-out items, chance, and what the text alone gives."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ashnets.data.benchmarks.records import Record
from ashnets.data.pairs import Pairs
from ashnets.evaluation.classification import evaluate_classification, write_items
from ashnets.evaluation.options import EvaluationOptions, Variant
from ashnets.evaluation.prediction import Questions
from ashnets.evaluation.retrieval import RetrievalSet, Retrieved, rank, write_examples
from ashnets.files import JsonObject
from ashnets.model.heads import AshNetsForRetrieval
from ashnets.model.pretrained import AshNetsPreTrainedModel
from ashnets.processor import AshNetsProcessor

PAGES = "validation"  # folder in that of a run
EXAMPLES = "examples.html"
BLANK = "blank image"


def close_retrieval(
    model: AshNetsForRetrieval,
    processor: AshNetsProcessor,
    images: Pairs,
    indices: list[int],
    concrete_only: bool,
    heading: tuple[str, str],
    run: Path,
    options: EvaluationOptions,
) -> JsonObject:
    """Rank held-out images and texts, and write the page of examples.

    Returns:
        ``{"images", "texts", "text_to_image": recalls, "image_to_text": recalls, "chance": {way: recalls}, "blank
        image": {way: recalls}}``; the last one is blind: all images are replaced by the same gray one.
    """
    measured = RetrievalSet.of_pairs(images, indices)
    variants = (
        Variant("reset", concrete_only=concrete_only),
        Variant(BLANK, constant=True, concrete_only=concrete_only),
    )
    ranked = {one.name: rank(model, processor.tokenizer, measured, one, options) for one in variants}
    branch = "both" if model.config.has_spiking_branch and not concrete_only else "concrete"
    found = Retrieved(branch, measured, ranked, own=True)
    write_examples(run / PAGES, images.shown, found, heading, options.seed)
    own, blind = (ranked[one.name].main.recalls for one in variants)
    return {
        "images": len(measured.indices),
        "texts": len(measured.texts),
        **own,
        "chance": measured.chance,
        BLANK: blind,
    }


def close_classification(
    model: AshNetsPreTrainedModel,
    asked: Questions,
    learned: Sequence[Record],
    heading: tuple[str, str],
    run: Path,
    options: EvaluationOptions,
) -> JsonObject:
    """Answer held-out items, and write the page of examples.

    Args:
        learned: training items, from which the baselines of the text alone learn.

    Returns:
        ``{"items", "accuracy", "baselines": {name: accuracy}}``.
    """
    found = evaluate_classification(model, asked, learned, "", options)
    write_items(run / PAGES, asked, found, heading, options.seed)
    return {
        "items": len(asked.records),
        "accuracy": found.variants["reset"]["accuracy"],
        "baselines": {name: metrics["accuracy"] for name, metrics in found.baselines.items()},
    }
