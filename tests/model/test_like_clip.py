"""What users of transformers know, against a CLIP of transformers with random weights: arguments, shapes and errors."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch
from PIL import Image
from small_model import random_images, small_config, wake
from transformers import CLIPConfig, CLIPModel, CLIPProcessor, CLIPTokenizer, pipeline
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.clip.modeling_clip import CLIPOutput, image_text_contrastive_loss
from transformers.utils import ModelOutput

from ashnets import AshNetsProcessor
from ashnets.model import AshNetsForPreTraining, AshNetsForRetrieval, AshNetsForVQA, AshNetsModel
from ashnets.model.outputs import RetrievalOutput

LAYERS = 2
LETTERS = "abcdefgh"  # the words of both tokenizers
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS]


@pytest.fixture(scope="module")
def ours() -> AshNetsForRetrieval:
    torch.manual_seed(0)
    made = AshNetsForRetrieval(
        small_config(vocab_size=len(PIECES), max_text_length=8, max_position_embeddings=8)
    ).eval()
    wake(made.ashnets.vision.abstract_encoder)
    return made


@pytest.fixture(scope="module")
def clip() -> CLIPModel:
    torch.manual_seed(0)
    both = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": LAYERS, "num_attention_heads": 2}
    text = {**both, "vocab_size": len(PIECES), "max_position_embeddings": 8, "eos_token_id": 3, "pad_token_id": 0}
    vision = {**both, "image_size": 16, "patch_size": 8}
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=8, attn_implementation="eager")
    return CLIPModel(config).eval()


@pytest.fixture(scope="module")
def processors() -> tuple[AshNetsProcessor, CLIPProcessor]:
    names = ["<|startoftext|>", "<|endoftext|>", *(f"{letter}</w>" for letter in LETTERS), *LETTERS]
    tokenizer = CLIPTokenizer(vocab={name: i for i, name in enumerate(names)}, merges=[], model_max_length=8)
    size = {"height": 16, "width": 16}
    image_processor = CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size=size)
    config = small_config(vocab_size=len(PIECES), max_text_length=8)
    return AshNetsProcessor.from_config(config, PIECES), CLIPProcessor(image_processor, tokenizer)


def texts(count: int, length: int = 5) -> dict[str, torch.Tensor]:
    ids = torch.randint(5, len(PIECES), (count, length), generator=torch.Generator().manual_seed(1))
    ids[:, -1] = 3
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def run(model, **given):
    with torch.no_grad():
        return model(**given)


def shapes(value):
    """Shapes of the tensors, in the same nesting."""
    if isinstance(value, torch.Tensor | np.ndarray):
        return tuple(value.shape)
    if isinstance(value, dict | ModelOutput):
        return {key: shapes(one) for key, one in value.items()}
    return [shapes(one) for one in value]


@pytest.mark.parametrize(("images", "sentences"), [(2, 3), (1, 4), (2, 2)])
def test_outputs_for_all_images_and_all_texts(ours, clip, images, sentences):
    given = {"pixel_values": random_images(images), **texts(sentences)}
    expected, found = run(clip, **given), run(ours, **given)
    names = ["logits_per_image", "logits_per_text", "text_embeds", "image_embeds"]
    assert {name: shapes(found[name]) for name in names} == {name: shapes(expected[name]) for name in names}
    assert list(RetrievalOutput.__dataclass_fields__)[:7] == list(CLIPOutput.__dataclass_fields__)
    assert (found.itm_logits is None) == (images != sentences), "only pairs are matched"


def test_the_logits_by_hand(ours):
    given = {"pixel_values": random_images(2), **texts(3)}
    found = run(ours, **given)
    with torch.no_grad():
        image = ours.get_image_features(given["pixel_values"]).pooler_output.double()
        text = ours.get_text_features(given["input_ids"], given["attention_mask"]).pooler_output.double()
    assert (image.norm(dim=1) - 1).abs().min() > 1e-3, "not normalized, as CLIP's"
    for i in range(2):
        for k in range(3):
            cosine = image[i] @ text[k] / (image[i].norm() * text[k].norm())
            assert found.logits_per_image[i, k].item() == pytest.approx(cosine.item() / 0.07, abs=1e-4)
            assert found.logits_per_text[k, i] == found.logits_per_image[i, k]
    for i, k in ((0, 0), (1, 2)):  # an image and a text alone give the same number
        one = run(ours, pixel_values=given["pixel_values"][[i]], input_ids=given["input_ids"][[k]])
        torch.testing.assert_close(one.logits_per_image[0, 0], found.logits_per_image[i, k], atol=1e-4, rtol=1e-4)


def test_features(ours, clip):
    """Of the same fields and shapes, but for the visual tokens: CLIP has one more, its class token."""
    pixels, words = random_images(2), texts(3)
    for model in (ours, clip):
        with torch.no_grad():
            image, text = model.get_image_features(pixels), model.get_text_features(**words)
            plain = model.get_image_features(pixel_values=pixels, return_dict=False)
        assert shapes(image) == {"last_hidden_state": (2, 4 + (model is clip), 16), "pooler_output": (2, 8)}
        assert shapes(text) == {"last_hidden_state": (3, 5, 16), "pooler_output": (3, 8)}
        assert isinstance(plain, tuple) and torch.equal(plain[1], image.pooler_output)
        embeds = run(model, pixel_values=pixels, **words)
        for features, embed in ((image, embeds.image_embeds), (text, embeds.text_embeds)):
            unit = features.pooler_output / features.pooler_output.norm(dim=-1, keepdim=True)
            torch.testing.assert_close(unit, embed)


def test_hidden_states_and_attentions(ours, clip):
    options = {"output_hidden_states": True, "output_attentions": True}
    words = texts(3)
    with torch.no_grad():
        expected, found = (model.get_text_features(**words, **options) for model in (clip, ours))
    assert shapes(found) == shapes(expected)
    assert len(found.hidden_states) == LAYERS + 1
    assert torch.equal(found.hidden_states[-1], found.last_hidden_state)
    given = {"pixel_values": random_images(3), **words}
    expected, found = run(clip, **given, **options), run(ours, **given, **options)
    assert shapes(found.text_model_output) == shapes(expected.text_model_output)
    assert [shapes(states) for states in found.hidden_states] == [(3, 5 + 4, 16)] * (LAYERS + 1), "of the pairs"
    assert shapes(found.attentions) == [(3, 2, 9, 9)] * LAYERS
    base = run(ours.ashnets, **given, output_hidden_states=True)
    torch.testing.assert_close(base.hidden_states, found.hidden_states, rtol=1e-4, atol=1e-5)
    assert torch.equal(base.hidden_states[-1], base.last_hidden_state)
    backbone = ours.ashnets.vision.concrete_encoder.backbone
    maps = found.vision_model_output.hidden_states  # of the ResNet, as transformers returns them
    assert shapes(maps) == [(3, 8, 4, 4), (3, 8, 4, 4), (3, 12, 2, 2)] and len(maps) == len(backbone.encoder.stages) + 1
    off = run(ours, **given)
    assert off.hidden_states is off.attentions is off.text_model_output.hidden_states is None
    assert off.vision_model_output.hidden_states is None


def test_the_configuration_can_ask_for_them(ours):
    asking = AshNetsModel(small_config(output_hidden_states=True, output_attentions=True, attn_implementation="eager"))
    out = run(asking.eval(), pixel_values=random_images(1), input_ids=torch.ones(1, 4, dtype=torch.long))
    assert len(out.hidden_states) == LAYERS + 1 and len(out.attentions) == LAYERS
    off = run(asking, pixel_values=random_images(1), output_hidden_states=False, output_attentions=False)
    assert off.hidden_states is None and off.attentions is None


@pytest.mark.parametrize("kind", [AshNetsForRetrieval, AshNetsForPreTraining, AshNetsForVQA, AshNetsModel])
def test_a_tuple_on_request(kind, clip):
    """In a call and by the configuration: the values in their order, outputs within as tuples too."""
    torch.manual_seed(0)
    model = kind(small_config()).eval()
    given = {"pixel_values": random_images(2), **texts(2)}
    out, found = run(model, **given), run(model, **given, return_dict=False)
    assert [type(one) for one in found[:1]] == [torch.Tensor]
    assert isinstance(found, tuple) and shapes(found) == shapes(out.to_tuple()) and len(found) == len(out)
    assert not any(isinstance(one, ModelOutput) for one in found)
    assert torch.equal(found[0], out[0])
    model.config.return_dict = False
    assert isinstance(run(model, **given), tuple)
    if kind is AshNetsForRetrieval:
        order = run(clip, **given, return_dict=False)
        assert [type(one) for one in found[:6]] == [type(one) for one in order]
        assert [shapes(one) for one in found[:4]] == [shapes(one) for one in order[:4]]


def test_the_loss_is_that_of_clip(ours, clip):
    given = {"pixel_values": random_images(3), **texts(3)}
    found = run(ours, **given, return_loss=True)
    torch.testing.assert_close(found.loss, image_text_contrastive_loss(found.logits_per_text))
    assert run(clip, **given, return_loss=True).loss.shape == found.loss.shape == ()
    assert run(ours, **given).loss is None


def test_methods_and_arguments():
    """The methods of CLIPModel and their arguments, but those for its position embeddings."""
    for kind in (AshNetsForRetrieval, AshNetsForPreTraining):
        for name in ("forward", "get_image_features", "get_text_features"):
            theirs, own = (inspect.signature(getattr(cls, name)).parameters for cls in (CLIPModel, kind))
            missing = set(theirs) - set(own) - {"kwargs", "position_ids", "interpolate_pos_encoding"}
            assert not missing, (kind, name, missing)
        assert kind.supports_gradient_checkpointing == CLIPModel.supports_gradient_checkpointing


def error(call) -> type[Exception]:
    """The first built-in class of the error that the call raises."""
    with pytest.raises(Exception) as raised:
        call()
    return next(cls for cls in raised.type.__mro__ if cls.__module__ == "builtins")


@pytest.mark.parametrize(
    "given",
    [
        {"pixel_values": random_images(2, size=8), **texts(2)},
        {"pixel_values": random_images(2)[0], **texts(2)},
        {"pixel_values": random_images(2), **texts(2, length=9)},
    ],
    ids=["size", "dimensions", "length"],
)
def test_models_refuse_the_same_inputs_with_the_same_errors(ours, clip, given):
    assert error(lambda: ours(**given)) is error(lambda: clip(**given)) is ValueError
    for model in (ours, clip):
        assert error(lambda model=model: model.get_image_features()) is TypeError
        assert error(lambda model=model: model.get_text_features()) is TypeError


def test_types_of_tokens_are_checked(ours):
    """AutoTokenizer gives BERT's types, all 0 for one text."""
    words = texts(2)
    types = torch.zeros_like(words["input_ids"])
    expected = run(ours, **words)
    for given in ({}, {"pixel_values": random_images(2)}):
        assert torch.equal(run(ours, **words, token_type_ids=types, **given).text_embeds, expected.text_embeds)
        assert error(lambda given=given: ours(**words, token_type_ids=types + 1, **given)) is ValueError
        assert error(lambda given=given: ours.ashnets(**words, token_type_ids=types + 1, **given)) is ValueError


