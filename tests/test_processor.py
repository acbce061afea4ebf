"""Images and text to tensors, and inputs that are refused."""

from __future__ import annotations

import io
import json
import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoProcessor, AutoTokenizer

from ashnets import AshNetsConfig, AshNetsProcessor
from ashnets.data.vocabulary import tokenize
from ashnets.errors import ConfigurationError, InputError
from ashnets.model.sampling import content_key, image_key
from ashnets.processor import AshNetsImageProcessor

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "cat", "dog", "runs", "##s"]


def config(**changes) -> AshNetsConfig:
    settings = {
        "backbone": "resnet-tiny",
        "backbone_widths": [8, 12],
        "image_size": 16,
        "spiking_channels": [4, 5, 6],
        "vocab_size": len(PIECES),
        "max_text_length": 8,
    }
    return AshNetsConfig(**{**settings, **changes})


@pytest.fixture(scope="module")
def processor() -> AshNetsProcessor:
    return AshNetsProcessor.from_config(config(), PIECES)


def random_image(seed: int = 0, size: tuple[int, int] = (40, 24)) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(noise)


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def test_every_kind_of_source_gives_the_same_tensor(processor, tmp_path):
    image = random_image()
    path = tmp_path / "image.png"
    image.save(path)
    with path.open("rb") as file:
        sources = [image, str(path), path, png(image), io.BytesIO(png(image)), np.asarray(image), file]
        batch = processor(images=sources)
    assert batch["pixel_values"].shape == (7, 3, 16, 16)
    assert all(torch.equal(one, batch["pixel_values"][0]) for one in batch["pixel_values"])
    assert batch["image_keys"].unique().numel() == 1


def test_pixels_are_plain_intensities_of_the_whole_image(processor):
    image = Image.new("RGB", (64, 16), (255, 51, 0))
    pixels = processor(images=image)["pixel_values"]
    assert pixels.dtype == torch.float32
    assert torch.equal(pixels, torch.tensor([1.0, 0.2, 0.0]).view(1, 3, 1, 1).expand(1, 3, 16, 16))
    halves = Image.new("RGB", (64, 16))
    halves.paste((255, 255, 255), (32, 0, 64, 16))
    row = processor(images=halves)["pixel_values"][0, 0, 8]
    assert row[0] == 0 and row[-1] == 1  # left and right edge are both still there


def test_a_image_of_the_right_size_is_not_touched(processor):
    image = random_image(size=(16, 16))
    expected = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).float() / 255
    assert torch.equal(processor(images=image)["pixel_values"][0], expected)


def test_tensors_and_arrays_like_images(processor):
    """Channels first and last, in one array or in a list, of uint8 or of floats in [0, 1]."""
    images = [random_image(0), random_image(1)]
    expected = processor(images=images)
    arrays = np.stack([np.asarray(image) for image in images])  # (B, H, W, 3)
    tensors = torch.from_numpy(arrays).permute(0, 3, 1, 2)  # (B, 3, H, W)
    kinds = [arrays, tensors, list(tensors), [arrays[0], tensors[1]], tensors.float() / 255, arrays / 255]
    for kind in kinds:
        found = processor(images=kind)
        assert all(torch.equal(found[key], expected[key]) for key in expected)
    again = processor(images=expected["pixel_values"])  # what came out of it
    assert all(torch.equal(again[key], expected[key]) for key in expected)
    half = processor(images=torch.zeros(3, 40, 24, dtype=torch.bfloat16, requires_grad=True))
    assert torch.equal(half["pixel_values"], torch.zeros(1, 3, 16, 16))


def test_image_ids(processor):
    images = [random_image(0), random_image(1)]
    batch = processor(images=images)
    assert batch["image_keys"].tolist() == [content_key(image) for image in batch["pixel_values"]]
    named = processor(images=images, image_ids=["cat.png", 7])
    assert named["image_keys"].dtype == torch.int64
    assert named["image_keys"].tolist() == [image_key("cat.png"), 7]
    assert processor(images=images, image_ids=torch.tensor([3, 4]))["image_keys"].tolist() == [3, 4]
    assert processor(images=images[0], image_ids="x")["image_keys"].tolist() == [image_key("x")]


