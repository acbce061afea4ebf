"""Small benchmarks with the published file names and keys, and the records that they contain."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from PIL import Image

from ashnets.data.benchmarks import Captioned, Entailment, ImagePair, Question, Record
from ashnets.files import JsonObject


def write(path: Path, content: Any) -> Path:
    """Writes a JSON document, or lines if the name does not end with ``.json``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(content) if path.suffix == ".json" else "".join(f"{line}\n" for line in content)
    path.write_text(text, encoding="utf-8")
    return path


def answers(*given: str) -> list[JsonObject]:
    return [{"answer": a, "answer_confidence": "yes", "answer_id": i} for i, a in enumerate(given, start=1)]


COCO_9 = "train2014/COCO_train2014_000000000009.jpg"
COCO_42 = "val2014/COCO_val2014_000000000042.jpg"
COCO_73 = "val2014/COCO_val2014_000000000073.jpg"
TEN_NETS = ("net",) * 7 + ("netting", "Net", " mesh")


def coco_captions(root: Path) -> dict[str, list[Record]]:
    def image(split: str, folder: str, cocoid: int, first: int, *captions: str) -> JsonObject:
        sentences = [
            {"tokens": c.lower().split(), "raw": c, "imgid": cocoid, "sentid": first + i}
            for i, c in enumerate(captions)
        ]
        name = f"COCO_{folder}_{cocoid:012d}.jpg"
        numbers = [s["sentid"] for s in sentences]
        return {
            "filepath": folder,
            "sentids": numbers,
            "filename": name,
            "imgid": cocoid,
            "split": split,
            "sentences": sentences,
            "cocoid": cocoid,
        }

    images = [
        image("test", "val2014", 42, 10, "A man.", " Ein Mann läuft. ", ""),
        image("train", "train2014", 9, 20, "Food."),
        image("restval", "val2014", 73, 30, "Bikes.", "Two bikes."),
    ]
    write(root / "dataset_coco.json", {"images": images, "dataset": "coco"})
    official = {
        "info": {},
        "licenses": [],
        "images": [{"id": 9, "file_name": "COCO_train2014_000000000009.jpg", "height": 8, "width": 8, "license": 1}],
        "annotations": [{"image_id": 9, "id": 7, "caption": "Food\n"}, {"image_id": 9, "id": 8, "caption": "A box."}],
    }
    write(root / "annotations" / "captions_train2014.json", official)
    return {
        "train": [Captioned(9, COCO_9, ("Food.",), (20,))],
        "restval": [Captioned(73, COCO_73, ("Bikes.", "Two bikes."), (30, 31))],
        "val": [],
        "test": [Captioned(42, COCO_42, ("A man.", "Ein Mann läuft."), (10, 11))],
        "train2014": [Captioned(9, COCO_9, ("Food", "A box."), (7, 8))],
    }


def flickr30k(root: Path) -> dict[str, list[Record]]:
    images = [
        {
            "sentids": [0, 1],
            "imgid": 0,
            "split": "train",
            "filename": "1000092795.jpg",
            "sentences": [
                {"tokens": [], "raw": "Two men .", "imgid": 0, "sentid": 0},
                {"tokens": [], "raw": "Friends .", "imgid": 0, "sentid": 1},
            ],
        },
        {
            "sentids": [5],
            "imgid": 1,
            "split": "test",
            "filename": "1007129816.jpg",
            "sentences": [{"tokens": [], "raw": "A hat .", "imgid": 1, "sentid": 5}],
        },
    ]
    write(root / "dataset_flickr30k.json", {"images": images, "dataset": "flickr30k"})
    lines = [
        "image_name| comment_number| comment",
        "1000092795.jpg| 0| Two men | talk .",
        '1000092795.jpg| 1| "Friends" , said the sign .',
        "2199200615.jpg| 4   A dog runs across the grass .",
        "2199200615.jpg| 3| A dog .",
    ]
    write(root / "results.csv", lines)
    return {
        "train": [Captioned(0, "1000092795.jpg", ("Two men .", "Friends ."), (0, 1))],
        "val": [],
        "test": [Captioned(1, "1007129816.jpg", ("A hat .",), (5,))],
        "all": [
            Captioned("1000092795.jpg", "1000092795.jpg", ("Two men | talk .", '"Friends" , said the sign .'), (0, 1)),
            Captioned("2199200615.jpg", "2199200615.jpg", ("A dog .", "A dog runs across the grass ."), (3, 4)),
        ],
    }


