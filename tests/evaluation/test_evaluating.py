"""Evaluation: metrics against the official scorers of the written predictions, answers against direct calls."""

from __future__ import annotations

import csv
import json
import math
import re
from collections import Counter
from html import unescape

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ashnets.errors import ConfigurationError, DataError, InputError, WeightsError
from ashnets.evaluation.classification import confusion
from ashnets.evaluation.evaluating import DataPlace, Subject, evaluate_models, evaluate_split
from ashnets.evaluation.evaluating import evaluate as evaluate_all
from ashnets.evaluation.options import EvaluationOptions, Variant
from ashnets.evaluation.page import chosen_examples
from ashnets.evaluation.prediction import Questions, predict, shares_of
from ashnets.evaluation.record import training_record
from ashnets.metrics.scoring import score
from ashnets.tasks.data import open_task_data
from ashnets.tasks.registry import CLASSIFICATIONS

CASES = {
    "vqa-v2": ("vqa", "val", "json"),
    "easy-vqa": ("vqa", "test", "txt"),
    "nlvr2": ("nlvr2", "test1", "csv"),
    "snli-ve": ("ve", "test", "json"),
    "flickr30k": ("retrieval", "test", "safetensors"),
}


def evaluate_task(model, task, data, processor, split=None, title="", **options) -> dict:
    """The result on one split, in the form that is written."""
    output = options.get("output")
    if output is not None:
        output.mkdir(exist_ok=True)
    settings = EvaluationOptions(**{"progress": False, **options})
    return evaluate_split(Subject(model, processor, title), task, data, split, settings).to_dict()


def rows(path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="session")
def evaluated(benchmarks, small_model, tmp_path_factory):
    """Benchmark → result and output folder of an untrained model."""
    found = {}
    for name, (task, split, _) in CASES.items():
        data = open_task_data(name, benchmarks[name])
        keys = {}
        if task == "vqa":
            keys = CLASSIFICATIONS["vqa"].of_training(data.records("train"), 1).configuration()
        model, processor = small_model(task, **keys)
        output = tmp_path_factory.mktemp("evaluated") / name
        found[name] = (
            evaluate_task(model, task, data, processor, split, output=output, batch=8, title="small"),
            output,
        )
    return found


@pytest.mark.parametrize("name", CASES)
def test_metrics_equal_the_official_scores_of_the_written_predictions(evaluated, benchmarks, name):
    result, output = evaluated[name]
    _, split, suffix = CASES[name]
    official = score(name, output / f"predictions.{suffix}", benchmarks[name], split)
    assert official == {"dataset": name, "split": split, **result["variants"]["reset"]}
    written = json.loads((output / "results.json").read_text())
    assert {**result, "environment": written["environment"]} == written
    assert list(result["variants"]) == ["reset", "carry", "carry, shuffled", "constant image"]


@pytest.mark.parametrize("name", [name for name in CASES if name != "flickr30k"])
def test_items_and_confusion_contain_every_answer(evaluated, benchmarks, name):
    result, output = evaluated[name]
    items = rows(output / "items.csv")
    assert len(items) == result["n"]
    accuracy = sum(float(row["score"]) for row in items) / len(items)
    assert accuracy == pytest.approx(result["variants"]["reset"]["accuracy"], abs=1e-4)
    counts = Counter((row["truth"], row["reset"]) for row in items)
    assert {(r["truth"], r["said"]): int(r["count"]) for r in rows(output / "confusion.csv")} == counts
    for variant in ("carry", "carry, shuffled", "constant image"):
        changed = sum(row[variant] != row["reset"] for row in items) / len(items)
        assert result["variants"][variant]["changed"] == pytest.approx(changed)
    data = open_task_data(name, benchmarks[name])
    assert [row["id"] for row in items] == [str(record.id) for record in data.records(CASES[name][1])]