def test_pairs_for_nlvr2(processor):
    images = [random_image(i) for i in range(4)]
    flat = processor(images=images)
    pairs = processor(images=[(images[0], images[1]), [images[2], images[3]]], text=["a cat", "a dog"])
    assert pairs["pixel_values"].shape == (2, 2, 3, 16, 16)
    assert torch.equal(pairs["pixel_values"].flatten(0, 1), flat["pixel_values"])
    assert torch.equal(pairs["image_keys"].flatten(), flat["image_keys"])
    named = processor(images=[(images[0], images[1])], image_ids=[(5, 6)])
    assert named["image_keys"].tolist() == [[5, 6]]


def test_pairs_run_through_the_model(processor):
    from ashnets.model import AshNetsForVisualReasoning

    settings = config(
        hidden_size=16,
        num_concepts=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=16,
        time_steps=2,
    )
    model = AshNetsForVisualReasoning(settings).eval()
    pairs = processor(
        images=[(random_image(0), random_image(1)), (random_image(2), random_image(3))], text=["a cat", "dogs"]
    )
    with torch.no_grad():
        assert model(**pairs).logits.shape == (2, 2)


def test_text(processor):
    batch = processor(text=["A cat", "dogs runs a bird"])
    assert batch["input_ids"].tolist() == [[2, 5, 6, 3, 0, 0, 0], [2, 7, 9, 8, 5, 1, 3]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1, 0, 0, 0], [1] * 7]
    assert batch["input_ids"].dtype == batch["attention_mask"].dtype == torch.int64
    assert processor(text="a cat")["input_ids"].tolist() == [[2, 5, 6, 3]]


def test_numbers_of_images_and_texts_may_differ(processor):
    batch = processor(images=[random_image()], text=["a", "cat", "dog"])
    assert len(batch["pixel_values"]) == 1 and len(batch["input_ids"]) == 3


def test_ten_thousand_words_are_cut_with_a_note(processor):
    with pytest.warns(UserWarning, match="1 of 2 texts are longer than 8 tokens and were cut"):
        batch = processor(text=["a cat", "dog " * 10_000])
    assert batch["input_ids"].tolist()[1] == [2, 7, 7, 7, 7, 7, 7, 3]


def test_padding_truncation_and_length(processor):
    texts = ["a cat", "dog " * 10]
    ids = [[2, 5, 6, 3], [2, *[7] * 10, 3]]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        whole = processor(text=texts, truncation=False, padding="do_not_pad", return_tensors=None)
        assert whole["input_ids"] == ids
        assert whole["attention_mask"] == [[1] * 4, [1] * 12]
        padded = processor(text=texts, truncation="do_not_truncate", padding="longest")
        assert padded["input_ids"].tolist() == [ids[0] + [0] * 8, ids[1]]
        long = processor(text=texts[0], padding="max_length")
        assert long["input_ids"].tolist() == [ids[0] + [0] * 4], "max_text_length is 8"
        assert processor(text=texts, max_length=12, padding="max_length")["input_ids"].tolist() == [
            ids[0] + [0] * 8,
            ids[1],
        ]
    with pytest.warns(UserWarning, match="1 of 2 texts are longer than 5 tokens and were cut"):
        cut = processor(text=texts, max_length=5, return_tensors="np")
    assert cut["input_ids"].tolist() == [[*ids[0], 0], [2, 7, 7, 7, 3]]
    with pytest.raises(InputError, match="texts of 4 to 12 tokens do not make a tensor: give padding=True"):
        processor(text=texts, truncation=False, padding=False)


def test_a_text_that_just_fits_is_not_cut(processor):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert processor(text="dog " * 6)["input_ids"].shape == (1, 8)


