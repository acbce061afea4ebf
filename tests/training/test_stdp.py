"""Decision 18: the STDP stage against the pair rule in plain Python loops, and on real drawings."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch

from ashnets.configuration import AshNetsConfig
from ashnets.data.corpus import open_gallery
from ashnets.errors import ConfigurationError, InputError, TrainingError
from ashnets.model.abstract_encoder import AbstractEncoder
from ashnets.model.sampling import image_key, probabilistic_sampling
from ashnets.processor import AshNetsImageProcessor
from ashnets.training.stdp import STDP, _similarity, stdp_stage

SIZE, T = 32, 6


@pytest.fixture(scope="module")
def drawings(repository) -> list[torch.Tensor]:
    """P_binary of 48 images of the bundled gallery, (T, 16, 3, 32, 32) each."""
    rows = list(open_gallery(repository / "zoo" / "gallery"))[:48]
    pixels = AshNetsImageProcessor(SIZE).preprocess([row["path"] for row in rows])["pixel_values"]
    keys = [image_key(row["image_id"]) for row in rows]
    return [probabilistic_sampling(pixels[i : i + 16], keys[i : i + 16], T, seed=3) for i in range(0, 48, 16)]


def encoder(seed: int = 0, **changes) -> AbstractEncoder:
    torch.manual_seed(seed)
    settings = {
        "backbone": "resnet-tiny",
        "backbone_widths": [8, 12, 16],
        "image_size": SIZE,
        "num_concepts": 10,
        "time_steps": T,
        "spiking_channels": [6, 7, 8, 9],
        "hidden_size": 16,
        "num_attention_heads": 2,
    }
    return AbstractEncoder(AshNetsConfig(**{**settings, **changes}))


def tensors(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in model.state_dict().items()}


def stage(model: AbstractEncoder, batches, **settings) -> dict:
    return stdp_stage(model, batches, STDP(**{"layers": 1, "lr": 10.0, **settings}), progress=False)


def loop_layer(x: np.ndarray, block, stride: int, padding: int, beta: float, theta: float):
    """conv → tdBN → LIF with the batch's statistics, scalar by scalar; x (T, B, C, H, W), padded on return."""
    w = block.conv.weight.detach().double().numpy()
    gamma, shift = (p.detach().double().numpy() for p in (block.norm.weight, block.norm.bias))
    x = np.pad(x, ((0, 0), (0, 0), (0, 0), (padding, padding), (padding, padding)))
    k = w.shape[2]
    side = (x.shape[3] - k) // stride + 1
    current = np.zeros((*x.shape[:2], len(w), side, side))
    for t, b, o, r, c in np.ndindex(*current.shape):
        current[t, b, o, r, c] = (w[o] * x[t, b, :, r * stride : r * stride + k, c * stride : c * stride + k]).sum()
    for o in range(len(w)):
        mean, var = current[:, :, o].mean(), current[:, :, o].var()
        current[:, :, o] = gamma[o] * (current[:, :, o] - mean) / math.sqrt(var + block.norm.eps) + shift[o]
    spikes = np.zeros(current.shape)
    for where in np.ndindex(*current.shape[1:]):
        v = 0.0
        for t in range(len(x)):
            v = beta * v + current[(t, *where)]
            if v > theta:
                spikes[(t, *where)] = 1.0
                v = 0.0
    return x, spikes


def loop_stdp(x, s, w, stride: int, tau_pre: float, tau_post: float) -> np.ndarray:
    """Σ_t post·x̄ − pre·s̄ of one synapse of one neuron after another, summed over images and positions.

    Both traces decay by 1 − 1/τ and count the spikes of the step itself (Morrison et al. 2008, section 4.1, in the
    discrete form of spikingjelly's documentation).
    """
    delta = np.zeros(w.shape)
    steps, images, _, rows, columns = s.shape
    for o, i, dr, dc in np.ndindex(*w.shape):
        for b, r, c in np.ndindex(images, rows, columns):
            pre_trace = post_trace = 0.0
            for t in range(steps):
                pre, post = x[t, b, i, r * stride + dr, c * stride + dc], s[t, b, o, r, c]
                pre_trace = (1 - 1 / tau_pre) * pre_trace + pre
                post_trace = (1 - 1 / tau_post) * post_trace + post
                delta[o, i, dr, dc] += post * pre_trace - pre * post_trace
    return delta


