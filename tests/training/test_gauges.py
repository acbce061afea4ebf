"""Gauges of the spiking branch against values by hand, and the warning about an inert branch."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from ashnets.evaluation.options import ABLATED, EvaluationOptions, another_image
from ashnets.evaluation.retrieval import RetrievalSet, rank
from ashnets.model.heads import AshNetsForPreTraining
from ashnets.model.sampling import image_key
from ashnets.processor import AshNetsProcessor
from ashnets.training.gauges import (
    Start,
    ablation_gauges,
    feature_gauges,
    gradient_norms,
    inert_warnings,
)
from ashnets.training.optim import part_of


@pytest.fixture(scope="module")
def model(small_pretraining_config, tokenizer):
    config = type(small_pretraining_config)(**{**small_pretraining_config.to_dict(), "vocab_size": len(tokenizer)})
    torch.manual_seed(0)
    made = AshNetsForPreTraining(config).train()
    with torch.no_grad():  # statistics of its own spikes
        for _ in range(20):
            made.ashnets.vision(torch.rand(8, 3, 64, 64), image_keys=list(range(8)))
    return made.eval()


def test_feature_gauges_equal_the_definition(model):
    batches = [(torch.rand(3, 3, 64, 64), [1, 2, 3]), (torch.rand(2, 3, 64, 64), [4, 5])]
    abstract, concrete, concepts = [], [], []
    for pixels, keys in batches:
        with torch.no_grad():
            visual = model.ashnets.vision(pixels, image_keys=keys)
        for image in range(len(pixels)):
            for token in range(visual.output.shape[1]):
                abstract.append((visual.summary_ratio[image, token] * visual.abstract[image, token]).norm().item())
                concrete.append(visual.concrete[image, token].norm().item())
                counts = visual.concept_counts[image, token].tolist()
                if total := sum(counts):
                    concepts.append(math.exp(-sum(c / total * math.log(c / total) for c in counts if c)))
    found = feature_gauges(model, batches)
    assert found["branch_ratio"] == pytest.approx(sum(abstract) / sum(concrete), rel=1e-5)
    assert found["branch_concepts"] == pytest.approx(sum(concepts) / len(concepts), rel=1e-5)
    assert feature_gauges(model, []) == {}


def test_movement_of_the_collector(model):
    start = Start(model.ashnets.vision.collector)
    concepts = model.ashnets.vision.collector.concepts.detach()
    assert start.moved(concepts) == 0
    assert start.moved(concepts * 1.5) == pytest.approx(0.5, rel=1e-5)
    assert list(start.state_dict()) == ["concepts"], "a checkpoint contains it"


def test_gradient_norms_are_those_of_each_weighted_loss_and_keep_the_graph(model):
    model.train()
    pixels, ids = torch.rand(4, 3, 64, 64), torch.randint(1, 60, (4, 5))

    def losses() -> dict[str, torch.Tensor]:
        visual = model.ashnets.vision(pixels, image_keys=[1, 2, 3, 4])
        image, text = model.project_image(visual.output), model.encode_text(ids)
        return {"itc": (image * text).sum(), "stua": model.project_spiking(visual)[:, 0].sum()}

    weights = {"itc": 1.0, "stua": 0.5}
    current = losses()
    found = gradient_norms(model, current, weights)
    for name, weight in weights.items():
        model.zero_grad()
        (weight * current[name]).backward(retain_graph=True)
        squares: dict[str, float] = {}
        for key, parameter in model.named_parameters():
            if parameter.grad is not None:
                part = part_of(key)
                squares[part] = squares.get(part, 0.0) + parameter.grad.double().square().sum().item()
        for part, square in squares.items():
            assert found[f"grad_{name}_{part}"].item() == pytest.approx(math.sqrt(square), rel=1e-4)
    assert "grad_stua_concrete" not in found, "STUA trains neither the concrete encoder nor SR through the ratio"
    assert found["grad_stua_spiking"] > 0 and found["grad_stua_collector"] > 0
    model.zero_grad()
    model.eval()


class Images:
    """Eight images as an ImageSet."""

    side = 64
    image_ids = [f"image {i}" for i in range(8)]  # noqa: RUF012

    def __init__(self) -> None:
        self.pixels = torch.rand(8, 3, 64, 64, generator=torch.Generator().manual_seed(1))

    def __len__(self) -> int:
        return 8

    def on_white(self, indices):
        return self.pixels[torch.as_tensor(list(map(int, indices)))]


@pytest.fixture(scope="module")
def measured():
    texts = ["a red fish", "cat", "blue bird", "tree", "two cars", "a house", "moon", "sun"]
    own = [{i} for i in range(8)]
    return RetrievalSet(Images(), range(8), texts, own, own)


@pytest.fixture(scope="module")
def tokenizer():
    return AshNetsProcessor.from_pretrained("ashnets-tiny").tokenizer


def test_variants_of_the_branch_equal_their_definition(model, measured, tokenizer):
    """Another image's spikes, spikes alone and the concrete branch alone, image by image."""
    options = EvaluationOptions(batch=8, progress=False)
    vision, images = model.ashnets.vision, measured.images
    keys = torch.tensor([image_key(name) for name in images.image_ids])
    main = rank(model, tokenizer, measured, options=options)
    found = ablation_gauges(model, tokenizer, measured, main, ABLATED, options)
    cosines = []
    with torch.no_grad():
        for i in range(8):
            own = images.pixels[i : i + 1]
            j = (i + 4) % 8  # half the batch on
            spikes = vision.sample(images.pixels[j : j + 1], keys[j : j + 1])
            one = model.project_image(vision(own, image_keys=keys[i : i + 1]).output)
            other = model.project_image(vision(own, spikes=spikes).output)
            cosines.append(F.cosine_similarity(one, other).item())
    assert found["branch_effect"] == pytest.approx(1 - sum(cosines) / 8, abs=1e-5)
    assert found["branch_effect"] > 1e-3
    with torch.no_grad():
        visual = vision(images.pixels, image_keys=keys)
        spiking = model.project_spiking(visual)
        concrete = model.project_image(visual.concrete)
        read = [tokenizer(text, return_tensors="pt", return_token_type_ids=False) for text in measured.texts]
        hidden = [model.ashnets.transformer(one["input_ids"], one["attention_mask"], None)[0] for one in read]
        texts = torch.cat([model.project_text_for_spikes(one) for one in hidden])
        described = torch.cat([model.project_text(one) for one in hidden])
    for name, a, b in (("spikes_alone", texts, spiking), ("concrete_alone", described, concrete)):
        first = (a.double() @ b.double().T).argmax(1)
        assert found[f"branch_R@1_{name}"] == pytest.approx((first == torch.arange(8)).double().mean().item())


def test_another_image_is_never_an_image_of_the_item():
    keys = torch.tensor([1, 1, 1, 2, 2, 3])
    other = another_image(keys)
    assert all(keys[i] != keys[j] for i, j in enumerate(other.tolist()))
    pairs = torch.tensor([[1, 2], [3, 1], [4, 5], [6, 7]])
    found = another_image(pairs).tolist()
    # half of four items on is the third, whose images are others; the second shares an image with none but itself
    assert found == [2, 3, 0, 1]
    assert another_image(torch.tensor([9])).tolist() == [0] and another_image(torch.tensor([5, 5])).tolist() == [0, 1]


def test_an_inert_branch_is_named():
    assert inert_warnings({}) == [] and inert_warnings({"branch_effect": 0.02, "branch_ratio": 0.4}) == []
    (text,) = inert_warnings({"branch_effect": 7e-5, "branch_ratio": 0.02})
    assert "spiking branch is inert" in text and "0.99993" in text
    (text,) = inert_warnings({"branch_effect": 0.01, "branch_ratio": 0.02})
    assert "‖SR·F_SNN‖ is 0.020 of ‖F_CNN‖" in text
