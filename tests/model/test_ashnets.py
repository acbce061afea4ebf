"""Fig. 1: how the parts are connected, and what the result of an image may depend on."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from small_model import random_images, random_spikes, small_config, wake

from ashnets.configuration import ABSTRACT_SCALES, SUMMARY_RATIOS
from ashnets.errors import InputError
from ashnets.model import AshNetsForRetrieval, AshNetsModel
from ashnets.model.outputs import AshNetsOutput, VisualOutput
from ashnets.model.recompute import recompute_activations, recomputes
from ashnets.model.sampling import content_key, probabilistic_sampling


def model(**changes) -> AshNetsModel:
    torch.manual_seed(0)
    made = AshNetsModel(small_config(**changes)).eval()
    if made.config.has_spiking_branch:
        wake(made.vision.abstract_encoder)
    return made


@pytest.fixture(scope="module")
def small() -> AshNetsModel:
    return model()


def texts(count: int, length: int = 5) -> torch.Tensor:
    return torch.randint(1, 40, (count, length), generator=torch.Generator().manual_seed(3))


def run(made: AshNetsModel, *arguments, **options):
    with torch.no_grad():
        return made(*arguments, **options)


def close(a, b) -> None:
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("group_size", [1, 2])
def test_output_equals_the_parts_put_together_by_hand(small, group_size):
    pixels, ids, names = random_images(4), texts(4), [5, 6, 7, 8]
    mask = torch.ones_like(ids)
    mask[1, 3:] = 0
    out = run(small, pixels, ids, mask, image_keys=names, group_size=group_size)
    vision = small.vision
    with torch.no_grad():
        concrete = vision.concrete_encoder(pixels)  # eq. 4
        spikes = probabilistic_sampling(pixels, names, time_steps=3, seed=0)
        spiking = vision.abstract_encoder(spikes, group_size)  # eq. 5
        abstract = vision.collector(spiking.response, 3 * group_size)  # eq. 6, by the shared readout
        ratio = torch.sigmoid(vision.summary_ratio.phi(concrete))  # eq. 7
        output = ratio * abstract + concrete  # eq. 8
        hidden, _ = small.transformer(ids, mask, output)
    assert isinstance(out, AshNetsOutput)
    assert isinstance(out.visual, VisualOutput)
    for ours, theirs in (
        (out.visual.concrete, concrete),
        (out.visual.response, spiking.response),
        (out.visual.abstract, abstract),
        (out.visual.summary_ratio, ratio),
        (out.visual.output, output),
        (out.last_hidden_state, hidden),
        (out.pooler_output, hidden[:, 0]),
    ):
        assert torch.equal(ours, theirs)
    assert out.last_hidden_state.shape == (4, 5 + 4, 16)
    assert out.visual.abstract.abs().max() > 0


def test_counts_and_rates_describe_the_spikes(small):
    out = run(small, random_images(4), group_size=2).visual
    assert torch.equal(out.concept_counts.sum((1, 2)), out.layer_spikes["concepts"])
    close(out.response[0], out.concept_counts[:2].sum(0))
    sizes = {"conv1": 4 * 64, "conv2": 5 * 16, "conv3": 6 * 4, "concepts": 10 * 4}
    assert set(out.layer_rates) == set(sizes)
    for name, neurons in sizes.items():
        close(out.layer_rates[name], out.layer_spikes[name] / (neurons * 3))
        assert 0 < out.layer_rates[name].min() <= out.layer_rates[name].max() <= 1


def test_other_spikes_may_stand_for_the_samplers(small):
    pixels = random_images(2)
    drawn = probabilistic_sampling(pixels, [1, 2], 3)
    expected = run(small, pixels, image_keys=[1, 2])
    assert torch.equal(run(small, pixels, spikes=drawn).last_hidden_state, expected.last_hidden_state)
    longer = run(small, pixels, spikes=random_spikes(7, 2, 3, 16, 16)).visual
    close(longer.layer_rates["conv1"], longer.layer_spikes["conv1"] / (4 * 64 * 7))


def test_images_without_ids_are_named_by_their_content(small):
    pixels = random_images(3)
    named = run(small, pixels, image_keys=[content_key(p) for p in pixels])
    assert torch.equal(run(small, pixels).visual.response, named.visual.response)
    assert not torch.equal(run(small, pixels, image_keys=[1, 2, 3]).visual.response, named.visual.response)
    twins = run(small, pixels[[0, 0]]).visual
    assert torch.equal(twins.response[0], twins.response[1])


def test_ids_as_a_tensor_or_a_list(small):
    pixels = random_images(2)
    as_list = run(small, pixels, image_keys=[4, 2**50]).visual.response
    assert torch.equal(run(small, pixels, image_keys=torch.tensor([4, 2**50])).visual.response, as_list)


def test_result_of_an_image_does_not_depend_on_its_batch_mates(small):
    pixels, ids, names = random_images(5), texts(5), torch.arange(5)
    together = run(small, pixels, ids, image_keys=names)
    for some in ([2], [4, 0], [1, 2, 3]):
        apart = run(small, pixels[some], ids[some], image_keys=names[some])
        assert torch.equal(apart.visual.response, together.visual.response[some])
        close(apart.last_hidden_state, together.last_hidden_state[some])


def test_calls_do_not_depend_on_earlier_calls(small):
    pixels = random_images(2)
    first = run(small, pixels).last_hidden_state
    run(small, random_images(3, seed=9), group_size=3)
    assert torch.equal(run(small, pixels).last_hidden_state, first)


def test_a_group_shares_its_response_but_not_its_output(small):
    out = run(small, random_images(2), group_size=2).visual
    assert torch.equal(out.response[0], out.response[1])
    assert torch.equal(out.abstract[0], out.abstract[1])
    assert not torch.equal(out.summary_ratio[0], out.summary_ratio[1])
    assert not torch.equal(out.output[0], out.output[1])
    own = run(small, random_images(2), group_size=2, readout="per_image").visual
    assert not torch.equal(own.response[0], own.response[1])


def test_state_streams_through_the_whole_model(small):
    pixels, spikes = random_images(2), random_spikes(6, 2, 3, 16, 16)
    whole = run(small, pixels, spikes=spikes).visual
    first = run(small, pixels, spikes=spikes[:4]).visual
    second = run(small, pixels, spikes=spikes[4:], state=first.state).visual
    assert torch.equal(first.response + second.response, whole.response)


def test_concrete_only_leaves_the_spiking_branch_out():
    """The paper's first phase: the same transformer on F_CNN; the spiking parts get no gradient."""
    made = model().train()
    pixels, ids = random_images(2), texts(2)
    made(pixels, ids, concrete_only=True).last_hidden_state.square().sum().backward()
    for name, parameter in made.vision.named_parameters():
        assert (parameter.grad is None) == (not name.startswith("concrete_encoder")), name
    made.eval()
    out = run(made, pixels, ids, concrete_only=True)
    assert out.visual.abstract is None
    assert out.visual.response is None
    assert torch.equal(out.visual.output, out.visual.concrete)
    assert torch.equal(out.visual.summary_ratio, torch.zeros(2, 4, 1))
    ann = model(summary_ratio="ann")
    ann.load_state_dict({k: v for k, v in made.state_dict().items() if k in ann.state_dict()})
    assert torch.equal(run(ann, pixels, ids).last_hidden_state, out.last_hidden_state)