def updated(w: np.ndarray, delta: np.ndarray, lr: float) -> np.ndarray:
    """One step of the additive rule; each filter then gets its mean and its standard deviation back."""
    new = w + lr * np.mean([filter.std() for filter in w]) * delta
    return np.stack([(n - n.mean()) / n.std() * o.std() + o.mean() for n, o in zip(new, w, strict=True)])


@pytest.mark.parametrize(("tau_pre", "tau_post", "lr"), [(2.0, 2.0, 5.0), (3.0, 1.5, 0.5)])
def test_one_batch_equals_the_loop(drawings, tau_pre, tau_post, lr):
    model = encoder(spiking_channels=[2, 2, 2, 2], decay_k=1536, threshold=0.75)
    block = model.layers["conv1"]
    spikes = drawings[0][:, :2, :, 6:18, 8:20]
    with torch.no_grad():
        block.norm.bias.copy_(torch.tensor([0.1, -0.05]))
    w = block.conv.weight.detach().double().numpy().copy()
    x, s = loop_layer(spikes.double().numpy(), block, 2, 1, model.config.beta, model.config.threshold)
    assert 0.05 < s.mean() < 0.5

    found = stage(model, [spikes], lr=lr, tau_pre=tau_pre, tau_post=tau_post)["conv1"]

    wanted = updated(w, loop_stdp(x, s, w, 2, tau_pre, tau_post) / (2 * 6 * 6), lr)  # B·h·w
    np.testing.assert_allclose(block.conv.weight.detach().numpy(), wanted, atol=1e-6, rtol=0)
    assert np.abs(wanted - w).max() > 1e-2
    change = math.sqrt(((wanted - w) ** 2).sum() / (w**2).sum())
    assert found["relative_change"] == pytest.approx(change, rel=1e-4)
    assert found["firing_rate_before"] == pytest.approx(s.mean(), abs=1e-12)

    # the report's rates and the running statistics are those of the trained layer
    _, s = loop_layer(spikes.double().numpy(), block, 2, 1, model.config.beta, model.config.threshold)
    assert found["firing_rate_after"] == pytest.approx(s.mean(), abs=1e-12)
    channels = s.mean((0, 1, 3, 4))
    assert (found["lowest_channel_rate"], found["highest_channel_rate"]) == pytest.approx(
        (channels.min(), channels.max()), abs=1e-12
    )
    current = torch.nn.functional.conv2d(spikes.flatten(0, 1), block.conv.weight, stride=2, padding=1)
    torch.testing.assert_close(block.norm.running_mean, current.mean((0, 2, 3)))
    torch.testing.assert_close(block.norm.running_var, current.var((0, 2, 3)))


def test_two_neurons_by_hand():
    """Always-on white input, a filter that fires and one that cannot: only the first learns."""
    model = encoder(spiking_channels=[2, 2, 2, 2])
    block = model.layers["conv1"]
    with torch.no_grad():
        block.norm.bias.copy_(torch.tensor([9.0, -9.0]))
    start = block.conv.weight.detach().clone()
    found = stage(model, [torch.ones(3, 1, 3, 8, 8)], lr=0.5, tau_pre=2.0, tau_post=1.0)["conv1"]
    assert (found["lowest_channel_rate"], found["highest_channel_rate"]) == (0.0, 1.0)
    torch.testing.assert_close(block.conv.weight[1].detach(), start[1])
    # pre and post fire together at every step: x̄ = 1, 1.5, 1.75 and s̄ = 1, 1, 1, so Δw/a = 4.25 − 3 where all 16
    # positions feed a tap; taps of the first row or column miss the quarter that lies on the padding
    share = torch.tensor([0.75, 1.0, 1.0])
    amplitude = start.flatten(1).std(dim=1, correction=0).mean()
    wanted = start[0] + 0.5 * amplitude * 1.25 * share.outer(share)
    wanted = (wanted - wanted.mean()) * (start[0].std() / wanted.std()) + start[0].mean()
    torch.testing.assert_close(block.conv.weight[0].detach(), wanted)


