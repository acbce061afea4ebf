"""Evaluation: metrics against the official scorers on the written predictions, single answers against bare calls."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from html import unescape

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ashnets.errors import ConfigurationError, DataError, WeightsError
from ashnets.metrics.scoring import score
from ashnets.tasks.data import open_task_data
from ashnets.tasks.evaluating import chosen_examples, confusion, evaluate_task
from ashnets.tasks.predicting import predict, shares_of
from ashnets.tasks.registry import CLASSIFICATIONS

CASES = {"vqa-v2": ("vqa", "val", "json"), "easy-vqa": ("vqa", "test", "txt"), "nlvr2": ("nlvr2", "test1", "csv"),
         "snli-ve": ("ve", "test", "json"), "flickr30k": ("retrieval", "test", "safetensors")}  # fmt: skip


def rows(path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="session")
def evaluated(benchmarks, small_model, tmp_path_factory):
    """Benchmark → result and folder of the evaluation of an untrained model."""
    found = {}
    for name, (task, split, _) in CASES.items():
        data = open_task_data(name, benchmarks[name])
        keys = {}
        if task == "vqa":
            keys = CLASSIFICATIONS["vqa"].of_training(data.records("train"), 1).configuration()
        model, processor = small_model(task, **keys)
        output = tmp_path_factory.mktemp("evaluated") / name
        found[name] = (
            evaluate_task(model, task, data, processor, split, output=output, batch=8, title="small", progress=False),
            output,
        )
    return found


@pytest.mark.parametrize("name", CASES)
def test_metrics_are_those_of_the_written_predictions(evaluated, benchmarks, name):
    result, output = evaluated[name]
    _, split, suffix = CASES[name]
    official = score(name, output / f"predictions.{suffix}", benchmarks[name], split)
    assert official == {"dataset": name, "split": split, **result["variants"]["reset"]}
    assert result == json.loads((output / "results.json").read_text())
    assert list(result["variants"]) == ["reset", "carry", "carry, shuffled", "constant picture"]


@pytest.mark.parametrize("name", [name for name in CASES if name != "flickr30k"])
def test_items_and_confusion_hold_every_answer(evaluated, benchmarks, name):
    result, output = evaluated[name]
    items = rows(output / "items.csv")
    assert len(items) == result["n"]
    accuracy = sum(float(row["score"]) for row in items) / len(items)
    assert accuracy == pytest.approx(result["variants"]["reset"]["accuracy"], abs=1e-4)
    counts = Counter((row["truth"], row["reset"]) for row in items)
    assert {(r["truth"], r["said"]): int(r["count"]) for r in rows(output / "confusion.csv")} == counts
    for variant in ("carry", "carry, shuffled", "constant picture"):
        changed = sum(row[variant] != row["reset"] for row in items) / len(items)
        assert result["variants"][variant]["changed"] == pytest.approx(changed)
    data = open_task_data(name, benchmarks[name])
    assert [row["id"] for row in items] == [str(record.id) for record in data.records(CASES[name][1])]


def test_ranks_of_retrieval_are_those_of_a_loop(evaluated, benchmarks):
    result, output = evaluated["flickr30k"]
    tensors = load_file(output / "predictions.safetensors")
    records = open_task_data("flickr30k", benchmarks["flickr30k"]).records("test")
    items = rows(output / "items.csv")
    captions = [(i, caption) for i, record in enumerate(records) for caption in record.captions]
    assert [row["caption"] for row in items] == [caption for _, caption in captions] and len(items) == 18
    hits = 0
    for row, (own, _), text in zip(items, captions, tensors["texts"].double(), strict=True):
        cosines = [float(text @ image) for image in tensors["images"].double()]
        rank = 1 + sum(c >= cosines[own] for i, c in enumerate(cosines) if i != own)
        assert int(row["rank"]) == rank and row["best"] == records[int(np.argmax(cosines))].picture
        hits += rank == 1
    assert result["variants"]["reset"]["text_to_image"]["R@1"] == hits / 18
    assert result["variants"]["constant picture"]["text_to_image"] == {"R@1": 0, "R@5": 0, "R@10": 1}
    assert result["baselines"]["chance"]["text_to_image"]["R@1"] == pytest.approx(1 / 9)


@pytest.mark.parametrize("name", CASES)
def test_the_page_needs_nothing_and_shows_what_was_asked(evaluated, name):
    _, output = evaluated[name]
    text = (output / "examples.html").read_text(encoding="utf-8")
    assert text.count('src="data:image/png;base64,') >= 9 and not re.search(r"https?:|<script|<link", text)
    shown = rows(output / "items.csv")[0]
    assert unescape(text).count(shown["caption" if name == "flickr30k" else "text"]) >= 1
    assert len(text) < 3_000_000


@pytest.mark.parametrize(("task", "name", "split"), [("nlvr2", "nlvr2", "test1"), ("ve", "snli-ve", "test")])
def test_each_answer_is_that_of_its_item_alone(benchmarks, small_model, task, name, split):
    """From rest, whatever stands beside an item; carried, as one bare call over the group."""
    data = open_task_data(name, benchmarks[name])
    records, chosen = data.records(split), CLASSIFICATIONS[task].of_training([], 1)
    model, processor = small_model(task)

    def bare(some, group_size):
        opened = [[data.open_picture(picture) for picture in record.pictures] for record in some]
        ids = [list(record.pictures) for record in some]
        images = opened if task == "nlvr2" else [one[0] for one in opened]
        inputs = processor(images=images, text=[chosen.text(r) for r in some], image_ids=ids)
        with torch.inference_mode():
            return model(**inputs, group_size=group_size).logits

    options = {"batch": 8, "progress": False}
    found = predict(model, chosen, data, records, processor, **options)
    for number in (0, 7, len(records) - 1):
        torch.testing.assert_close(found[number : number + 1], bare([records[number]], 1), atol=1e-4, rtol=1e-4)
    each = 2 if task == "nlvr2" else 1
    carried = predict(model, chosen, data, records, processor, group_size=4, **options)
    torch.testing.assert_close(carried[4:8], bare(records[4:8], 4 * each), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(carried, found, atol=1e-4), "the neighbours are felt"
    order = np.random.default_rng(3).permutation(len(records))
    shuffled = predict(model, chosen, data, records, processor, group_size=4, order=order, **options)
    inside = [records[i] for i in order[:4]]
    torch.testing.assert_close(shuffled[order[:4]], bare(inside, 4 * each), atol=1e-4, rtol=1e-4)
    back = predict(model, chosen, data, records, processor, order=order, **options)
    torch.testing.assert_close(back, found, atol=1e-4, rtol=1e-4)


def test_constant_pictures_leave_the_text(benchmarks, small_model):
    data = open_task_data("snli-ve", benchmarks["snli-ve"])
    records, chosen = data.records("test"), CLASSIFICATIONS["ve"].of_training([], 1)
    model, processor = small_model("ve")
    found = predict(model, chosen, data, records, processor, constant=True, progress=False)
    by_text = {}
    for record, logits in zip(records, found, strict=True):
        torch.testing.assert_close(by_text.setdefault(record.hypothesis, logits), logits, atol=1e-5, rtol=1e-5)
    assert len(by_text) == 3


def test_a_model_without_spikes_has_no_neighbours(benchmarks, small_model):
    data = open_task_data("snli-ve", benchmarks["snli-ve"])
    model, processor = small_model("ve", summary_ratio="ann")
    result = evaluate_task(model, "ve", data, processor, "test", limit=5, progress=False)
    assert list(result["variants"]) == ["reset", "constant picture"] and result["n"] == 5


@pytest.mark.parametrize(("items", "group", "batch"), [(10, 4, 8), (3, 4, 8), (16, 4, 3), (9, 1, 4)])
def test_shares_keep_the_order_and_whole_groups(items, group, batch):
    order = np.random.default_rng(0).permutation(items)
    shares = shares_of(order, group, batch)
    assert np.concatenate([share.indices for share in shares]).tolist() == order.tolist()
    for share in shares[: -1 if items % group else None]:
        assert share.group_size == group and len(share.indices) % group == 0
    if items % group:
        assert len(shares[-1].indices) == shares[-1].group_size == items % group


def test_examples_and_confusion_by_hand():
    assert confusion(["a", "a", "b"], ["b", "b", "b"]) == [
        {"truth": "a", "said": "b", "count": 2}, {"truth": "b", "said": "b", "count": 1},
    ]  # fmt: skip
    scores = [1.0] * 40 + [0.0] * 3
    chosen = chosen_examples(scores, 0)
    assert chosen == sorted(chosen) and {40, 41, 42} <= set(chosen) and len(chosen) == 24 + 3


def test_what_cannot_be_evaluated_is_refused(benchmarks, small_model, tmp_path):
    model, processor = small_model("ve")
    easy = open_task_data("easy-vqa", benchmarks["easy-vqa"])
    with pytest.raises(ConfigurationError, match="holds Question records; ve takes Entailment"):
        evaluate_task(model, "ve", easy, processor, progress=False)
    with pytest.raises(ConfigurationError, match="task='caption'"):
        evaluate_task(model, "caption", easy, processor, progress=False)
    unnamed, processor = small_model("vqa", num_answers=7)
    with pytest.raises(WeightsError, match="gives 7 answers"):
        evaluate_task(unnamed, "vqa", easy, processor, progress=False)
    elsewhere = open_task_data("snli-ve", benchmarks["snli-ve"], tmp_path)
    with pytest.raises(DataError, match="5 of 5 pictures are missing"):
        evaluate_task(model, "ve", elsewhere, processor, progress=False)
    with pytest.raises(ConfigurationError, match="Did you mean easy-vqa"):
        open_task_data("easyvqa", benchmarks["easy-vqa"])
