"""Activation checkpointing against the plain pass: the same bits of everything, from less memory."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import nullcontext

import pytest
import torch
from small_model import small_config
from spikingjelly.activation_based import monitor
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from transformers import ResNetConfig, ResNetModel, ViTConfig, ViTModel

from ashnets.configuration import AshNetsConfig
from ashnets.model.heads import AshNetsForPreTraining
from ashnets.model.neuron import LIF
from ashnets.model.recompute import recompute_activations


@pytest.fixture
def config() -> AshNetsConfig:
    """A small model with dropout, in which activations take more than embeddings and heads."""
    return small_config(
        image_size=64,
        backbone_widths=[8, 16, 32],
        spiking_channels=[4, 4, 8, 8],
        num_concepts=12,
        group_size=4,
        hidden_size=48,
        num_attention_heads=4,
        intermediate_size=64,
        vocab_size=60,
        projection_size=24,
        hidden_dropout_prob=0.2,
        attention_probs_dropout_prob=0.1,
    )


def uniform(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def pretraining_loss(model: AshNetsForPreTraining, seed: int) -> torch.Tensor:
    """A sum over what all heads give for eight pairs in groups of φ = 4."""
    pixels = uniform(8, 3, 64, 64, seed=seed)
    spikes = model.ashnets.vision.sample(pixels, range(8))
    ids = (uniform(8, 6, seed=seed + 1) * 60).long()
    out = model(pixels, ids, torch.ones_like(ids), spikes=spikes, group_size=4)
    assert out.visual.response.sum() > 0, "the stack fires"
    heads = (
        out.itm_logits,
        out.mlm_logits,
        out.mvm_logits,
        out.image_embeds[:, :9],
        out.spiking_embeds[:, :9],
        out.stua_text_embeds[:, 9:],
        *out.visual.state,
    )
    return sum(head.square().mean() for head in heads)


def backbone_loss(model: nn.Module, seed: int) -> torch.Tensor:
    return model(uniform(4, 3, 32, 32, seed=seed)).last_hidden_state.square().mean()


def vit(_config) -> nn.Module:
    """ViT-B/16 has a fixed size of 86 million parameters: its blocks are tested in a small ViT."""
    return ViTModel(
        ViTConfig(
            hidden_size=24,
            num_hidden_layers=3,
            num_attention_heads=2,
            intermediate_size=48,
            image_size=32,
            patch_size=8,
            hidden_dropout_prob=0.2,
            attention_probs_dropout_prob=0.1,
        ),
        add_pooling_layer=False,
    )


def bottlenecks(_config) -> nn.Module:
    """Blocks of the larger ResNets."""
    return ResNetModel(ResNetConfig(layer_type="bottleneck", depths=[2, 1], hidden_sizes=[16, 32], embedding_size=8))


# how it is made, its loss, and its blocks by hand: 3 × 2 of the backbone, 4 + 1 spiking, 2 of the transformer
MODELS = {
    "whole": (AshNetsForPreTraining, pretraining_loss, 13),
    "vit": (vit, backbone_loss, 3),
    "bottlenecks": (bottlenecks, backbone_loss, 3),
}


def made(name: str, config) -> tuple[nn.Module, Callable[[nn.Module, int], torch.Tensor], int]:
    make, loss, blocks = MODELS[name]
    torch.manual_seed(0)
    return make(config).train(), loss, blocks


def learn(model: nn.Module, loss: Callable, precision: torch.autocast | nullcontext) -> dict[str, torch.Tensor]:
    """Two steps of SGD; everything that they leave: losses, gradients, weights, statistics."""
    found = {}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for step in range(2):
        optimizer.zero_grad()
        torch.manual_seed(step)  # of dropout
        with precision:
            value = loss(model, step)
        value.backward()
        found[f"loss {step}"] = value.detach()
        gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        found.update({f"gradient {step} {name}": gradient.clone() for name, gradient in gradients.items()})
        found[f"draw {step}"] = torch.rand(3)  # dropout has taken as many numbers
        optimizer.step()
    found.update(model.state_dict())
    return found


@pytest.mark.parametrize(("name", "bf16"), [("whole", False), ("whole", True), ("vit", False), ("bottlenecks", False)])
def test_two_steps_leave_the_same_bits(config, name, bf16):
    plain, loss, blocks = made(name, config)
    again = copy.deepcopy(plain)
    assert recompute_activations(again) == blocks
    expected, found = (
        learn(model, loss, torch.autocast("cpu", torch.bfloat16) if bf16 else nullcontext()) for model in (plain, again)
    )
    assert found.keys() == expected.keys()
    assert sum(key.startswith("gradient 1") for key in found) > 10
    assert not [key for key in expected if not torch.equal(found[key], expected[key])]
    if name == "whole":
        assert found["ashnets.vision.abstract_encoder.layers.conv1.norm.num_batches_tracked"] == 2


def test_dropout_is_at_work(config):
    """Else the test above would not show that its draws repeat."""
    model, loss, _ = made("whole", config)
    losses = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        losses.append(loss(model, 0))
    assert losses[0] != losses[1]


@pytest.mark.parametrize("watched", [False, True])
def test_a_stream_goes_on_from_its_membranes(config, watched):
    """The state that is handed in: spikes, the state after it and its own gradient are those of the plain pass.

    Under spikingjelly's monitors the membranes are also left on the neurons, once.
    """
    torch.manual_seed(0)
    plain = AshNetsForPreTraining(config).train().ashnets.vision.abstract_encoder
    again = copy.deepcopy(plain)
    recompute_activations(again)
    start = [torch.zeros_like(v) for v in plain.run((uniform(3, 2, 3, 64, 64) < 0.5).float())[1]]
    found = []
    for encoder in (plain, again):
        if watched:
            monitor.OutputMonitor(encoder, LIF)
        encoder.zero_grad()
        state = tuple(uniform(*v.shape, seed=i).requires_grad_() for i, v in enumerate(start))
        out = encoder((uniform(3, 2, 3, 64, 64, seed=1) < 0.5).float(), state=state)
        (out.response.square().sum() + sum(v.square().sum() for v in out.state)).backward()
        found.append([out.response, *out.state, *(v.grad for v in state), *(p.grad for p in encoder.parameters())])
        left = [module.v for module in encoder.modules() if isinstance(module, LIF)]
        assert all(map(torch.equal, left, out.state)) if watched else left == [0.0] * 5
    assert len(found[0]) == 1 + 5 + 5 + 15
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    assert all(v.grad.abs().sum() > 0 for v in state)


def kept_bytes(model: nn.Module, loss: Callable) -> int:
    """Storages that autograd saves for the backward pass, weights apart, each once."""
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    saved: dict[int, torch.Tensor] = {}

    def keep(x: torch.Tensor) -> torch.Tensor:
        saved.setdefault(x.untyped_storage().data_ptr(), x)
        return x

    with saved_tensors_hooks(keep, lambda x: x):
        value = loss(model, 0)
    total = sum(x.untyped_storage().nbytes() for pointer, x in saved.items() if pointer not in weights)
    value.backward()
    return total


@pytest.mark.parametrize("name", list(MODELS))
def test_less_is_kept_for_the_backward_pass(config, name):
    model, loss, _ = made(name, config)
    plain = kept_bytes(model, loss)
    recompute_activations(model)
    # heads, embeddings and, of a ResNet of three blocks, the large maps before them stay
    assert 0 < kept_bytes(model, loss) < 0.65 * plain


def test_a_block_keeps_its_input_alone():
    """By hand: of three blocks of a ViT the (B, N, M1) that each is given, and no more."""
    blocks = nn.Sequential(*vit(None).layers).train()
    recompute_activations(blocks)
    tokens = uniform(4, 17, 24).requires_grad_()
    assert kept_bytes(blocks, lambda through, _: through(tokens).sum()) == 3 * (4 * 17 * 24 * 4)


def test_evaluation_and_no_grad_run_each_block_once(config):
    """A recomputed block runs twice a step; without a backward pass or outside training it runs as ever."""
    plain, loss, _ = made("whole", config)
    again = copy.deepcopy(plain)
    recompute_activations(again)
    passes = []
    again.ashnets.vision.abstract_encoder.layers["conv2"].conv.register_forward_hook(lambda *_: passes.append(1))

    def count(run: Callable[[], object]) -> int:
        passes.clear()
        run()
        return len(passes)

    def without_graph() -> None:
        with torch.no_grad():
            torch.manual_seed(0)
            assert not loss(again, 0).requires_grad

    assert count(lambda: loss(again, 0).backward()) == 2
    again.load_state_dict(plain.state_dict())
    assert count(without_graph) == 1
    with torch.no_grad():
        torch.manual_seed(0)
        loss(plain, 0)
    assert all(torch.equal(tensor, again.state_dict()[key]) for key, tensor in plain.state_dict().items())
    expected = {}
    for model in (plain, again):
        model.eval().zero_grad()
        for block in model.ashnets.vision.abstract_encoder.layers.values():  # fires in evaluation too
            block.norm.running_var.fill_(0.05)
    assert count(lambda: expected.update(again=loss(again, 0))) == 1
    expected["plain"] = loss(plain, 0)
    for value in expected.values():
        value.backward()
    assert len(passes) == 1 and torch.equal(expected["again"], expected["plain"])
    for a, b in zip(plain.parameters(), again.parameters(), strict=True):
        assert (a.grad is None and b.grad is None) or torch.equal(a.grad, b.grad)


@pytest.mark.filterwarnings("ignore:.*is deprecated and will be removed in v6:FutureWarning")
def test_the_switch_of_transformers(config):
    """On and off again: fewer bytes and the same gradients; a copy of a switched model runs its own blocks."""
    plain, loss, blocks = made("whole", config)
    model = copy.deepcopy(plain)
    model.gradient_checkpointing_enable()  # the older name
    assert model.is_activation_checkpointing and not plain.is_activation_checkpointing
    copied = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    found = {}
    for name, one in (("plain", plain), ("switched", copied)):
        torch.manual_seed(0)
        found[name] = kept_bytes(one, loss)
    assert 0 < found["switched"] < 0.65 * found["plain"]
    gradients = [{name: p.grad for name, p in one.named_parameters() if p.grad is not None} for one in (plain, copied)]
    assert gradients[0].keys() == gradients[1].keys()
    assert all(torch.equal(gradient, gradients[1][name]) for name, gradient in gradients[0].items())
    copied.gradient_checkpointing_disable()
    assert not copied.is_activation_checkpointing
    copied.load_state_dict(plain.state_dict())
    assert kept_bytes(copied, loss) == kept_bytes(plain, loss)
    copied.activation_checkpointing_enable(every_n_layers=2)
    assert sum("forward" in vars(module) for module in copied.modules()) == -(-blocks // 2)