def test_the_first_layer_alone_is_touched(drawings):
    model = encoder()
    before = tensors(model)
    found = stage(model, drawings)
    assert list(found) == ["conv1"]
    changed = {key for key, value in tensors(model).items() if not torch.equal(value, before[key])}
    assert changed == {
        f"layers.conv1.{key}"
        for key in ("conv.weight", "norm.running_mean", "norm.running_var", "norm.num_batches_tracked")
    }


def test_the_second_layer_learns_from_the_trained_first(drawings):
    """Its input is the output of the trained first layer in inference; the first learns as a single layer would."""
    model, alone = (encoder(spiking_channels=[2, 2, 2, 2]) for _ in range(2))
    spikes = drawings[0][:, :2, :, 4:20, 4:20]
    block = model.layers["conv2"]
    w = block.conv.weight.detach().double().numpy().copy()
    found = stage(model, [spikes], layers=2)
    assert list(found) == ["conv1", "conv2"]
    assert found["conv1"] == stage(alone, [spikes])["conv1"]
    assert torch.equal(model.layers["conv1"].conv.weight, alone.layers["conv1"].conv.weight)

    with torch.no_grad():
        seen = alone.eval().run(spikes)[0]["conv1"]
        assert not torch.equal(seen, encoder(spiking_channels=[2, 2, 2, 2]).train().run(spikes)[0]["conv1"])
    x, s = loop_layer(seen.double().numpy(), alone.layers["conv2"], 2, 1, model.config.beta, model.config.threshold)
    assert 0.05 < x.mean() < 0.5 and 0.05 < s.mean() < 0.5
    wanted = updated(w, loop_stdp(x, s, w, 2, 2.0, 2.0) / (2 * 4 * 4), 10.0)
    np.testing.assert_allclose(block.conv.weight.detach().numpy(), wanted, atol=1e-6, rtol=0)
    assert np.abs(wanted - w).max() > 1e-2


def test_only_weights_and_statistics_remain(drawings):
    model = encoder()
    model.train()
    model.layers["conv2"].eval()
    model.layers["conv1"].conv.weight.requires_grad_(False)
    gradient = torch.ones_like(model.layers["conv2"].conv.weight)
    model.layers["conv2"].conv.weight.grad = gradient
    modes = [m.training for m in model.modules()]
    flags = [p.requires_grad for p in model.parameters()]
    momenta = [block.norm.momentum for block in model.layers.values()]
    names = [set(vars(m)) | set(m._modules) for m in model.modules()]
    generator = torch.get_rng_state()
    stage(model, drawings, layers=2)

    assert [m.training for m in model.modules()] == modes
    assert [p.requires_grad for p in model.parameters()] == flags
    assert [block.norm.momentum for block in model.layers.values()] == momenta
    assert [set(vars(m)) | set(m._modules) for m in model.modules()] == names
    assert model.layers["conv2"].conv.weight.grad is gradient
    assert torch.equal(gradient, torch.ones_like(gradient))
    assert model.layers["conv1"].conv.weight.grad is None
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert all(not torch.is_tensor(block.lif.v) for block in model.layers.values())
    assert torch.equal(torch.get_rng_state(), generator)
    copy.deepcopy(model)  # nothing holds a graph


def test_an_error_leaves_no_hooks_either(drawings):
    model = encoder().train()
    broken = drawings[2].clone()
    broken[0, 0, 0, 0, 0] = math.inf
    with pytest.raises(TrainingError, match="spiking layer conv1 are not finite after 48 images"):
        stage(model, [*drawings[:2], broken])
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert all(m.training for m in model.modules())
    assert all(p.grad is None for p in model.parameters())


class DrawnAnew:
    """Batches as bytes that are made again for each reading, as a loader makes them; the last one is smaller."""

    def __init__(self, batches: list[torch.Tensor]) -> None:
        self.batches = [*batches, batches[0][:, :5]]
        self.readings = 0

    def __iter__(self):
        self.readings += 1
        return (batch.to(torch.uint8) for batch in self.batches)


def test_same_batches_same_bits(drawings):
    first, second = encoder(), encoder()
    anew = DrawnAnew(drawings)
    assert stage(first, anew.batches, layers=2) == stage(second, anew, layers=2)
    for key, value in tensors(first).items():
        assert torch.equal(value, second.state_dict()[key]), key


