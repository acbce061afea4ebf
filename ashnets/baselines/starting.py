"""The initial weights of a baseline: the text checkpoint of ASH-Nets, layer by layer, and its own image encoder.

ViLT has pre-norm layers and BERT post-norm layers. Every matrix of a BERT layer is copied. The first norm of a BERT
layer becomes the second norm of the ViLT layer (before the feed-forward part); the second norm becomes the first norm
of the next layer. The residual stream is not normalized as in BERT: ViLT starts with the checkpoint's matrices, but
does not compute the same function.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import BertModel, ViltModel

from ashnets.baselines.configuration import BaselineConfig
from ashnets.baselines.frozen import FrozenForPreTraining, FrozenForVQA
from ashnets.baselines.model import BaselineModel, baseline_config
from ashnets.baselines.vilt import ViltForPreTraining, ViltForVQA
from ashnets.data.vocabulary import row_indices
from ashnets.errors import ConfigurationError
from ashnets.files import JsonObject
from ashnets.model.alignment_transformer import AlignmentTransformer
from ashnets.model.initialization import load_transformer
from ashnets.model.keras_resnet import MEAN, PACKAGE, STD, resnet50
from ashnets.model.pretrained import quiet
from ashnets.processor import AshNetsProcessor
from ashnets.training.recipe import INITIAL, Recipe, TaskRecipe
from ashnets.training.setup import vocabulary_of
from ashnets.words import without_place
from ashnets.zoo.registry import config_of

HEADS: dict[tuple[str, str], type[BaselineModel]] = {
    ("vilt", "pretraining"): ViltForPreTraining,
    ("vilt", "vqa"): ViltForVQA,
    ("frozen", "pretraining"): FrozenForPreTraining,
    ("frozen", "vqa"): FrozenForVQA,
}
_VILT = {  # BERT's names in a layer → ViLT's; the second norm goes to the next layer
    "attention.self.query": "attention.attention.query",
    "attention.self.key": "attention.attention.key",
    "attention.self.value": "attention.attention.value",
    "attention.output.dense": "attention.output.dense",
    "attention.output.LayerNorm": "layernorm_after",
    "intermediate.dense": "intermediate.dense",
    "output.dense": "output.dense",
}


def build_baseline(
    recipe: Recipe, texts: Iterable[str], head: str = "pretraining", **keys: Any
) -> tuple[BaselineConfig, AshNetsProcessor, BaselineModel, list[str]]:
    """The initial model of a baseline's recipe, and a sentence for each source of its weights.

    Args:
        texts: the training texts; a pruned vocabulary contains only their pieces.
        head: ``pretraining`` or ``vqa``.
        keys: configuration keys; they override those of the recipe.

    Raises:
        ConfigurationError, WeightsError, DataError: with the key or the file.
    """
    torch.manual_seed(recipe.seed)
    baseline = str(recipe.baseline)
    if recipe.backbone_weights not in ("imagenet", "random"):
        raise ConfigurationError(f"backbone_weights={recipe.backbone_weights!r}: a baseline takes imagenet or random")
    pretrained = baseline == "frozen" and recipe.backbone_weights == "imagenet"
    bert, pieces = vocabulary_of(recipe, texts)
    base = config_of(recipe.model).to_dict()
    own = {"image_mean": MEAN, "image_std": STD} if pretrained else {}
    config = BaselineConfig(
        **{**base, **own, **recipe.changes, **keys, "vocab_size": len(pieces), "baseline": baseline}
    )
    model = HEADS[baseline, head](config)
    source = AlignmentTransformer(config)
    said = [load_transformer(source, bert, rows=row_indices(bert / "vocab.txt", pieces))]
    said[0] = said[0].replace(str(bert), recipe.transformer_weights)
    core: Any = model.ashnets
    if baseline == "vilt":
        fill_vilt(core.transformer.vilt, source.bert)
        said.append("patches, their positions and pooler: random weights")
    else:
        core.transformer.bert.load_state_dict(source.bert.state_dict())
        if pretrained:
            core.vision.concrete_encoder["backbone"].load_state_dict(resnet50())
        said.append(f"backbone resnet50: {f'ImageNet, {PACKAGE.spec} of npm' if pretrained else 'random weights'}")
    return config, AshNetsProcessor.from_config(config, pieces), model, said


def continue_baseline(
    recipe: TaskRecipe, texts: Iterable[str], keys: JsonObject
) -> tuple[BaselineConfig, AshNetsProcessor, BaselineModel, list[str]]:
    """Like `ashnets.tasks.starting.starting_model`, for a baseline: trained weights with a new classifier.

    Raises:
        WeightsError: ``model`` is not the folder of a trained baseline of this kind.
    """
    if recipe.weights == INITIAL:
        return build_baseline(recipe, texts, recipe.task, **keys)
    torch.manual_seed(recipe.seed)
    config = baseline_config(recipe.model, **recipe.changes, **keys)
    if config.baseline != recipe.baseline:
        raise ConfigurationError(f"baseline={recipe.baseline!r}: {recipe.model} is a {config.baseline}")
    model = HEADS[config.baseline, recipe.task](config)
    model.take_base(Path(recipe.model))
    said = f"all but the classifier: trained weights of {without_place(recipe.model)}; the classifier: random"
    return config, baseline_processor(recipe.model), model, [said]


def baseline_processor(folder: str | os.PathLike) -> AshNetsProcessor:
    """The processor of a baseline, without the library's warning about an unknown type of model."""
    with quiet():
        return AshNetsProcessor.from_pretrained(folder)


@torch.no_grad()
def fill_vilt(vilt: ViltModel, bert: BertModel) -> None:
    """Copy BERT's embeddings and matrices to ViLT; patch positions and [class] are drawn as in ASH-Nets."""
    parts: Any = vilt
    theirs: Any = bert
    words = theirs.embeddings
    parts.embeddings.text_embeddings.load_state_dict(words.state_dict(), strict=False)
    for ours, layer in zip(parts.encoder.layer, theirs.encoder.layer, strict=True):
        for source, target in _VILT.items():
            ours.get_submodule(target).load_state_dict(layer.get_submodule(source).state_dict())
    later = [*(layer.layernorm_before for layer in parts.encoder.layer[1:]), parts.layernorm]
    for norm, layer in zip(later, theirs.encoder.layer, strict=True):
        norm.load_state_dict(layer.output.LayerNorm.state_dict())
    std = vilt.config.initializer_range
    for free in (parts.embeddings.cls_token, parts.embeddings.position_embeddings):
        nn.init.normal_(free, std=std)
