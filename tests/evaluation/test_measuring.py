"""Choice of splits, data and names; parts that are left out, and their messages."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import ashnets
from ashnets.cli.app import main
from ashnets.data.benchmarks import Benchmark
from ashnets.errors import ConfigurationError, DataError
from ashnets.evaluation import classification, evaluating
from ashnets.evaluation.classification import Classified
from ashnets.evaluation.evaluating import DataPlace, as_folders
from ashnets.evaluation.evaluating import evaluate as evaluate_models
from ashnets.evaluation.evaluating import evaluate_models as evaluation_of
from ashnets.evaluation.options import EvaluationOptions
from ashnets.evaluation.own_images import OwnImages, sampled
from ashnets.evaluation.results import SplitResult
from ashnets.processor import AshNetsProcessor
from ashnets.tasks.data import open_task_data

PLAIN = {"variants": False, "progress": False}


def rows(path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture
def refusing(monkeypatch):
    """A function that makes every prediction fail: an error after its call was raised before the evaluation."""

    def refuse() -> None:
        monkeypatch.setattr(classification, "predicted_labels", None)
        monkeypatch.setattr(evaluating, "evaluate_retrieval", None)

    return refuse


def test_a_training_split_is_evaluated_only_on_request(benchmarks, saved_models, refusing, tmp_path, capsys):
    """The recipe of VQA v2 trains on val, which is the default split; another model of the same call did not."""
    seen = saved_models("vqa", "vqa-v2", "seen", ("train", "val"))
    unseen = saved_models("vqa", "vqa-v2", "unseen")
    found = evaluate_models([unseen], "vqa", benchmarks["vqa-v2"], **PLAIN)
    assert "trained on" not in found["models"][unseen]["splits"]["val"]
    found = evaluation_of([unseen], "vqa", DataPlace(benchmarks["vqa-v2"]), EvaluationOptions(**PLAIN))
    assert "trained on" not in found.as_rows()[0]

    command = ["evaluate", unseen, seen, "vqa", str(benchmarks["vqa-v2"]), "--plain", "--split", "val"]
    assert main([*command, "--output", str(tmp_path / "out")]) == 0
    assert f"trained on: {seen} learned from val itself (train, val)" in capsys.readouterr().out.splitlines()
    for row in rows(tmp_path / "out" / "results.csv"):
        assert row["trained on"] == ("train val" if row["model"] == "small-seen" else "")
    results = json.loads((tmp_path / "out" / as_folders([seen])[seen] / "val" / "results.json").read_text())
    assert results["trained on"] == ["train", "val"]

    refusing()
    message = r"seen was trained on train, val of VQA v2, and val is .* default.*test-dev, test by --split.*--split val"
    with pytest.raises(ConfigurationError, match=message):
        evaluate_models([unseen, seen], "vqa", benchmarks["vqa-v2"], **PLAIN)
    captions = saved_models("retrieval", "flickr30k", "captions", ("train", "test"))
    with pytest.raises(ConfigurationError, match=r"train, test of Flickr30K.* val"):
        evaluate_models([captions], "retrieval", benchmarks["flickr30k"], **PLAIN)


@pytest.fixture
def secret(benchmarks, tmp_path) -> Path:
    """VQA v2 with a test-dev split of eight questions on two images without public answers."""
    folder = shutil.copytree(benchmarks["vqa-v2"], tmp_path / "vqa")
    asked = [{"question_id": 50 + i, "image_id": i % 2, "question": f"What is {i % 3}?"} for i in range(8)]
    (folder / "v2_OpenEnded_mscoco_test-dev2015_questions.json").write_text(json.dumps({"questions": asked}))
    (folder / "test2015").mkdir()
    for i in range(2):
        image = folder / "val2014" / f"COCO_val2014_{i:012d}.jpg"
        shutil.copy(image, folder / "test2015" / image.name.replace("val", "test").replace("2014", "2015"))
    return folder


def test_without_public_answers_a_submission_is_written(secret, saved_models, refusing, tmp_path, capsys):
    """Each answer equals that of a direct call; the file for the server has every question once."""
    name, output = saved_models("vqa", "vqa-v2", "m", ("train", "val")), tmp_path / "out"
    assert main(["evaluate", name, "vqa", str(secret), "--split", "test-dev", "--output", str(output)]) == 0
    shown = capsys.readouterr().out
    assert "test-dev: answers are not public: predictions alone" in shown and "accuracy" not in shown
    model, processor = ashnets.from_pretrained(name), AshNetsProcessor.from_pretrained(name)
    expected, data = [], open_task_data("vqa-v2", secret)
    for record in data.records("test-dev"):
        inputs = processor(images=data.open_image(record.image), text=record.question, image_ids=[record.image])
        with torch.inference_mode():
            best = int(model(**inputs).logits.argmax())
        expected.append({"question_id": record.id, "answer": model.config.id2label[best]})
    assert json.loads((output / "predictions.json").read_text()) == expected
    result = json.loads((output / "results.json").read_text())["models"][name]["splits"]["test-dev"]
    assert result["n"] == 8 and result["variants"] == {"reset": {"n": 8}} and result["baselines"] == {}
    assert [(row["variant"], row["n"]) for row in rows(output / "results.csv")] == [("reset", "8")]

    refusing()
    with pytest.raises(DataError, match=r"8 answers of VQA v2's test-dev are kept.*--output FOLDER"):
        evaluate_models([name], "vqa", secret, splits=["val", "test-dev"], output=tmp_path / "table.csv", **PLAIN)
    with pytest.raises(DataError, match=r"v2_OpenEnded_mscoco_test2015_questions\.json is missing"):
        evaluate_models([name], "vqa", secret, splits=["val", "test"], output=output, **PLAIN)
    with pytest.raises(ConfigurationError, match=r"no part of a split: leave --sample out"):
        evaluate_models([name], "vqa", secret, splits=["test-dev"], output=output, sample=4, **PLAIN)


@pytest.mark.parametrize("empty", [False, True])
def test_without_a_training_split_the_baselines_are_left_out(benchmarks, saved_models, tmp_path, capsys, empty):
    folder = shutil.copytree(benchmarks["nlvr2"], tmp_path / "nlvr2")
    (folder / "train.json").unlink()
    if empty:
        (folder / "train.json").touch()
    name = saved_models("nlvr2", "nlvr2", "m")
    assert main(["evaluate", name, "nlvr2", str(folder), "--plain", "--output", str(tmp_path / "out")]) == 0
    (said,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("baselines left out: ")]
    assert str(folder) in said and "train" in said
    result = json.loads((tmp_path / "out" / "results.json").read_text())["models"][name]["splits"]["test1"]
    assert result["baselines"] == {} and said == f"baselines left out: {result['baselines left out']}"
    assert 0 <= result["variants"]["reset"]["accuracy"] <= 1 and (tmp_path / "out" / "predictions.csv").is_file()


def test_a_damaged_training_split_is_found_before_any_prediction(benchmarks, saved_models, refusing, tmp_path):
    folder = shutil.copytree(benchmarks["nlvr2"], tmp_path / "nlvr2")
    (folder / "train.json").write_text("{}\n")
    name = saved_models("nlvr2", "nlvr2", "m")
    refusing()
    with pytest.raises(DataError, match=r"train\.json, line 1"):
        evaluate_models([name], "nlvr2", folder, **PLAIN)


def test_models_of_one_architecture_stay_separate(benchmarks, drawings, saved_models, tmp_path, monkeypatch, capsys):
    """In the table by their given names, on disk by separate folders, although their paths differ in one character."""
    monkeypatch.chdir(tmp_path)
    names = ["runs/a/model", "runs-a/model", "runs/a-model", "runs/b/model"]
    for name in names:
        saved_models("ve", "snli-ve", name, **({"summary_ratio": "ann"} if name == names[1] else {}))
        record = json.loads(Path(name, "training.json").read_text())
        Path(name, "training.json").write_text(json.dumps({**record, "model": "small"}))
    assert main(["evaluate", *names, "ve", str(benchmarks["snli-ve"]), "--plain", "--output", "out"]) == 0
    shown = capsys.readouterr().out
    assert all(f"  {name}  " in shown for name in names), "the table shows the names"
    table = rows("out/results.csv")
    assert {row["model"] for row in table} == {"small"}
    assert [row["measured"] for row in table if row["variant"] == "reset"] == names
    found = json.loads(Path("out/results.json").read_text())["models"]
    folders = as_folders(names)
    assert len({folder.casefold() for folder in folders.values()}) == 4 and folders["runs/b/model"] == "runs-b-model"
    for name, folder in folders.items():
        own = json.loads(Path("out", folder, "results.json").read_text())
        assert own["branch"] == ("concrete" if name == names[1] else "both")
        assert own["variants"] == found[name]["splits"]["test"]["variants"]
    assert as_folders(names[2:]) == {"runs/a-model": "runs-a-model", "runs/b/model": "runs-b-model"}
    found = evaluation_of(names[:1], "ve", DataPlace(benchmarks["snli-ve"]), EvaluationOptions(**PLAIN))
    assert found.as_rows()[0]["measured"] == names[0], "also of one model, whose architecture has another name"
    both = [saved_models("retrieval", "flickr30k", name) for name in ("one", "two")]
    found = evaluation_of(both, "retrieval", DataPlace(drawings, "images"), EvaluationOptions(progress=False))
    assert [row["measured"] for row in found.as_rows()] == [both[0], both[0], both[1], both[1]]


def test_workers_read_the_images_and_do_not_change_the_answers(
    benchmarks, drawings, saved_models, tmp_path, monkeypatch
):
    plain, log = Benchmark.open_image, tmp_path / "readers"

    def noting(self, name):
        with open(log, "a", encoding="utf-8") as stream:
            stream.write(f"{os.getpid()}\n")
        return plain(self, name)

    monkeypatch.setattr(Benchmark, "open_image", noting)
    for task, dataset in (("nlvr2", "nlvr2"), ("retrieval", "flickr30k")):
        name, found = saved_models(task, dataset, task), {}
        for workers in (0, 2):
            log.write_text("")
            result = evaluate_models(
                [name],
                task,
                benchmarks[dataset],
                candidates=0 if task == "retrieval" else None,
                workers=workers,
                progress=False,
            )
            (found[workers],) = result["models"][name]["splits"].values()
            readers = set(log.read_text().split())
            assert readers and (str(os.getpid()) in readers) == (workers == 0)
        assert found[0] == found[2]
    with pytest.raises(ConfigurationError, match="--workers 2 is for data sets with a name"):
        evaluate_models([name], "retrieval", drawings, dataset="images", workers=2)


def test_an_image_that_a_worker_cannot_read_is_named(benchmarks, saved_models, tmp_path):
    folder = shutil.copytree(benchmarks["flickr30k"], tmp_path / "flickr")
    (folder / "15.jpg").write_bytes(b"no image")
    name = saved_models("retrieval", "flickr30k", "m")
    for workers in (0, 1):
        with pytest.raises(DataError, match=r"15\.jpg"):
            evaluate_models([name], "retrieval", folder, candidates=0, workers=workers, **PLAIN)


FULL_DISK = """
import resource, sys
from ashnets.evaluation.evaluating import evaluate

