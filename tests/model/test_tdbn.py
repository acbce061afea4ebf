"""Decision 7: tdBN against loops, its initialization, and calibration before inference."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_model import array, random_spikes, small_config
from spikingjelly.activation_based import monitor
from torch import nn

from ashnets.errors import InputError
from ashnets.model.abstract_encoder import AbstractEncoder
from ashnets.model.ashnets import AshNetsModel
from ashnets.model.neuron import LIF
from ashnets.model.tdbn import TdBN, calibrate, calibrating


def loop_statistics(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Mean and biased variance of each channel over T, B, H and W, and how many values each has."""
    steps, images, channels, height, width = x.shape
    mean, variance = np.zeros(channels), np.zeros(channels)
    n = steps * images * height * width
    for c in range(channels):
        values = [x[t, b, c, i, j] for t, b, i, j in np.ndindex(steps, images, height, width)]
        mean[c] = sum(values) / n
        variance[c] = sum((value - mean[c]) ** 2 for value in values) / n
    return mean, variance, n


@pytest.mark.parametrize(("alpha", "theta"), [(1.0, 1.0), (1.0, 0.5), (0.7, 2.0)])
def test_gamma_starts_at_alpha_theta(alpha, theta):
    norm = TdBN(3, alpha, theta)
    assert norm.weight.tolist() == pytest.approx([alpha * theta] * 3)
    assert norm.bias.tolist() == [0, 0, 0]
    model = AshNetsModel(small_config(tdbn_alpha=alpha, threshold=theta))
    norms = [m for m in model.modules() if isinstance(m, TdBN)]
    assert len(norms) == 4
    for norm in norms:
        assert torch.allclose(norm.weight, torch.full_like(norm.weight, alpha * theta))


