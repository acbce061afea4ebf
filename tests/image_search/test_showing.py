"""`ashnets show`: spikes, rates and texts against the model's own calls."""

from __future__ import annotations

import dataclasses
import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

import ashnets
from ashnets import AshNetsConfig, AshNetsForRetrieval
from ashnets.cli.show import show as show_command
from ashnets.errors import ConfigurationError, DataError, InputError

TEXTS = ["a red car", "fox", "two dogs", "fox", " "]


@pytest.fixture
def image(draw, tmp_path):
    return draw(tmp_path / "mine.png", seed=7)


@torch.inference_mode()
def test_it_shows_what_the_model_computes(image, model):
    shown = ashnets.show(image, model=model, texts=TEXTS, top=9)
    loaded = ashnets.from_pretrained(model, task="retrieval")
    processor = ashnets.AshNetsProcessor.from_pretrained(model)
    batch = processor(images=image, text=TEXTS[:3])
    pixels, keys = batch["pixel_values"], batch["image_keys"]
    own, visual = loaded.encode_image(pixels, image_keys=keys)
    text = loaded.encode_text(batch["input_ids"], batch["attention_mask"])
    hidden, _ = loaded.ashnets.transformer(batch["input_ids"], batch["attention_mask"], None)
    expected = {
        "with spikes": own @ text.T,
        "without spikes": loaded.encode_image(pixels, concrete_only=True)[0] @ text.T,
        "spikes alone": loaded.project_spiking(visual) @ loaded.project_text_for_spikes(hidden).T,
    }
    assert list(shown.texts) == list(expected)
    for name, scores in expected.items():
        told = dict(shown.texts[name])
        assert sorted(told) == sorted(TEXTS[:3]) and list(told.values()) == sorted(told.values(), reverse=True)
        assert [told[one] for one in TEXTS[:3]] == pytest.approx(scores[0].tolist(), abs=1e-5)
    assert list(shown.rates) == list(visual.layer_rates)
    for layer, rate in visual.layer_rates.items():
        assert shown.rates[layer] == pytest.approx(float(rate)) and shown.spikes[layer].dtype == bool
    assert shown.summary_ratio == pytest.approx(visual.summary_ratio.view(4, 4).numpy())
    assert shown.steps == 3 and len({fired.tobytes() for fired in shown.spikes.values()}) == len(shown.spikes)


def test_rasters_and_the_map_by_hand(image, model):
    shown = ashnets.show(image, model=model, texts=TEXTS)
    for layer, fired in shown.spikes.items():
        raster = shown.raster(layer, 5)
        neurons = fired.shape[1]
        for line, neuron in zip(raster, [0, *((neurons - 1) * k // 4 for k in (1, 2, 3)), neurons - 1], strict=True):
            assert line.tolist() == fired[:, neuron].tolist()
        marks = np.asarray(shown.raster_image(layer))
        lines = shown.raster(layer)
        assert marks.shape[0] == 3 * len(lines) and marks.shape[1] % shown.steps == 0
        middle = marks[1::3, marks.shape[1] // shown.steps // 2 :: marks.shape[1] // shown.steps]
        assert ((middle != 255).any(-1) == lines).all()
    over = shown.summary_ratio_image()
    assert over.size == (480, 384), "of an image of 45 x 36 pixels"
    plain = dataclasses.replace(shown, image=Image.new("RGB", (480, 384), "gray"))
    tokens = np.asarray(plain.summary_ratio_image()).astype(int).sum(-1)[48::96, 60::120]  # (4, 4), in their middles
    order = np.argsort(shown.summary_ratio, axis=None)
    assert (np.diff(tokens.flatten()[order]) >= 0).all(), "a greater ratio is brighter"


def test_the_page_and_the_command(image, model, tmp_path, capsys):
    page, texts = tmp_path / "mine.html", tmp_path / "texts.txt"
    texts.write_text("\n".join(TEXTS), encoding="utf-8")
    show_command(image, str(model), texts, 2, page)
    out = capsys.readouterr().out
    assert "without spikes" in out and "summary ratio of each token: mean 0." in out
    text = page.read_text(encoding="utf-8")
    shown = ashnets.show(image, model=model, texts=texts, top=2)
    assert text.count("<img") == 2 + len(shown.spikes) and "http" not in text
    for found in shown.texts.values():
        assert all(f"{one} ({score:.3f})" in out and f"{one} ({score:.3f})" in text for one, score in found)
    assert re.findall(r"<h2>([^<]+)", text) == ["Nearest texts", "Spikes"]
    show_command(image, str(model), texts, 2, as_json_=True)
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(shown.to_dict()))


def test_texts_of_captioned_images_and_what_cannot_be_shown(image, model, tmp_path):
    (tmp_path / "mine.txt").write_text("my own drawing\n", encoding="utf-8")
    shown = ashnets.show(image, model=model, texts=tmp_path)
    assert [text for text, _ in shown.texts["with spikes"]] == ["my own drawing"]
    with pytest.raises(DataError, match="no texts"):
        ashnets.show(image, model=model, texts=[" "])
    with pytest.raises(DataError, match=r"none\.txt cannot be read"):
        ashnets.show(image, model=model, texts=tmp_path / "none.txt")
    with pytest.raises(InputError, match="top=0"):
        ashnets.show(image, model=model, texts=TEXTS, top=0)


def test_a_model_without_spikes_is_refused(image, model, tmp_path):
    config = AshNetsConfig(**{**ashnets.config_of(model).to_dict(), "summary_ratio": "ann"})
    AshNetsForRetrieval(config).save_pretrained(tmp_path / "ann")
    ashnets.AshNetsProcessor.from_pretrained(model).save_pretrained(tmp_path / "ann")
    with pytest.raises(ConfigurationError, match="no spiking branch"):
        ashnets.show(image, model=tmp_path / "ann", texts=TEXTS)