def test_text_alone_and_images_alone(small):
    text = run(small, input_ids=texts(2))
    assert text.visual is None
    assert text.last_hidden_state.shape == (2, 5, 16)
    assert run(small, random_images(2)).last_hidden_state.shape == (2, 4, 16)


def test_attentions_on_request(small):
    out = run(small, random_images(2), texts(2), output_attentions=True)
    assert len(out.attentions) == 2
    assert out.attentions[0].shape == (2, 2, 9, 9)
    assert run(small, random_images(2), texts(2)).attentions is None


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((), {}, "nothing to encode"),
        ((random_images(2), texts(3)), {}, "2 images and 3 texts"),
        ((random_images(0),), {}, r"takes \(B, 3, 16, 16\), B ≥ 1"),
        ((None, texts(0)), {}, "the batch is empty"),
        ((random_images(2, size=24),), {}, r"takes \(B, 3, 16, 16\)"),
        ((random_images(1)[0],), {}, r"takes \(B, 3, 16, 16\)"),
        ((random_images(2) * 255,), {}, r"give intensities in \[0, 1\]"),
        ((random_images(2),), {"image_keys": [1]}, "1 image keys for 2 images"),
        ((random_images(2),), {"spikes": torch.zeros(3, 3, 3, 16, 16)}, r"must be \(T, 2, 3, 16, 16\)"),
        ((random_images(2),), {"spikes": torch.zeros(2, 3, 16, 16)}, r"must be \(T, 2, 3, 16, 16\)"),
        ((random_images(3),), {"group_size": 2}, "do not divide"),
        ((random_images(2),), {"readout": "mean"}, "is not one of shared, per_image"),
    ],
)
def test_bad_input_is_refused(small, arguments, options, message):
    with pytest.raises(InputError, match=message):
        small(*arguments, **options)


