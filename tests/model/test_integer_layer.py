"""The integer layer: equal to the int64 emulator, frozen statistics, streams, gradients, and learning a toy problem."""

from __future__ import annotations

import copy

import pytest
import torch
from small_model import random_spikes, small_config, wake
from spikingjelly.activation_based import functional, monitor

from ashnets.errors import ConfigurationError
from ashnets.export.emulator import emulate, integer_layers
from ashnets.export.folding import fold
from ashnets.model import AshNetsModel
from ashnets.model.abstract_encoder import AbstractEncoder
from ashnets.model.integer import integer_constants
from ashnets.model.integer_layer import IntegerSpikingLayer
from ashnets.model.spiking_layer import SpikingLayer
from ashnets.model.tdbn import calibrate


@pytest.fixture
def config():
    return small_config(image_size=32, precision="int8", decay_k=1234, threshold=0.7)


@pytest.fixture
def encoder(config) -> AbstractEncoder:
    encoder = AbstractEncoder(config)
    wake(encoder)
    return encoder


def test_the_configuration_chooses_the_layer(config, encoder):
    plain = AbstractEncoder(small_config(image_size=32))
    assert all(type(block) is SpikingLayer for block in plain.layers.values())
    assert all(type(block) is IntegerSpikingLayer for block in encoder.layers.values())
    assert list(plain.state_dict()) == list(encoder.state_dict())
    with pytest.raises(ConfigurationError, match="precision='int4' is not one of float, int8"):
        small_config(precision="int4")


@pytest.mark.parametrize("training", [True, False])
def test_spikes_and_membranes_are_those_of_the_emulator(encoder, training):
    """Every layer, from a reset state and from a state, with and without a graph: no bit differs."""
    encoder.train(training)
    spikes = random_spikes(9, 3, 3, 32, 32)
    layers = integer_layers(encoder)
    wanted, membranes = emulate(layers, spikes.numpy())
    wanted_then, membranes_then = emulate(layers, spikes.flip(0).numpy(), membranes)
    with torch.set_grad_enabled(training):
        outputs, state = encoder.run(spikes)
        then, state_then = encoder.run(spikes.flip(0), state)
    for i, name in enumerate(wanted):
        assert 0.02 < outputs[name].mean() < 0.8, name
        assert torch.equal(outputs[name], torch.from_numpy(wanted[name]).float())
        assert torch.equal(then[name], torch.from_numpy(wanted_then[name]).float())
        assert torch.equal(state[i].long(), torch.from_numpy(membranes[i]))
        assert torch.equal(state_then[i].long(), torch.from_numpy(membranes_then[i]))
    assert outputs["conv1"].requires_grad == training


def test_constants_are_those_of_the_folded_layer(encoder):
    for block in encoder.layers.values():
        ours, exported = block.constants(), integer_constants(*fold(block.conv, block.norm), 0.7, 1234)
        assert torch.equal(ours.weight, exported.weight) and torch.equal(ours.bias, exported.bias)
        assert (ours.threshold, ours.decay, ours.step) == (exported.threshold, exported.decay, exported.step)


def test_step_by_step_equals_the_sequence(encoder):
    spikes = random_spikes(8, 2, 3, 32, 32)
    with torch.no_grad():
        outputs, state = encoder.run(spikes)
        one_by_one, v = [], None
        for t in range(8):
            out, v = encoder.run(spikes[t : t + 1], v)
            one_by_one.append(out)
    for name in outputs:
        assert torch.equal(torch.cat([out[name] for out in one_by_one]), outputs[name])
    assert all(torch.equal(a, b) for a, b in zip(v, state, strict=True))


def test_the_membrane_lives_in_the_neuron(encoder):
    """spikingjelly's reset, monitors and single steps work on it."""
    block, spikes = encoder.layers["conv1"].eval(), random_spikes(5, 2, 3, 32, 32)
    with torch.no_grad():
        first = block(spikes)
        assert block.lif.v.dtype == torch.float32 and torch.equal(block.lif.v, block.lif.v.round())
        second = block(spikes)
        functional.reset_net(block)
        assert not torch.equal(first, second) and torch.equal(block(spikes), first)
        functional.reset_net(block)
        with_monitor = monitor.OutputMonitor(block, type(block.lif))
        assert torch.equal(block(spikes), with_monitor["lif"][0])
        with_monitor.remove_hooks()
        functional.reset_net(block)
        block.lif.step_mode = "s"
        assert torch.equal(torch.stack([block(x) for x in spikes]), first)


