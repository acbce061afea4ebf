r"""ViLT (Kim, Son and Kim, ICML 2021): linearly projected patches and words in one transformer.

    h_0 = [ words + positions + type 0 ; [class], patches·W + positions + type 1 ],   L pre-norm layers,  LayerNorm

The layers are transformers' `ViltModel`. Its objectives are ITM and MLM. It has no unimodal embeddings, so
retrieval needs one joint forward pass for each pair.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import ViltConfig, ViltModel

from ashnets.baselines.configuration import BaselineConfig
from ashnets.baselines.model import BaselineForVQA, BaselineModel, normalized
from ashnets.model.alignment_transformer import layer_settings
from ashnets.model.heads import MaskedLanguageHead
from ashnets.model.outputs import VisualOutput


def vilt_config(config: BaselineConfig) -> ViltConfig:
    """transformers' configuration with the widths of an ASH-Nets architecture; a patch is one of its visual tokens."""
    return ViltConfig(**layer_settings(config), image_size=config.image_size, patch_size=config.stride)


class ViltTransformer(nn.Module):
    """`ViltModel` with the interface of `ashnets.model.alignment_transformer.AlignmentTransformer`."""

    def __init__(self, config: BaselineConfig) -> None:
        super().__init__()
        self.config = config
        self.vilt = ViltModel(vilt_config(config))

    @property
    def bert(self) -> ViltModel:
        """The part in which the training loop sets plain attention; ViLT has no other."""
        return self.vilt

    def embed_visual(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """(B, 3, S, S) in [0, 1] to [class] and N patches with their positions, (B, 1 + N, M1).

        ViltModel itself shuffles the patches, because its images differ in size; ours are all square.
        """
        embeddings: Any = self.vilt.embeddings
        patches = embeddings.patch_embeddings(normalized(pixel_values, self.config)).flatten(2).transpose(1, 2)
        first = embeddings.cls_token.expand(len(patches), -1, -1)
        return embeddings.dropout(torch.cat([first, patches], 1) + embeddings.position_embeddings)

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None, visual: torch.Tensor
    ) -> tuple[torch.Tensor, None]:
        """Words (B, L) and the output of `embed_visual` to hidden states (B, L + 1 + N, M1)."""
        present = torch.ones(visual.shape[:2], dtype=torch.long, device=visual.device)
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        out = self.vilt(input_ids=input_ids, attention_mask=attention_mask, image_embeds=visual, pixel_mask=present)
        return out.last_hidden_state, None

    def pool(self, hidden: torch.Tensor) -> torch.Tensor:
        """The output of ViLT's pooler on the first token, (B, M1)."""
        pooler: Any = self.vilt.pooler
        return pooler(hidden)


class ViltCore(nn.Module):
    """The image and text encoders under the names that training and evaluation use."""

    def __init__(self, config: BaselineConfig) -> None:
        super().__init__()
        self.transformer = ViltTransformer(config)

    def vision(self, pixel_values: torch.Tensor, **options: object) -> VisualOutput:
        """Visual tokens; the options of the spiking branch are ignored."""
        return VisualOutput(output=self.transformer.embed_visual(pixel_values))


class ViltForPreTraining(BaselineModel):
    """ViLT with its two heads: ITM (on the pooled first token) and MLM (tied to the word embeddings)."""

    _tied_weights_keys = {  # noqa: RUF012 - transformers' own form
        "mlm.decoder.weight": "ashnets.transformer.vilt.embeddings.text_embeddings.word_embeddings.weight"
    }

    def __init__(self, config: BaselineConfig) -> None:
        super().__init__(config)
        self.ashnets = ViltCore(config)
        self.itm = nn.Linear(config.hidden_size, 2)
        self.mlm = MaskedLanguageHead(config)
        self.post_init()

    def get_output_embeddings(self) -> nn.Module:
        return self.mlm.decoder

    def match(
        self, visual: torch.Tensor, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Visual tokens (B, 1 + N, M1) and texts (B, L) to ITM logits (B, 2): not matching, matching."""
        hidden, _ = self.ashnets.transformer(input_ids, attention_mask, visual)
        return self.itm(self.ashnets.transformer.pool(hidden))


class ViltForVQA(BaselineForVQA):
    """ViLT with a classifier over answers on its pooled first token."""

    def __init__(self, config: BaselineConfig) -> None:
        super().__init__(config, ViltCore(config), config.hidden_size)

    def joint(self, visual: VisualOutput, input_ids: torch.Tensor, attention_mask: torch.Tensor | None) -> torch.Tensor:
        """See `BaselineForVQA.joint`."""
        hidden, _ = self.ashnets.transformer(input_ids, attention_mask, visual.output)
        return self.ashnets.transformer.pool(hidden)