name, folder, output = sys.argv[1:]
options = {"candidates": 0, "variants": False, "progress": False}
evaluate([name], "retrieval", folder, **options)  # compiled kernels may still be stored
resource.setrlimit(resource.RLIMIT_FSIZE, (600, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
try:
    evaluate([name], "retrieval", folder, output=output, **options)
except OSError as error:
    print(error)
"""


def test_a_full_disk_is_an_os_error_and_leaves_no_part(benchmarks, saved_models, tmp_path):
    """Files are limited to 600 bytes, which is less than the embeddings of nine images and 18 captions."""
    name, output = saved_models("retrieval", "flickr30k", "m"), tmp_path / "out"
    command = [sys.executable, "-c", FULL_DISK, name, str(benchmarks["flickr30k"]), str(output)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=200)
    assert "File too large" in done.stdout and str(output) in done.stdout
    assert not any(output.glob("*")) and not any(output.glob(".*"))


def test_own_images_have_the_pages_of_a_benchmark(drawings, saved_models, tmp_path):
    """On a sample of all splits: ranks and best images of the items equal those of the written embeddings."""
    name, out = saved_models("retrieval", "flickr30k", "m"), tmp_path / "out"
    options = EvaluationOptions(splits=("all",), sample=9, progress=False)
    found = evaluation_of([name], "retrieval", DataPlace(drawings, "images"), options, out)
    files = ["examples.html", "items.csv", "predictions.safetensors", "results.csv", "results.json"]
    assert sorted(path.name for path in out.iterdir()) == files
    row = found.as_rows()[0]
    assert (row["model"], row["measured"], row["split"], row["images"]) == ("small-m", name, "all", 9)
    items, embeds = rows(out / "items.csv"), load_file(out / "predictions.safetensors")
    scores = (embeds["texts"].double() @ embeds["images"].double().T).tolist()  # a text for each image or several
    source = OwnImages(drawings).pairs("all", 32)
    indices = sampled(source, 9)
    captions, ids = [source.names[i] for i in indices], [source.image_ids[i] for i in indices]
    assert [item["caption"] for item in items] == list(dict.fromkeys(captions))
    for item, own in zip(items, scores, strict=True):
        order = sorted(range(9), key=lambda i: -own[i])
        assert item["best"] == ids[order[0]]
        right = [place for place, i in enumerate(order, start=1) if captions[i] == item["caption"]]
        assert int(item["rank"]) == right[0]
    page = (out / "examples.html").read_text()
    assert "split all, n = 9" in page and page.count("<img") >= len(items)


def test_no_split_is_found_by_another_name(drawings):
    with pytest.raises(DataError, match=r"no split 'every'; there are .*; all takes the images of all splits"):
        OwnImages(drawings).require("every")


def test_the_model_is_moved_to_the_device_of_the_process(benchmarks, drawings, saved_models, monkeypatch):
    """The meta device replaces a GPU: it computes nothing, so the test records the calls."""
    seen = []

    def note(subject, *_):
        seen.append({parameter.device.type for parameter in subject.model.parameters()})
        return SplitResult("retrieval", "", "test", 1, "both", Classified({}, {}))

    monkeypatch.setattr(evaluating, "own_device", lambda: torch.device("meta"))
    monkeypatch.setattr(evaluating, "evaluate_split", note)
    name = saved_models("retrieval", "flickr30k", "m")
    evaluate_models([name], "retrieval", benchmarks["flickr30k"], progress=False)
    evaluate_models([name], "retrieval", drawings, dataset="images", progress=False)
    assert seen == [{"meta"}, {"meta"}]
