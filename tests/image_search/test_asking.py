"""Answers against the model's own forward; messages about weights that cannot answer."""

from __future__ import annotations

import json

import pytest
import torch
from PIL import Image

import ashnets
from ashnets import ImageQuestions
from ashnets.cli.search import ask as ask_command
from ashnets.errors import DataError, InputError, WeightsError
from ashnets.image_search import asking

ANSWERS = ["yes", "no", "two", "red"]
QUESTION = "how many cars are there"


@torch.inference_mode()
def scores(model, image) -> dict[str, float]:
    loaded = ashnets.from_pretrained(model, task="vqa")
    inputs = ashnets.AshNetsProcessor.from_pretrained(model)(images=image, text=QUESTION)
    return dict(zip(ANSWERS, torch.sigmoid(loaded(**inputs).logits[0]).tolist(), strict=True))


def test_the_best_answers_are_those_of_the_model(images, vqa_model):
    questions = ImageQuestions(vqa_model)
    assert questions.answers == ANSWERS
    path = images / "a" / "01.png"
    exact = scores(vqa_model, path)
    assert len(set(exact.values())) == 4
    found = questions(path, QUESTION)
    assert [one["answer"] for one in found] == sorted(exact, key=lambda answer: -exact[answer])
    assert {one["answer"]: one["score"] for one in found} == pytest.approx(exact, abs=1e-5)
    with Image.open(path) as image:
        assert questions(image, QUESTION, top=2) == found[:2]
    assert ashnets.ask(path, QUESTION, model=vqa_model, top=1) == found[:1]


def test_over_a_folder_in_batches(images, vqa_model, monkeypatch):
    monkeypatch.setattr(asking, "_BATCH", 5)
    found = list(ImageQuestions(vqa_model).over(images, QUESTION, progress=False))
    assert [one["image"] for one in found] == sorted(one["image"] for one in found)
    assert [one["image"] for one in found if "unreadable" in one] == ["a/broken.jpg", "empty.png"]
    answered = [one for one in found if "answers" in one]
    assert len(answered) == 21
    for one in answered[::7]:
        exact = scores(vqa_model, one["path"])
        assert {answer["answer"]: answer["score"] for answer in one["answers"]} == pytest.approx(exact, abs=1e-5)


def test_a_batch_without_a_readable_image(tmp_path, vqa_model):
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "a.png").write_bytes(b"not an image")
    (found,) = ImageQuestions(vqa_model).over(tmp_path / "p", QUESTION, progress=False)
    assert found["image"] == "a.png"
    assert "a.png" in found["unreadable"]


def test_weights_that_cannot_answer_say_what_they_lack(model, vqa_model, tmp_path):
    with pytest.raises(WeightsError, match=r"ashnets-tiny lack the task 'vqa'.*AshNetsForPreTraining"):
        ImageQuestions("ashnets-tiny")
    with pytest.raises(WeightsError, match=r"lack the task 'vqa'.*AshNetsForRetrieval"):
        ImageQuestions(model)
    nameless = tmp_path / "nameless"
    nameless.mkdir()
    for file in vqa_model.iterdir():
        (nameless / file.name).write_bytes(file.read_bytes())
    config = json.loads((nameless / "config.json").read_text())
    del config["id2label"]
    (nameless / "config.json").write_text(json.dumps(config))
    with pytest.raises(WeightsError, match=r"have 4 answers, but config\.json names 2"):
        ImageQuestions(nameless)


def test_what_cannot_be_asked(images, vqa_model, tmp_path):
    questions = ImageQuestions(vqa_model)
    for image, question, top, message in (
        (images / "empty.png", QUESTION, 1, r"empty\.png. is empty \(0 bytes\)"),
        (images / "a" / "01.png", " ", 1, "text is empty"),
        (images / "a" / "01.png", "x", 0, "top=0 must be at least 1"),
    ):
        with pytest.raises(InputError, match=message):
            questions(image, question, top)
    with pytest.raises(DataError, match="not a folder"):
        list(questions.over(tmp_path / "none", QUESTION))


def test_the_command(images, vqa_model, capsys):
    ask_command(images / "a" / "01.png", QUESTION, str(vqa_model), top=2)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["image", "answer", "score"]
    assert len(lines) == 3
    ask_command(images, QUESTION, str(vqa_model), top=1)
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 22
    assert "left out: 2" in err
    ask_command(images, QUESTION, str(vqa_model), top=1, as_json_=True)
    told = json.loads(capsys.readouterr().out)
    assert len(told["answered"]) == 21
    assert len(told["unreadable"]) == 2
    for path in images.rglob("*.png"):
        path.unlink()
    for as_json in (False, True):  # as `ashnets index` does
        with pytest.raises(DataError, match=r"none of the images of .*images can be read, for example: .*broken\.jpg"):
            ask_command(images, QUESTION, str(vqa_model), as_json_=as_json)