def visual_genome(root: Path) -> dict[str, list[Record]]:
    def region(number: int, phrase: str, *box: int) -> JsonObject:
        x, y, width, height = box
        return {"region_id": number, "width": width, "height": height, "image_id": 1, "phrase": phrase, "y": y, "x": x}

    regions = [region(1382, "the clock is green in color", 421, 57, 82, 139), region(1383, " ", 1, 2, 3, 4)]
    write(root / "region_descriptions.json", [{"id": 1, "regions": regions}, {"id": 2, "regions": []}])
    return {"all": [Captioned(1, "1.jpg", ("the clock is green in color",), (1382,), ((421, 57, 82, 139),))]}


def _vqa_question(number: int, image_id: int, question: str, **more: Any) -> JsonObject:
    return {"image_id": image_id, "question": question, "question_id": number, **more}


def _vqa_annotation(number: int, image_id: int, *given: str, kind: str = "other", **more: Any) -> JsonObject:
    return {
        "question_type": "what is this",
        "multiple_choice_answer": given[0],
        "answers": answers(*given),
        "image_id": image_id,
        "answer_type": kind,
        "question_id": number,
        **more,
    }


def vqa_v2(root: Path) -> dict[str, list[Record]]:
    head = {"info": {}, "license": {}, "data_subtype": "val2014", "data_type": "mscoco"}
    questions = [_vqa_question(42000, 42, "What is it?"), _vqa_question(42001, 42, "Is it?")]
    annotations = [_vqa_annotation(42001, 42, *["yes"] * 10, kind="yes/no"), _vqa_annotation(42000, 42, *TEN_NETS)]
    write(root / "v2_OpenEnded_mscoco_val2014_questions.json", {**head, "task_type": "", "questions": questions})
    write(root / "v2_mscoco_val2014_annotations.json", {**head, "annotations": annotations})
    asked = {"questions": [_vqa_question(1000, 1, "Where?")]}
    for part in ("test2015", "test-dev2015"):
        write(root / f"v2_OpenEnded_mscoco_{part}_questions.json", asked)
    secret = [Question(1000, "test2015/COCO_test2015_000000000001.jpg", "Where?")]
    return {
        "val": [
            Question(42000, COCO_42, "What is it?", TEN_NETS, "net", "other", "what is this"),
            Question(42001, COCO_42, "Is it?", ("yes",) * 10, "yes", "yes/no", "what is this"),
        ],
        "test-dev": secret,
        "test": secret,
    }


def vqa_cp_v2(root: Path) -> dict[str, list[Record]]:
    question = _vqa_question(9000, 9, "What is it?", coco_split="train2014")
    annotation = _vqa_annotation(9000, 9, *TEN_NETS, coco_split="train2014")
    write(root / "vqacp_v2_train_questions.json", [question])
    write(root / "vqacp_v2_train_annotations.json", [annotation])
    other = _vqa_question(42000, 42, "What?", coco_split="val2014")
    write(root / "vqacp_v2_test_questions.json", {"42000": other})
    write(root / "vqacp_v2_test_annotations.json", {"annotations": [_vqa_annotation(42000, 42, *["1"] * 10)]})
    return {
        "train": [Question(9000, COCO_9, "What is it?", TEN_NETS, "net", "other", "what is this")],
        "test": [Question(42000, COCO_42, "What?", ("1",) * 10, "1", "other", "what is this")],
    }


