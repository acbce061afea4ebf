"""One optimizer step of the Learner by hand: accumulated and clipped gradients, SGD, queue, momentum encoders, EMA."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import yaml
from accelerate import Accelerator

from ashnets.data.draws import draw
from ashnets.model.heads import AshNetsForPreTraining
from ashnets.training.learner import Learner
from ashnets.training.means import Means
from ashnets.training.optim import optimizer_doubts, part_of
from ashnets.training.pretrain import Batch, Keys, PreTrainingStep
from ashnets.training.reading import load_recipe
from ashnets.zoo import config_of
from ashnets.zoo.registry import recipe_path

MASK, LENGTH, VOCABULARY, PAIRS, QUEUE = 4, 9, 60, 8, 20
RATES = {"transformer": (5.0, 0.01), "concrete": (3.0, 0.02), "spiking": (2.0, 0.03), "collector": (4.0, 0.04)}


@pytest.fixture
def learner_of(tmp_path, recipe_data, small_pretraining_config):
    """A function that makes the Learner of a narrow model without dropout, in the spiking phase."""

    def make(clip: float, scale: float) -> Learner:
        optimizers = {p: {"kind": "sgd", "lr": scale * lr, "weight_decay": decay} for p, (lr, decay) in RATES.items()}
        keys = {"accumulate": 2, "clip": clip, "queue": QUEUE, "momentum": 0.9, "ema": 0.2, "distillation": 0.4}
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump({**recipe_data, **keys, "optimizers": optimizers}))
        recipe = load_recipe(path)
        narrow = {"hidden_size": 24, "num_attention_heads": 2, "intermediate_size": 48, "projection_size": 16}
        config = type(small_pretraining_config)(**{**small_pretraining_config.to_dict(), **narrow})
        assert config.hidden_dropout_prob == config.attention_probs_dropout_prob == 0
        torch.manual_seed(0)
        learner = Learner(recipe, AshNetsForPreTraining(config), MASK, Accelerator(cpu=True))
        learner.prepare(recipe.phases[1])
        return learner

    return make


def batch_of(number: int) -> Batch:
    """Eight pairs in two groups of φ = 4, each a sample of its own."""
    generator, first = torch.Generator().manual_seed(number), number * PAIRS
    ids = torch.randint(5, VOCABULARY, (PAIRS, LENGTH), generator=generator)
    ids[:, 0], ids[:, -1] = 2, 3
    samples = torch.arange(first, first + PAIRS)
    return Batch(
        pixel_values=torch.rand(PAIRS, 3, 64, 64, generator=generator),
        image_keys=samples,
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        special=ids <= 3,
        samples=samples,
        draws=draw(0, 0, samples.tolist(), LENGTH),
        group_size=4,
        image_ids=[str(int(i)) for i in samples],
        skipped={},
    )


def weights_of(model) -> dict[str, torch.Tensor]:
    return {name: p.detach().double().clone() for name, p in model.named_parameters()}


def keys_of(encoders, batch, spikes, ring) -> Keys:
    """This batch's embeddings by the momentum encoders, then those of the ring, place by place."""
    with torch.no_grad():
        image, _ = encoders.encode_image(batch.pixel_values, spikes=spikes, group_size=4)
        text = encoders.encode_text(batch.input_ids, batch.attention_mask)
    new = list(zip(image, text, batch.samples, strict=True))
    together = [torch.stack(column) for column in zip(*new, *ring.values(), strict=True)]
    return Keys(*together, image, text, new=PAIRS)


def gradients_by_hand(learner, encoders, batches, ring) -> dict[str, torch.Tensor]:
    """The mean gradient of the batches, each passed alone through a copy; their keys go into the ring."""
    recipe, model = learner.recipe, copy.deepcopy(learner.model)
    phase, total = recipe.phases[1], {}
    step = PreTrainingStep(
        model, list(phase.objectives), concrete_only=False, fused_share=0.5, mask_id=MASK, distillation=0.4
    )
    for batch in batches:
        spikes = model.ashnets.vision.sample(batch.pixel_values, batch.image_keys)
        keys = keys_of(encoders, batch, spikes, ring)
        losses, _ = step(batch, spikes, keys)
        model.zero_grad()
        sum(weight * losses[name] for name, weight in phase.objectives.items()).backward()
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                total[name] = total.get(name, 0) + parameter.grad.double() / len(batches)
        for pair in zip(keys.own_image, keys.own_text, batch.samples, strict=True):
            number = int(pair[2])  # samples are numbered in the order in which the queue gets them
            ring[number % QUEUE] = pair
    return total


