"""Score a file of predictions like the benchmark's own tools.

    score("vqa-v2", "answers.json", "data/vqa")          → {"dataset": "vqa-v2", "split": "val", "accuracy": 0.71, …}

============== ======================================================== ================================
benchmark      file of predictions                                      result
============== ======================================================== ================================
vqa-v2         ``[{"question_id", "answer"}]``                          soft accuracy, by type
vqa-cp-v2      the same                                                 the same
coco-qa        one answer per line                                      accuracy by type, WUPS
easy-vqa       one answer per line                                      accuracy by type
nlvr2          ``identifier,prediction`` per line                       accuracy, consistency
snli-ve        ``[{"pairID", "label"}]``                                accuracy by label
coco-captions  safetensors, see `retrieval_tensors`                     R@1, 5, 10 both ways; 1K and all
flickr30k      the same                                                 R@1, 5, 10 both ways
============== ======================================================== ================================

Accuracies and recalls lie in [0, 1]. Visual Genome's regions are for training only and have no score.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, cast

from ashnets.data.benchmarks import open_benchmark
from ashnets.data.benchmarks.records import Captioned, Entailment, ImagePair, Question, Record
from ashnets.data.benchmarks.snli_ve import LABELS
from ashnets.errors import ConfigurationError, DataError, InputError
from ashnets.files import JsonObject
from ashnets.metrics.coco_qa import coco_qa_accuracy
from ashnets.metrics.entailment import entailment_accuracy
from ashnets.metrics.nlvr2 import nlvr2_accuracy
from ashnets.metrics.submission import read_answer_lines, read_answers, read_judgments, read_labels
from ashnets.metrics.vqa import vqa_accuracy
from ashnets.metrics.wordnet import WordNet

if TYPE_CHECKING:
    import torch

CAPTIONS = 5  # a few images of COCO have more; published recalls take the first five
_FOLD = 1000


def score(
    dataset: str,
    predictions: str | os.PathLike,
    annotations: str | os.PathLike,
    split: str | None = None,
    *,
    wordnet: str | os.PathLike | None = None,
) -> JsonObject:
    """Score a file of predictions.

    Args:
        dataset: the benchmark's name, as in `ashnets.data.benchmarks.BENCHMARKS`.
        predictions: see the table above.
        annotations: the folder that `open_benchmark` reads; its images are not needed.
        split: the benchmark's ``default_split`` if None.
        wordnet: folder of WordNet's database; COCO-QA's WUPS are left out without it.

    Returns:
        ``{"dataset", "split", …}`` with what the metric gives.

    Raises:
        ConfigurationError: no such benchmark, or one without a score; ``wordnet`` with another dataset than COCO-QA.
        DataError: annotations that are missing or damaged, a split whose answers are not published.
        InputError: incomplete predictions.
    """
    benchmark = open_benchmark(dataset, annotations)
    if dataset not in _SCORERS:
        raise ConfigurationError(f"{dataset} has no score; choose one of {', '.join(_SCORERS)}.")
    if wordnet is not None and dataset != "coco-qa":
        raise ConfigurationError(f"wordnet={os.fspath(wordnet)!r}: WUPS is a metric of coco-qa, not of {dataset}.")
    split = split or benchmark.default_split
    records = benchmark.records(split)
    if not records:
        raise DataError(f"{benchmark.folder}: split {split} of {benchmark.title} contains no items.")
    if isinstance(records[0], Question) and records[0].answer is None:
        raise DataError(
            f"the answers of {benchmark.title}'s {split} are not published: send the file to its evaluation server."
        )
    known = WordNet(wordnet) if wordnet is not None else None
    return {"dataset": dataset, "split": split, **_SCORERS[dataset](records, predictions, known)}


def retrieval_tensors(path: str | os.PathLike, image_count: int, captions: int) -> tuple[torch.Tensor, float]:
    """Similarities (image_count, captions) from a safetensors file, in the order of the annotations, and their scale
    (:func:`ashnets.metrics.retrieval.ranks`).

    The file contains ``similarity`` (I, C), or ``images`` (I, D) and ``texts`` (C, D) for inner products, in any
    floating-point type. The captions of an image are consecutive, at most `CAPTIONS` for each.

    Raises:
        InputError: no such file, tensors or shapes.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from ashnets.ties import products

    if not Path(path).is_file():
        raise InputError(f"{path} does not exist. Give a safetensors file with similarity, or images and texts.")
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is not a safetensors file ({error}).") from None
    if "similarity" in tensors:
        similarity, scale = tensors["similarity"].float(), 0.0
    elif {"images", "texts"} <= tensors.keys():
        images, texts = tensors["images"].float(), tensors["texts"].float()
        if images.dim() != 2 or texts.dim() != 2 or images.shape[1] != texts.shape[1]:
            raise InputError(f"{path}: images {tuple(images.shape)} and texts {tuple(texts.shape)} have no product.")
        similarity = products(images, texts)
        scale = float(images.norm(dim=1).amax() * texts.norm(dim=1).amax())
    else:
        raise InputError(f"{path} contains {sorted(tensors)}; it must contain similarity, or images and texts.")
    if similarity.shape != (image_count, captions):
        raise InputError(
            f"{path} has {tuple(similarity.shape)} images and captions, the split has {(image_count, captions)}: "
            f"give all of them in the order of the annotations, the first {CAPTIONS} captions of each image."
        )
    return similarity, scale


def _vqa(records: list[Record], path: str | os.PathLike, _: WordNet | None) -> JsonObject:
    questions = cast(list[Question], records)
    return vqa_accuracy(questions, read_answers(path, [question.id for question in questions]))


def _single_answers(records: list[Record], path: str | os.PathLike, wordnet: WordNet | None) -> JsonObject:
    questions = cast(list[Question], records)
    return coco_qa_accuracy(questions, read_answer_lines(path, len(questions)), wordnet)


def _nlvr2(records: list[Record], path: str | os.PathLike, _: WordNet | None) -> JsonObject:
    pairs = cast(list[ImagePair], records)
    return nlvr2_accuracy(pairs, read_judgments(path, [pair.id for pair in pairs]))


def _entailment(records: list[Record], path: str | os.PathLike, _: WordNet | None) -> JsonObject:
    pairs = cast(list[Entailment], records)
    return entailment_accuracy(pairs, read_labels(path, [pair.id for pair in pairs], LABELS))


def _retrieval(records: list[Record], path: str | os.PathLike, _: WordNet | None) -> JsonObject:
    import torch

    from ashnets.metrics.retrieval import recall_both_ways, recall_in_folds

    counts = [len(record.captions[:CAPTIONS]) for record in cast(list[Captioned], records)]
    owners = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))  # (C,)
    similarity, scale = retrieval_tensors(path, len(counts), len(owners))
    recalls = recall_both_ways(similarity, owners, scale=scale)
    found: JsonObject = {"images": len(counts), "captions": len(owners), **recalls}
    if len(counts) > _FOLD and len(counts) % _FOLD == 0:
        found["folds of 1000"] = recall_in_folds(similarity, owners, _FOLD, scale=scale)
    return found


_SCORERS: dict[str, Callable[[list[Record], str | os.PathLike, WordNet | None], JsonObject]] = {
    "vqa-v2": _vqa,
    "vqa-cp-v2": _vqa,
    "coco-qa": _single_answers,
    "easy-vqa": _single_answers,
    "nlvr2": _nlvr2,
    "snli-ve": _entailment,
    "coco-captions": _retrieval,
    "flickr30k": _retrieval,
}
