"""ViLT: our path through the layers of transformers against its own path, parameters by hand, training steps."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from transformers import BertModel, ViltModel
from transformers.models.vilt.modeling_vilt import ViltForMaskedLM

from ashnets.baselines.starting import fill_vilt
from ashnets.baselines.training import ViltStep
from ashnets.baselines.vilt import ViltForPreTraining, ViltForVQA, vilt_config
from ashnets.model.alignment_transformer import bert_config
from ashnets.model.heads import AshNetsForPreTraining


@pytest.fixture
def pair():
    """Three images and three texts, one of them padded."""
    torch.manual_seed(1)
    ids, mask = torch.randint(5, 60, (3, 7)), torch.ones(3, 7, dtype=torch.long)
    mask[1, 4:] = 0
    return torch.rand(3, 3, 64, 64), ids, mask


def test_hidden_states_are_those_of_transformers(small_baseline, pair):
    """ViltModel shuffles the patches of raw pixels: the states of the words do not depend on the order."""
    model, (pixels, ids, mask) = small_baseline(ViltForPreTraining), pair
    vilt = model.ashnets.transformer.vilt
    torch.nn.init.normal_(vilt.embeddings.position_embeddings)  # zeros would hide a wrong place
    torch.nn.init.normal_(vilt.embeddings.cls_token)
    mean, std = (torch.tensor(x).view(1, 3, 1, 1) for x in (model.config.image_mean, model.config.image_std))
    with torch.no_grad():
        theirs = vilt(input_ids=ids, attention_mask=mask, pixel_values=(pixels - mean) / std)
        tokens = model.ashnets.vision(pixels).output
        ours, _ = model.ashnets.transformer(ids, mask, tokens)
        match = model.match(tokens, ids, mask)
    present = mask.bool()
    assert torch.allclose(ours[:, :7][present], theirs.last_hidden_state[:, :7][present], atol=1e-5)
    assert torch.allclose(match, model.itm(theirs.pooler_output), atol=1e-5)
    assert tokens.shape == (3, 1 + 16, 384)


def test_parameters_are_those_of_transformers(small_baseline):
    """The MLM model of transformers has the same parameters, except for our ITM head."""
    ours = small_baseline(ViltForPreTraining)
    theirs = ViltForMaskedLM(vilt_config(ours.config))
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters()) + 384 * 2 + 2


def test_layers_and_words_weigh_what_those_of_ashnets_do(small_baseline):
    """Equal layers and width: both have 12·d² + 13·d parameters in each layer for a feed-forward part of 4·d."""
    ours, width = small_baseline(ViltForPreTraining), 384
    ashnets = AshNetsForPreTraining(ours.config.__class__.__base__(**_plain(ours.config)))
    size = lambda module: sum(p.numel() for p in module.parameters())  # noqa: E731
    ours, theirs = ours.ashnets.transformer.vilt, ashnets.ashnets.transformer.bert
    assert size(ours.encoder) == size(theirs.encoder) == 2 * (12 * width**2 + 13 * width)
    assert size(ours.embeddings.text_embeddings) == size(theirs.embeddings)


def _plain(config):
    return {key: value for key, value in config.to_dict().items() if key not in ("baseline", "model_type")}


def test_words_start_as_the_checkpoints(small_baseline, pair):
    """Embeddings equal those of BERT bit by bit; every tensor of its layers is used."""
    model, (_, ids, _) = small_baseline(ViltForPreTraining), pair
    torch.manual_seed(3)
    bert = BertModel(bert_config(model.config), add_pooling_layer=False).eval()
    with torch.no_grad():
        for parameter in bert.parameters():
            parameter.copy_(torch.randn_like(parameter))
    vilt: ViltModel = model.ashnets.transformer.vilt
    fill_vilt(vilt, bert)
    assert torch.equal(vilt.embeddings.text_embeddings(ids), bert.embeddings(ids))
    kept = {tensor.double().sum().item() for tensor in vilt.state_dict().values()}
    lost = [name for name, tensor in bert.state_dict().items() if tensor.double().sum().item() not in kept]
    assert not lost
    assert vilt.embeddings.position_embeddings.std().item() == pytest.approx(0.02, rel=0.1)


def test_a_step_replaces_half_the_images_by_others():
    """Drawn with the random numbers of the pair: never the same sample, all others with equal probability."""
    count = 4000
    generator = torch.Generator().manual_seed(0)
    draws = SimpleNamespace(negative_image=torch.rand(count, generator=generator), fused=torch.rand(count))
    batch = SimpleNamespace(samples=torch.arange(count) % 4, draws=draws)
    others, matching = ViltStep.replaced(batch)
    assert (batch.samples[others] != batch.samples).all()
    assert matching.tolist() == (draws.fused < 0.5).long().tolist()
    shares = torch.bincount(batch.samples[others[batch.samples == 0]], minlength=4) / 1000
    assert shares[0] == 0 and shares[1:] == pytest.approx(torch.full((3,), 1 / 3), abs=0.05)


def test_one_sample_alone_keeps_its_images():
    draws = SimpleNamespace(negative_image=torch.rand(3), fused=torch.ones(3) * 0.9)
    _, matching = ViltStep.replaced(SimpleNamespace(samples=torch.zeros(3, dtype=torch.long), draws=draws))
    assert matching.tolist() == [1, 1, 1]


def test_answers_read_the_image(small_baseline, pair):
    model, (pixels, ids, mask) = small_baseline(ViltForVQA, num_answers=5), pair
    targets = torch.eye(5)[:3]
    with torch.no_grad():
        out = model(pixels, ids, mask, labels=targets)
        other = model(pixels.flip(0), ids, mask).logits
    by_hand = -(targets * out.logits.sigmoid().log() + (1 - targets) * (1 - out.logits.sigmoid()).log()).sum() / 3
    assert out.loss == pytest.approx(by_hand.item(), rel=1e-4)
    assert not torch.allclose(out.logits[0], other[0], atol=1e-6)
    assert torch.allclose(out.logits[1], other[1], atol=1e-5), "the middle one has kept its image"