# --- the processor

IMAGE = Image.new("RGB", (20, 24), (9, 9, 9))
ARRAY = np.full((20, 24, 3), 7, np.uint8)
TENSOR = torch.full((3, 20, 24), 7, dtype=torch.uint8)


@pytest.mark.parametrize("return_tensors", ["pt", "np"])
@pytest.mark.parametrize(
    "images",
    [IMAGE, [IMAGE], ARRAY, TENSOR, [ARRAY, TENSOR], np.stack([ARRAY] * 3), torch.stack([TENSOR] * 3)],
    ids=["image", "images", "array", "tensor", "both", "arrays", "tensors"],
)
def test_processors_take_the_same_images(processors, images, return_tensors):
    own, theirs = (one(images=images, return_tensors=return_tensors)["pixel_values"] for one in processors)
    assert type(own) is type(theirs) and own.shape == theirs.shape and own.dtype == theirs.dtype


LONG = ["a c", "h e a d b e f a"]


@pytest.mark.parametrize(
    "options",
    [
        {"padding": True, "truncation": True},
        {"padding": "longest", "truncation": True},
        {"padding": True, "truncation": True, "max_length": 6},
        {"padding": "max_length", "truncation": True},
        {"padding": "max_length", "max_length": 12},
        {"padding": "max_length", "max_length": 12, "truncation": False},
        {"padding": "do_not_pad", "truncation": "longest_first", "max_length": 4},
        {"padding": True, "truncation": False},
        {"padding": False, "truncation": True, "return_tensors": None},
        {"padding": False, "truncation": False, "return_tensors": None},
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore:1 of 2 texts:UserWarning", "ignore:2 of 2 texts:UserWarning")
def test_processors_pad_and_cut_the_same_texts_alike(processors, options):
    """Each letter is one token for both."""
    own, theirs = (one(text=LONG, **{"return_tensors": "pt", **options}) for one in processors)
    assert set(own) == set(theirs) == {"input_ids", "attention_mask"}
    for key in own:
        assert type(own[key]) is type(theirs[key])
    masks = [[list(mask) for mask in found["attention_mask"]] for found in (own, theirs)]
    assert masks[0] == masks[1]
    assert [len(ids) for ids in own["input_ids"]] == [len(ids) for ids in theirs["input_ids"]]


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"text": LONG, "padding": False, "truncation": False, "return_tensors": "pt"},
        {"text": "a c", "padding": "odd"},
        {"text": "a c", "truncation": "odd"},
        {"text": "a c", "return_tensors": "tf"},
        {"text": 7},
        {"text": [1, 2]},
        {"images": np.zeros((2, 20, 24, 5), np.uint8)},
        {"images": "/no/such/image.png"},
    ],
    ids=str,
)
def test_processors_refuse_the_same_with_the_same_errors(processors, given):
    own, theirs = (error(lambda one=one: one(**given)) for one in processors)
    assert own is theirs is ValueError