def test_ranks_of_retrieval_equal_a_loop(evaluated, benchmarks):
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
        assert int(row["rank"]) == rank and row["best"] == records[int(np.argmax(cosines))].image
        hits += rank == 1
    assert result["variants"]["reset"]["text_to_image"]["R@1"] == hits / 18
    assert result["variants"]["constant image"]["text_to_image"] == {"R@1": 0, "R@5": 0, "R@10": 1}
    assert result["baselines"]["chance"]["text_to_image"]["R@1"] == pytest.approx(1 / 9)


def by_loop(first, second, k: int) -> list[list[int]]:
    """The items of each query: the k best of the first table in the order of the second, then the others."""
    found = []
    for before, after in zip(first, second, strict=True):
        order = sorted(range(len(before)), key=lambda i: -before[i])
        found.append(sorted(order[:k], key=lambda i: -after[i]) + order[k:])
    return found


@torch.inference_mode()
def test_two_stages_of_a_benchmark_equal_a_loop(benchmarks, small_model):
    """Recalls, scored pairs and lost R@1, against the model's forward on single pairs."""
    model, processor = small_model("retrieval", initializer_range=0.2)
    data = open_task_data("flickr30k", benchmarks["flickr30k"])
    found = evaluate_task(
        model, "retrieval", data, processor, candidates=3, exhaustive=True, variants=False, ablate=True, progress=False
    )
    records = data.records("test")
    texts = [(i, caption) for i, record in enumerate(records) for caption in record.captions]
    itc, itm = torch.empty(len(texts), len(records)), torch.empty(len(texts), len(records))
    for image, record in enumerate(records):
        seen = processor(images=data.open_image(record.image), image_ids=[record.image])
        for row, (_, caption) in enumerate(texts):
            out = model(**seen, **processor(text=caption))
            itc[row, image] = out.text_embeds @ out.image_embeds.T
            itm[row, image] = out.itm_logits[0, 1] - out.itm_logits[0, 0]
    first, both = itc.tolist(), itm + itc / float(model.temperature())
    right = [own for own, _ in texts]
    asked = {(t, i) for t, row in enumerate(by_loop(first, first, 3)) for i in row[:3]}
    asked |= {(t, i) for i, row in enumerate(by_loop(itc.T.tolist(), itc.T.tolist(), 3)) for t in row[:3]}
    scores = {"ITM": itm, "ITC + ITM": both}
    assert list(found["rankings"]) == [
        "ITC",
        *(f"ITC, then {name} on the best 3" for name in scores),
        *(f"{name} on all pairs" for name in scores),
    ]
    for name, second in scores.items():
        two = found["rankings"][f"ITC, then {name} on the best 3"]
        whole = found["rankings"][f"{name} on all pairs"]
        to_image = by_loop(first, second.tolist(), 3)
        to_text = by_loop(itc.T.tolist(), second.T.tolist(), 3)
        for k in (1, 5):
            hits = [own in row[:k] for own, row in zip(right, to_image, strict=True)]
            assert two["text_to_image"][f"R@{k}"] == pytest.approx(np.mean(hits))
            hits = [i in {right[t] for t in row[:k]} for i, row in enumerate(to_text)]
            assert two["image_to_text"][f"R@{k}"] == pytest.approx(np.mean(hits))
        assert two["cost"]["pairs"] == len(asked) < whole["cost"]["pairs"] == whole["cost"]["of"] == 18 * 9
        assert whole["text_to_image"]["R@1"] == pytest.approx(np.mean(second.argmax(1).numpy() == right))
        lost = whole["image_to_text"]["R@1"] - two["image_to_text"]["R@1"]
        assert two["lost"]["image_to_text"] == pytest.approx(lost)
    assert found["rankings"]["ITC"]["text_to_image"] == found["variants"]["reset"]["text_to_image"]
    assert list(found["variants"]) == ["reset", "concrete alone", "another image's spikes", "spikes alone"]


