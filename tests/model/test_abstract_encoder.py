"""Eq. 5 and decisions 4, 5, 6: the spiking stack against a loop over groups, steps, neurons and taps."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_model import array, loop_batch_norm, loop_conv, loop_lif, random_spikes, small_config, wake
from spikingjelly.activation_based import functional, layer, monitor
from spikingjelly.activation_based.op_counter import DispatchCounterMode, SynOpCounter

from ashnets.errors import InputError
from ashnets.model.abstract_encoder import AbstractEncoder, as_sequence
from ashnets.model.neuron import LIF
from ashnets.model.tdbn import TdBN

LAYERS = ["conv1", "conv2", "conv3", "concepts"]
GEOMETRY = {"conv1": (2, 1), "conv2": (2, 1), "conv3": (2, 1), "concepts": (1, 0)}  # stride, padding


def encoder(**changes) -> AbstractEncoder:
    torch.manual_seed(0)
    made = AbstractEncoder(small_config(**changes)).eval()
    wake(made)
    return made


def respond(model: AbstractEncoder, spikes: torch.Tensor, **options):
    with torch.no_grad():
        return model(spikes, **options)


def loop_sequence(model: AbstractEncoder, sequence: np.ndarray, state: dict) -> dict[str, np.ndarray]:
    """One sequence (T', 3, H, W) through the stack, step by step; ``state`` maps a layer to its membranes."""
    settings = model.config
    outputs: dict[str, list] = {name: [] for name in LAYERS}
    for x in sequence:
        for name in LAYERS:
            block = model.layers[name]
            stride, padding = GEOMETRY[name]
            current = loop_conv(x, array(block.conv.weight), stride, padding)
            current = loop_batch_norm(
                current,
                array(block.norm.running_mean),
                array(block.norm.running_var),
                array(block.norm.weight),
                array(block.norm.bias),
            )
            v = state.get(name, np.zeros(current.shape))
            fired, state[name] = loop_lif(current[None], v, settings.beta, settings.threshold)
            x = fired[0]
            outputs[name].append(x)
    return {name: np.stack(steps) for name, steps in outputs.items()}


def loop_images(model: AbstractEncoder, spikes: torch.Tensor, group_size: int) -> list[dict[str, np.ndarray]]:
    """Each image's own spikes (T, C, h, w) of every layer, the membrane carried through its group."""
    images = []
    for b in range(spikes.shape[1]):
        if b % group_size == 0 or model.config.carry == "image":
            state: dict = {}
        images.append(loop_sequence(model, array(spikes[:, b]), state))
    return images


@pytest.mark.parametrize(("carry", "decay_k", "threshold"), [("group", 1536, 0.8), ("image", 2048, 1.0)])
def test_whole_encoder_equals_the_loop(carry, decay_k, threshold):
    model = encoder(carry=carry, decay_k=decay_k, threshold=threshold)
    spikes = random_spikes(3, 4, 3, 16, 16, seed=1)
    images = loop_images(model, spikes, group_size=2)
    shared = respond(model, spikes, group_size=2)
    own = respond(model, spikes, group_size=2, readout="per_image")

    # S of an image alone: its spikes, summed over its T steps, (N, M2) with token n = row · grid + column
    counts = np.stack([image["concepts"].sum(0).reshape(10, 4).T for image in images])
    np.testing.assert_array_equal(array(own.response), counts)
    assert own.counts is None
    assert counts.std() > 0.4
    # the paper's readout: accumulated over the group, equal for all its images
    for b in range(4):
        first = b // 2 * 2
        np.testing.assert_array_equal(array(shared.response[b]), counts[first] + counts[first + 1])
    np.testing.assert_array_equal(array(shared.counts), counts)
    np.testing.assert_array_equal(array(shared.shared), counts.reshape(2, 2, 4, 10).sum(1))
    assert own.shared is None

    for name in LAYERS:
        brute = [image[name].sum() for image in images]
        assert shared.layer_spikes[name].tolist() == brute
        assert shared.layer_neurons[name] == images[0][name][0].size
        assert min(brute) > 0


@pytest.mark.parametrize("carry", ["group", "image"])
def test_membranes_after_the_last_step_are_those_of_the_loop(carry):
    model = encoder(carry=carry)
    spikes = random_spikes(3, 2, 3, 16, 16, seed=2)
    out = respond(model, spikes, group_size=2)
    states: list[dict] = [{}] if carry == "group" else [{}, {}]
    for b in range(2):
        loop_sequence(model, array(spikes[:, b]), states[b % len(states)])
    for i, name in enumerate(LAYERS):
        expected = np.stack([state[name] for state in states])
        np.testing.assert_allclose(array(out.state[i]), expected, atol=1e-5)


@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 4))
@settings(max_examples=20)
def test_carry_across_a_group_equals_one_long_sequence(steps, groups, group_size):
    model = encoder()
    spikes = random_spikes(steps, groups * group_size, 3, 16, 16, seed=3)
    out = respond(model, spikes, group_size=group_size, readout="per_image")
    for g in range(groups):
        members = [spikes[:, g * group_size + i : g * group_size + i + 1] for i in range(group_size)]
        with torch.no_grad():
            long, _ = model.run(torch.cat(members))
        for i in range(group_size):
            own = long["concepts"][i * steps : (i + 1) * steps, 0].sum(0).flatten(1).T
            assert torch.equal(out.response[g * group_size + i], own)


