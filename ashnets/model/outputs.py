"""The outputs of the models, as dataclasses."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, cast

import torch
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.utils import ModelOutput


class Output(ModelOutput):
    """An output whose tuple has the order of the fields, and tuples in the place of outputs, as CLIPOutput's."""

    def to_tuple(self) -> tuple[object, ...]:
        found = (getattr(self, field.name) for field in fields(cast(Any, self)))
        return tuple(one.to_tuple() if isinstance(one, ModelOutput) else one for one in found if one is not None)


@dataclass
class VisualOutput(Output):
    """The visual semantic module on B images.

    Attributes:
        output: Output (eq. 8), (B, N, M1), the visual tokens of the transformer.
        concrete: F_CNN (eq. 4), (B, N, M1); None for an ``snn``.
        abstract: F_SNN (eq. 6), (B, N, M1); None without the spiking branch.
        summary_ratio: SR (eq. 7), (B, N, 1).
        response: S (eq. 5) after the readout, (B, N, R).
        concept_counts: an image's own spikes for each token and concept, (B, N, R).
        layer_spikes: layer name → (B,), spikes over an image's T steps.
        layer_rates: layer name → (B,), spikes per neuron and step.
        state: membranes after the last step, one tensor for each spiking layer.
        hidden_states: of the backbone, on request: maps (B, C, h, w) of a ResNet, tokens (B, L, width) of a ViT; None
            for an ``snn``.
    """

    output: torch.Tensor | None = None
    concrete: torch.Tensor | None = None
    abstract: torch.Tensor | None = None
    summary_ratio: torch.Tensor | None = None
    response: torch.Tensor | None = None
    concept_counts: torch.Tensor | None = None
    layer_spikes: dict[str, torch.Tensor] | None = None
    layer_rates: dict[str, torch.Tensor] | None = None
    state: tuple[torch.Tensor, ...] | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None


@dataclass
class AshNetsOutput(Output):
    """The whole model.

    Attributes:
        last_hidden_state: (B, L + N, M1): text tokens first, then visual tokens.
        pooler_output: (B, M1), the hidden state of the first token: [CLS], or the first visual token for images alone,
            which have no [CLS].
        visual: output of the visual semantic module; None for text alone.
        hidden_states: the embeddings and the output of each layer, (B, L + N, M1) each, on request.
        attentions: one tensor for each layer, (B, heads, L + N, L + N), on request.
    """

    last_hidden_state: torch.Tensor | None = None
    pooler_output: torch.Tensor | None = None
    visual: VisualOutput | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


@dataclass
class RetrievalOutput(Output):
    """Retrieval: N images and K texts, each embedded alone, and for pairs the matching score.

    The fields up to ``vision_model_output`` are those of transformers' CLIPOutput.

    Attributes:
        loss: contrastive loss of B pairs, a scalar; on request.
        logits_per_image: (N, K), cosine of each image to each text, divided by τ.
        logits_per_text: (K, N), the same transposed.
        text_embeds, image_embeds: (K, 256) and (N, 256), of length 1.
        text_model_output, vision_model_output: as from ``get_text_features`` and ``get_image_features``.
        itm_logits: (B, 2): not matching, matching; None if N and K differ.
        visual: as in :class:`AshNetsOutput`.
        hidden_states, attentions: of the pairs, as in :class:`AshNetsOutput`; on request.
    """

    loss: torch.Tensor | None = None
    logits_per_image: torch.Tensor | None = None
    logits_per_text: torch.Tensor | None = None
    text_embeds: torch.Tensor | None = None
    image_embeds: torch.Tensor | None = None
    text_model_output: BaseModelOutputWithPooling | None = None
    vision_model_output: BaseModelOutputWithPooling | None = None
    itm_logits: torch.Tensor | None = None
    visual: VisualOutput | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


@dataclass
class PreTrainingOutput(RetrievalOutput):
    """Pre-training heads on pairs; nothing is masked unless the caller masks it.

    Attributes:
        mlm_logits: (B, L, vocabulary).
        mvm_logits: (B, N, M2); None without a collector.
        spiking_embeds: h_v(v), (B, 256); None without the spiking branch.
        stua_text_embeds: h_w(w), (B, 256).
    """

    mlm_logits: torch.Tensor | None = None
    mvm_logits: torch.Tensor | None = None
    spiking_embeds: torch.Tensor | None = None
    stua_text_embeds: torch.Tensor | None = None


@dataclass
class ClassifierOutput(Output):
    """The head of a downstream task.

    Attributes:
        loss: a scalar; None without labels.
        logits: (B, classes).
        visual, hidden_states, attentions: as in :class:`AshNetsOutput`; for NLVR2 of 2·B images, the left and the right
            one of each pair alternating.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    visual: VisualOutput | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