@pytest.mark.parametrize(("name", "k"), [("flickr30k", 128), ("coco-captions", 256)])
def test_benchmarks_are_ranked_in_two_stages_by_default(evaluated, benchmarks, small_model, name, k):
    """The test uses the files of Flickr30K for COCO too: both have the format of Karpathy's JSON."""
    model, processor = small_model("retrieval")
    data = open_task_data("flickr30k", benchmarks["flickr30k"])
    data.name = name
    found = evaluate_task(model, "retrieval", data, processor, variants=False, progress=False)
    assert list(found["rankings"]) == ["ITC", *(f"ITC, then {by} on the best {k}" for by in ("ITM", "ITC + ITM"))]
    cost = found["rankings"][f"ITC, then ITM on the best {k}"]["cost"]
    assert cost["pairs"] == cost["of"] == 18 * 9, "all items are candidates, because there are few"
    found = evaluate_task(model, "retrieval", data, processor, candidates=0, variants=False, progress=False)
    assert "rankings" not in found


def test_several_models_and_splits_make_one_table(benchmarks, saved_models, tmp_path):
    both = [saved_models("vqa", "vqa-v2", "a"), saved_models("vqa", "vqa-v2", "b", summary_ratio="ann")]
    output = tmp_path / "out"
    found = evaluate_all(
        both, "vqa", benchmarks["vqa-v2"], splits=["train", "val"], output=output, ablate=True, sample=8, progress=False
    )
    assert found["data"] == "vqa-v2" and json.loads((output / "results.json").read_text())["models"] == found["models"]
    table = rows(output / "results.csv")
    assert [row["variant"] for row in table if row["model"] == "small-a" and row["split"] == "val"] == [
        "reset",
        "carry",
        "carry, shuffled",
        "constant image",
        "concrete alone",
        "another image's spikes",
        "spikes alone",
        "chance",
        "majority by text",
        "bag of words",
    ]
    assert {(row["model"], row["split"]) for row in table} == {
        ("small-a", "train"),
        ("small-a", "val"),
        ("small-b", "train"),
        ("small-b", "val"),
    }
    for row in table:
        (name,) = (one for one in both if one.endswith(row["model"][-1]))
        result = found["models"][name]["splits"][row["split"]]
        metrics = {**result["variants"], **result["baselines"]}[row["variant"]]
        assert float(row["accuracy"]) == pytest.approx(metrics["accuracy"], abs=1e-5) and int(row["n"]) == 8
    folders = sorted(path.parent.relative_to(output).as_posix() for path in output.glob("*/*/examples.html"))
    assert len(folders) == 4 and all(folder.endswith(("/train", "/val")) for folder in folders)


def test_retrieval_of_a_benchmark_and_of_images(benchmarks, drawings, saved_models, tmp_path):
    """By default on the data set of the fine-tuning; with a source of images, on images and their names."""
    model = saved_models("retrieval", "flickr30k", "m")
    found = evaluate_all(
        [model],
        "retrieval",
        benchmarks["flickr30k"],
        output=tmp_path / "t.csv",
        ablate=True,
        candidates=2,
        exhaustive=True,
        progress=False,
    )
    table = rows(tmp_path / "t.csv")
    assert [(row["branch"], row["ranking"]) for row in table if row["direction"] == "image_to_text"] == [
        ("both", "ITC"),
        ("both", "ITC, carry"),
        ("both", "ITC, carry, shuffled"),
        ("both", "ITC, constant image"),
        ("concrete alone", "ITC"),
        ("another image's spikes", "ITC"),
        ("spikes alone", "ITC"),
        ("both", "ITC, then ITM on the best 2"),
        ("both", "ITC, then ITC + ITM on the best 2"),
        ("both", "ITM on all pairs"),
        ("both", "ITC + ITM on all pairs"),
    ]
    rankings = found["models"][model]["splits"]["test"]["rankings"]
    assert [row["pairs scored"] for row in table if row["pairs scored"]][::2] == [
        str(one["cost"]["pairs"]) for one in rankings.values()
    ]
    assert [row["pairs"] for row in table[-2:]] == ["162", "162"] and table[-1]["R@1 lost"] == ""
    place, options = DataPlace(drawings, "images"), EvaluationOptions(progress=False)
    table = evaluate_models([model], "retrieval", place, options).as_rows()
    assert [row["split"] for row in table] == ["valid", "valid"] and {row["images"] for row in table} == {8}