def test_training_sees_what_inference_computes_whatever_the_batch(encoder):
    """Statistics are constant: the spikes of an image do not depend on its neighbors, on the mode, or on autocast."""
    spikes = random_spikes(6, 4, 3, 32, 32)
    before = {name: tensor.clone() for name, tensor in encoder.named_buffers()}
    encoder.train()
    together, _ = encoder.run(spikes)
    alone, _ = encoder.run(spikes[:, 2:3])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed, _ = encoder.run(spikes)
    encoder.eval()
    evaluated, _ = encoder.run(spikes)
    for name in together:
        assert torch.equal(together[name][:, 2:3], alone[name])
        assert torch.equal(together[name], mixed[name]) and torch.equal(together[name], evaluated[name])
    assert all(torch.equal(tensor, before[name]) for name, tensor in encoder.named_buffers())


def test_calibration_is_the_float_model_s(config, encoder):
    plain = AbstractEncoder(small_config(image_size=32, decay_k=1234, threshold=0.7))
    plain.load_state_dict(encoder.state_dict())
    batches = [random_spikes(6, 4, 3, 32, 32, seed=seed) for seed in range(2)]
    for model in (plain, encoder):
        calibrate(model, batches, run=model.run)
    for name, tensor in plain.named_buffers():
        assert torch.equal(tensor, encoder.get_buffer(name)), name
    outputs, _ = encoder.run(batches[0])
    wanted, _ = emulate(integer_layers(encoder), batches[0].numpy())
    assert torch.equal(outputs["concepts"], torch.from_numpy(wanted["concepts"]).float())


def test_gradients_are_those_of_the_straight_through_rule(config):
    """conv, fold and neuron of one layer by autograd in float64; only rounding counts as the identity."""
    block = IntegerSpikingLayer(config, 3, 5, 3, 2)
    wake(torch.nn.ModuleDict({"layers": torch.nn.ModuleDict({"one": block})}))
    with torch.no_grad():
        block.norm.bias[0] = 50.0  # beyond what a bias may be
    spikes = random_spikes(5, 2, 3, 12, 12).requires_grad_()
    out = block(spikes)
    weights = torch.rand(out.shape, generator=torch.Generator().manual_seed(1))
    (weights * out).sum().backward()

    held, theirs = block.constants(), spikes.detach().double().requires_grad_()
    parameters = (block.conv.weight, block.norm.weight, block.norm.bias)
    w, gamma, shift = (p.detach().double().requires_grad_() for p in parameters)
    scale = gamma / (block.norm.running_var.double() + block.norm.eps).sqrt()
    folded, bias = w * scale.view(-1, 1, 1, 1), shift - block.norm.running_mean.double() * scale
    whole = held.weight.double() * held.step
    folded = folded + (whole - folded).detach()
    clipped = held.bias.abs() == 4096
    bias = torch.where(clipped, held.bias * held.step, bias + (held.bias * held.step - bias).detach())
    x = torch.nn.functional.conv2d(theirs.flatten(0, 1), folded, bias, 2, 1).unflatten(0, (5, 2))
    v_int, v, fired, beta, k = torch.zeros(x.shape[1:]).double(), 0.0, [], 1 - 1234 / 4096, config.surrogate_k
    for t in range(5):
        h_int = (v_int * (4096 - 1234) / 4096).trunc() + (x[t].detach() * 64 / held.step).round()
        h = beta * v + x[t]
        h = h + (h_int * held.step / 64 - h).detach()
        soft = (1 + torch.tanh(k * (h - held.threshold * held.step))) / 2
        s = soft + ((h_int > 64 * held.threshold).double() - soft).detach()
        v, v_int = h * (1 - s.detach()), torch.where(s > 0.5, 0, h_int)
        fired.append(s)
    fired = torch.stack(fired)
    assert torch.equal(fired.round().float(), out.detach())
    (weights.double() * fired).sum().backward()
    assert clipped.tolist() == [True, False, False, False, False]
    assert block.norm.bias.grad[0] == 0 and shift.grad[0] == 0
    for ours, oracle in zip((*parameters, spikes), (w, gamma, shift, theirs), strict=True):
        assert oracle.grad.abs().max() > 1e-3
        torch.testing.assert_close(ours.grad.double(), oracle.grad, rtol=1e-3, atol=1e-5)


