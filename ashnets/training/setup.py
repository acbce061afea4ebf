"""From a recipe to the model it trains: configuration, processor, starting weights, averages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from safetensors import SafetensorError
from torch import nn
from torch.optim.swa_utils import AveragedModel

from ashnets.configuration import AshNetsConfig
from ashnets.data.vocabulary import prune_vocabulary, read_vocabulary, row_indices
from ashnets.errors import ConfigurationError, TrainingError, WeightsError
from ashnets.model.abstract_encoder import AbstractEncoder
from ashnets.model.heads import AshNetsForPreTraining
from ashnets.model.initialization import NPM, load_backbone, load_transformer
from ashnets.model.keras_resnet import FORM
from ashnets.model.pretrained import AshNetsPreTrainedModel
from ashnets.processor import AshNetsProcessor
from ashnets.training.checkpoint import STATE, WEIGHTS, load_weights, read_state
from ashnets.training.optim import part_of
from ashnets.training.recipe import BACKBONE, Phase, Recipe
from ashnets.zoo.registry import config_of

Started = tuple[AshNetsConfig, AshNetsProcessor, AshNetsPreTrainedModel, list[str]]  # and the origin of its weights


def build_model(
    recipe: Recipe,
    captions: Iterable[str],
    head: type[AshNetsPreTrainedModel] = AshNetsForPreTraining,
    **keys: object,
) -> Started:
    """Configuration, processor and starting model of a recipe, and a sentence for each source of its weights.

    Args:
        captions: of the training data; a pruned vocabulary contains only their pieces.
        head: class of the model.
        keys: of the configuration; they override those of the recipe.

    Raises:
        ConfigurationError, WeightsError: with the key or the file.
    """
    torch.manual_seed(recipe.seed)
    base: AshNetsConfig = config_of(recipe.model)
    bert, pieces = vocabulary_of(recipe, captions)
    form = FORM if recipe.backbone_weights == NPM else {}
    config = AshNetsConfig(**{**base.to_dict(), **form, **recipe.changes, **keys, "vocab_size": len(pieces)})
    model = head(config)
    origins = [
        load_transformer(model, bert, rows=row_indices(bert / "vocab.txt", pieces)),
        *([load_backbone(model, recipe.backbone_weights)] if config.has_concrete_branch else []),
    ]
    # the record is published with the weights: it names the source as the recipe does, not a local folder
    origins = [origin.replace(str(bert), recipe.transformer_weights) for origin in origins]
    return config, AshNetsProcessor.from_config(config, pieces), model, origins


def vocabulary_of(recipe: Recipe, captions: Iterable[str]) -> tuple[Path, list[str]]:
    """The folder of the recipe's text checkpoint, and the vocabulary pieces that a model uses."""
    bert = weights_folder(recipe.transformer_weights)
    vocabulary = bert / "vocab.txt"
    pruned = recipe.vocabulary == "pruned"
    return bert, prune_vocabulary(vocabulary, captions) if pruned else read_vocabulary(vocabulary)


def start_from(model: nn.Module, folder: Path, phases: Sequence[Phase]) -> tuple[int, str]:
    """Load an earlier run's phase checkpoint.

    Returns:
        The epochs of ``phases`` up to and including the checkpoint's phase, which a run skips; and a sentence.

    Raises:
        TrainingError: no such checkpoint, or it leaves nothing to train.
    """
    if not (folder / STATE).is_file():
        raise TrainingError(f"start={folder}: no phase checkpoint there; give a folder phase-NAME of an earlier run")
    state = read_state(folder)
    names = [phase.name for phase in phases]
    if state["phase"] not in names[:-1]:
        raise TrainingError(
            f"start={folder} is the end of phase {state['phase']!r}, after which this recipe trains nothing: its "
            f"phases are {', '.join(names)}; give the end of {' or '.join(names[:-1]) or 'no phase: remove start'}"
        )
    try:
        load_weights(folder / WEIGHTS, model, partly=True)
    except (OSError, SafetensorError) as error:
        raise TrainingError(f"start={folder}: its weights cannot be read ({error})") from error
    skipped = sum(phase.epochs for phase in phases[: names.index(state["phase"]) + 1])
    return skipped, f"all tensors from the end of phase {state['phase']!r} of {state['recipe']!r}"