def test_invalid_combinations_are_refused_before_the_evaluation(benchmarks, drawings, saved_models, tmp_path):
    one, two = saved_models("retrieval", "flickr30k", "one"), saved_models("retrieval", "pictogram-retrieval", "two")
    with pytest.raises(ConfigurationError, match=r"one on flickr30k.*two on pictogram-retrieval.*--dataset"):
        evaluate_all([one, two], "retrieval", drawings)
    with pytest.raises(ConfigurationError, match="name the data set with --dataset"):
        evaluate_all(["ashnets-tiny"], "vqa", drawings)
    with pytest.raises(ConfigurationError, match="--images elsewhere needs the name of a data set"):
        evaluate_all(["ashnets-tiny"], "retrieval", drawings, images="elsewhere")
    with pytest.raises(ConfigurationError, match="task='caption'"):
        evaluate_all([one], "caption", drawings)
    (tmp_path / "table.txt").touch()
    with pytest.raises(ConfigurationError, match=r"table\.txt is a file.*\.csv"):
        evaluate_all([one], "retrieval", drawings, output=tmp_path / "table.txt")


@pytest.mark.parametrize("name", CASES)
def test_the_page_is_self_contained_and_shows_the_questions(evaluated, name):
    _, output = evaluated[name]
    text = (output / "examples.html").read_text(encoding="utf-8")
    assert text.count('src="data:image/png;base64,') >= 9 and not re.search(r"https?:|<script|<link", text)
    shown = rows(output / "items.csv")[0]
    assert unescape(text).count(shown["caption" if name == "flickr30k" else "text"]) >= 1
    assert len(text) < 3_000_000