def test_the_gradient_passes_between_calls(encoder):
    """Two halves, the second from the state of the first, have the gradient of the whole sequence."""
    spikes = random_spikes(6, 2, 3, 32, 32)

    def gradients(*parts):
        encoder.zero_grad()
        state, total = None, 0.0
        for part in parts:
            outputs, state = encoder.run(part, state)
            total = total + outputs["concepts"].sum()
        total.backward()
        return [p.grad.clone() for p in encoder.parameters()]

    for whole, halves in zip(gradients(spikes), gradients(spikes[:3], spikes[3:]), strict=True):
        torch.testing.assert_close(whole, halves, rtol=1e-4, atol=1e-3)


def test_quantization_aware_training_learns_a_toy(encoder):
    """Which half of an image is brighter, from two neurons' counts: the loss falls, the spikes stay the chip's."""
    rng = torch.Generator().manual_seed(0)
    label = torch.randint(0, 2, (32,), generator=rng)
    left = (torch.arange(32) < 16).float()
    rate = 0.15 + 0.35 * torch.where(label.view(-1, 1) == 1, left, 1 - left)  # (B, W)
    spikes = (torch.rand(6, 32, 3, 32, 32, generator=rng) < rate.view(32, 1, 1, 32)).float()
    calibrate(encoder, [spikes], run=encoder.run)
    encoder.train()
    optimizer, losses = torch.optim.Adam(encoder.parameters(), lr=5e-3), []
    for _ in range(25):
        outputs, _ = encoder.run(spikes)
        counts = outputs["concepts"][:, :, :2].mean((0, 3, 4))
        loss = torch.nn.functional.cross_entropy(10 * counts, label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0], losses
    wanted, _ = emulate(integer_layers(encoder), spikes[:, :4].numpy())
    outputs, _ = encoder.run(spikes[:, :4])
    assert torch.equal(outputs["concepts"], torch.from_numpy(wanted["concepts"]).float()), "trained is exported"


def test_weights_that_do_not_fit_stop_the_forward(encoder):
    with torch.no_grad():
        encoder.layers["conv2"].norm.weight.zero_()
    with pytest.raises(ConfigurationError, match="are 0"):
        encoder.run(random_spikes(1, 1, 3, 32, 32))


def test_a_float_checkpoint_becomes_integer_while_loading(tmp_path):
    torch.manual_seed(0)
    model = AshNetsModel(small_config()).eval()
    wake(model.vision.abstract_encoder)
    model.save_pretrained(tmp_path)
    rounded = AshNetsModel.from_pretrained(tmp_path, precision="int8")
    assert type(rounded.vision.abstract_encoder.layers["conv1"]) is IntegerSpikingLayer
    rounded.save_pretrained(tmp_path / "int8")
    again = AshNetsModel.from_pretrained(tmp_path / "int8")
    spikes = random_spikes(4, 2, 3, 16, 16)
    with torch.no_grad():
        first, _ = rounded.vision.abstract_encoder.run(spikes)
        second, _ = again.vision.abstract_encoder.run(spikes)
    assert torch.equal(first["concepts"], second["concepts"]) and first["concepts"].any()


def test_graphs_of_inference_give_the_same_bits(encoder):
    """torch.export unrolls the steps; the membrane goes in and out."""
    encoder.eval()

    class Stream(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = copy.deepcopy(encoder)

        def forward(self, spikes, *state):
            outputs, state = self.encoder.run(spikes, state)
            return outputs["concepts"], *state

    spikes = random_spikes(4, 2, 3, 32, 32)
    with torch.no_grad():
        _, state = encoder.run(spikes)
        graph = torch.export.export(Stream(), (spikes, *state)).module()
        ours, after = encoder.run(spikes.flip(0), state)
        concepts, *theirs = graph(spikes.flip(0), *state)
    assert torch.equal(concepts, ours["concepts"])
    assert all(torch.equal(a, b) for a, b in zip(theirs, after, strict=True))


def test_the_float_path_that_saves_memory_does_not_take_its_place(encoder):
    spikes, found = random_spikes(3, 4, 3, 32, 32), []
    for encoder.memory_saving in (False, True):
        found.append(encoder(spikes, group_size=2))
    wanted, _ = emulate(integer_layers(encoder), spikes.numpy())
    assert torch.equal(found[0].response, found[1].response) and found[1].response.requires_grad
    assert found[1].layer_spikes["conv1"][::2].tolist() == wanted["conv1"][:, ::2].sum((0, 2, 3, 4)).tolist()