def weights_folder(source: str) -> Path:
    """A folder; ``package:NAME``, the folder ``model`` inside an installed package; or ``hub:org/repository``."""
    kind, colon, name = source.partition(":")
    if colon and kind == "hub":
        try:
            return Path(snapshot_download(name, allow_patterns=["*.safetensors", "*.json", "vocab.txt"]))
        except Exception as error:  # no network, no such repository, no access: many classes from two libraries
            raise WeightsError(
                f"transformer_weights={source!r} cannot be loaded from the Hub ({' '.join(str(error).split())[:200]}); "
                "connect to the network, or give a folder"
            ) from error
    if not colon or kind != "package":
        return Path(source)
    try:
        spec = find_spec(name)
    except (ImportError, ValueError):  # a missing parent package, an empty name
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise ConfigurationError(f"transformer_weights={source!r}: package {name} is not installed (ashnets[train])")
    return Path(next(iter(spec.submodule_search_locations))) / "model"


def average_of(model: nn.Module, decay: float, warm_up: bool = False) -> AveragedModel:
    """A copy of ``model`` that follows it: averaged ← d·averaged + (1 − d)·model at each update but the first, a copy.

    Running statistics are copied, not averaged: an average of variances of many states is the variance of no state.

    Args:
        decay: d.
        warm_up: after n updates d = min(``decay``, (1 + n)/(10 + n)), so that a short run forgets its start.
    """

    @torch.no_grad()
    def follow(averaged: Any, current: Any, count: torch.Tensor | int) -> None:
        n = int(count)
        d = min(decay, (1 + n) / (10 + n)) if warm_up else decay
        for ours, theirs in zip(averaged, current, strict=True):
            ours.lerp_(theirs, 1 - d)

    return AveragedModel(model, multi_avg_fn=follow).requires_grad_(False)


def freeze(model: nn.Module, phase: Phase) -> None:
    """Set which parameters the phase trains."""
    for name, parameter in model.named_parameters():
        idle = phase.concrete_only and _is_spiking(name) and not (phase.beside and _trained_beside(name))
        fixed = BACKBONE in phase.frozen and ".concrete_encoder.backbone." in name
        parameter.requires_grad_(not (idle or fixed or part_of(name) in phase.frozen))


def save_memory(model: nn.Module) -> None:
    """Train every abstract encoder of ``model`` from packed spikes."""
    for module in model.modules():
        if isinstance(module, AbstractEncoder):
            module.memory_saving = True


def resting(model: AshNetsPreTrainedModel, phase: Phase) -> list[nn.Module]:
    """The parts that a phase does not train: they have no dropout, and their running statistics do not change."""
    concrete = getattr(model.ashnets.vision, "concrete_encoder", None)
    parts: dict[str, nn.Module | None] = {
        "concrete": concrete,
        BACKBONE: None if concrete is None else getattr(concrete, BACKBONE, None),
        "spiking": getattr(model.ashnets.vision, "abstract_encoder", None),
        "collector": getattr(model.ashnets.vision, "collector", None),
        "transformer": model.ashnets.transformer,
    }
    names = {*phase.frozen, *([] if phase.spiking else ["spiking", "collector"])}
    return [part for name, part in parts.items() if name in names and part is not None]


def _trained_beside(name: str) -> bool:
    return ".abstract_encoder." in name or ".collector." in name or name.startswith("stua.")


def _is_spiking(name: str) -> bool:
    parts = (".abstract_encoder.", ".collector.", ".summary_ratio.")
    return any(part in name for part in parts) or name.startswith(("mvm.", "stua.", "visual_mask"))