def test_sequence_is_image_major():
    spikes = torch.arange(2 * 6).view(2, 6, 1, 1, 1)  # value = t · 6 + image
    sequence = as_sequence(spikes, 3)[..., 0, 0, 0]
    assert sequence[:, 0].tolist() == [0, 6, 1, 7, 2, 8]
    assert sequence[:, 1].tolist() == [3, 9, 4, 10, 5, 11]


def test_membrane_is_carried_inside_a_group_and_reset_between_images_otherwise():
    spikes = random_spikes(3, 2, 3, 16, 16, seed=4)
    carried = respond(encoder(), spikes, group_size=2, readout="per_image").response
    reset = respond(encoder(carry="image"), spikes, group_size=2, readout="per_image").response
    alone = respond(encoder(), spikes, readout="per_image").response
    assert torch.equal(reset, alone)
    assert torch.equal(carried[0], alone[0])
    assert not torch.equal(carried[1], alone[1])


def test_groups_do_not_see_each_other():
    model = encoder()
    spikes = random_spikes(3, 6, 3, 16, 16, seed=5)
    whole = respond(model, spikes, group_size=2)
    other = spikes.clone()
    other[:, 2:4] = 1 - other[:, 2:4]
    changed = respond(model, other, group_size=2)
    for field in ("response", "counts"):
        before, after = getattr(whole, field), getattr(changed, field)
        assert torch.equal(before[[0, 1, 4, 5]], after[[0, 1, 4, 5]])
        assert not torch.equal(before[2:4], after[2:4])
    reordered = respond(model, spikes[:, [4, 5, 0, 1, 2, 3]], group_size=2)
    assert torch.equal(reordered.response, whole.response[[4, 5, 0, 1, 2, 3]])


def test_order_inside_a_group_matters():
    model = encoder()
    spikes = random_spikes(3, 2, 3, 16, 16, seed=6)
    there, back = (respond(model, s, group_size=2, readout="per_image") for s in (spikes, spikes.flip(1)))
    assert not torch.equal(there.response, back.response.flip(0))


@pytest.mark.parametrize("chunks", [[1] * 6, [2, 4], [5, 1]])
def test_one_call_equals_calls_that_hand_the_state_on(chunks):
    model = encoder()
    spikes = random_spikes(6, 3, 3, 16, 16, seed=7)
    with torch.no_grad():
        whole, last = model.run(spikes)
        state, parts = None, []
        for chunk in spikes.split(chunks):
            outputs, state = model.run(chunk, state)
            parts.append(outputs)
    for name in LAYERS:
        assert torch.equal(torch.cat([part[name] for part in parts]), whole[name])
    for a, b in zip(state, last, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5)


