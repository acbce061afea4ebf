"""Readers for published benchmarks in their original files: captions, questions, pairs, entailment.

    open_benchmark("nlvr2", "data/nlvr2").records("dev")

One file for each family; `Benchmark` is their base class, `records` defines the records.
"""

from __future__ import annotations

import os

from ashnets.data.benchmarks.benchmark import AnnotationFile, Benchmark
from ashnets.data.benchmarks.coco_captions import CocoCaptions
from ashnets.data.benchmarks.coco_qa import CocoQa
from ashnets.data.benchmarks.easy_vqa import EasyVqa
from ashnets.data.benchmarks.flickr30k import Flickr30K
from ashnets.data.benchmarks.nlvr2 import Nlvr2
from ashnets.data.benchmarks.records import Captioned, Entailment, ImagePair, Question, Record
from ashnets.data.benchmarks.snli_ve import SnliVe
from ashnets.data.benchmarks.visual_genome import VisualGenomeRegions
from ashnets.data.benchmarks.vqa_cp_v2 import VqaCpV2
from ashnets.data.benchmarks.vqa_v2 import VqaV2
from ashnets.errors import ConfigurationError, did_you_mean

__all__ = [
    "BENCHMARKS",
    "AnnotationFile",
    "Benchmark",
    "Captioned",
    "Entailment",
    "ImagePair",
    "Question",
    "Record",
    "open_benchmark",
]

BENCHMARKS: dict[str, type[Benchmark]] = {
    reader.name: reader
    for reader in (CocoCaptions, Flickr30K, VisualGenomeRegions, VqaV2, VqaCpV2, CocoQa, Nlvr2, SnliVe, EasyVqa)
}


def open_benchmark(name: str, folder: str | os.PathLike, images: str | os.PathLike | None = None) -> Benchmark:
    """A benchmark on disk; nothing is read yet.

    Args:
        name: a key of `BENCHMARKS`.
        folder: contains the annotation files.
        images: contains the images, if they are in another folder.

    Raises:
        ConfigurationError: no such benchmark.
        DataError: no such folder.
    """
    if name not in BENCHMARKS:
        hint = did_you_mean(name, BENCHMARKS)
        raise ConfigurationError(f"no benchmark {name!r}.{hint} There are {', '.join(BENCHMARKS)}.")
    return BENCHMARKS[name](folder, images)
