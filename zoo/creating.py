"""Build a model with random weights from a name."""

from __future__ import annotations

import logging
from contextlib import nullcontext
from typing import Any

import torch

from ashnets.configuration import AshNetsConfig
from ashnets.model.heads import head_class
from ashnets.model.pretrained import AshNetsPreTrainedModel, quiet
from ashnets.zoo.registry import entry

logger = logging.getLogger(__name__)


def create(name: str, *, task: str = "base", seed: int | None = None, **changes: Any) -> AshNetsPreTrainedModel:
    """Build a model with random weights, in evaluation mode.

        ashnets.create("ashnets-tiny-t5", task="vqa", num_answers=13, seed=0)

    Its deeper spiking layers are silent until the model is trained, or until ``ashnets.model.tdbn.calibrate`` sets the
    statistics of its tdBN layers.

    Args:
        name: a registry name without tag.
        task: ``base``, ``pretraining``, ``retrieval``, ``vqa``, ``nlvr2`` or ``ve``.
        seed: the same seed gives the same weights; torch's global generator is not affected.
        changes: configuration keys to set.

    Raises:
        UnknownModelError, ConfigurationError: an unknown name, tag, task or key.
    """
    found = entry(name)
    cls = head_class(task)
    config = AshNetsConfig(**{**found.configuration, **changes})
    with quiet(), nullcontext() if seed is None else torch.random.fork_rng(devices=[]):
        if seed is not None:
            torch.manual_seed(seed)
        model = cls(config)
    logger.info("%s: %s with random weights (seed %s); no part of it was trained", found.name, cls.__name__, seed)
    return model.eval()