def test_unknown_words_are_named_once():
    processor = AshNetsProcessor.from_config(config(), PIECES)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        processor(text=["a cat", "dogs"])
    with pytest.warns(UserWarning, match="no piece for '猫', '🐱🐱': each is read as") as told:
        batch = processor(text=["a cat", "猫 dog", "a 🐱🐱 猫"])
    assert len(told) == 1 and told[0].filename == __file__
    assert batch["input_ids"].tolist() == [[2, 5, 6, 3, 0], [2, 1, 7, 3, 0], [2, 5, 1, 1, 3]]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert processor(text="犬")["input_ids"].tolist() == [[2, 1, 3]]


@pytest.mark.parametrize("token", PIECES[:5])
def test_special_tokens_in_a_text_are_characters(token, tmp_path):
    """Also after saving, with AutoTokenizer, and with saved files of older versions, which do not set the option."""
    pieces = [*PIECES, "[", "]", "pad", "unk", "cls", "sep", "mask"]
    made = AshNetsProcessor.from_config(config(vocab_size=len(pieces)), pieces)
    made.save_pretrained(tmp_path)
    loaded, tokenizer = AshNetsProcessor.from_pretrained(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    file = tmp_path / "tokenizer_config.json"
    settings = json.loads(file.read_text())
    assert settings.pop("split_special_tokens")
    file.write_text(json.dumps(settings))
    old = AshNetsProcessor.from_pretrained(tmp_path)
    expected = [2, 5, 10, pieces.index(token[1:-1].lower()), 11, 6, 3]
    for processor in (made, loaded, old):
        assert processor(text=f"a {token} cat")["input_ids"].tolist() == [expected]
        found = tokenize(processor.tokenizer, [f"a {token} cat"], 8)
        assert found["input_ids"].tolist() == [expected]
        assert found["special_tokens_mask"].tolist() == [[1, 0, 0, 0, 0, 0, 1]]
    assert tokenizer(f"a {token} cat")["input_ids"] == expected


@pytest.mark.parametrize(("kind", "cls"), [("pt", torch.Tensor), ("np", np.ndarray), (None, list)])
def test_return_types(processor, kind, cls):
    batch = processor(images=random_image(), text="a cat", return_tensors=kind)
    assert set(batch) == {"pixel_values", "image_keys", "input_ids", "attention_mask"}
    assert set(batch) == set(processor.model_input_names)
    assert all(isinstance(value, cls) for value in batch.values())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "nothing to process"),
        ({"images": []}, "empty list"),
        ({"text": []}, "empty list"),
        ({"text": ""}, r"text is empty \(''\): give at least one word"),
        ({"text": ["a cat", " \t\n"]}, r"text\[1\] is empty"),
        ({"text": "\u200b\u0000"}, "no visible character"),
        ({"text": 7}, "of type int"),
        ({"text": ["a cat", None]}, r"text\[1\] is of type NoneType"),
        ({"text": [["a", "cat"]]}, r"text\[0\] is of type list"),
        ({"text": "a \ud800 cat"}, "surrogates"),
        ({"text": "a cat", "image_ids": [1]}, "without images"),
        ({"text": "a cat", "return_tensors": "tf"}, "return_tensors='tf'"),
        ({"text": "a cat", "padding": "odd"}, "padding='odd' is not one of True, False, 'longest'"),
        ({"text": "a cat", "truncation": "odd"}, "truncation='odd' is not one of"),
        ({"text": "a cat", "max_length": 2}, "max_length=2: give at least 3"),
        ({"images": torch.full((3, 16, 16), 9.0)}, r"floats must lie in \[0, 1\]"),
        ({"images": torch.zeros(2, 5, 16, 16)}, r"images\[0\]: .* 1, 3 or 4 channels"),
        ({"images": 7}, "is not an image"),
        ({"images": b"no image at all"}, "not an image"),
        ({"images": "/no/such/image.png"}, "does not exist"),
        ({"images": [Image.new("RGB", (16, 16)), b"junk"]}, r"images\[1\]: "),
        ({"images": Image.new("RGB", (1, 1))}, "1 x 1 px"),
        ({"images": [Image.new("RGB", (16, 16))], "image_ids": [1, 2]}, "2 image ids for 1 images"),
        ({"images": Image.new("RGB", (16, 16)), "image_ids": 1.5}, "of type float"),
        ({"images": [(Image.new("RGB", (16, 16)),) * 3]}, "has 3 images"),
        ({"images": [Image.new("RGB", (16, 16)), (Image.new("RGB", (16, 16)),) * 2]}, "both images and pairs"),
    ],
)
def test_bad_input(processor, arguments, message):
    with pytest.raises(InputError, match=message):
        processor(**arguments)