# --- pipelines


def test_zero_shot_classification(ours, processors, tmp_path, caplog):
    """From a folder and from objects: the probabilities are the softmax over τ of the model's own cosines."""
    processor = processors[0]
    ours.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    given = {"candidate_labels": ["a", "c", "h"], "hypothesis_template": "b {} d"}
    classify = pipeline("zero-shot-image-classification", model=str(tmp_path))
    assert type(classify.model) is AshNetsForRetrieval
    batch = processor(images=IMAGE, text=[f"b {label} d" for label in given["candidate_labels"]])
    logits = run(ours, **batch).logits_per_image[0]
    expected = dict(zip(given["candidate_labels"], logits.softmax(0).tolist(), strict=True))
    objects = {"tokenizer": processor.tokenizer, "image_processor": processor.image_processor}
    for one in (classify, pipeline("zero-shot-image-classification", model=ours, **objects)):
        found = one(IMAGE, **given)
        assert {hit["label"]: hit["score"] for hit in found} == pytest.approx(expected, abs=1e-5)
        assert [hit["score"] for hit in found] == sorted((hit["score"] for hit in found), reverse=True)
    many = classify([IMAGE, Image.fromarray(ARRAY), IMAGE], batch_size=2, **given)
    assert [len(hits) for hits in many] == [3, 3, 3]
    assert {hit["label"]: hit["score"] for hit in many[2]} == pytest.approx(expected, abs=1e-5)
    assert "is not supported" not in caplog.text


def test_image_features(ours, processors, tmp_path):
    ours.save_pretrained(tmp_path)
    processors[0].save_pretrained(tmp_path)
    extract = pipeline("image-feature-extraction", model=str(tmp_path))
    expected = run(ours.ashnets, pixel_values=processors[0](images=IMAGE)["pixel_values"])
    torch.testing.assert_close(extract(IMAGE, return_tensors=True), expected.last_hidden_state)
    torch.testing.assert_close(extract(IMAGE, return_tensors=True, pool=True), expected.pooler_output)
