"""Firing rates of layers against spikes counted one by one, and warnings about silent and saturated layers."""

from __future__ import annotations

import pytest
import torch
from small_model import random_images, small_config, wake

import ashnets
from ashnets.model.ashnets import AshNetsModel
from ashnets.model.firing import layer_rates, rates_warnings
from ashnets.zoo.gallery_images import gallery_images


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = AshNetsModel(small_config()).eval()
    wake(model.vision.abstract_encoder)
    return model


def test_rates_are_spikes_over_neurons_and_steps(model):
    """Two batches of unequal size; each image from a reset state, one at a time."""
    images, keys = random_images(3), [5, 6, 7]
    found = layer_rates(model, [(images[:2], keys[:2]), (images[2:], keys[2:])])
    fired = dict.fromkeys(found, 0)
    neurons = dict.fromkeys(found, 0)
    for image, key in zip(images, keys, strict=True):
        with torch.no_grad():
            outputs, _ = model.vision.abstract_encoder.run(model.vision.sample(image[None], [key]))
        for name, spikes in outputs.items():
            fired[name] += int(spikes.sum())
            neurons[name] += spikes.numel()
    assert list(found) == ["conv1", "conv2", "conv3", "concepts"]
    assert found == pytest.approx({name: fired[name] / neurons[name] for name in found}, abs=1e-12)
    assert min(found.values()) > 0
    assert rates_warnings(found) == []


def test_a_silent_and_a_saturated_layer_are_named(model):
    layers = model.vision.abstract_encoder.layers
    with torch.no_grad():
        layers["conv1"].norm.bias.fill_(100.0)
        layers["concepts"].norm.bias.fill_(-100.0)
    rates = layer_rates(model, [(random_images(2), [1, 2])])
    assert rates["conv1"] == 1 and rates["concepts"] == 0
    saturated, silent, nothing = rates_warnings({**rates, "conv2": 0.2, "conv3": 0.2})
    assert saturated.startswith("spiking layer conv1 is saturated: at inference 100 % of its neurons fire")
    assert silent.startswith("spiking layer concepts is silent: at inference 0 % of its neurons fire")
    assert nothing.startswith("no spike leaves the spiking branch: ")


def test_bounds_by_hand():
    rates = {"conv1": 0.0004, "conv2": 0.001, "conv3": 0.9, "conv4": 0.95, "concepts": 0.0001}
    found = rates_warnings(rates)
    assert [text.split(":")[0] for text in found] == [
        "spiking layer conv1 is silent",
        "spiking layer conv4 is saturated",
        "spiking layer concepts is silent",
    ]
    assert "0.04 % of its neurons" in found[0] and "below 0.1 %" in found[0]
    assert "95 % of its neurons" in found[1] and "above 90 %" in found[1]


def test_the_bundled_model_is_healthy_and_a_model_without_spikes_has_no_rates():
    model = ashnets.from_pretrained("ashnets-tiny")
    rates = layer_rates(model, gallery_images(model.config.image_size))
    assert len(rates) == 6 and rates_warnings(rates) == []
    without = AshNetsModel(small_config(summary_ratio="ann")).eval()
    assert layer_rates(without, [(random_images(2), [1, 2])]) == {}