def test_truncated_jpeg(processor):
    buffer = io.BytesIO()
    random_image(size=(200, 200)).save(buffer, "JPEG")
    with pytest.raises(InputError, match="damaged"):
        processor(images=buffer.getvalue()[:2000])


def test_cmyk_and_gray_become_rgb(processor):
    batch = processor(images=[Image.new("CMYK", (20, 20)), Image.new("L", (20, 20), 255)])
    assert torch.equal(batch["pixel_values"], torch.ones(2, 3, 16, 16))


def test_save_and_load(processor, tmp_path):
    processor.save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "processor_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    inputs = {"images": [random_image(0), random_image(1)], "text": ["a cat", "dogs"]}
    expected = processor(**inputs)
    for loaded in (AshNetsProcessor.from_pretrained(tmp_path), AutoProcessor.from_pretrained(tmp_path)):
        assert isinstance(loaded, AshNetsProcessor)
        assert loaded.max_text_length == 8
        found = loaded(**inputs)
        assert all(torch.equal(found[key], expected[key]) for key in expected)
    assert isinstance(AutoImageProcessor.from_pretrained(tmp_path), AshNetsImageProcessor)
    assert AutoImageProcessor.from_pretrained(tmp_path).image_size == 16
    assert AutoTokenizer.from_pretrained(tmp_path)("a cat")["input_ids"] == [2, 5, 6, 3]


def test_a_failed_save_leaves_what_was_there(processor, tmp_path, monkeypatch):
    processor.save_pretrained(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full_disk(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(AshNetsProcessor, "to_json_file", full_disk)  # the last of the files
    with pytest.raises(OSError, match="No space left"):
        AshNetsProcessor.from_config(config(max_text_length=5), PIECES).save_pretrained(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("file", ["processor_config.json", "tokenizer.json"])
def test_damaged_or_missing_files(processor, tmp_path, file):
    processor.save_pretrained(tmp_path)
    (tmp_path / file).write_text("{", encoding="utf-8")
    with pytest.raises(ConfigurationError, match="cannot be loaded"):
        AshNetsProcessor.from_pretrained(tmp_path)
    (tmp_path / file).unlink()
    with pytest.raises(ConfigurationError, match=f"has no {file}"):
        AshNetsProcessor.from_pretrained(tmp_path)


def test_vocabulary_and_configuration_must_agree(tmp_path):
    with pytest.raises(ConfigurationError, match="10 pieces, but vocab_size=11"):
        AshNetsProcessor.from_config(config(vocab_size=11), PIECES)
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(PIECES), encoding="utf-8")
    assert len(AshNetsProcessor.from_config(config(), path).tokenizer) == len(PIECES)


def test_impossible_image_size(processor, tmp_path):
    processor.save_pretrained(tmp_path)
    file = tmp_path / "processor_config.json"
    data = json.loads(file.read_text())
    data["image_processor"]["image_size"] = 0
    file.write_text(json.dumps(data))
    with pytest.raises(ConfigurationError, match="image_size=0"):
        AshNetsProcessor.from_pretrained(tmp_path)
