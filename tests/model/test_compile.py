"""torch.compile and torch.export of the spiking branch: same spikes, same gradients, programs that run anywhere."""

from __future__ import annotations

import subprocess
import sys
import warnings

import pytest
import torch
from small_model import random_images, random_spikes, small_config, wake
from spikingjelly.activation_based.functional import net_config

from ashnets.errors import InputError
from ashnets.kernels.choosing import kernels_for
from ashnets.model.abstract_encoder import AbstractEncoder, State
from ashnets.model.ashnets import AshNetsModel


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    made = AbstractEncoder(small_config())
    wake(made)
    return made.eval()


class Sequence(torch.nn.Module):
    """Spikes and membranes in, counts and membranes out."""

    def __init__(self, encoder: AbstractEncoder, group_size: int) -> None:
        super().__init__()
        self.encoder, self.group_size = encoder, group_size

    def forward(self, spikes: torch.Tensor, state: State) -> tuple[torch.Tensor, State]:
        out = self.encoder(spikes, self.group_size, state=state)
        return out.response, out.state


def at_work(encoder: AbstractEncoder) -> tuple[torch.Tensor, State]:
    """Spikes of four images, and membranes after other images."""
    with torch.no_grad():
        _, state = encoder.run(random_spikes(2, 2, 3, 16, 16, seed=4))
    return random_spikes(3, 4, 3, 16, 16), state


def test_compiled_in_one_graph(encoder):
    spikes, state = at_work(encoder)
    compiled = torch.compile(Sequence(encoder, 2), backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        expected, after = Sequence(encoder, 2)(spikes, state)
        found, found_after = compiled(spikes, state)
    assert expected.sum() > 0
    assert torch.equal(found, expected)
    assert all(torch.equal(a, b) for a, b in zip(found_after, after, strict=True))


def test_nothing_outside_the_encoder_is_read(encoder):
    """A graph that reads spikingjelly's cache of networks breaks if one of the other networks is garbage-collected."""
    encoder(*at_work(encoder)[:1], 2)
    assert encoder not in net_config._RESET_MODULE_CACHE


@pytest.mark.parametrize("training", [False, True])
def test_gradients_of_the_compiled_encoder(encoder, training):
    encoder.train(training)
    spikes, state = at_work(encoder)
    before = {name: b.clone() for name, b in encoder.named_buffers()}
    grads = []
    for run in (Sequence(encoder, 2), torch.compile(Sequence(encoder, 2), backend="aot_eager")):
        encoder.load_state_dict(before, strict=False)
        encoder.zero_grad()
        run(spikes, state)[0].square().sum().backward()
        grads.append([p.grad.clone() for p in encoder.parameters()])
    for a, b in zip(*grads, strict=True):
        assert a.abs().sum() > 0
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6 * float(a.abs().max()))


def test_gradients_of_a_graph_for_any_number_of_images(encoder):
    """The last batch of an epoch is smaller."""
    block = encoder.layers["conv1"]
    compiled = torch.compile(block.run, backend="aot_eager", fullgraph=True)
    for images in (2, 3):
        spikes, v = random_spikes(3, images, 3, 8, 8), torch.zeros(images, 4, 4, 4)
        torch._dynamo.mark_dynamic(spikes, 1)
        torch._dynamo.mark_dynamic(v, 0)
        grads = []
        for run in (compiled, block.run):
            block.zero_grad()
            run(spikes, v)[0].square().sum().backward()
            grads.append(block.conv.weight.grad.clone())
        assert grads[1].abs().sum() > 0
        torch.testing.assert_close(*grads)


def test_exported_program_runs_where_ashnets_is_not(encoder, tmp_path):
    spikes, state = at_work(encoder)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        program = torch.export.export(Sequence(encoder, 2), (spikes, state))
    torch.export.save(program, tmp_path / "encoder.pt2")
    with torch.no_grad():
        expected, after = Sequence(encoder, 2)(spikes, state)
    torch.save({"spikes": spikes, "state": state}, tmp_path / "in.pt")
    code = f"""
import sys, torch
run = torch.export.load(r"{tmp_path / "encoder.pt2"}").module()
given = torch.load(r"{tmp_path / "in.pt"}", weights_only=True)
assert not any(name.startswith(("ashnets", "spikingjelly")) for name in sys.modules)
torch.save(run(given["spikes"], tuple(given["state"])), r"{tmp_path / "out.pt"}")
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=200, cwd=tmp_path)
    found, found_after = torch.load(tmp_path / "out.pt", weights_only=True)
    assert torch.equal(found, expected)
    assert all(torch.equal(a, b) for a, b in zip(found_after, after, strict=True))


def test_stream_of_single_steps_equals_the_sequence(encoder):
    """One image after another, one step after another, from the state that the last call returned."""
    spikes, state = at_work(encoder)
    with torch.no_grad():
        whole, after = encoder.run(spikes[:, :2], state)
        found = []
        for step in spikes[:, :2].split(1):
            out, state = encoder.run(step, state)
            found.append(out["concepts"])
    assert torch.equal(torch.cat(found), whole["concepts"])
    assert all(torch.equal(a, b) for a, b in zip(state, after, strict=True))


@pytest.mark.parametrize(
    ("backend", "without_gradients", "names"),
    [("eager", torch.inference_mode, {}), ("aot_eager", torch.no_grad, {"image_keys": torch.tensor([7, 2**62])})],
)
def test_the_whole_model_compiled_before_anything_ran(backend, without_gradients, names):
    """Sampler and kernels are nodes of one graph, which does not include choosing and compiling them."""
    torch.manual_seed(0)
    model = AshNetsModel(small_config(backbone_widths=[8], spiking_channels=[4, 5], num_hidden_layers=1)).eval()
    wake(model.vision.abstract_encoder)
    ids = torch.randint(5, 40, (2, 6), generator=torch.Generator().manual_seed(1))
    given = {"pixel_values": random_images(2), "input_ids": ids, "output_attentions": True, **names}
    kernels_for.cache_clear()
    with without_gradients():
        compiled = torch.compile(model, backend=backend, fullgraph=True)
        found, expected = compiled(**given), model(**given)
        assert expected.visual.response.sum() > 0
        assert torch.equal(found.visual.response, expected.visual.response)
        torch.testing.assert_close(found.pooler_output, expected.pooler_output)
        torch.testing.assert_close(found.attentions, expected.attentions)
        with pytest.raises(InputError, match="pixel intensities"):
            compiled(**{**given, "pixel_values": random_images(2) + 1})
