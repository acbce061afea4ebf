r"""Single-stream alignment transformer (section III-B): [CLS] text [SEP] and N visual tokens in one sequence.

    text token:    word + position + type 0
    visual token:  Output_b + position of the patch + type 1

Layers are those of BERT (transformers' own). Text alone runs through the same layers, for ITC and STUA.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import torch
from torch import nn
from transformers import BertConfig, BertModel
from transformers.masking_utils import create_bidirectional_mask
from transformers.models.bert.modeling_bert import BertSelfAttention

from ashnets.configuration import AshNetsConfig
from ashnets.errors import InputError
from ashnets.files import JsonObject
from ashnets.model.offloading import at_hand


def bert_config(config: AshNetsConfig) -> BertConfig:
    """The transformers configuration of the layers."""
    settings = {"attn_implementation": config._attn_implementation, "type_vocab_size": 2}
    return BertConfig(**layer_settings(config), **settings)


def layer_settings(config: AshNetsConfig) -> JsonObject:
    """The settings of the layers, which have the same names in all configurations of transformers."""
    names = (
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "intermediate_size",
        "hidden_act",
        "hidden_dropout_prob",
        "attention_probs_dropout_prob",
        "layer_norm_eps",
        "initializer_range",
        "max_position_embeddings",
        "vocab_size",
        "pad_token_id",
    )
    return {name: getattr(config, name) for name in names}


def check_token_types(token_type_ids: torch.Tensor | None) -> None:
    """Raises InputError for types other than 0, such as those of a pair of sentences."""
    if token_type_ids is not None and not torch.compiler.is_compiling() and bool(token_type_ids.any()):
        raise InputError("token_type_ids contain other types than 0: give one text an item, not a pair of sentences")


class SelfAttention(BertSelfAttention):
    """BERT's self-attention; a call may pass a collection, to which it appends its attention probabilities.

    The fused kernels return no probabilities. For such a call they are computed step by step, without changing a
    setting of the model, which other threads may be using.
    """

    def forward(  # type: ignore[override]
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        attentions: deque[torch.Tensor] | None = None,
        **options: Any,
    ) -> tuple[torch.Tensor, ...]:
        if attentions is None:
            return super().forward(hidden_states, attention_mask, **options)
        heads = (self.num_attention_heads, self.attention_head_size)
        query, key, value = (
            part(hidden_states).unflatten(-1, heads).transpose(1, 2) for part in (self.query, self.key, self.value)
        )  # (B, heads, L, size) each
        scores = query @ key.transpose(2, 3) * self.scaling  # (B, heads, L, L)
        if attention_mask is not None:
            scores = scores.masked_fill(~attention_mask, torch.finfo(scores.dtype).min)
        attentions.append(self.dropout(scores.softmax(-1)))  # (B, heads, L, L)
        return (attentions[-1] @ value).transpose(1, 2).flatten(2), attentions[-1]  # (B, L, M1), (B, heads, L, L)


class AlignmentTransformer(nn.Module):
    """Text and visual tokens to one sequence of hidden states, (B, L + N, M1)."""

    def __init__(self, config: AshNetsConfig) -> None:
        super().__init__()
        self.config = config
        self.bert = BertModel(bert_config(config), add_pooling_layer=False)
        for module in self.bert.modules():
            if isinstance(module, BertSelfAttention):
                module.__class__ = SelfAttention  # a new module would draw random numbers
        self.visual_positions = nn.Embedding(config.num_visual_tokens, config.hidden_size)
        self.visual_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def embed_text(self, input_ids: torch.Tensor) -> torch.Tensor:
        """(B, L) token ids to (B, L, M1)."""
        if input_ids.dim() != 2 or input_ids.is_floating_point():
            raise InputError(
                f"input_ids of shape {tuple(input_ids.shape)} and type {input_ids.dtype}: give integers (B, L)"
            )
        length = input_ids.shape[1]
        if length > self.config.max_position_embeddings:
            raise InputError(
                f"a text of {length} tokens is above max_position_embeddings={self.config.max_position_embeddings}: "
                "let AshNetsProcessor cut it"
            )
        size = self.config.vocab_size
        if (
            input_ids.numel()
            and not torch.compiler.is_compiling()  # a graph cannot raise
            and not 0 <= int(input_ids.min()) <= int(input_ids.max()) < size
        ):
            raise InputError(
                f"input_ids range from {int(input_ids.min())} to {int(input_ids.max())}, this model's vocabulary from "
                f"0 to {size - 1}: tokenize with the processor that was saved with the model"
            )
        positions = torch.arange(length, device=input_ids.device).expand_as(input_ids)
        return self.bert.embeddings(
            input_ids=input_ids, position_ids=positions, token_type_ids=torch.zeros_like(input_ids)
        )

    def embed_visual(self, visual: torch.Tensor) -> torch.Tensor:
        """(B, N, M1) visual tokens, with position and type."""
        images = visual.new_ones((), dtype=torch.long)
        with at_hand(self.visual_positions):
            positions = self.visual_positions.weight
        types = self.bert.embeddings.token_type_embeddings(images)  # (M1,)
        device = positions.device  # device_map="auto" may place each of these on another one
        embedded = visual.to(device, positions.dtype) + positions + types.to(device)  # (B, N, M1)
        return self.dropout(self.visual_norm(embedded))

    def forward(
        self,
        input_ids: torch.Tensor | None,
        attention_mask: torch.Tensor | None,
        visual: torch.Tensor | None,
        output_attentions: bool = False,
        hidden_states: deque[torch.Tensor] | None = None,
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, ...] | None]:
        """Encode text (B, L), visual tokens (B, N, M1), or both.

        Args:
            input_ids: token ids, or None.
            attention_mask: (B, L), 1 for tokens and 0 for padding; all tokens by default.
            visual: visual tokens, or None.
            output_attentions: also return the attention of each layer, (B, heads, L + N, L + N).
            hidden_states: the embeddings and the output of each layer, (B, L + N, M1) each, are appended to it.

        Returns:
            Hidden states (B, L + N, M1) and the attentions or None.
        """
        if input_ids is None and visual is None:
            raise InputError("nothing to encode: give input_ids, visual tokens, or both")
        parts, masks = [], []
        if input_ids is not None:
            parts.append(self.embed_text(input_ids))  # (B, L, M1)
            if attention_mask is None:
                attention_mask = torch.ones_like(input_ids)
            elif attention_mask.shape != input_ids.shape:
                raise InputError(
                    f"attention_mask of shape {tuple(attention_mask.shape)} for input_ids of shape "
                    f"{tuple(input_ids.shape)}: they must be equal"
                )
            masks.append(attention_mask.to(input_ids.dtype))  # (B, L)
        if visual is not None:
            parts.append(self.embed_visual(visual))  # (B, N, M1)
            masks.append(torch.ones(visual.shape[:2], dtype=torch.long, device=visual.device))  # (B, N)
        device = parts[0].device
        hidden = torch.cat([part.to(device) for part in parts], dim=1)  # (B, L + N, M1)
        if hidden.shape[0] == 0:
            raise InputError("the batch is empty: give at least one text or image")
        padding = torch.cat([mask.to(device) for mask in masks], dim=1)  # (B, L + N)
        attentions: deque[torch.Tensor] | None = None
        mask: Any
        if output_attentions:
            attentions = deque()  # not a list, which accelerate's hooks would copy
            mask = padding.bool()[:, None, None]  # (B, 1, 1, L + N)
        else:
            mask = create_bidirectional_mask(config=self.bert.config, inputs_embeds=hidden, attention_mask=padding)
        for layer in self.bert.encoder.layer:
            if hidden_states is not None:
                hidden_states.append(hidden)
            hidden = layer(hidden, mask, attentions=attentions)  # (B, L + N, M1)
        if hidden_states is not None:
            hidden_states.append(hidden)
        return hidden, None if attentions is None else tuple(attentions)
