"""The task heads: shapes, losses and wiring against hand computation."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from small_model import array, random_images, small_config, wake

from ashnets.errors import ConfigurationError, InputError
from ashnets.model import (
    HEADS,
    AshNetsForPreTraining,
    AshNetsForRetrieval,
    AshNetsForVisualEntailment,
    AshNetsForVisualReasoning,
    AshNetsForVQA,
    AshNetsModel,
    head_class,
)
from ashnets.model.heads import TEMPERATURE, Temperature


def make(kind, **changes):
    torch.manual_seed(0)
    made = kind(small_config(**changes)).eval()
    base = made if kind is AshNetsModel else made.ashnets
    if made.config.has_spiking_branch:
        wake(base.vision.abstract_encoder)
    return made


def texts(count: int, length: int = 5, seed: int = 1) -> torch.Tensor:
    return torch.randint(1, 40, (count, length), generator=torch.Generator().manual_seed(seed))


def run(made, *arguments, **options):
    with torch.no_grad():
        return made(*arguments, **options)


def unit(x: np.ndarray) -> np.ndarray:
    return x / math.sqrt(sum(value * value for value in x))


def linear(x: np.ndarray, module) -> np.ndarray:
    return np.array(
        [
            b + sum(w * v for w, v in zip(row, x, strict=True))
            for row, b in zip(array(module.weight), array(module.bias), strict=True)
        ]
    )


# --- temperature


def test_temperature_starts_at_and_stays_in_its_range():
    tau = Temperature().eval()
    assert TEMPERATURE == 0.07
    assert tau().item() == pytest.approx(0.07)
    for log_tau, expected in ((5.0, 0.5), (-50.0, 0.001), (math.log(0.2), 0.2)):
        tau.log_tau.data.fill_(log_tau)
        for mode in (True, False):
            assert tau.train(mode)().item() == pytest.approx(expected)


@pytest.mark.parametrize(("start", "sign"), [(0.499, -1), (0.00101, 1)])
def test_temperature_leaves_a_bound_again(start, sign):
    """A step beyond the bound must not freeze τ: there the gradient of a clamp is zero."""
    tau = Temperature().train()
    tau.log_tau.data.fill_(math.log(start))
    optimizer = torch.optim.SGD(tau.parameters(), lr=1.0)
    values = []
    for direction in (sign, sign, -sign):
        optimizer.zero_grad()
        value = tau()
        again = tau()  # a second call before the backward pass must not spoil the first one's graph
        values.append(value.item())
        (direction * (value + again).log()).backward()
        assert tau.log_tau.grad.item() == pytest.approx(direction)
        optimizer.step()
    bound = 0.5 if sign < 0 else 0.001
    assert values == pytest.approx([start, bound, bound])
    assert tau().item() == pytest.approx(bound * math.exp(sign))


# --- retrieval


@pytest.fixture(scope="module")
def retrieval() -> AshNetsForRetrieval:
    return make(AshNetsForRetrieval)


def test_unimodal_embeddings_by_hand(retrieval):
    pixels, ids = random_images(3), texts(3)
    out = run(retrieval, pixels, ids)
    assert out.image_embeds.shape == out.text_embeds.shape == (3, 8)
    text = run(retrieval.ashnets, input_ids=ids).last_hidden_state
    for b in range(3):
        image = unit(linear(array(out.visual.output[b]).mean(0), retrieval.image_projection))
        sentence = unit(linear(array(text[b, 0]), retrieval.text_projection))
        np.testing.assert_allclose(array(out.image_embeds[b]), image, atol=1e-5)
        np.testing.assert_allclose(array(out.text_embeds[b]), sentence, atol=1e-5)


def test_matching_score_by_hand(retrieval):
    pixels, ids = random_images(3), texts(3)
    out = run(retrieval, pixels, ids)
    pooled = run(retrieval.ashnets, pixels, ids).pooler_output
    for b in range(3):
        np.testing.assert_allclose(array(out.itm_logits[b]), linear(array(pooled[b]), retrieval.itm), atol=1e-5)


def test_embeddings_are_unimodal(retrieval):
    """The embedding of an image does not depend on the text of the pair, and that of the text not on the image."""
    pixels, ids = random_images(3), texts(3)
    pair = run(retrieval, pixels, ids)
    assert torch.equal(run(retrieval, pixels).image_embeds, pair.image_embeds)
    assert torch.equal(run(retrieval, input_ids=ids).text_embeds, pair.text_embeds)
    other = run(retrieval, pixels, ids.flip(0))
    assert torch.equal(other.image_embeds, pair.image_embeds)
    assert not torch.equal(other.itm_logits, pair.itm_logits)


def test_pieces_equal_the_whole(retrieval):
    pixels, ids = random_images(2), texts(2)
    mask = torch.ones_like(ids)
    mask[0, 2:] = 0
    out = run(retrieval, pixels, ids, mask, group_size=2)
    with torch.no_grad():
        embeds, visual = retrieval.encode_image(pixels, group_size=2)
        assert torch.equal(embeds, out.image_embeds)
        assert torch.equal(retrieval.encode_text(ids, mask), out.text_embeds)
        assert torch.equal(retrieval.match(visual.output, ids, mask), out.itm_logits)
    short = run(retrieval, input_ids=ids[:1, :2])
    torch.testing.assert_close(short.text_embeds[0], out.text_embeds[0], rtol=1e-4, atol=1e-5)


def test_retrieval_refuses_bad_input(retrieval):
    with pytest.raises(InputError, match="nothing to embed"):
        retrieval()
    for given in ({"input_ids": texts(3), "pixel_values": random_images(2)}, {"input_ids": texts(3)}):
        with pytest.raises(InputError, match="return_loss=True needs pairs"):
            retrieval(**given, return_loss=True)


# --- pre-training


@pytest.fixture(scope="module")
def pretraining() -> AshNetsForPreTraining:
    return make(AshNetsForPreTraining)


def test_every_pretraining_output(pretraining):
    out = run(pretraining, random_images(2), texts(2), group_size=2)
    assert out.mlm_logits.shape == (2, 5, 40)
    assert out.mvm_logits.shape == (2, 4, 10)
    assert out.spiking_embeds.shape == out.stua_text_embeds.shape == (2, 8)
    assert out.itm_logits.shape == (2, 2)


def test_mlm_head_by_hand(pretraining):
    out = run(pretraining, random_images(1), texts(1))
    hidden = run(pretraining.ashnets, random_images(1), texts(1)).last_hidden_state[0]
    words = array(pretraining.ashnets.transformer.bert.embeddings.word_embeddings.weight)
    for place in range(5):
        x = linear(array(hidden[place]), pretraining.mlm.dense)
        x = np.array([0.5 * v * (1 + math.erf(v / math.sqrt(2))) for v in x])
        x = (x - x.mean()) / math.sqrt(((x - x.mean()) ** 2).mean() + 1e-12)
        x = x * array(pretraining.mlm.norm.weight) + array(pretraining.mlm.norm.bias)
        expected = words @ x + array(pretraining.mlm.decoder.bias)
        np.testing.assert_allclose(array(out.mlm_logits[0, place]), expected, atol=1e-5)


def test_mlm_is_tied_to_the_word_embeddings():
    made = make(AshNetsForPreTraining).train()
    words = made.ashnets.transformer.bert.embeddings.word_embeddings.weight
    assert made.mlm.decoder.weight is words
    optimizer = torch.optim.SGD(made.parameters(), lr=0.1)
    made(random_images(2), texts(2)).mlm_logits.square().sum().backward()
    optimizer.step()
    assert made.mlm.decoder.weight is made.get_input_embeddings().weight
    assert sum(p is words for p in made.parameters()) == 1


def test_mvm_head_is_the_cosine_to_the_columns_of_the_collector(pretraining):
    out = run(pretraining, random_images(1), texts(1))
    hidden = run(pretraining.ashnets, random_images(1), texts(1)).last_hidden_state[0, 5:]
    concepts = array(pretraining.ashnets.vision.collector.concepts)
    for n in range(4):
        token = unit(linear(array(hidden[n]), pretraining.mvm.dense))
        expected = [sum(token * unit(concepts[:, j])) / 0.07 for j in range(10)]
        np.testing.assert_allclose(array(out.mvm_logits[0, n]), expected, rtol=1e-4, atol=1e-4)


def test_spiking_and_text_heads_by_hand(pretraining):
    out = run(pretraining, random_images(4), texts(4), group_size=2)
    text = run(pretraining.ashnets, input_ids=texts(4)).last_hidden_state
    heads = pretraining.stua
    for b in range(4):
        ratio, abstract = array(out.visual.summary_ratio[b]), array(out.visual.abstract[b])
        v = sum(ratio[n] * abstract[n] for n in range(4)) / 4
        np.testing.assert_allclose(array(out.spiking_embeds[b]), unit(linear(v, heads.spiking)), atol=1e-5)
        w = unit(linear(array(text[b, 0]), heads.text))
        np.testing.assert_allclose(array(out.stua_text_embeds[b]), w, atol=1e-5)
    # decision 17: SR tells the images of a group apart, although F_SNN is equal for all of them
    assert torch.equal(out.visual.abstract[0], out.visual.abstract[1])
    assert not torch.equal(out.spiking_embeds[0], out.spiking_embeds[1])


def test_masked_tokens_take_the_learned_vector(pretraining):
    visual = torch.randn(2, 4, 16)
    masked = torch.tensor([[True, False, False, True], [False] * 4])
    replaced = pretraining.mask_visual(visual, masked)
    for b, n in np.ndindex(2, 4):
        assert torch.equal(replaced[b, n], pretraining.visual_mask if masked[b, n] else visual[b, n])
    assert pretraining.mask_visual(visual.bfloat16(), masked).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("changes", "mvm", "stua"),
    [
        ({"summary_ratio": "ann"}, False, False),
        ({"collector": False}, False, True),
        ({"summary_ratio": "snn"}, True, True),
        ({"summary_ratio": "fixed"}, True, True),
    ],
)
def test_heads_follow_the_variant(changes, mvm, stua):
    made = make(AshNetsForPreTraining, **changes)
    out = run(made, random_images(2), texts(2))
    assert (out.mvm_logits is not None) == mvm == hasattr(made, "mvm") == hasattr(made, "visual_mask")
    assert (out.spiking_embeds is not None) == stua == hasattr(made, "stua")
    assert out.mlm_logits.shape == (2, 5, 40)


def test_first_phase_has_no_spiking_outputs(pretraining):
    out = run(pretraining, random_images(2), texts(2), concrete_only=True)
    assert out.spiking_embeds is None
    assert out.mvm_logits is None
    assert out.mlm_logits is not None


def test_one_modality_gives_its_embedding_alone(pretraining):
    assert set(run(pretraining, random_images(2)).keys()) == {"image_embeds", "vision_model_output", "visual"}
    assert set(run(pretraining, input_ids=texts(2)).keys()) == {"text_embeds", "text_model_output"}
    scored = {"logits_per_image", "logits_per_text", "image_embeds", "text_embeds", "visual"}
    scored |= {"vision_model_output", "text_model_output"}
    assert set(run(pretraining, random_images(2), texts(3)).keys()) == scored, "no pairs"


def test_pretraining_checkpoint_serves_retrieval_and_the_bare_model(pretraining, tmp_path):
    pretraining.save_pretrained(tmp_path)
    pixels, ids = random_images(2), texts(2)
    whole = run(pretraining, pixels, ids)
    loaded = AshNetsForRetrieval.from_pretrained(tmp_path)
    assert not hasattr(loaded, "mlm")
    out = run(loaded, pixels, ids)
    for name in ("image_embeds", "text_embeds", "itm_logits"):
        assert torch.equal(getattr(out, name), getattr(whole, name)), name
    assert loaded.temperature().item() == pretraining.temperature().item()
    bare = AshNetsModel.from_pretrained(tmp_path)
    assert torch.equal(run(bare, pixels, ids).visual.output, whole.visual.output)
    again = AshNetsForPreTraining.from_pretrained(tmp_path)
    assert torch.equal(run(again, pixels, ids).mvm_logits, whole.mvm_logits)
    assert again.mlm.decoder.weight is again.get_input_embeddings().weight


# --- downstream


def log_softmax(x: np.ndarray) -> np.ndarray:
    return x - math.log(sum(math.exp(v) for v in x))


def classify(made, pooled: np.ndarray) -> np.ndarray:
    first, norm, _, last = made.classifier
    x = linear(pooled, first)
    x = (x - x.mean()) / math.sqrt(((x - x.mean()) ** 2).mean() + 1e-12) * array(norm.weight) + array(norm.bias)
    x = np.array([0.5 * v * (1 + math.erf(v / math.sqrt(2))) for v in x])
    return linear(x, last)


def test_vqa_logits_and_loss_by_hand():
    made = make(AshNetsForVQA)
    labels = torch.rand(3, 7)
    out = run(made, random_images(3), texts(3), labels=labels)
    pooled = run(made.ashnets, random_images(3), texts(3)).pooler_output
    total = 0.0
    for b in range(3):
        logits = classify(made, array(pooled[b]))
        np.testing.assert_allclose(array(out.logits[b]), logits, atol=1e-5)
        for z, y in zip(logits, array(labels[b]), strict=True):
            p = 1 / (1 + math.exp(-z))
            total -= y * math.log(p) + (1 - y) * math.log(1 - p)
    assert out.loss.item() == pytest.approx(total / 3, rel=1e-5)
    assert run(made, random_images(3), texts(3)).loss is None


def test_visual_entailment_logits_and_loss_by_hand():
    made = make(AshNetsForVisualEntailment)
    assert made.LABELS == ("entailment", "neutral", "contradiction")
    labels = torch.tensor([2, 0, 1])
    out = run(made, random_images(3), texts(3), labels=labels)
    pooled = run(made.ashnets, random_images(3), texts(3)).pooler_output
    rows = [classify(made, array(pooled[b])) for b in range(3)]
    np.testing.assert_allclose(array(out.logits), np.stack(rows), atol=1e-5)
    expected = -sum(log_softmax(row)[label] for row, label in zip(rows, labels.tolist(), strict=True)) / 3
    assert out.loss.item() == pytest.approx(expected, rel=1e-5)


@pytest.fixture(scope="module")
def reasoning() -> AshNetsForVisualReasoning:
    made = make(AshNetsForVisualReasoning)
    for weight in (p for p in made.ashnets.transformer.parameters() if p.dim() == 2):
        torch.nn.init.normal_(weight, std=0.3)  # so that images move [CLS]
    return made


def pairs(count: int) -> torch.Tensor:
    return random_images(2 * count).unflatten(0, (count, 2))


def test_nlvr2_meets_each_image_with_the_sentence(reasoning):
    pixels, ids = pairs(3), texts(3)
    mask = torch.ones_like(ids)
    mask[1, 3:] = 0
    labels = torch.tensor([1, 0, 1])
    out = run(reasoning, pixels, ids, mask, labels=labels)
    assert out.logits.shape == (3, 2)
    assert out.visual.output.shape == (6, 4, 16)
    left, right = (run(reasoning.ashnets, pixels[:, side], ids, mask).pooler_output for side in (0, 1))
    rows = []
    for b in range(3):
        rows.append(classify(reasoning, np.concatenate([array(left[b]), array(right[b])])))
        np.testing.assert_allclose(array(out.logits[b]), rows[b], atol=1e-4)
    expected = -sum(log_softmax(row)[label] for row, label in zip(rows, labels.tolist(), strict=True)) / 3
    assert out.loss.item() == pytest.approx(expected, rel=1e-4)


def test_nlvr2_knows_left_from_right_and_pairs_from_each_other(reasoning):
    pixels, ids = pairs(3), texts(3)
    logits = run(reasoning, pixels, ids).logits
    assert (run(reasoning, pixels.flip(1), ids).logits - logits).abs().max() > 0.01
    order = [2, 0, 1]
    torch.testing.assert_close(run(reasoning, pixels[order], ids[order]).logits, logits[order], rtol=1e-4, atol=1e-5)


def test_nlvr2_takes_ids_by_pair_or_in_turn(reasoning):
    pixels, ids = pairs(2), texts(2)
    names = [[3, 4], [5, 6]]
    by_pair = run(reasoning, pixels, ids, image_keys=names)
    in_turn = run(reasoning, pixels, ids, image_keys=torch.tensor(names).flatten())
    assert torch.equal(by_pair.visual.response, in_turn.visual.response)
    single = run(reasoning.ashnets, pixels[1, :1], image_keys=[5]).visual.response
    assert torch.equal(by_pair.visual.response[2], single[0])


@pytest.mark.parametrize("shape", [(2, 3, 16, 16), (2, 3, 3, 16, 16), (2, 1, 3, 16, 16)])
def test_nlvr2_refuses_what_are_no_pairs(reasoning, shape):
    with pytest.raises(InputError, match=r"NLVR2 takes \(B, 2, 3, H, W\)"):
        reasoning(torch.rand(shape), texts(2))


@pytest.mark.parametrize("task", [name for name in HEADS if name not in ("base", "retrieval", "pretraining")])
def test_losses_reach_every_part(task):
    made = make(head_class(task)).train()
    pixels = pairs(2) if task == "nlvr2" else random_images(2)
    labels = torch.rand(2, 7) if task == "vqa" else torch.tensor([0, 1])
    made(pixels, texts(2), labels=labels, group_size=2).loss.backward()
    missing = [name for name, p in made.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()]
    assert missing == []


def test_options_reach_the_model():
    made = make(AshNetsForVQA)
    shared = run(made, random_images(2), texts(2), group_size=2)
    assert torch.equal(shared.visual.response[0], shared.visual.response[1])
    assert run(made, random_images(2), texts(2), concrete_only=True).visual.abstract is None


@pytest.mark.parametrize("task", ["retrieval", "pretraining", "vqa", "nlvr2", "ve"])
def test_every_head_gives_attentions_on_request(task):
    made = head_class(task)(small_config()).eval()
    ids = texts(2)
    pixels = torch.stack([random_images(2), random_images(2, seed=1)], 1) if task == "nlvr2" else random_images(2)
    assert run(made, pixels, ids).attentions is None
    found = run(made, pixels, ids, output_attentions=True).attentions
    if task == "nlvr2":
        pixels, ids = pixels.flatten(0, 1), ids.repeat_interleave(2, 0)
    expected = run(made.ashnets, pixels, ids, output_attentions=True).attentions
    assert len(found) == 2
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_every_task_has_its_head():
    assert {name: head_class(name) for name in HEADS} == HEADS
    with pytest.raises(ConfigurationError, match="task='vqa2' is not one of base, pretraining"):
        head_class("vqa2")
