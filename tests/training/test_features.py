"""Features of a frozen backbone: what is kept is what the backbone gives, and a run with it is the run without it."""

from __future__ import annotations

import json

import pytest
import torch
import yaml
from accelerate import Accelerator
from transformers import ResNetModel

from ashnets.errors import ConfigurationError
from ashnets.model.concrete_encoder import ConcreteEncoder
from ashnets.model.heads import AshNetsForPreTraining
from ashnets.runs import train
from ashnets.training.features import FeatureMemory
from ashnets.training.learner import Learner
from ashnets.training.reading import load_recipe


@pytest.fixture
def encoder(small_pretraining_config, tmp_path, monkeypatch) -> ConcreteEncoder:
    monkeypatch.setenv("ASHNETS_CACHE", str(tmp_path / "cache"))
    torch.manual_seed(0)
    return ConcreteEncoder(small_pretraining_config).eval().requires_grad_(False)


def test_each_image_is_computed_once_and_found_by_later_runs(encoder):
    pixels = torch.rand(5, 3, 64, 64)
    expected = encoder(pixels)
    computed = []
    encoder.backbone.register_forward_pre_hook(lambda _module, args: computed.append(len(args[0])))
    encoder.memory = first = FeatureMemory(encoder.backbone, "fp32")
    found = encoder(pixels[:3])
    torch.testing.assert_close(found, expected[:3], rtol=2e-3, atol=2e-3)  # float16
    assert torch.equal(encoder(pixels[[2, 0, 2]]), found[[2, 0, 2]]) and computed == [3]
    encoder.memory = FeatureMemory(encoder.backbone, "fp32")
    assert torch.equal(encoder(pixels)[:3], found) and computed == [3, 2]
    keys = sorted(first.folder.glob("*.keys"))[0].with_suffix(".features")
    keys.write_bytes(keys.read_bytes()[:-1])  # a run killed while it wrote
    encoder.memory = FeatureMemory(encoder.backbone, "fp32")
    torch.testing.assert_close(encoder(pixels), expected, rtol=2e-3, atol=2e-3)
    assert computed[2:] in ([1], [0, 1])


def test_other_weights_have_another_place(encoder):
    before = FeatureMemory(encoder.backbone, "fp32").folder
    assert FeatureMemory(encoder.backbone, "bf16").folder != before
    next(encoder.backbone.parameters()).add_(1)
    assert FeatureMemory(encoder.backbone, "fp32").folder != before


def test_a_run_with_kept_features_is_the_run_without(even_corpus, recipe_data, tmp_path, monkeypatch):
    """Losses agree to the rounding of float16; each variant of an image is computed once."""
    monkeypatch.setenv("ASHNETS_CACHE", str(tmp_path / "cache"))
    phases = [{**phase, "frozen": ["backbone"]} for phase in recipe_data["phases"]]
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({**recipe_data, "phases": phases, "views": 2, "ema": 0.9}))
    losses = {}
    for kept in ("true", "false"):
        run = tmp_path / kept
        train(recipe, corpus=even_corpus, output=run, overrides=[f"remember_features={kept}"], progress=False)
        lines = [json.loads(line) for line in (run / "steps.jsonl").read_text().splitlines()]
        losses[kept] = [line["loss"] for line in lines if "loss" in line]
    concrete = len(losses["false"]) // 2
    assert losses["true"][:concrete] == pytest.approx(losses["false"][:concrete], rel=5e-3)
    # the second phase chooses its groups by similarity, which a last bit can change
    assert losses["true"][concrete:] == pytest.approx(losses["false"][concrete:], rel=0.3)
    keys = b"".join(path.read_bytes() for path in (tmp_path / "cache").rglob("*.keys"))
    # two variants and the plain form of 24 images, the plain form of 6 to validate by, and the blank image at the end
    assert len(keys) // 16 == 3 * 24 + 6 + 1
    unlike = (tmp_path / "true" / "model" / "model.safetensors").stat().st_size
    assert unlike == (tmp_path / "false" / "model" / "model.safetensors").stat().st_size


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["views=2"], "set phases.0.frozen to"),
        (["phases.0.frozen=[backbone]", "phases.1.frozen=[concrete]"], "set views to 3"),
    ],
)
def test_features_that_cannot_come_back_are_refused(recipe, overrides, message):
    with pytest.raises(ConfigurationError, match=message):
        load_recipe(recipe, ["remember_features=true", *overrides])


def test_momentum_encoders_keep_the_features_of_a_resting_backbone(recipe, small_pretraining_config, encoder):
    """They are the first to see an image: what is kept has running statistics, as the frozen backbone has."""
    frozen = ["phases.0.frozen=[backbone]", "phases.1.frozen=[backbone]"]
    settings = load_recipe(recipe, [*frozen, "views=2", "remember_features=true", "queue=64"])
    learner = Learner(settings, AshNetsForPreTraining(small_pretraining_config), 4, Accelerator(cpu=True))
    learner.remember_features()
    learner.prepare(settings.phases[0])
    concrete, pixels = learner.model.ashnets.vision.concrete_encoder, torch.rand(8, 3, 64, 64)
    seen = []
    plain = ResNetModel(concrete.backbone.config)
    plain.load_state_dict(concrete.backbone.state_dict())
    plain.eval()
    handle = learner.encoders.module.ashnets.vision.concrete_encoder.backbone.register_forward_pre_hook(
        lambda _module, args: seen.append(args[0])
    )
    with torch.no_grad():
        learner.encoders.module.ashnets.vision.concrete_encoder(pixels)
        handle.remove()
        kept = concrete.memory(seen[0], lambda _pixels: pytest.fail("the features were not kept"))
        torch.testing.assert_close(kept, plain(seen[0]).last_hidden_state, rtol=2e-3, atol=2e-3)  # float16
