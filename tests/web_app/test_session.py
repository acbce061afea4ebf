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
from ashnets.model.outputs import VisualOutput
from ashnets.web_app.figures import spiking_figure
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


@torch.inference_mode()
def test_spikes_are_those_of_the_model(session: Session, images: Path) -> None:
    """The view runs the exported graph; here the model runs with tdBN unfolded."""
    given = session.read(images / "2.png")
    view = session.spikes(given, TEXTS)
    model, batch = session.model, session.processor(images=given.square)
    visual = model.ashnets.vision(batch["pixel_values"], batch["image_keys"])
    assert view.rates == pytest.approx({name: float(rate) for name, rate in visual.layer_rates.items()}, abs=0.01)
    assert all(0 < rate < 1 for rate in view.rates.values())
    for name, spikes in view.spikes.items():
        assert float(spikes.sum()) == pytest.approx(view.rates[name] * spikes.numel())
    assert torch.allclose(view.summary_ratio.flatten(), visual.summary_ratio.flatten(), atol=0.01)
    alone = VisualOutput(abstract=visual.abstract, summary_ratio=torch.ones_like(visual.summary_ratio))
    embed = model.project_spiking(alone)[0]
    cosines = {}
    for text in TEXTS:
        words = session.processor(text=text)
        hidden, _ = model.ashnets.transformer(words["input_ids"], words["attention_mask"], None)
        cosines[text] = float(embed @ model.project_text_for_spikes(hidden)[0])
    assert dict(view.nearest) == pytest.approx(cosines, abs=0.02)
    assert [score for _, score in view.nearest] == sorted((score for _, score in view.nearest), reverse=True)
    assert len(session.spikes(given).nearest) == 5, "without texts, those of the bundled gallery"


def test_the_figure_shows_the_spikes(session: Session, images: Path, tmp_path: Path) -> None:
    first, second = (session.read(images / name) for name in ("1.png", "5.png"))
    drawn = [spiking_figure(session.spikes(one), first.square) for one in (first, first, second)]
    assert drawn[0] == drawn[1] != drawn[2]
    (tmp_path / "figure.png").write_bytes(drawn[0])
    with Image.open(tmp_path / "figure.png") as figure:
        assert figure.width > 800 and len(set(figure.convert("RGB").resize((90, 60)).get_flattened_data())) > 50


def test_what_a_model_cannot_do_is_said(vqa_model: Path, images: Path) -> None:
    session = Session(vqa_model, images)
    given = session.read(images / "0.png")
    assert session.ask(given, "a b") == ashnets.ask(images / "0.png", "a b", model=vqa_model)
    assert set(session.cannot) == {"search"} and "AshNetsForRetrieval" in session.cannot["search"]
    with pytest.raises(WeightsError, match=re.escape(session.cannot["search"])):
        session.by_text("a", 3)
    assert session.spikes(given, TEXTS).nearest == [], "its head does not read spikes"


def test_what_cannot_be_served_is_refused_before(model: Path, images: Path, tmp_path: Path) -> None:
    for words, error in (
        (("no-such-model",), UnknownModelError),
        ((model, tmp_path / "none"), DataError),
        ((model, images, "no-such-chip"), ConfigurationError),
    ):
        with pytest.raises(error):
            Session(*words)


def test_uploads_are_bounded_and_decoded_by_our_reader(session: Session, images: Path, tmp_path: Path) -> None:
    large = tmp_path / "large.png"
    Image.new("1", (6001, 6001)).save(large)
    with pytest.raises(InputError, match=r"^Image 'large.png' is 6001 x 6001 px; the limit is 36000000 pixels"):
        session.read(large)
    with pytest.raises(InputError, match=r"^Image 'damaged.png' is damaged or cut short"):
        session.read(images / "damaged.png")