@pytest.mark.parametrize(
    ("variant", "collector"), [("trainable", True), ("snn", True), ("trainable", False), ("ann", True)]
)
def test_bf16_weights_take_float_images(variant, collector):
    made = model(summary_ratio=variant, collector=collector)
    pixels, ids = random_images(2), texts(2)
    expected = run(made, pixels, ids).last_hidden_state
    made.bfloat16()
    for given in (pixels, pixels.bfloat16()):
        hidden = run(made, given, ids, image_keys=[content_key(p) for p in pixels]).last_hidden_state
        assert hidden.dtype == torch.bfloat16
        assert (hidden.float() - expected).abs().mean() < 0.15


def test_autocast_trains(small):
    made = copy.deepcopy(small).train()
    with torch.autocast("cpu", torch.bfloat16):
        out = made(random_images(4), texts(4), group_size=2)
    out.last_hidden_state.float().square().sum().backward()
    for name, parameter in made.named_parameters():
        assert parameter.grad is None or torch.isfinite(parameter.grad).all(), name
    assert made.vision.collector.concepts.grad.abs().sum() > 0
    assert made.vision.abstract_encoder.layers["conv1"].conv.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("recomputed", [False, True])
def test_model_can_be_copied_and_pickled_after_a_training_step(recomputed):
    made = model().train()
    if recomputed:
        recompute_activations(made)
    made(random_images(2), texts(2)).last_hidden_state.sum().backward()
    for twin in (copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        arguments = (random_images(2, seed=4), texts(2))
        assert torch.equal(run(twin.eval(), *arguments).pooler_output, run(made.eval(), *arguments).pooler_output)
        assert recomputes(twin) == recomputed


def test_outputs_are_tuples_and_mappings_too(small):
    """As transformers' own outputs."""
    out = run(small, random_images(1), texts(1))
    assert torch.equal(out[0], out.last_hidden_state)
    assert set(out.keys()) == {"last_hidden_state", "pooler_output", "visual"}
    assert "abstract" in out.visual.keys()  # noqa: SIM118


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
@pytest.mark.parametrize("scale", ABSTRACT_SCALES)
@pytest.mark.parametrize("collector", [True, False])
@pytest.mark.parametrize("ratio", SUMMARY_RATIOS)
def test_every_variant_computes_in_the_type_of_its_weights(ratio, collector, scale, dtype):
    config = small_config(summary_ratio=ratio, collector=collector, abstract_scale=scale)
    made = AshNetsForRetrieval(config).to(dtype)
    out = made(random_images(2).to(dtype), texts(2))
    assert out.itm_logits.dtype == dtype and out.image_embeds.isfinite().all()
    (out.itm_logits.sum() + out.image_embeds.sum()).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in made.parameters())
