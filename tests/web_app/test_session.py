"""What the app computes of an image, against the model itself and against the commands on the file."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

import ashnets
from ashnets.errors import ConfigurationError, DataError, InputError, UnknownModelError, WeightsError
from ashnets.web_app.page import build
from ashnets.web_app.session import Session

TEXTS = ["a b c", "d e", "j"]


@pytest.fixture(scope="module")
def session(model: Path, images: Path) -> Session:
    return Session(model, images)


def test_an_uploaded_image_gives_the_results_of_its_file(session: Session, model: Path, images: Path, tmp_path) -> None:
    given = session.read(images / "3.png")
    assert given.name == "3.png" and given.square.size == (16, 16) and given.preview.size == (45, 36)
    of_file, of_square = (session.processor(images=one) for one in (images / "3.png", given.square))
    assert all(torch.equal(of_file[key], of_square[key]) for key in ("pixel_values", "image_keys"))
    shutil.copy(images / "3.png", tmp_path)
    expected = ashnets.energy(model, images=tmp_path, progress=False)
    found = session.energy(given)
    for key in ("counts", "placement", "curves", "group"):
        assert found[key] == expected[key], key
    assert found["placement"]["fits"] and found["data"]["source"] == "one image, 3.png"


def test_spikes_are_those_of_the_command_on_the_file(session: Session, model: Path, images: Path) -> None:
    given = session.read(images / "2.png")
    found, expected = (
        session.spikes(given, TEXTS),
        ashnets.show(images / "2.png", model=model, texts=TEXTS, device="cpu"),
    )
    assert all((found.spikes[layer] == fired).all() for layer, fired in expected.spikes.items())
    assert (found.summary_ratio == expected.summary_ratio).all() and found.name == "2.png"
    for name, nearest in expected.texts.items():
        assert dict(found.texts[name]) == pytest.approx(dict(nearest)) and len(nearest) == 3
    gallery = session.spikes(given).texts
    assert all(len(nearest) == 5 and not {*dict(nearest)} & {*TEXTS} for nearest in gallery.values()), "its names"
    with pytest.raises(DataError, match="no texts"):
        session.spikes(given, [" "])


def test_what_a_model_cannot_do_is_said(vqa_model: Path, images: Path) -> None:
    session = Session(vqa_model, images)
    given = session.read(images / "0.png")
    assert session.ask(given, "a b") == ashnets.ask(images / "0.png", "a b", model=vqa_model)
    assert set(session.cannot) == {"search"} and "AshNetsForRetrieval" in session.cannot["search"]
    with pytest.raises(WeightsError, match=re.escape(session.cannot["search"])):
        session.by_text("a", 3)
    shown = session.spikes(given, TEXTS)
    assert shown.texts == {} and shown.nearest_rows() == [], "its head does not compare images with texts"
    assert "Nearest texts" not in shown.page() and list(shown.rates) == list(
        session.model.base_model.vision.abstract_encoder.layers
    )


def test_an_index_whose_images_have_moved_still_has_a_page(model: Path, images: Path, tmp_path: Path) -> None:
    shutil.copytree(images, tmp_path / "before")
    ashnets.index(tmp_path / "before", str(tmp_path / "index"), model, progress=False)
    (tmp_path / "before").rename(tmp_path / "after")
    session = Session(model, tmp_path / "index")
    shown = [getattr(block, "value", None) for block in build(session).blocks.values()]
    assert any("7 images of before" in text for text in shown if isinstance(text, str))
    assert len(session.by_text("a", 9)) == 7
    with pytest.raises(InputError, match="does not exist"):
        session.draw()


def test_what_cannot_be_served_is_refused_before(model: Path, images: Path, tmp_path: Path) -> None:
    for words, error, message in (
        (("no-such-model",), UnknownModelError, "no model is named 'no-such-model'"),
        ((model, tmp_path / "none"), DataError, "none is neither a folder of images nor the name of an index"),
        ((model, images, "no-such-chip"), ConfigurationError, "no chip 'no-such-chip'"),
    ):
        with pytest.raises(error, match=message):
            Session(*words)


def test_uploads_are_bounded_and_decoded_by_our_reader(session: Session, images: Path, tmp_path: Path) -> None:
    large = tmp_path / "large.png"
    Image.new("1", (6001, 6001)).save(large)
    with pytest.raises(InputError, match=r"^Image 'large.png' is 6001 x 6001 px; the limit is 36000000 pixels"):
        session.read(large)
    with pytest.raises(InputError, match=r"^Image 'damaged.png' is damaged or cut short"):
        session.read(images / "damaged.png")