@pytest.mark.parametrize(("clip", "scale"), [(0.01, 1.0), (100.0, 0.001)], ids=["clipped", "not clipped"])
def test_steps_by_hand(learner_of, clip, scale):
    """Each of three steps from the weights before it, in float64; gradients that are not clipped get lower rates."""
    learner = learner_of(clip, scale)
    buffers: dict[str, torch.Tensor] = {}
    ring: dict[int, tuple] = {}
    momentum, average = learner.encoders.module, learner.average.module
    first = weights_of(learner.model)
    torch.testing.assert_close([weights_of(momentum), weights_of(average)], [first, first], rtol=0, atol=0)
    # the first update of an average is a copy; then the EMA forgets by min(0.2, (1 + n)/(10 + n)) of n updates
    for number, (kept, averaged) in enumerate([(0.0, 0.0), (0.9, 2 / 11), (0.9, 0.2)]):
        batches = [batch_of(2 * number), batch_of(2 * number + 1)]
        before = weights_of(learner.model)
        momentum_before, average_before = weights_of(momentum), weights_of(average)
        gradients = gradients_by_hand(learner, copy.deepcopy(momentum), batches, ring)
        norm = math.sqrt(sum(float(g.square().sum()) for g in gradients.values()))
        assert (norm > clip) == (clip == 0.01)
        expected = dict(before)
        for name, gradient in gradients.items():
            rate, decay = RATES[part_of(name)]
            decayed = before[name].dim() > 1
            gradient = gradient * min(1, clip / norm) + decay * decayed * before[name]
            buffers[name] = 0.9 * buffers[name] + gradient if name in buffers else gradient
            expected[name] = before[name] - scale * rate * buffers[name]
        learner.optimize(batches, number, Means())
        after = weights_of(learner.model)
        torch.testing.assert_close(after, expected, rtol=1e-5, atol=1e-6)
        rows = [ring[place] for place in range(len(ring))]
        columns = tuple(torch.stack(column) for column in zip(*rows, strict=True))
        torch.testing.assert_close(learner.queue.entries(), columns, rtol=1e-4, atol=1e-5)
        for copied, old, share in ((momentum, momentum_before, kept), (average, average_before, averaged)):
            blend = {name: share * old[name] + (1 - share) * after[name] for name in after}
            torch.testing.assert_close(weights_of(copied), blend, rtol=1e-5, atol=1e-6)
    assert int(learner.queue.written) == 6 * PAIRS


VIT = "model=ashnets-vit-b16"


@pytest.mark.parametrize(
    ("name", "changes", "doubted"),
    [
        ("finetune-vqa-v2", [], False),
        ("finetune-vqa-v2", [VIT], True),
        ("finetune-vqa-v2", [VIT, "optimizers.concrete.kind=adamw"], False),
        ("finetune-vqa-v2", [VIT, "phases.0.frozen=[backbone]"], False),
        ("pretrain-coco-vg", [VIT], True),
        ("pretrain-coco-vg", [VIT, "phases.0.frozen=[concrete]"], True),
        ("pretrain-coco-vg-vit-b16", [], False),
    ],
)
def test_sgd_for_a_vit_is_doubted(name, changes, doubted):
    recipe = load_recipe(recipe_path(name), changes)
    found = optimizer_doubts(recipe, config_of(recipe.model).backbone)
    remedy = "Set optimizers.concrete={kind: adamw, lr: 0.0001, weight_decay: 0.01}"
    assert [remedy in one for one in found] == [True] * doubted
    if doubted:
        told = load_recipe(recipe_path(name), [*changes, found[0].partition("Set ")[2]])
        assert optimizer_doubts(told, config_of(told.model).backbone) == [], "the remedy can be copied"