def test_forward_streams_through_its_state():
    model = encoder()
    spikes = random_spikes(6, 2, 3, 16, 16, seed=8)
    whole = respond(model, spikes)
    first = respond(model, spikes[:2])
    second = respond(model, spikes[2:], state=first.state)
    assert torch.equal(first.response + second.response, whole.response)
    # the state is handed over, not shared: a second use gives the same
    assert torch.equal(respond(model, spikes[2:], state=first.state).response, second.response)
    # and a call without state starts from a reset state
    assert torch.equal(respond(model, spikes).response, whole.response)


def test_a_group_may_be_one_call_an_image():
    model = encoder()
    spikes = random_spikes(3, 3, 3, 16, 16, seed=9)
    group = respond(model, spikes, group_size=3, readout="per_image")
    state = None
    for b in range(3):
        out = respond(model, spikes[:, b : b + 1], state=state)
        state = out.state
        assert torch.equal(out.response[0], group.response[b])


def test_gradient_reaches_the_first_layer_from_spikes_and_state():
    model = encoder(surrogate_k=1.0).train()
    spikes = random_spikes(3, 4, 3, 16, 16, seed=10)
    out = model(spikes, group_size=2)
    out.response.sum().backward(retain_graph=True)
    by_spikes = model.layers["conv1"].conv.weight.grad.clone()
    assert by_spikes.abs().sum() > 0
    assert not out.layer_spikes["conv1"].requires_grad
    model.zero_grad()
    out.state[-1].sum().backward()
    assert model.layers["conv1"].conv.weight.grad.abs().sum() > 0


def test_gradient_crosses_calls_through_the_state():
    """Truncation is the caller's choice: the gradient passes through a state that keeps its graph."""
    model = encoder()
    spikes = random_spikes(4, 1, 3, 16, 16, seed=11)
    whole, _ = model.run(spikes)
    whole["concepts"][3].sum().backward()
    expected = model.layers["conv1"].conv.weight.grad.clone()
    model.zero_grad()
    _, state = model.run(spikes[:3])
    last, _ = model.run(spikes[3:], state)
    last["concepts"].sum().backward()
    torch.testing.assert_close(model.layers["conv1"].conv.weight.grad, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("images", "group_size"), [(5, 2), (1, 2), (3, 0), (3, -1)])
def test_images_that_do_not_divide_into_groups_are_refused(images, group_size):
    with pytest.raises(InputError, match="do not divide into groups"):
        encoder()(random_spikes(2, images, 3, 16, 16), group_size=group_size)


def test_an_unknown_readout_is_refused():
    with pytest.raises(InputError, match="readout='sahred' is not one of shared, per_image"):
        encoder()(random_spikes(2, 2, 3, 16, 16), group_size=2, readout="sahred")


def test_a_state_of_another_shape_is_refused():
    model = encoder()
    state = respond(model, random_spikes(2, 2, 3, 16, 16)).state
    with pytest.raises(InputError, match=r"membranes of shape \(2, 4, 8, 8\) for layer conv1"):
        model(random_spikes(2, 3, 3, 16, 16), state=state)
    with pytest.raises(InputError, match="has 3 membranes for 4 spiking layers"):
        model(random_spikes(2, 2, 3, 16, 16), state=state[:3])


def test_one_step_one_image_and_none():
    model = encoder()
    assert respond(model, random_spikes(1, 1, 3, 16, 16)).response.shape == (1, 4, 10)
    empty = respond(model, torch.zeros(3, 0, 3, 16, 16), group_size=2)
    assert empty.response.shape == (0, 4, 10)
    assert empty.layer_neurons["conv1"] == 4 * 8 * 8


@pytest.mark.parametrize("channels", [(3, 4), (3, 4, 5), (3, 4, 5, 6, 7)])
def test_stack_is_plain_and_leads_to_the_backbones_grid(channels):
    stages = len(channels) - 1
    config = small_config(image_size=64, backbone_widths=[4] * stages, spiking_channels=channels)
    model = AbstractEncoder(config)
    blocks = model.layers.values()
    assert [[type(m) for m in block] for block in blocks] == [[layer.Conv2d, TdBN, LIF]] * len(blocks)
    assert [block.conv.kernel_size[0] for block in blocks] == [3] * len(channels) + [1]
    out = respond(model, random_spikes(1, 1, 3, 64, 64))
    assert out.response.shape == (1, config.num_visual_tokens, 10)


