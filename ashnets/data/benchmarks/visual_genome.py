"""Visual Genome's region descriptions: phrases, each about a box of the image.

    [{"id": 1, "regions": [{"region_id": 1382, "image_id": 1, "phrase": "the clock is green in colour",
                            "x": 421, "y": 57, "width": 82, "height": 139}, …]}, …]

Images lie in two folders, ``VG_100K`` and ``VG_100K_2``; both are searched. The file has no split. Images without
regions are left out, as are empty phrases. The keys are those of version 1.2 and later.

``image_data.json`` gives each image's ids in COCO and Flickr, or null; only joined corpora need it:

    [{"image_id": 1, "width": 800, "height": 600, "url": "…", "coco_id": null, "flickr_id": null}, …]

Source: Krishna et al., Visual Genome, 2017; https://homes.cs.washington.edu/~ranjay/visualgenome/api.html.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

from ashnets.data.benchmarks.benchmark import AnnotationFile, Benchmark
from ashnets.data.benchmarks.faults import Broken, Faults, Place, field, listed, text, whole
from ashnets.data.benchmarks.files import json_elements, json_entries
from ashnets.data.benchmarks.records import Captioned, Record

_HOME = "https://homes.cs.washington.edu/~ranjay/visualgenome/api.html"
_BOX = ("x", "y", "width", "height")
_IMAGE_DATA = "image_data.json"


class Elsewhere(NamedTuple):
    """The ids of an image in COCO and in Flickr, where it has one."""

    coco_id: int | None
    flickr_id: int | None


class VisualGenomeRegions(Benchmark):
    """Visual Genome, one record for each image, one caption for each region."""

    name = "visual-genome"
    title = "Visual Genome regions"
    files = (
        AnnotationFile("region_descriptions.json", ("all",), f"{_HOME} (region_descriptions.json.zip)"),
        AnnotationFile(_IMAGE_DATA, (), f"{_HOME} (image_data.json.zip)"),
    )
    image_folders = ("VG_100K", "VG_100K_2", "", "images", "images/VG_100K", "images/VG_100K_2")
    image_origin = f"{_HOME} (images.zip and images2.zip)"
    default_split = "all"

    def located(self, splits: Collection[str], faults: Faults) -> Iterator[tuple[str, Place, Record]]:
        """See `Benchmark.located`. The file is read piece by piece, so that memory stays small."""
        if "all" not in splits:
            return
        for place, raw in json_elements(self.file("region_descriptions.json"), faults):
            record = faults.attempt(place, _captioned, raw)
            if record is not None and record.captions and faults.is_new("image_id", record.id, place):
                yield "all", place, record

    def elsewhere(self, faults: Faults) -> dict[int, Elsewhere]:
        """The other ids of each image. Raises DataError if ``image_data.json`` is missing."""
        found: dict[int, Elsewhere] = {}
        for place, raw in json_entries(self.file(_IMAGE_DATA), "images", faults):
            read = faults.attempt(place, _elsewhere, raw)
            if read is not None and faults.is_new("image_id of image_data.json", read[0], place):
                found[read[0]] = read[1]
        return found


def _elsewhere(raw: Any) -> tuple[int, Elsewhere]:
    ids = (None if field(raw, key) is None else whole(raw, key) for key in ("coco_id", "flickr_id"))
    return whole(raw, "image_id"), Elsewhere(*ids)


def _captioned(raw: object) -> Captioned:
    regions = listed(raw, "regions")
    image_ids = {whole(region, "image_id") for region in regions}
    if isinstance(raw, dict) and "id" in raw:
        image_ids.add(whole(raw, "id"))
    if len(image_ids) != 1:
        raise Broken(f"its regions name the images {sorted(image_ids)}; they must name one. Correct them.")
    image_id = image_ids.pop()
    kept = [(region, phrase) for region in regions if (phrase := text(region, "phrase", empty=True))]
    return Captioned(
        id=image_id,
        image=f"{image_id}.jpg",
        captions=tuple(phrase for _, phrase in kept),
        caption_ids=tuple(whole(region, "region_id") for region, _ in kept),
        boxes=tuple(_box(region) for region, _ in kept),
    )


def _box(region: object) -> tuple[int, int, int, int]:
    left, top, width, height = (whole(region, key) for key in _BOX)
    return left, top, width, height