def test_real_drawings_change_weights_and_rates_and_the_report_says_so(drawings):
    model = encoder()
    start = model.layers["conv1"].conv.weight.detach().clone()
    found = stage(model, DrawnAnew(drawings), layers=2)
    weight = model.layers["conv1"].conv.weight.detach()
    assert found["conv1"]["relative_change"] == pytest.approx(float((weight - start).norm() / start.norm()))
    torch.testing.assert_close(weight.mean((1, 2, 3)), start.mean((1, 2, 3)))
    torch.testing.assert_close(weight.std((1, 2, 3)), start.std((1, 2, 3)))
    for name in ("conv1", "conv2"):
        layer = found[name]
        assert layer["images"] == 53
        assert layer["relative_change"] > 0.02, name
        assert 0.02 < layer["lowest_channel_rate"] <= layer["firing_rate_after"] <= layer["highest_channel_rate"] < 0.6
    assert abs(found["conv1"]["firing_rate_after"] - found["conv1"]["firing_rate_before"]) > 0.002

    # the reported rate is that of inference: the running statistics fit the trained weights
    with torch.no_grad():
        run = [model.eval().run(spikes)[0]["conv1"].mean().item() for spikes in drawings]
    assert np.mean(run) == pytest.approx(found["conv1"]["firing_rate_after"], abs=0.02)


def test_two_thousand_showings_are_stable(drawings):
    model = encoder()
    found = stage(model, [spikes[..., 8:24, 8:24] for spikes in drawings] * 42, lr=1.0)["conv1"]
    assert found["images"] == 2016
    assert 0.1 < found["relative_change"] < 1
    assert found["lowest_channel_rate"] > 0.02 and found["highest_channel_rate"] < 0.6
    assert found["filter_similarity_after"] < 0.6
    squares = model.layers["conv1"].conv.weight.detach().flatten(1).square()
    assert (squares.amax(1) / squares.sum(1)).max() < 0.5  # no filter has shrunk to one synapse


def test_unequal_time_constants_make_the_filters_alike_and_the_report_says_so(drawings):
    equal = stage(encoder(), drawings * 8, lr=2.0)["conv1"]
    unequal = stage(encoder(), drawings * 8, lr=2.0, tau_pre=4.0)["conv1"]
    assert equal["filter_similarity_before"] == unequal["filter_similarity_before"] < 0.2
    assert equal["filter_similarity_after"] < 0.3
    assert unequal["filter_similarity_after"] > 0.4


def test_filter_similarity_by_hand():
    weight = torch.tensor([[3.0, 0.0], [0.0, 2.0], [-1.0, 1.0]]).view(3, 2, 1, 1)
    assert _similarity(weight) == pytest.approx(2 * math.sqrt(0.5) / 3)  # pairs: 0, √½, √½
    assert _similarity(weight[:1]) == 0.0


def test_what_cannot_be_trained_is_refused(drawings):
    model = encoder()
    before = tensors(model)
    with pytest.raises(TrainingError, match=r"stdp\.layers=6, .* 5 spiking layers \(conv1, .*concepts\)"):
        stage(model, drawings, layers=6)
    with pytest.raises(InputError, match="at least one batch"):
        stage(model, [])
    with pytest.raises(InputError, match=r"generator.*read only once"):
        stage(model, (batch for batch in drawings))
    with pytest.raises(InputError, match=r"\(16, 3, 32, 32\)"):
        stage(model, [drawings[0][0]])
    assert all(torch.equal(value, before[key]) for key, value in tensors(model).items())


def test_broken_weights_are_named(drawings):
    model = encoder()
    model.layers["conv2"].conv.weight.data[0, 0, 0, 0] = math.nan
    with pytest.raises(TrainingError, match="spiking layer conv2 are not finite after 16 images"):
        stage(model, drawings, layers=2)


@pytest.mark.parametrize(
    "setting",
    [
        {"layers": 0},
        {"images": 0},
        {"batch": 0},
        {"lr": 0.0},
        {"lr": math.nan},
        {"tau_pre": 0.5},
        {"tau_post": math.inf},
    ],
)
def test_impossible_settings_are_refused(setting):
    (key,) = setting
    with pytest.raises(ConfigurationError, match=f"stdp.{key}="):
        STDP(**setting)
