r"""The frozen baseline: ResNet-50 with frozen ImageNet weights, and a trained text encoder and head.

    retrieval   ⟨g(r̄), h(w)⟩ with ITC         r̄ mean of the frozen feature map, w [CLS] of the text; g two layers, h one
    questions   two layers over [r̄ ; w]

The recipe freezes the backbone (``frozen: [concrete]``), as for any model. The text encoder has the same initial
weights as the transformer of ASH-Nets.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F
from transformers import BertModel, ResNetConfig, ResNetModel
from transformers import initialization as init

from ashnets.baselines.configuration import BaselineConfig
from ashnets.baselines.model import BaselineForVQA, BaselineModel, normalized
from ashnets.model.alignment_transformer import bert_config
from ashnets.model.classifiers import two_layers
from ashnets.model.heads import TEMPERATURE, Temperature
from ashnets.model.outputs import VisualOutput

FEATURES = 2048


def resnet50_config() -> ResNetConfig:
    """The original ResNet-50 of He et al. with its stride in the 1×1 convolution, as the published weights need."""
    return ResNetConfig(downsample_in_bottleneck=True)


class FrozenVision(nn.Module):
    """Images (B, 3, S, S) in [0, 1] to the last feature map of ResNet-50, (B, N, 2048), stride 32."""

    def __init__(self, config: BaselineConfig) -> None:
        super().__init__()
        self.config = config
        self.concrete_encoder = nn.ModuleDict({"backbone": ResNetModel(resnet50_config())})

    def forward(self, pixel_values: torch.Tensor, **options: object) -> VisualOutput:
        """The options of the spiking branch are ignored."""
        backbone = self.concrete_encoder["backbone"]
        found = backbone(normalized(pixel_values, self.config)).last_hidden_state  # (B, 2048, h, w)
        return VisualOutput(output=found.flatten(2).transpose(1, 2))


class TextEncoder(nn.Module):
    """BERT on text alone, with the interface of `ashnets.model.alignment_transformer.AlignmentTransformer`."""

    def __init__(self, config: BaselineConfig) -> None:
        super().__init__()
        self.bert = BertModel(bert_config(config), add_pooling_layer=False)

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None, visual: None = None
    ) -> tuple[torch.Tensor, None]:
        """Token ids (B, L) to hidden states (B, L, M1)."""
        return self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state, None


class FrozenCore(nn.Module):
    """The image and text encoders under the names that training and evaluation use."""

    def __init__(self, config: BaselineConfig) -> None:
        super().__init__()
        self.vision = FrozenVision(config)
        self.transformer = TextEncoder(config)


class FrozenForPreTraining(BaselineModel):
    """Two projections for ITC."""

    def __init__(self, config: BaselineConfig) -> None:
        super().__init__(config)
        self.ashnets = FrozenCore(config)
        self.image_projection = two_layers(config, FEATURES, config.projection_size)
        self.text_projection = nn.Linear(config.hidden_size, config.projection_size)
        self.temperature = Temperature()
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, Temperature):
            init.constant_(module.log_tau, torch.tensor(TEMPERATURE).log().item())

    def project_image(self, visual: torch.Tensor) -> torch.Tensor:
        """Tokens (B, N, 2048) to unit embeddings (B, 256)."""
        return F.normalize(self.image_projection(visual.mean(1)).float(), dim=-1)

    def project_text(self, hidden: torch.Tensor) -> torch.Tensor:
        """Hidden states (B, L, M1) to unit embeddings (B, 256)."""
        return F.normalize(self.text_projection(hidden[:, 0]).float(), dim=-1)

    def encode_image(self, pixel_values: torch.Tensor, **options: object) -> tuple[torch.Tensor, VisualOutput]:
        """As `ashnets.model.heads.AshNetsForRetrieval.encode_image`."""
        visual = self.ashnets.vision(pixel_values)
        return self.project_image(visual.output), visual

    def encode_text(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None) -> torch.Tensor:
        """Token ids (B, L) to embeddings (B, 256)."""
        return self.project_text(self.ashnets.transformer(input_ids, attention_mask)[0])


class FrozenForVQA(BaselineForVQA):
    """A classifier over answers on the frozen features of the image and the [CLS] of the question."""

    def __init__(self, config: BaselineConfig) -> None:
        super().__init__(config, FrozenCore(config), FEATURES + config.hidden_size)

    def joint(self, visual: VisualOutput, input_ids: torch.Tensor, attention_mask: torch.Tensor | None) -> torch.Tensor:
        """See `BaselineForVQA.joint`."""
        hidden, _ = self.ashnets.transformer(input_ids, attention_mask)
        assert visual.output is not None
        return torch.cat([visual.output.mean(1), hidden[:, 0]], 1)
