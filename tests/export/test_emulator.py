"""The int64 emulator against loops tap by tap, by hand at the limits, and its faults."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ashnets.errors import ConfigurationError, InputError
from ashnets.export.emulator import IntegerLayer, correlate, emulate, integer_layers
from ashnets.export.folding import fold
from ashnets.model.abstract_encoder import AbstractEncoder
from ashnets.model.integer import IntegerConstants, integer_constants

LIMIT = 2**23 - 1


def layer(weight, bias=(0,), threshold=100, decay=0, **options) -> IntegerLayer:
    weight = torch.tensor(weight, dtype=torch.int32).view(len(bias), -1, 1, 1)
    held = IntegerConstants(weight, torch.tensor(bias, dtype=torch.int32), threshold, decay, 0.01)
    return IntegerLayer("one", held, **options)


def pulses(*values: int) -> np.ndarray:
    """(T, 1, 1, 1, 1)."""
    return np.array(values).reshape(-1, 1, 1, 1, 1)


def test_one_neuron_by_hand():
    """40·64 = 2560 an input spike, 5·64 of bias, threshold 6400; a quarter leaks."""
    spikes, (v,) = emulate([layer([40], [5], decay=1024)], pulses(1, 1, 1, 0))
    # 2880 · 2160 + 2880 = 5040 · 3780 + 2880 = 6660, fires · 320
    assert spikes["one"].ravel().tolist() == [0, 0, 1, 0] and v.ravel().tolist() == [320]
    assert spikes["one"].dtype == np.uint8 and v.dtype == np.int64


def test_truncation_strictness_and_limits():
    start = [np.array([-5, 5, 6400, 6401, LIMIT, -LIMIT]).reshape(6, 1, 1, 1)]
    quiet = np.zeros((1, 6, 1, 1, 1))
    spikes, (v,) = emulate([layer([2], decay=1024)], quiet, start)
    assert v.ravel().tolist() == [-3, 3, 4800, 4800, 0, -(LIMIT * 3 // 4)]
    spikes, (v,) = emulate([layer([2])], quiet, start)
    assert spikes["one"].ravel().tolist() == [0, 0, 0, 1, 1, 0], "at the threshold itself no spike"
    spikes, (v,) = emulate([layer([2], [-4096])], quiet, start)
    assert v.ravel()[-1] == -LIMIT, "the lower limit holds"
    spikes, (v,) = emulate([layer([2], [4096], threshold=2**17 - 1)], quiet, start)
    assert spikes["one"].ravel().tolist() == [0, 0, 0, 0, 1, 0], "clipped to 63 units above the largest threshold"


def test_a_current_wraps_at_24_bits():
    """517 inputs of 254 are 131,318, which wraps to −130,826 in 24 bits."""
    _, (v,) = emulate([layer([254] * 517)], np.ones((1, 1, 517, 1, 1)))
    assert v.ravel().tolist() == [64 * (131_318 - 2**18)]


@given(
    st.integers(0, 10_000),
    st.sampled_from([1, 2, 3]),
    st.sampled_from([0, 1, 2]),
    st.sampled_from([1, 2]),
    st.sampled_from([(1, 1), (3, 3), (2, 3)]),
)
def test_correlation_is_that_of_the_definition(seed, stride, padding, groups, kernel):
    rng = np.random.default_rng(seed)
    x, w = rng.integers(0, 2, (2, 4, 6, 7)), rng.integers(-(10**9), 10**9, (6, 4 // groups, *kernel))
    found = correlate(x, w, (stride, stride), (padding, padding), groups)
    height, width = ((side + 2 * padding - k) // stride + 1 for side, k in zip((6, 7), kernel, strict=True))
    assert found.shape == (2, 6, height, width) and found.dtype == np.int64
    for _ in range(20):
        b, o, r, c = (int(rng.integers(n)) for n in found.shape)
        total, first = 0, o // (6 // groups) * (4 // groups)
        for i, dr, dc in np.ndindex(4 // groups, *kernel):
            row, column = r * stride + dr - padding, c * stride + dc - padding
            if 0 <= row < 6 and 0 <= column < 7:
                total += int(w[o, i, dr, dc]) * int(x[b, first + i, row, column])
        assert found[b, o, r, c] == total


def test_layers_of_a_model_are_its_folded_convolutions(encoder: AbstractEncoder, spikes: torch.Tensor):
    """Of a float model too; all layers then fire, near the float model's rates."""
    layers = integer_layers(encoder)
    assert [one.name for one in layers] == list(encoder.layers)
    for one, block in zip(layers, encoder.layers.values(), strict=True):
        wanted = integer_constants(*fold(block.conv, block.norm), 0.8, 1400)
        assert torch.equal(one.constants.weight, wanted.weight) and torch.equal(one.constants.bias, wanted.bias)
        assert one.constants.threshold == wanted.threshold and one.constants.decay == 1400
        assert (one.stride, one.padding, one.groups) == (block.conv.stride, block.conv.padding, 1)
    found, _ = emulate(layers, spikes.numpy())
    with torch.no_grad():
        outputs, _ = encoder.run(spikes)
    for name, out in outputs.items():
        assert found[name].shape == tuple(out.shape)
        assert found[name].mean() == pytest.approx(float(out.mean()), abs=0.02)


def test_steps_one_by_one_equal_the_sequence(encoder: AbstractEncoder, spikes: torch.Tensor):
    layers = integer_layers(encoder)
    whole, last = emulate(layers, spikes)
    state, parts = None, []
    for step in spikes:
        out, state = emulate(layers, step[None], state)
        parts.append(out["concepts"])
    assert np.array_equal(np.concatenate(parts), whole["concepts"])
    assert all(np.array_equal(a, b) for a, b in zip(state, last, strict=True))


def test_faults_are_named(encoder: AbstractEncoder):
    with pytest.raises(InputError, match="of 0 and 1"):
        emulate([layer([2])], pulses(2))
    with pytest.raises(InputError, match="0 membranes for 1 layers"):
        emulate([layer([2])], pulses(1), [])
    with pytest.raises(InputError, match="layer one, whose neurons are"):
        emulate([layer([2])], pulses(1), [np.zeros((1, 1, 2, 2))])
    with pytest.raises(ConfigurationError, match="has no spiking branch: give a model that has one"):
        integer_layers(torch.nn.ReLU())
