"""One call for images and texts, compared with a forward pass of the model for each input."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

import ashnets
from ashnets import AshNetsProcessor, encode
from ashnets.errors import ConfigurationError, InputError, WeightsError
from ashnets.zoo import create

TEXTS = ["abc", "a long text of letters", "de", "f g h i"]


@pytest.fixture(scope="module")
def drawings() -> list[Image.Image]:
    noise = np.random.default_rng(0).integers(0, 256, (5, 40, 24, 3), dtype=np.uint8)
    return [Image.fromarray(one) for one in noise]


@pytest.fixture(scope="module")
def loaded(model):
    return ashnets.from_pretrained(model)


def alone(loaded, model, item) -> np.ndarray:
    """By a pass of the whole model over one input."""
    processor = AshNetsProcessor.from_pretrained(model)
    batch = processor(text=item) if isinstance(item, str) else processor(images=item)
    with torch.no_grad():
        out = loaded(**batch)
    return (out.text_embeds if isinstance(item, str) else out.image_embeds)[0].numpy()


@pytest.mark.parametrize("batch_size", [1, 3, 32])
def test_each_input_gets_its_vector_in_any_mixture(loaded, model, drawings, batch_size):
    inputs = [drawings[0], *TEXTS[:2], *drawings[1:], *TEXTS[2:]]
    found = encode(inputs, loaded, batch_size=batch_size)
    assert found.shape == (9, 16) and found.dtype == np.float32
    expected = np.stack([alone(loaded, model, item) for item in inputs])
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)


def test_every_kind_of_image(model, loaded, drawings, tmp_path):
    arrays = np.stack([np.asarray(image) for image in drawings])
    path = tmp_path / "one.png"
    drawings[0].save(path)
    expected = encode(drawings, loaded)
    tensors = torch.from_numpy(arrays).permute(0, 3, 1, 2)
    for kind in (arrays, tensors, list(tensors)):
        np.testing.assert_allclose(encode(kind, loaded), expected, atol=1e-6)
    for one in (drawings[0], arrays[0], tensors[0], path, path.read_bytes()):
        vector = encode(one, model)
        assert vector.shape == (16,)
        np.testing.assert_allclose(vector, expected[0], atol=1e-6)


def test_options(loaded, model, capfd):
    unit = encode(TEXTS, loaded, show_progress_bar=False)
    assert capfd.readouterr().err == ""
    plain = encode(np.array(TEXTS), loaded, normalize_embeddings=False, show_progress_bar=True)
    assert "encoding: 100%" in capfd.readouterr().err
    lengths = np.linalg.norm(plain, axis=1, keepdims=True)
    assert (np.abs(lengths - 1) > 1e-3).all()
    np.testing.assert_allclose(plain / lengths, unit, atol=1e-6)
    tensor = encode(TEXTS, loaded, convert_to_tensor=True, device="cpu")
    assert torch.equal(tensor, torch.from_numpy(unit))
    assert encode(TEXTS[0], loaded).shape == (16,)
    assert encode([], loaded).shape == (0, 16)


def test_a_model_in_training_is_evaluated_and_stays_in_training(model):
    dropping = ashnets.from_pretrained(model, hidden_dropout_prob=0.5).train()
    first, second = encode(TEXTS, dropping), encode(TEXTS, dropping)
    assert dropping.training and np.array_equal(first, second)
    np.testing.assert_allclose(first, encode(TEXTS, model), atol=1e-6)


def test_what_cannot_be_encoded(loaded, drawings, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    drawings[0].save("cat.png")
    for inputs, message in (
        (["a", "cat.png"], r"inputs\[1\] is the name of an image file: give Path\('cat\.png'\)"),
        (["abc", "a", " "], r"inputs\[2\]: text is empty"),
        ([drawings[0], 7], r"inputs\[1\]: .*is not an image"),
        ([drawings[0], None], r"inputs\[1\]: "),
    ):
        with pytest.raises(InputError, match=message):
            encode(inputs, loaded)
    with pytest.raises(ConfigurationError, match="batch_size=0"):
        encode("a", loaded, batch_size=0)
    with pytest.raises(InputError, match=r"is a AshNetsModel.*task='retrieval'"):
        encode("a", create("ashnets-tiny"))


def test_a_model_that_was_never_saved_needs_its_processor(loaded, model):
    fresh = create("ashnets-tiny", task="retrieval", seed=0, **loaded.config.to_diff_dict())
    with pytest.raises(InputError, match=r"give its processor too"):
        encode("abc", fresh)
    assert encode("abc", fresh, processor=AshNetsProcessor.from_pretrained(model)).shape == (16,)


def test_a_folder_without_embeddings_is_explained(tmp_path):
    create("ashnets-tiny", task="ve", seed=0, num_hidden_layers=1).save_pretrained(tmp_path)
    with pytest.raises(WeightsError, match="lack the task 'retrieval'"):
        encode("a", tmp_path)
