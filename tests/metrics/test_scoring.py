"""`score`: a file of predictions against a folder of annotations, for every benchmark that is scored."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ashnets.data.benchmarks import BENCHMARKS, Entailment
from ashnets.errors import ConfigurationError, DataError, InputError
from ashnets.metrics.entailment import entailment_accuracy
from ashnets.metrics.scoring import score

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "data"))
import benchmark_files as small
from small_wordnet import write_wordnet


def lines(*given: str) -> Callable[[Path], None]:
    return lambda path: path.write_text("".join(f"{line}\n" for line in given)) and None


def entries(keys: tuple[str, str], *pairs: tuple[object, str]) -> Callable[[Path], None]:
    return lambda path: path.write_text(json.dumps([dict(zip(keys, pair, strict=True)) for pair in pairs])) and None


VQA = ("question_id", "answer")
PAIR = ("pairID", "label")


@pytest.mark.parametrize(
    ("dataset", "split", "write", "expected"),
    [
        (
            "vqa-v2",
            None,
            entries(VQA, (42001, "yes"), (42000, "mesh")),
            {"split": "val", "n": 2, "accuracy": (1 + 0.3) / 2, "by answer type": {"other": 0.3, "yes/no": 1.0}},
        ),
        ("vqa-cp-v2", None, entries(VQA, (42000, "1")), {"split": "test", "n": 1, "accuracy": 1.0}),
        (
            "coco-qa",
            None,
            lines("food", "two", "blue", "kitchen"),
            {"n": 4, "accuracy": 0.75, "by answer type": {"color": 0, "location": 1, "number": 1, "object": 1}},
        ),
        ("easy-vqa", "train", lines("blue", "yes"), {"accuracy": 0.5, "by answer type": {"other": 1, "yes/no": 0}}),
        (
            "nlvr2",
            "train",
            lines("train-10171-3-1,True", "train-10171-0-0,True"),
            {"accuracy": 0.5, "sentences": 2, "consistency": 0.5},
        ),
        (
            "snli-ve",
            None,
            entries(PAIR, ("4705552913.jpg#2r1e", "neutral")),
            {"split": "test", "accuracy": 0, "by label": {"entailment": 0}},
        ),
        (
            "flickr30k",
            "train",
            lambda path: save_file({"similarity": torch.ones(1, 2)}, path),
            {"images": 1, "captions": 2, "image_to_text": {"R@1": 1, "R@5": 1, "R@10": 1}},
        ),
    ],
)
def test_each_benchmark(
    dataset: str, split: str | None, write: Callable[[Path], None], expected: dict, tmp_path: Path
) -> None:
    small.WRITERS[dataset](tmp_path / "here")
    write(tmp_path / "predictions")
    found = score(dataset, tmp_path / "predictions", tmp_path / "here", split)
    assert found["dataset"] == dataset
    for key, value in expected.items():
        assert found[key] == (pytest.approx(value) if not isinstance(value, str) else value)


def test_entailment_counts_each_label_by_hand() -> None:
    labels = ["entailment", "entailment", "neutral", "contradiction"]
    pairs = [Entailment(f"p{i}", "i", "a hypothesis", label, "a premise") for i, label in enumerate(labels)]
    predictions = {"p0": "entailment", "p1": "neutral", "p2": "neutral", "p3": "entailment"}
    assert entailment_accuracy(pairs, predictions) == {
        "n": 4,
        "accuracy": 0.5,
        "by label": {"contradiction": 0, "entailment": 0.5, "neutral": 1},
    }


def test_wups_with_wordnet(tmp_path: Path) -> None:
    small.coco_qa(tmp_path / "here")
    lines("food", "three", "red", "kitchen")(tmp_path / "answers.txt")
    wordnet = write_wordnet(tmp_path / "wordnet")
    found = score("coco-qa", tmp_path / "answers.txt", tmp_path / "here", wordnet=wordnet)
    assert found["WUPS 0.0"] == pytest.approx((3 + 2 / 3) / 4)
    assert found["WUPS 0.9"] == pytest.approx((3 + 0.1 * 2 / 3) / 4)


def captioned(root: Path, count: int, captions: int) -> None:
    images = [
        {
            "filename": f"{i}.jpg",
            "imgid": i,
            "split": "test",
            "sentids": [],
            "sentences": [{"raw": f"{i} {j}", "sentid": 10 * i + j} for j in range(captions)],
        }
        for i in range(count)
    ]
    small.write(root / "dataset_flickr30k.json", {"images": images, "dataset": "flickr30k"})


def test_retrieval_takes_features_and_folds(tmp_path: Path) -> None:
    """Six captions for each image, of which five are used. Those of odd images match image 0 instead of their own."""
    captioned(tmp_path, 2000, 6)
    images = torch.nn.functional.normalize(torch.randn(2000, 16, generator=torch.Generator().manual_seed(0)))
    owners = torch.arange(2000).repeat_interleave(5)
    texts = images[torch.where(owners % 2 == 0, owners, torch.zeros_like(owners))]
    save_file({"images": images, "texts": texts.contiguous()}, tmp_path / "features.safetensors")
    found = score("flickr30k", tmp_path / "features.safetensors", tmp_path)
    assert (found["images"], found["captions"]) == (2000, 10000)
    assert found["text_to_image"]["R@1"] == pytest.approx(0.5)
    assert found["image_to_text"]["R@1"] < 0.5  # image 0's own captions are met by as good ones of odd images
    assert found["folds of 1000"]["text_to_image"]["R@1"] == pytest.approx(0.5, abs=0.002)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"similarity": torch.ones(2, 9)}, r"has \(2, 9\) images and captions, the split has \(2, 10\)"),
        ({"images": torch.ones(2, 3), "texts": torch.ones(10, 4)}, r"images \(2, 3\) and texts \(10, 4\) have no"),
        ({"images": torch.ones(2, 3)}, r"contains \['images'\]; it must contain similarity, or images and texts"),
        ({"similarity": torch.full((2, 10), torch.nan)}, "NaN"),
    ],
)
def test_tensors_that_do_not_fit(tensors: dict[str, torch.Tensor], message: str, tmp_path: Path) -> None:
    captioned(tmp_path, 2, 5)
    save_file(tensors, tmp_path / "t.safetensors")
    with pytest.raises(InputError, match=message):
        score("flickr30k", tmp_path / "t.safetensors", tmp_path)
    (tmp_path / "t.safetensors").write_bytes(b"no tensors")
    with pytest.raises(InputError, match=r"t\.safetensors is not a safetensors file"):
        score("flickr30k", tmp_path / "t.safetensors", tmp_path)


def test_what_is_not_scored(tmp_path: Path) -> None:
    for name, writer in small.WRITERS.items():
        writer(tmp_path / name)
    with pytest.raises(ConfigurationError, match="visual-genome has no score"):
        score("visual-genome", tmp_path / "p", tmp_path / "visual-genome")
    with pytest.raises(DataError, match="answers of VQA v2's test are not published"):
        score("vqa-v2", tmp_path / "p", tmp_path / "vqa-v2", "test")
    with pytest.raises(ConfigurationError, match="WUPS is a metric of coco-qa, not of nlvr2"):
        score("nlvr2", tmp_path / "p", tmp_path / "nlvr2", "train", wordnet=tmp_path)
    with pytest.raises(DataError, match="split val of COCO captions contains no items"):
        score("coco-captions", tmp_path / "p", tmp_path / "coco-captions", "val")
    for name in set(BENCHMARKS) - {"visual-genome"}:
        split = "train" if name in ("nlvr2", "easy-vqa") else None
        with pytest.raises(InputError, match=r"cannot be read|does not exist"):
            score(name, tmp_path / "nothing", tmp_path / name, split)