def test_without_a_collector_the_stack_ends_at_the_hidden_size():
    assert respond(encoder(collector=False), random_spikes(1, 2, 3, 16, 16)).response.shape == (2, 4, 16)


def test_type_of_the_spikes_does_not_matter():
    model = encoder()
    spikes = random_spikes(3, 2, 3, 16, 16)
    expected = respond(model, spikes).response
    for dtype in (torch.bool, torch.uint8, torch.float64):
        assert torch.equal(respond(model, spikes.to(dtype)).response, expected)


def test_bf16_weights_keep_counts_and_membranes_in_float32():
    """bfloat16 cannot represent all spike counts above 256."""
    model = encoder(threshold=1e-3).bfloat16()
    for block in model.layers.values():
        torch.nn.init.ones_(block.norm.bias)
        torch.nn.init.zeros_(block.norm.weight)  # every neuron fires at every step
    out = respond(model, random_spikes(301, 1, 3, 16, 16))
    assert out.response.dtype == torch.float32
    assert (out.response == 301).all()
    assert out.layer_spikes["conv1"].item() == 301 * 4 * 8 * 8
    assert all(v.dtype == torch.float32 for v in out.state)


def test_autocast_runs_and_stays_close():
    model = encoder()
    spikes = random_spikes(4, 2, 3, 16, 16)
    expected = respond(model, spikes)
    with torch.autocast("cpu", torch.bfloat16):
        out = respond(model, spikes)
    assert out.response.dtype == torch.float32
    assert (out.response - expected.response).abs().mean() < 0.1 * expected.response.mean()


# --- spikingjelly's tools


def test_modules_are_spikingjellys_and_its_reset_clears_them():
    """Membranes stay on the neurons of a layer that is driven or monitored; a call of the encoder leaves none."""
    model = encoder()
    nodes = [m for m in model.modules() if isinstance(m, LIF)]
    assert len(nodes) == 4
    spikes = random_spikes(2, 1, 3, 16, 16)
    out = respond(model, spikes)
    assert all(node.v == 0.0 for node in nodes)
    with monitor.OutputMonitor(model, LIF):
        assert all(map(torch.equal, respond(model, spikes).state, out.state))
    assert all(map(torch.equal, (node.v for node in nodes), out.state))
    functional.reset_net(model)
    assert all(node.v == 0.0 for node in nodes)
    with torch.no_grad():
        model.layers["conv1"](spikes)
    assert torch.equal(nodes[0].v, out.state[0])
    functional.reset_net(model)
    assert nodes[0].v == 0.0


def test_monitor_and_counted_spikes_agree():
    model = encoder()
    spikes = random_spikes(3, 2, 3, 16, 16, seed=12)
    with monitor.OutputMonitor(model, LIF) as seen:
        out = respond(model, spikes)
    for name in LAYERS:
        (record,) = seen[f"layers.{name}.lif"]
        assert torch.equal(record.sum((0, 2, 3, 4)), out.layer_spikes[name])


def test_synaptic_operations_counted_by_spikingjelly_equal_a_loop():
    model = encoder()
    spikes = random_spikes(2, 1, 3, 16, 16, seed=13)
    counter = SynOpCounter()
    with DispatchCounterMode([counter]):
        respond(model, spikes)
    operations, outputs = 0, loop_images(model, spikes, 1)[0]
    for name, x in zip(LAYERS, [array(spikes[:, 0]), *(outputs[n] for n in LAYERS[:-1])], strict=True):
        # one operation for each spike and each tap that reads it: a convolution with weights of one
        ones = np.ones(model.layers[name].conv.weight.shape)
        operations += sum(loop_conv(step, ones, *GEOMETRY[name]).sum() for step in x)
    assert counter.get_total() == operations


def test_model_can_be_copied_and_pickled_after_a_forward_with_gradients():
    model = encoder().train()
    model(random_spikes(2, 2, 3, 16, 16), group_size=2).response.sum().backward()
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        spikes = random_spikes(2, 2, 3, 16, 16, seed=14)
        assert torch.equal(respond(twin.eval(), spikes).response, respond(model.eval(), spikes).response)