@given(
    st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(2, 3)),
    st.integers(0, 1000),
)
def test_training_uses_the_statistics_of_steps_batch_and_space(shape, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=generator) * 3 + 1
    norm = TdBN(shape[2], alpha=1.0, theta=0.5)
    nn.init.uniform_(norm.bias, generator=generator)
    y = norm(x)
    mean, variance, n = loop_statistics(array(x))
    for c in range(shape[2]):
        expected = 0.5 * (array(x)[:, :, c] - mean[c]) / np.sqrt(variance[c] + norm.eps) + norm.bias[c].item()
        np.testing.assert_allclose(array(y)[:, :, c], expected, rtol=1e-4, atol=1e-5)
    # the running estimates move by the momentum, with the unbiased variance
    np.testing.assert_allclose(array(norm.running_mean), 0.1 * mean, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(array(norm.running_var), 0.9 + 0.1 * variance * n / (n - 1), rtol=1e-4)


def test_evaluation_uses_the_running_statistics_and_leaves_them():
    norm = TdBN(2, alpha=1.0, theta=1.5)
    norm.running_mean.copy_(torch.tensor([1.0, -2.0]))
    norm.running_var.copy_(torch.tensor([4.0, 0.25]))
    norm.eval()
    x = torch.randn(3, 2, 2, 4, 4)
    y = norm(x)
    torch.testing.assert_close(y[:, :, 0], 1.5 * (x[:, :, 0] - 1) / (4 + 1e-5) ** 0.5)
    torch.testing.assert_close(y[:, :, 1], 1.5 * (x[:, :, 1] + 2) / (0.25 + 1e-5) ** 0.5)
    assert norm.running_mean.tolist() == [1.0, -2.0]
    # an image's result does not depend on its batch mates
    torch.testing.assert_close(norm(x[:, :1]), y[:, :1])


def test_gradient_is_right():
    norm = TdBN(2, alpha=1.0, theta=1.0).double()
    x = torch.randn(2, 2, 2, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda y: norm(y), (x,), nondet_tol=0)


def deep_encoder() -> AbstractEncoder:
    """Five layers, freshly initialized as a model initializes them."""
    torch.manual_seed(0)
    config = small_config(backbone_widths=[8, 8, 8], image_size=32, spiking_channels=[8, 8, 8, 8], num_concepts=12)
    return AshNetsModel(config).eval().vision.abstract_encoder


def rates(encoder: AbstractEncoder, spikes: torch.Tensor) -> list[float]:
    with torch.no_grad():
        outputs, _ = encoder.eval().run(spikes)
    return [out.mean().item() for out in outputs.values()]


def test_deep_layers_are_silent_before_calibration_and_fire_after_it():
    encoder = deep_encoder()
    spikes = random_spikes(6, 8, 3, 32, 32, rate=0.4)
    before = rates(encoder, spikes)
    assert before[-1] == 0
    assert before[-2] == 0
    assert calibrate(encoder, [random_spikes(6, 8, 3, 32, 32, rate=0.4, seed=1)]) == 1
    after = rates(encoder, spikes)
    assert min(after) > 0.05
    # each current is now standard normal times θ: a neuron without leak would pass θ in about one step in six
    assert max(after) < 0.35


def test_calibration_averages_the_batches():
    encoder = deep_encoder()
    batches = [random_spikes(2, 3, 3, 32, 32, rate=rate, seed=i) for i, rate in enumerate((0.1, 0.5, 0.9))]
    assert calibrate(encoder, iter(batches)) == 3
    first = encoder.layers["conv1"]
    with torch.no_grad():
        currents = [first.conv(batch) for batch in batches]
    mean = sum(c.mean((0, 1, 3, 4)) for c in currents) / 3
    variance = sum(c.var((0, 1, 3, 4)) for c in currents) / 3
    torch.testing.assert_close(first.norm.running_mean, mean)
    torch.testing.assert_close(first.norm.running_var, variance)


def test_calibration_changes_statistics_alone():
    encoder = deep_encoder()
    before = {name: p.clone() for name, p in encoder.state_dict().items()}
    modes = [m.training for m in encoder.modules()]
    calibrate(encoder, [random_spikes(2, 2, 3, 32, 32)])
    assert [m.training for m in encoder.modules()] == modes
    changed = {name.rsplit(".", 1)[1] for name, p in encoder.state_dict().items() if not torch.equal(p, before[name])}
    assert changed == {"running_mean", "running_var", "num_batches_tracked"}
    assert all(norm.momentum == 0.1 for norm in encoder.modules() if isinstance(norm, TdBN))
    # a second pass starts afresh
    statistics = encoder.layers["conv3"].norm.running_var.clone()
    calibrate(encoder, [random_spikes(2, 2, 3, 32, 32)])
    torch.testing.assert_close(encoder.layers["conv3"].norm.running_var, statistics)


def test_calibration_does_not_switch_other_layers_to_training():
    net = nn.ModuleList([TdBN(3, 1.0, 1.0), nn.Dropout(0.5)]).eval()
    with calibrating(net):
        assert net[0].training
        assert not net[1].training
    assert not net[0].training


def test_calibration_without_batches_is_refused_and_changes_nothing():
    encoder = deep_encoder()
    calibrate(encoder, [random_spikes(2, 2, 3, 32, 32)])
    before = encoder.layers["concepts"].norm.running_mean.clone()
    with pytest.raises(InputError, match="got no batch: give at least one"):
        calibrate(encoder, [])
    assert torch.equal(encoder.layers["concepts"].norm.running_mean, before)


def test_calibration_of_a_whole_model_through_run():
    model = AshNetsModel(small_config()).eval()
    pixels = [torch.rand(2, 3, 16, 16) for _ in range(2)]
    seen = calibrate(model, pixels, run=lambda batch: model(pixel_values=batch))
    assert seen == 2
    assert not torch.equal(model.vision.abstract_encoder.layers["concepts"].norm.running_var, torch.ones(10))


@pytest.mark.parametrize("saving", [False, True])
def test_an_empty_batch_has_no_statistics(saving):
    encoder = deep_encoder().train()
    encoder.memory_saving = saving
    with pytest.raises(InputError, match="have no statistics"):
        encoder(torch.zeros(2, 0, 3, 32, 32))
    assert all(bool(buffer.isfinite().all()) for buffer in encoder.buffers())


@pytest.mark.parametrize("training", [False, True])
def test_a_monitor_changes_no_spike_in_bfloat16(training):
    """Monitored layers run one by one, the others as one kernel: y is float32 in both."""
    encoder = deep_encoder()
    calibrate(encoder, [random_spikes(8, 2, 3, 32, 32)])
    encoder.train(training)
    spikes = random_spikes(20, 2, 3, 32, 32, seed=1)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        alone, _ = encoder.run(spikes)
        recorder = monitor.OutputMonitor(encoder, LIF)
        watched, _ = encoder.run(spikes)
        recorder.remove_hooks()
    for name, fired in alone.items():
        assert watched[name].dtype == fired.dtype == torch.bfloat16
        assert 0 < fired.float().mean() < 1
        # in training the two sum their statistics in another order
        assert float((watched[name] != fired).float().mean()) <= (1e-3 if training else 0), name
