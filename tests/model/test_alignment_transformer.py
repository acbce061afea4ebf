"""Decision 12: the single-stream transformer against transformers' BERT and against a loop in double precision."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from small_model import array, small_config
from torch import nn
from transformers import BertConfig, BertModel

from ashnets.errors import InputError
from ashnets.model.alignment_transformer import AlignmentTransformer


@pytest.fixture(scope="module")
def transformer() -> AlignmentTransformer:
    torch.manual_seed(0)
    made = AlignmentTransformer(small_config()).eval()
    for name, parameter in made.named_parameters():
        if "LayerNorm.weight" in name or "norm.weight" in name:
            nn.init.uniform_(parameter, 0.5, 1.5)
        else:
            nn.init.normal_(parameter, std=0.3)
    return made


def texts(count: int = 3, length: int = 6) -> torch.Tensor:
    return torch.randint(1, 40, (count, length), generator=torch.Generator().manual_seed(1))


def visual_tokens(count: int = 3) -> torch.Tensor:
    return torch.randn(count, 4, 16, generator=torch.Generator().manual_seed(2))


def encode(transformer, *arguments, **options):
    with torch.no_grad():
        return transformer(*arguments, **options)


def test_text_alone_is_transformers_bert(transformer):
    settings = BertConfig(
        vocab_size=40,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=16,
        type_vocab_size=2,
        layer_norm_eps=1e-12,
        hidden_act="gelu",
    )
    oracle = BertModel(settings, add_pooling_layer=False).eval()
    oracle.load_state_dict(transformer.bert.state_dict())
    ids = texts()
    mask = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0], [1, 0, 0, 0, 0, 0]])
    with torch.no_grad():
        expected = oracle(ids, attention_mask=mask, token_type_ids=torch.zeros_like(ids)).last_hidden_state
        unmasked = oracle(ids).last_hidden_state
    hidden, attentions = encode(transformer, ids, mask, None)
    assert attentions is None
    torch.testing.assert_close(hidden[mask.bool()], expected[mask.bool()])
    torch.testing.assert_close(encode(transformer, ids, None, None)[0], unmasked)


# --- the layers once more, by hand


def layer_norm(x: np.ndarray, module: nn.LayerNorm) -> np.ndarray:
    mean = x.mean(-1, keepdims=True)
    variance = ((x - mean) ** 2).mean(-1, keepdims=True)
    return array(module.weight) * (x - mean) / np.sqrt(variance + 1e-12) + array(module.bias)


def linear(x: np.ndarray, module: nn.Linear) -> np.ndarray:
    return x @ array(module.weight).T + array(module.bias)


def by_hand(transformer, ids: list[int], visual: np.ndarray | None, heads: int = 2) -> tuple[np.ndarray, list]:
    """One pair without padding: [word + position + type 0] and [visual + position of the patch + type 1], then BERT."""
    words = transformer.bert.embeddings
    text = [
        array(words.word_embeddings.weight[token])
        + array(words.position_embeddings.weight[place])
        + array(words.token_type_embeddings.weight[0])
        for place, token in enumerate(ids)
    ]
    x = layer_norm(np.stack(text), words.LayerNorm)
    if visual is not None:
        patches = [
            v + array(transformer.visual_positions.weight[n]) + array(words.token_type_embeddings.weight[1])
            for n, v in enumerate(visual)
        ]
        x = np.concatenate([x, layer_norm(np.stack(patches), transformer.visual_norm)])
    attentions = []
    for block in transformer.bert.encoder.layer:
        q, k, v = (linear(x, getattr(block.attention.self, name)) for name in ("query", "key", "value"))
        size = q.shape[1] // heads
        context, maps = np.zeros_like(x), []
        for h in range(heads):
            part = slice(h * size, (h + 1) * size)
            scores = q[:, part] @ k[:, part].T / math.sqrt(size)
            weights = np.exp(scores - scores.max(-1, keepdims=True))
            weights /= weights.sum(-1, keepdims=True)
            context[:, part] = weights @ v[:, part]
            maps.append(weights)
        attentions.append(np.stack(maps))
        x = layer_norm(linear(context, block.attention.output.dense) + x, block.attention.output.LayerNorm)
        inner = linear(x, block.intermediate.dense)
        inner = inner * 0.5 * (1 + np.vectorize(math.erf)(inner / math.sqrt(2)))
        x = layer_norm(linear(inner, block.output.dense) + x, block.output.LayerNorm)
    return x, attentions


@pytest.mark.parametrize("attention", [False, True])
def test_pairs_equal_the_loop(transformer, attention):
    ids, visual = texts(), visual_tokens()
    hidden, attentions = encode(transformer, ids, None, visual, output_attentions=attention)
    assert hidden.shape == (3, 6 + 4, 16)
    for b in range(3):
        expected, maps = by_hand(transformer, ids[b].tolist(), array(visual[b]))
        np.testing.assert_allclose(array(hidden[b]), expected, atol=1e-4)
        if attention:
            for ours, theirs in zip(attentions, maps, strict=True):
                np.testing.assert_allclose(array(ours[b]), theirs, atol=1e-5)


def test_padding_does_not_change_results(transformer):
    ids, visual = texts(), visual_tokens()
    lengths = [6, 3, 1]
    for pad in (0, 17):
        padded, mask = torch.full((3, 9), pad), torch.zeros(3, 9, dtype=torch.long)
        for b, length in enumerate(lengths):
            padded[b, :length], mask[b, :length] = ids[b, :length], 1
        for kind in (torch.long, torch.bool, torch.float32):
            hidden, _ = encode(transformer, padded, mask.to(kind), visual)
            for b, length in enumerate(lengths):
                alone, _ = encode(transformer, ids[b : b + 1, :length], None, visual[b : b + 1])
                torch.testing.assert_close(hidden[b, :length], alone[0, :length], rtol=1e-4, atol=1e-5)
                torch.testing.assert_close(hidden[b, 9:], alone[0, length:], rtol=1e-4, atol=1e-5)


def test_layout_is_text_then_visual_tokens(transformer):
    """Before any layer: text tokens carry word, position and type 0; visual ones position of the patch and type 1."""
    ids, visual = texts(), visual_tokens()
    embeddings = transformer.bert.embeddings
    text = (
        embeddings.word_embeddings.weight[ids]
        + embeddings.position_embeddings.weight[:6]
        + embeddings.token_type_embeddings.weight[0]
    )
    torch.testing.assert_close(transformer.embed_text(ids), embeddings.LayerNorm(text))
    patches = visual + transformer.visual_positions.weight + embeddings.token_type_embeddings.weight[1]
    torch.testing.assert_close(transformer.embed_visual(visual), transformer.visual_norm(patches))
    assert transformer.visual_positions.weight.shape == (4, 16)


def test_places_matter(transformer):
    ids, visual = texts(), visual_tokens()
    hidden = encode(transformer, ids, None, visual)[0][:, 0]
    for other in ((ids, visual.flip(1)), (torch.cat([ids[:, :1], ids[:, 1:].flip(1)], 1), visual)):
        assert (encode(transformer, other[0], None, other[1])[0][:, 0] - hidden).abs().max() > 1e-3


def test_modalities_see_each_other(transformer):
    ids, visual = texts(), visual_tokens()
    hidden, _ = encode(transformer, ids, None, visual)
    other, _ = encode(transformer, ids, None, visual.flip(0))
    assert (hidden[0, :6] - other[0, :6]).abs().max() > 1e-3
    other, _ = encode(transformer, ids.flip(0), None, visual)
    assert (hidden[0, 6:] - other[0, 6:]).abs().max() > 1e-3


def test_attentions_sum_to_one_and_leave_padding_out(transformer):
    ids, visual = texts(), visual_tokens()
    mask = torch.ones_like(ids)
    mask[1, 4:] = 0
    before = transformer.bert.config._attn_implementation
    hidden, attentions = encode(transformer, ids, mask, visual, output_attentions=True)
    assert len(attentions) == 2
    for attention in attentions:
        assert attention.shape == (3, 2, 10, 10)
        torch.testing.assert_close(attention.sum(-1), torch.ones(3, 2, 10))
        assert attention[1, :, :, 4:6].abs().max() < 1e-12
    # asking for them changes neither the result nor the model
    plain, none = encode(transformer, ids, mask, visual)
    assert none is None
    torch.testing.assert_close(plain, hidden, rtol=1e-4, atol=1e-5)
    assert transformer.bert.config._attn_implementation == before
    assert all(not m._forward_hooks for m in transformer.modules())


def test_visual_tokens_alone(transformer):
    visual = visual_tokens()
    hidden, _ = encode(transformer, None, None, visual)
    assert hidden.shape == (3, 4, 16)
    with pytest.raises(InputError, match="nothing to encode"):
        transformer(None, None, None)


def test_a_text_beyond_the_positions_is_refused(transformer):
    assert encode(transformer, torch.ones(1, 16, dtype=torch.long), None, None)[0].shape == (1, 16, 16)
    with pytest.raises(InputError, match="17 tokens is above max_position_embeddings=16"):
        transformer(torch.ones(1, 17, dtype=torch.long), None, None)


@pytest.mark.parametrize(
    ("ids", "mask", "message"),
    [
        (torch.tensor([[1, 40]]), None, "input_ids range from 1 to 40, this model's vocabulary from 0 to 39"),
        (torch.tensor([[-1, 3]]), None, "range from -1 to 3"),
        (torch.tensor([1, 2]), None, r"shape \(2,\) and type torch.int64: give integers \(B, L\)"),
        (torch.ones(1, 2), None, "type torch.float32"),
        (torch.ones(2, 5, dtype=torch.long), torch.ones(2, 3), r"attention_mask of shape \(2, 3\)"),
    ],
)
def test_token_ids_that_cannot_be_meant_are_refused(transformer, ids, mask, message):
    """Mainly ids of another vocabulary, for which torch gives an obscure error, or none on a GPU."""
    with pytest.raises(InputError, match=message):
        transformer(ids, mask, None)