@pytest.mark.parametrize(("task", "name", "split"), [("nlvr2", "nlvr2", "test1"), ("ve", "snli-ve", "test")])
def test_each_answer_equals_that_of_its_item_alone(benchmarks, small_model, task, name, split):
    """With reset states, for any neighbors in the batch; with carried states, as in one direct call on the group."""
    data = open_task_data(name, benchmarks[name])
    records, chosen = data.records(split), CLASSIFICATIONS[task].of_training([], 1)
    model, processor = small_model(task)

    def inputs_of(some):
        opened = [[data.open_image(image) for image in record.images] for record in some]
        ids = [list(record.images) for record in some]
        images = opened if task == "nlvr2" else [one[0] for one in opened]
        return processor(images=images, text=[chosen.text(r) for r in some], image_ids=ids)

    def one_axis(some):
        """All items on one time axis; of pairs, the left images on one and the right images on another."""
        given = inputs_of(some)
        if task != "nlvr2":
            return model(**given, group_size=len(some)).logits
        texts = (given["input_ids"], given["attention_mask"])
        sides = [(given["pixel_values"][:, side], *texts, given["image_keys"][:, side]) for side in (0, 1)]
        pooled = [model.ashnets(*side, group_size=len(some)).pooler_output for side in sides]
        return model.classifier(torch.cat(pooled, 1))

    asked, options = Questions(chosen, data, records, processor), EvaluationOptions(batch=8, progress=False)
    found = predict(model, asked, options=options)
    carried = predict(model, asked, Variant(group_size=4), options)
    with torch.inference_mode():
        for number in (0, 7, len(records) - 1):
            alone = model(**inputs_of([records[number]])).logits
            torch.testing.assert_close(found[number : number + 1], alone, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(carried[4:8], one_axis(records[4:8]), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(carried, found, atol=1e-4), "neighbors change the logits"
    order = np.random.default_rng(3).permutation(len(records))
    shuffled = predict(model, asked, Variant(group_size=4, order=order), options)
    inside = [records[i] for i in order[:4]]
    with torch.inference_mode():
        torch.testing.assert_close(shuffled[order[:4]], one_axis(inside), atol=1e-4, rtol=1e-4)
    back = predict(model, asked, Variant(order=order), options)
    torch.testing.assert_close(back, found, atol=1e-4, rtol=1e-4)


def test_with_constant_images_only_the_text_matters(benchmarks, small_model):
    data = open_task_data("snli-ve", benchmarks["snli-ve"])
    records, chosen = data.records("test"), CLASSIFICATIONS["ve"].of_training([], 1)
    model, processor = small_model("ve")
    asked = Questions(chosen, data, records, processor)
    found = predict(model, asked, Variant(constant=True), EvaluationOptions(progress=False))
    by_text = {}
    for record, logits in zip(records, found, strict=True):
        torch.testing.assert_close(by_text.setdefault(record.hypothesis, logits), logits, atol=1e-5, rtol=1e-5)
    assert len(by_text) == 3


def test_without_the_branch_answers_equal_a_direct_call(benchmarks, small_model, tmp_path):
    data = open_task_data("nlvr2", benchmarks["nlvr2"])
    records, chosen = data.records("test1"), CLASSIFICATIONS["nlvr2"].of_training([], 1)
    model, processor = small_model("nlvr2")
    evaluate_task(model, "nlvr2", data, processor, "test1", ablate=True, output=tmp_path, progress=False)
    said = [row["concrete alone"] for row in rows(tmp_path / "items.csv")]
    margins, change = [], 0.0
    for record in records:
        images, ids = [[data.open_image(name) for name in record.images]], [list(record.images)]
        inputs = processor(images=images, text=[chosen.text(record)], image_ids=ids)
        with torch.inference_mode():
            bare = model(**inputs, concrete_only=True).logits[0]
            change = max(change, float((model(**inputs).logits[0] - bare).abs().max()))
        margins.append(float(bare[1] - bare[0]))
    assert change > 1e-3, "spikes change the logits"
    sure = [i for i, margin in enumerate(margins) if abs(margin) > 1e-4]
    assert len(sure) > 10 and all(said[i] == str(margins[i] > 0) for i in sure)


def test_a_model_without_spikes_has_no_neighbors(benchmarks, small_model):
    data = open_task_data("snli-ve", benchmarks["snli-ve"])
    model, processor = small_model("ve", summary_ratio="ann")
    result = evaluate_task(model, "ve", data, processor, "test", sample=5, progress=False)
    assert list(result["variants"]) == ["reset", "constant image"] and result["n"] == 5


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
        {"truth": "a", "said": "b", "count": 2},
        {"truth": "b", "said": "b", "count": 1},
    ]
    scores = [1.0] * 40 + [0.0] * 3
    chosen = chosen_examples(scores, 0)
    assert chosen == sorted(chosen) and {40, 41, 42} <= set(chosen) and len(chosen) == 24 + 3


def test_invalid_evaluations_are_refused(benchmarks, small_model, tmp_path):
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
    with pytest.raises(DataError, match="5 of 5 images are missing"):
        evaluate_task(model, "ve", elsewhere, processor, progress=False)
    with pytest.raises(ConfigurationError, match="ve ranks nothing"):
        evaluate_task(model, "ve", easy, processor, candidates=3, progress=False)
    with pytest.raises(ConfigurationError, match="Did you mean easy-vqa"):
        open_task_data("easyvqa", benchmarks["easy-vqa"])


def test_logits_that_are_not_finite_are_no_answers(benchmarks, small_model):
    model, processor = small_model("ve")
    with torch.no_grad():
        for parameter in model.classifier.parameters():
            parameter.fill_(math.nan)
    data = open_task_data("snli-ve", benchmarks["snli-ve"])
    with pytest.raises(InputError, match="logits contain NaN or infinity"):
        evaluate_task(model, "ve", data, processor, progress=False)


@pytest.mark.parametrize("content", ['{"data": ', "[1]", "[" * 100_000])
def test_a_damaged_training_record_is_named(tmp_path, content):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "training.json").write_text(content)
    with pytest.raises(DataError, match=r"training\.json"):
        training_record(tmp_path)
