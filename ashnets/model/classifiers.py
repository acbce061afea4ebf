"""Heads that classify: VQA, NLVR2 and visual entailment."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, Unpack

import torch
from torch import nn
from torch.nn import functional as F
from transformers.utils.generic import can_return_tuple

from ashnets.configuration import AshNetsConfig
from ashnets.errors import InputError
from ashnets.model.ashnets import AshNetsModel, ModelOptions
from ashnets.model.outputs import AshNetsOutput, ClassifierOutput
from ashnets.model.pretrained import AshNetsPreTrainedModel
from ashnets.model.sampling import ImageKeys


def answer_loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Binary cross-entropy of (B, answers): mean over B, sum over answers, since most of their terms are near zero."""
    return F.binary_cross_entropy_with_logits(logits, targets, reduction="sum") / len(logits)


class HeadConfig(Protocol):
    """What :func:`two_layers` reads of a configuration."""

    hidden_size: int
    layer_norm_eps: float


def two_layers(config: HeadConfig, features: int, classes: int) -> nn.Sequential:
    """(B, features) to (B, classes): the head of all tasks."""
    return nn.Sequential(
        nn.Linear(features, 2 * config.hidden_size),
        nn.LayerNorm(2 * config.hidden_size, eps=config.layer_norm_eps),
        nn.GELU(),
        nn.Linear(2 * config.hidden_size, classes),
    )


class _Classifier(AshNetsPreTrainedModel):
    """A two-layer head on pooled features."""

    def __init__(self, config: AshNetsConfig, features: int, classes: int) -> None:
        super().__init__(config)
        self.ashnets: AshNetsModel = AshNetsModel(config)
        self.classifier = two_layers(config, features, classes)
        self.post_init()

    def _output(
        self, features: torch.Tensor, labels: torch.Tensor | None, loss: Callable[..., torch.Tensor], out: AshNetsOutput
    ) -> ClassifierOutput:
        logits = self.classifier(features)  # (B, classes)
        return ClassifierOutput(
            logits=logits,
            loss=None if labels is None else loss(logits, labels),
            visual=out.visual,
            hidden_states=out.hidden_states,
            attentions=out.attentions,
        )


class AshNetsForVQA(_Classifier):
    """Visual question answering as classification over ``config.num_answers`` answers."""

    def __init__(self, config: AshNetsConfig) -> None:
        super().__init__(config, config.hidden_size, config.num_answers)

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.Tensor,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        image_keys: ImageKeys | None = None,
        **options: Unpack[ModelOptions],
    ) -> ClassifierOutput:
        """Answer B questions; ``labels`` are soft targets (B, answers) in [0, 1], scored by binary cross-entropy."""
        out = self.ashnets(pixel_values, input_ids, attention_mask, image_keys, return_dict=True, **options)
        return self._output(out.pooler_output, labels, answer_loss, out)  # (B, M1)


class AshNetsForVisualReasoning(_Classifier):
    """NLVR2: is the sentence true of two images? Each image is encoded with it, and both [CLS] are concatenated."""

    def __init__(self, config: AshNetsConfig) -> None:
        super().__init__(config, 2 * config.hidden_size, 2)

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.Tensor,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        image_keys: ImageKeys | None = None,
        **options: Unpack[ModelOptions],
    ) -> ClassifierOutput:
        """Classify B pairs: ``pixel_values`` (B, 2, 3, H, W), ``image_keys`` (B, 2); logits (B, 2): false, true."""
        if pixel_values.dim() != 5 or pixel_values.shape[1] != 2:
            raise InputError(f"pixel_values of shape {tuple(pixel_values.shape)}: NLVR2 takes (B, 2, 3, H, W)")
        mask = None if attention_mask is None else attention_mask.repeat_interleave(2, 0)  # (2·B, L)
        keys = None if image_keys is None else torch.as_tensor(image_keys).flatten()  # (2·B,)
        out = self.ashnets(
            pixel_values.flatten(0, 1), input_ids.repeat_interleave(2, 0), mask, keys, return_dict=True, **options
        )
        joined = out.pooler_output.unflatten(0, (-1, 2)).flatten(1)  # (2·B, M1) to (B, 2·M1)
        return self._output(joined, labels, F.cross_entropy, out)


class AshNetsForVisualEntailment(_Classifier):
    """SNLI-VE: entailment, neutral or contradiction."""

    LABELS = ("entailment", "neutral", "contradiction")

    def __init__(self, config: AshNetsConfig) -> None:
        super().__init__(config, config.hidden_size, len(self.LABELS))

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.Tensor,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        image_keys: ImageKeys | None = None,
        **options: Unpack[ModelOptions],
    ) -> ClassifierOutput:
        """Classify B pairs; logits (B, 3) in the order of ``LABELS``; ``labels`` (B,)."""
        out = self.ashnets(pixel_values, input_ids, attention_mask, image_keys, return_dict=True, **options)
        return self._output(out.pooler_output, labels, F.cross_entropy, out)  # (B, M1)