def coco_qa(root: Path) -> dict[str, list[Record]]:
    asked = ["what is on the plate", "how many cats", "what is the color of the bus", "where is the man"]
    given = ["food", "two", "red", "kitchen"]
    write(root / "test" / "questions.txt", asked)
    write(root / "test" / "answers.txt", given)
    write(root / "test" / "types.txt", [0, 1, 2, 3])
    write(root / "test" / "img_ids.txt", [42, 73, 42, 42])
    kinds, images = ("object", "number", "color", "location"), (COCO_42, COCO_73, COCO_42, COCO_42)
    rows = zip(range(1, 5), images, asked, given, kinds, strict=True)
    return {"test": [Question(n, image, q, (a,), a, kind) for n, image, q, a, kind in rows]}


def nlvr2(root: Path) -> dict[str, list[Record]]:
    common = {
        "validation": {"1": "True"},
        "writer": "103",
        "synset": "acorn",
        "query": "two acorns12",
        "left_url": "",
        "right_url": "",
        "extra_validations": {},
    }
    rows = [("train-10171-0-0", "False", 37), ("train-10171-3-1", "True", "37")]
    lines = [
        json.dumps({**common, "sentence": "Two acorns.", "label": label, "identifier": name, "directory": directory})
        for name, label, directory in rows
    ]
    write(root / "train.json.lines", lines).rename(root / "train.json")
    stem = "train/37/train-10171"
    return {
        "train": [
            ImagePair("train-10171-0-0", (f"{stem}-0-img0.png", f"{stem}-0-img1.png"), "Two acorns.", False),
            ImagePair("train-10171-3-1", (f"{stem}-3-img0.png", f"{stem}-3-img1.png"), "Two acorns.", True),
        ]
    }


def snli_ve(root: Path) -> dict[str, list[Record]]:
    def line(key: str, number: str, pair: str, label: str) -> str:
        return json.dumps(
            {
                key: number,
                "annotator_labels": [label],
                "captionID": f"{number}.jpg#2",
                "gold_label": label,
                "pairID": pair,
                "sentence1": "Two women .",
                "sentence2": "Sisters hug .\u2028",
            },
            ensure_ascii=False,
        )

    new, old = ("4705552913.jpg#2r1n", "neutral"), ("4705552913.jpg#2r1e", "entailment")
    write(root / "snli_ve_dev.jsonl", [line("Flickr30K_ID", "4705552913", *new)])
    write(root / "snli_ve_test.jsonl", [line("Flikr30kID", "4705552913.jpg", *old)])
    return {
        "dev": [Entailment(new[0], "4705552913.jpg", "Sisters hug .", new[1], "Two women .")],
        "test": [Entailment(old[0], "4705552913.jpg", "Sisters hug .", old[1], "Two women .")],
    }


def easy_vqa(root: Path) -> dict[str, list[Record]]:
    content = [["what color is the shape?", "blue", 0], ["is there a circle?", "no", 3]]
    write(root / "data" / "train" / "questions.json", content)
    return {
        "train": [
            Question(0, "train/images/0.png", "what color is the shape?", ("blue",), "blue", "other"),
            Question(1, "train/images/3.png", "is there a circle?", ("no",), "no", "yes/no"),
        ]
    }


WRITERS = {
    "coco-captions": coco_captions,
    "flickr30k": flickr30k,
    "visual-genome": visual_genome,
    "vqa-v2": vqa_v2,
    "vqa-cp-v2": vqa_cp_v2,
    "coco-qa": coco_qa,
    "nlvr2": nlvr2,
    "snli-ve": snli_ve,
    "easy-vqa": easy_vqa,
}


def write_images(folder: Path, names: set[str]) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 12), (200, 0, 0)).save(folder / name, format="PNG")
