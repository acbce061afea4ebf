"""Eq. 6, 7, 8 and decisions 8, 9, 10: collector and summary ratio against loops, and the rows of Tables XI and XIV."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_model import array, random_images, random_spikes, small_config
from torch import nn

from ashnets.errors import InputError
from ashnets.model.ashnets import AshNetsModel, VisualSemanticModule
from ashnets.model.collector import SemanticCollector, SpikeRate, SummaryRatio, feature_norm
from ashnets.zoo.registry import config_of


def collector(hidden: int = 4, concepts: int = 5, scale: str = "literal") -> SemanticCollector:
    made = SemanticCollector(small_config(hidden_size=hidden, num_concepts=concepts, abstract_scale=scale))
    nn.init.normal_(made.concepts, generator=torch.Generator().manual_seed(0))
    return made


def loop_collector(counts: np.ndarray, concepts: np.ndarray) -> np.ndarray:
    """F_SNN = Σ_j C_j s_j / Σ_j s_j at each token, zero where nothing fired; concepts (M1, M2)."""
    images, tokens, width = counts.shape
    features = np.zeros((images, tokens, concepts.shape[0]))
    for b, n in np.ndindex(images, tokens):
        total = sum(counts[b, n])
        for j in range(width):
            if total:
                features[b, n] += concepts[:, j] * counts[b, n, j] / total
    return features


spike_counts = st.lists(st.integers(0, 160), min_size=2 * 3 * 5, max_size=2 * 3 * 5).map(
    lambda values: torch.tensor(values, dtype=torch.float32).view(2, 3, 5)
)


@given(spike_counts)
def test_collector_equals_the_loop(counts):
    made = collector()
    np.testing.assert_allclose(array(made(counts, 3)), loop_collector(array(counts), array(made.concepts)), atol=1e-5)


@given(spike_counts)
def test_features_are_a_convex_combination_of_the_columns(counts):
    """With C = 1 the combination is the sum of its weights, with C = identity the weights themselves."""
    ones, identity = collector(4, 5), collector(4, 5)
    active = counts.sum(-1) > 0
    with torch.no_grad():
        ones.concepts.fill_(1.0)
        identity.concepts = nn.Parameter(torch.eye(5))
        torch.testing.assert_close(ones(counts, 3), active.float().unsqueeze(-1).expand(-1, -1, 4))
        weights = identity(counts, 3)
        made = collector()
        features = made(counts, 3)
    assert (weights >= 0).all()
    # hence no coordinate leaves the range of C's columns
    low, high = made.concepts.min(1).values, made.concepts.max(1).values
    assert (features[active] >= low - 1e-5).all()
    assert (features[active] <= high + 1e-5).all()


def test_by_hand():
    made = collector(2, 3)
    with torch.no_grad():
        made.concepts.copy_(torch.tensor([[1.0, 2.0, 4.0], [0.0, -1.0, 8.0]]))
    counts = torch.tensor([[[1.0, 3.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 7.0]]])
    assert made(counts, 3).tolist() == [[[1.75, -0.75], [0.0, 0.0], [4.0, 8.0]]]


def test_one_spike_and_many_weigh_alike():
    """The combination depends on shares, not totals: T and the group size do not change its scale."""
    made = collector()
    counts = torch.randint(0, 9, (2, 3, 5)).float()
    torch.testing.assert_close(made(counts * 160, 3), made(counts, 3))


def test_gradient_of_the_collector():
    made = collector().double()
    counts = torch.rand(1, 2, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) + 0.1
    counts.requires_grad_()

    def features(response, concepts):
        return torch.func.functional_call(made, {"concepts": concepts}, (response, 3))

    assert torch.autograd.gradcheck(features, (counts, made.concepts))


def test_silent_tokens_pass_no_infinite_gradient():
    made = collector()
    counts = torch.zeros(1, 2, 5, requires_grad=True)
    made(counts, 3).sum().backward()
    assert torch.isfinite(counts.grad).all()
    assert torch.equal(made.concepts.grad, torch.zeros(4, 5))


def test_gradient_reaches_the_columns_that_fired_and_no_other():
    made = collector()
    counts = torch.tensor([[[2.0, 0.0, 1.0, 0.0, 0.0]]])
    made(counts, 3).sum().backward()
    expected = torch.tensor([2 / 3, 0, 1 / 3, 0, 0]).expand(4, 5)
    torch.testing.assert_close(made.concepts.grad, expected)


def test_counts_in_float32_meet_bf16_columns():
    made = collector().bfloat16()
    counts = torch.randint(0, 300, (1, 3, 5)).float()
    features = made(counts, 3)
    assert features.dtype == torch.bfloat16
    np.testing.assert_allclose(array(features), loop_collector(array(counts), array(made.concepts)), atol=0.05)


def test_without_collector_the_response_is_its_own_rate():
    """Table XIV: (B, N, M1) counts, each token scaled to the sum one, without parameters."""
    made = SpikeRate(small_config(collector=False, hidden_size=4, abstract_scale="literal"))
    assert list(made.parameters()) == []
    counts = torch.tensor([[[1.0, 3.0, 0.0, 4.0], [0.0, 0.0, 0.0, 0.0]]])
    assert made(counts, 3).tolist() == [[[0.125, 0.375, 0.0, 0.5], [0.0, 0.0, 0.0, 0.0]]]


# --- the normalized form


def loop_normalized(
    counts: np.ndarray, steps: int, concepts: np.ndarray, mean: np.ndarray, variance: np.ndarray
) -> np.ndarray:
    """LN(C·z) of (B, N, M2) counts with γ = 1 and β = 0, token by token."""
    features = np.zeros((*counts.shape[:2], concepts.shape[0]))
    for b, n in np.ndindex(*counts.shape[:2]):
        z = [(counts[b, n, j] / steps - mean[j]) / math.sqrt(variance[j] + 1e-5) for j in range(counts.shape[2])]
        token = [sum(row[j] * z[j] for j in range(len(z))) for row in concepts]
        center = sum(token) / len(token)
        spread = math.sqrt(sum((x - center) ** 2 for x in token) / len(token) + 1e-12)
        features[b, n] = [(x - center) / spread for x in token]
    return features


def test_normalized_features_equal_the_loop_with_the_statistics_of_the_batch_then_with_running_ones():
    made = collector(scale="normalized")
    counts = torch.randint(0, 11, (4, 3, 5), generator=torch.Generator().manual_seed(3)).float()
    rates = array(counts).reshape(-1, 5) / 10
    mean, variance = rates.mean(0), rates.var(0)
    expected = loop_normalized(array(counts), 10, array(made.concepts), mean, variance)
    np.testing.assert_allclose(array(made.train()(counts, 10)), expected, atol=1e-4)
    running = 0.1 * mean, 0.9 + 0.1 * rates.var(0, ddof=1)  # batch normalization's momentum from 0 and 1
    expected = loop_normalized(array(counts), 10, array(made.concepts), *running)
    np.testing.assert_allclose(array(made.eval()(counts, 10)), expected, atol=1e-4)


@pytest.mark.parametrize("scale", ["literal", "normalized"])
def test_a_label_of_mvm_is_the_argmax_of_what_stands_out(scale):
    made = collector(scale=scale)
    counts = torch.tensor([[[8.0, 3.0, 0.0, 0.0, 0.0]]])
    if scale == "literal":
        assert made.standing_out(counts, 10).argmax().item() == 0, "the largest count"
        return
    made.rate_norm.running_mean.copy_(torch.tensor([0.8, 0.1, 0.1, 0.1, 0.1]))
    made.rate_norm.running_var.fill_(0.01)
    before = made.rate_norm.running_mean.clone()
    z = made.train().standing_out(counts, 10)
    np.testing.assert_allclose(array(z[0, 0]), [0, 2, -1, -1, -1], atol=1e-2)
    assert torch.equal(made.rate_norm.running_mean, before), "labels change no statistics"


def test_both_summands_of_eq_8_have_one_scale_for_any_number_of_steps_and_concepts():
    for concepts, steps in ((3, 1), (40, 10), (300, 160)):
        made = collector(16, concepts, "normalized").train()
        counts = torch.randint(0, steps + 1, (4, 9, concepts), generator=torch.Generator().manual_seed(1)).float()
        lengths = made(counts, steps).norm(dim=-1)
        torch.testing.assert_close(lengths, torch.full_like(lengths, 4.0), rtol=1e-3, atol=0)  # √M1


@pytest.mark.parametrize("readout", ["shared", "per_image"])
@pytest.mark.parametrize("name", ["ashnets-tiny", "ashnets-r18", "ashnets-r101", "ashnets-r152", "ashnets-vit-b16"])
def test_the_ratio_of_the_summands_at_initialization(name, readout):
    """‖SR·F_SNN‖/‖F_CNN‖ of the size of each architecture; the depth of its backbone does not matter to it."""
    config = config_of(name)
    torch.manual_seed(0)
    made = SemanticCollector(config).train()
    nn.init.normal_(made.concepts, std=config.num_concepts**-0.5)
    ratio = SummaryRatio(config)
    tokens = 16
    rates = torch.rand(config.num_concepts) * 0.4  # of each concept
    share = config.group_size if readout == "shared" else 1
    steps = config.time_steps * share
    counts = torch.binomial(torch.full((4, tokens, config.num_concepts), float(steps)), rates.expand(4, tokens, -1))
    concrete = feature_norm(config)(3 * torch.randn(4, tokens, config.hidden_size) + 1)
    abstract = made(counts, steps)
    _, sr = ratio(concrete, abstract)
    found = ((sr * abstract).norm(dim=-1).mean() / concrete.norm(dim=-1).mean()).item()
    assert 0.2 < found < 2


def test_without_collector_the_response_is_normalized():
    made = SpikeRate(small_config(collector=False, hidden_size=4)).train()
    counts = torch.randint(0, 4, (2, 3, 4), generator=torch.Generator().manual_seed(5)).float()
    rates = array(counts).reshape(-1, 4) / 3
    expected = loop_normalized(array(counts), 3, np.eye(4), rates.mean(0), rates.var(0))
    np.testing.assert_allclose(array(made(counts, 3)), expected, atol=1e-4)


# --- summary ratio, eq. 7 and 8


def features() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(2, 3, 16, generator=generator), torch.randn(2, 3, 16, generator=generator)


def test_trainable_ratio_equals_the_loop():
    concrete, abstract = features()
    torch.manual_seed(0)
    made = SummaryRatio(small_config())
    output, ratio = made(concrete, abstract)
    weight, bias = array(made.phi.weight)[0], array(made.phi.bias)[0]
    assert ratio.shape == (2, 3, 1)
    for b, n in np.ndindex(2, 3):
        z = bias + sum(w * f for w, f in zip(weight, array(concrete[b, n]), strict=True))
        sr = 1 / (1 + math.exp(-z))
        assert ratio[b, n].item() == pytest.approx(sr, rel=1e-5)
        expected = sr * array(abstract[b, n]) + array(concrete[b, n])
        np.testing.assert_allclose(array(output[b, n]), expected, rtol=1e-5, atol=1e-6)
    assert sum(p.numel() for p in made.parameters()) == 16 + 1


def test_variants_of_table_xi():
    concrete, abstract = features()
    made = {name: SummaryRatio(small_config(summary_ratio=name)) for name in ("fixed", "ann", "snn")}
    given = {"fixed": (concrete, abstract), "ann": (concrete, None), "snn": (None, abstract)}
    rows = {name: ratio(*given[name]) for name, ratio in made.items()}
    assert torch.equal(rows["fixed"][0], abstract + concrete)
    assert torch.equal(rows["ann"][0], concrete)
    assert torch.equal(rows["snn"][0], abstract)
    assert {name: ratio.unique().tolist() for name, (_, ratio) in rows.items()} == {
        "fixed": [1.0],
        "ann": [0.0],
        "snn": [1.0],
    }
    assert [list(ratio.parameters()) for ratio in made.values()] == [[], [], []]


def test_ratio_saturates_without_overflow():
    concrete, abstract = features()
    made = SummaryRatio(small_config())
    with torch.no_grad():
        made.phi.weight.zero_()
        for bias, limit in ((1e4, 1.0), (-1e4, 0.0)):
            made.phi.bias.fill_(bias)
            output, ratio = made(concrete, abstract)
            assert ratio.unique().tolist() == [limit]
            torch.testing.assert_close(output, limit * abstract + concrete)


def test_gradient_of_the_summary_ratio():
    made = SummaryRatio(small_config()).double()
    concrete, abstract = (f[:1].double().requires_grad_() for f in features())
    assert torch.autograd.gradcheck(lambda c, a: made(c, a), (concrete, abstract))


# --- the variants as whole visual modules


@pytest.mark.parametrize("variant", ["trainable", "fixed", "ann", "snn"])
@pytest.mark.parametrize("with_collector", [True, False])
def test_visual_module_of_each_variant(variant, with_collector):
    torch.manual_seed(0)
    config = small_config(summary_ratio=variant, collector=with_collector)
    module = AshNetsModel(config).eval().vision
    out = module(random_images(2), spikes=random_spikes(3, 2, 3, 16, 16))
    assert out.output.shape == (2, 4, 16)
    names = {name.split(".")[0] for name, _ in module.named_parameters()}
    if variant == "ann":
        assert names == {"concrete_encoder"}
        assert out.abstract is None
        assert out.response is None
        assert torch.equal(out.output, out.concrete)
        return
    assert ("collector.concepts" in dict(module.named_parameters())) == with_collector and "collector" in names
    assert out.response.shape == (2, 4, 10 if with_collector else 16)
    if variant == "snn":
        assert "concrete_encoder" not in names and out.concrete is None and torch.equal(out.output, out.abstract)
        for options in ({"concrete_only": True}, {"tokens": "concrete"}):
            with pytest.raises(InputError, match="snn, has none"):
                module(random_images(2), **options)
        return
    expected = {"trainable": out.summary_ratio * out.abstract + out.concrete, "fixed": out.abstract + out.concrete}
    assert torch.equal(out.output, expected[variant])
    for tokens, one in (("concrete", out.concrete), ("abstract", out.abstract)):
        found = module(random_images(2), spikes=random_spikes(3, 2, 3, 16, 16), tokens=tokens)
        assert torch.equal(found.output, one) and torch.equal(found.abstract, out.abstract)


def test_gradient_of_the_output_reaches_collector_ratio_and_both_encoders():
    torch.manual_seed(0)
    module: VisualSemanticModule = AshNetsModel(small_config()).vision.train()
    module(random_images(2), spikes=random_spikes(3, 2, 3, 16, 16)).output.square().sum().backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
    for name in ("collector.concepts", "summary_ratio.phi.weight", "abstract_encoder.layers.conv1.conv.weight"):
        assert module.get_parameter(name).grad.abs().sum() > 0, name
