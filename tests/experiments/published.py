"""Small files in the forms of MSCOCO, Visual Genome, VQA v2, NLVR2, SNLI-VE and Flickr30K."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from ashnets.files import write_json

COCO = {"train": 8, "restval": 2, "val": 3, "test": 4}  # split of Karpathy → images


def write_published(root: Path) -> Path:
    """All sets below ``root``."""
    files = _coco(root / "coco")
    _genome(root / "visual-genome")
    _vqa(root / "vqa", files)
    _nlvr2(root / "nlvr2")
    _flickr30k(root / "flickr30k")
    _entailment(root / "snli-ve")
    return root


def _lines(path: Path, lines: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")


def _paint(path: Path, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(number).integers(0, 256, (20, 28, 3)).astype(np.uint8)
    Image.fromarray(noise).save(path, "PNG")


def _coco(folder: Path) -> dict[str, list[int]]:
    """Part of COCO → ids of its images."""
    entries, parts, number = [], {"train2014": [], "val2014": []}, 0
    for split, count in COCO.items():
        part = "train2014" if split == "train" else "val2014"
        for _ in range(count):
            number += 1
            name = f"COCO_{part}_{number:012d}.jpg"
            sentences = [
                {
                    "raw": f"a photo of thing {number}, caption {i}",
                    "tokens": [],
                    "imgid": number,
                    "sentid": 10 * number + i,
                }
                for i in range(2)
            ]
            entries.append({"filepath": part, "filename": name, "cocoid": number, "imgid": number, "split": split})
            entries[-1] |= {"sentences": sentences, "sentids": [one["sentid"] for one in sentences]}
            parts[part].append(number)
            _paint(folder / part / name, number)
    write_json(folder / "dataset_coco.json", {"images": entries, "dataset": "coco"})
    return parts


def _genome(folder: Path) -> None:
    regions, images = [], []
    for number in (101, 102, 103):
        box = {"x": 0, "y": 0, "width": 9, "height": 9, "image_id": number}
        regions.append(
            {"id": number, "regions": [{**box, "region_id": 10 * number, "phrase": f"a region of {number}"}]}
        )
        images.append({"image_id": number, "coco_id": None, "flickr_id": None, "url": ""})
        _paint(folder / "VG_100K" / f"{number}.jpg", number)
    write_json(folder / "region_descriptions.json", regions)
    write_json(folder / "image_data.json", images)


def _vqa(folder: Path, parts: dict[str, list[int]]) -> None:
    for part, numbers in parts.items():
        asked, said = [], []
        for i, number in enumerate([*numbers, *numbers]):
            answer, kind = (("yes", "yes/no"), ("2", "number"), ("red", "other"))[i % 3]
            about = {"question_id": 1000 * number + i, "image_id": number}
            asked.append({**about, "question": f"what is {i % 3}?"})
            answers = [{"answer": answer, "answer_confidence": "yes", "answer_id": k + 1} for k in range(10)]
            said.append({**about, "multiple_choice_answer": answer, "question_type": "what is", "answer_type": kind})
            said[-1]["answers"] = answers
        write_json(folder / f"v2_OpenEnded_mscoco_{part}_questions.json", {"questions": asked, "data_subtype": part})
        write_json(folder / f"v2_mscoco_{part}_annotations.json", {"annotations": said, "data_subtype": part})


def _nlvr2(folder: Path) -> None:
    for split, where in (("train", "train/1"), ("dev", "dev")):
        lines = []
        for i in range(12):
            name = f"{split}-{i // 4}-{i % 4}"
            line = {"identifier": f"{name}-0", "sentence": f"There are {i // 4} dogs.", "label": str(i % 3 == 0)}
            lines.append({**line, "directory": 1})
            for side in (0, 1):
                _paint(folder / where / f"{name}-img{side}.png", 2 * i + side)
        _lines(folder / f"{split}.json", lines)


def _flickr30k(folder: Path) -> None:
    entries = []
    for number, split in enumerate(["train"] * 8 + ["val"] * 3 + ["test"] * 4):
        sentences = [
            {"raw": f"Text {number} {k}.", "tokens": [], "imgid": number, "sentid": 10 * number + k} for k in (0, 1)
        ]
        entries.append({"filename": f"{number}.jpg", "imgid": number, "split": split, "sentences": sentences})
        _paint(folder / f"{number}.jpg", number)
    write_json(folder / "dataset_flickr30k.json", {"images": entries, "dataset": "flickr30k"})


def _entailment(folder: Path) -> None:
    labels = ("entailment", "neutral", "contradiction")
    for split in ("train", "dev", "test"):
        lines = [
            {"Flickr30K_ID": str(i % 5), "pairID": f"{i % 5}.jpg#{i}", "sentence1": "x", "sentence2": f"A dog {i % 3}."}
            | {"gold_label": labels[i % 3]}
            for i in range(15)
        ]
        _lines(folder / f"snli_ve_{split}.jsonl", lines)
