"""Retrieval and pre-training heads on ASH-Nets, and the class of each task."""

from __future__ import annotations

import math
from collections import deque
from typing import Unpack

import torch
from torch import nn
from torch.nn import functional as F
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.utils.generic import can_return_tuple

from ashnets.configuration import AshNetsConfig
from ashnets.errors import ConfigurationError, InputError
from ashnets.model.alignment_transformer import check_token_types
from ashnets.model.ashnets import AshNetsModel, VisualOptions
from ashnets.model.classifiers import AshNetsForVisualEntailment, AshNetsForVisualReasoning, AshNetsForVQA
from ashnets.model.offloading import at_hand
from ashnets.model.outputs import PreTrainingOutput, RetrievalOutput, VisualOutput
from ashnets.model.pretrained import AshNetsPreTrainedModel
from ashnets.model.sampling import ImageKeys

TEMPERATURE = 0.07  # where ITC, STUA and MVM start (Li et al., paper's reference [30])
TEMPERATURE_RANGE = (0.001, 0.5)


class Temperature(nn.Module):
    """A learnable τ, kept as log τ and clamped to [0.001, 0.5].

    In training the parameter itself is set back into the range: outside it the gradient of a clamp is zero, and τ could
    not return.
    """

    def __init__(self) -> None:
        super().__init__()
        self.log_tau = nn.Parameter(torch.full((), math.log(TEMPERATURE)))

    def forward(self) -> torch.Tensor:
        low, high = (math.log(bound) for bound in TEMPERATURE_RANGE)
        if self.training and torch.is_grad_enabled():
            with torch.no_grad():
                self.log_tau.clamp_(low, high)
            return self.log_tau.exp()  # ()
        return self.log_tau.clamp(low, high).exp()  # ()


class TokenReading(nn.Linear):
    """N tokens (B, N, M1) to (B, 256): a linear map of their mean.

    With ``config.token_reading == "positions"``, a linear map of all tokens in their order is added; each is narrowed
    to ``NARROW`` values first. The mean keeps no positions, and the spikes of an image learned less from it.
    """

    NARROW = 24

    def __init__(self, config: AshNetsConfig) -> None:
        super().__init__(config.hidden_size, config.projection_size)
        self.narrow: nn.Linear | None = None
        if config.token_reading == "positions":
            self.narrow = nn.Linear(config.hidden_size, self.NARROW)
            self.joined = nn.Linear(self.NARROW * config.num_visual_tokens, config.projection_size, bias=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        tokens = tokens.to(self.weight.dtype)  # spike rates, in an snn without collector, are float32
        read = super().forward(tokens.mean(1))  # (B, 256)
        if self.narrow is not None:
            read = read + self.joined(self.narrow(tokens).flatten(1))  # (B, N·24) to (B, 256)
        return read


class SpikingTextHead(nn.Module):
    """STUA's τ, and h_v and h_w of eq. 9 unless they are ITC's: linear maps to width 256."""

    def __init__(self, config: AshNetsConfig) -> None:
        super().__init__()
        self.temperature = Temperature()
        if config.stua_projections == "own":
            self.spiking = TokenReading(config)  # h_v
            self.text = nn.Linear(config.hidden_size, config.projection_size)  # h_w


class AshNetsForRetrieval(AshNetsPreTrainedModel):
    """Image–text retrieval: two unimodal projections (ITC) and a matching head on pairs (ITM)."""

    output_class = RetrievalOutput

    # A pre-training checkpoint also loads here: the heads of its other objectives are ignored on purpose.
    _keys_to_ignore_on_load_unexpected: list[str] | None = [  # noqa: RUF012 - transformers' own form
        r"^mlm\.",
        r"^visual_mask$",
        r"^mvm\.",
    ]

    def __init__(self, config: AshNetsConfig) -> None:
        super().__init__(config)
        self.ashnets: AshNetsModel = AshNetsModel(config)
        self.image_projection = TokenReading(config)
        self.text_projection = nn.Linear(config.hidden_size, config.projection_size)
        self.temperature = Temperature()
        self.itm = nn.Linear(config.hidden_size, 2)
        if config.has_spiking_branch:
            self.stua = SpikingTextHead(config)
        if not isinstance(self, AshNetsForPreTraining):  # which adds heads first
            self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, Temperature):
            init.constant_(module.log_tau, math.log(TEMPERATURE))

    def project_image(self, visual: torch.Tensor) -> torch.Tensor:
        """Visual tokens (B, N, M1) to unit embeddings (B, 256)."""
        return F.normalize(self.image_projection(visual).float(), dim=-1)  # (B, 256)

    def project_text(self, hidden: torch.Tensor) -> torch.Tensor:
        """Hidden states of text alone (B, L, M1) to unit embeddings (B, 256): [CLS], projected."""
        return F.normalize(self.text_projection(hidden[:, 0]).float(), dim=-1)  # (B, 256)

    def project_spiking(self, visual: VisualOutput) -> torch.Tensor:
        """h_v of eq. 9: SR·F_SNN to unit embeddings (B, 256).

        SR is a constant here: with its gradient, STUA trained SR, as a selector of tokens, and the concrete encoder
        below it more than the spikes.
        """
        assert visual.summary_ratio is not None and visual.abstract is not None, "STUA needs the spiking branch"
        reading = self.stua.spiking if self.config.stua_projections == "own" else self.image_projection
        ratio = visual.summary_ratio.detach().to(visual.abstract.device)  # device_map="auto" may separate the two
        v = ratio * visual.abstract  # (B, N, M1)
        return F.normalize(reading(v).float(), dim=-1)  # (B, 256)

    def project_text_for_spikes(self, hidden: torch.Tensor) -> torch.Tensor:
        """h_w of eq. 9: hidden states of text alone (B, L, M1) to unit embeddings (B, 256)."""
        if self.config.stua_projections == "itc":
            return self.project_text(hidden)
        return F.normalize(self.stua.text(hidden[:, 0]).float(), dim=-1)  # (B, 256)

    def encode_image(
        self, pixel_values: torch.Tensor, image_keys: ImageKeys | None = None, **options: Unpack[VisualOptions]
    ) -> tuple[torch.Tensor, VisualOutput]:
        """Images to embeddings (B, 256) and the visual module's output; options as in ``AshNetsModel.forward``."""
        visual = self.ashnets.vision(pixel_values, image_keys, **options)
        return self.project_image(visual.output), visual

    def encode_text(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None) -> torch.Tensor:
        """Token ids (B, L) to embeddings (B, 256)."""
        hidden, _ = self.ashnets.transformer(input_ids, attention_mask, None)  # (B, L, M1)
        return self.project_text(hidden)

    def match(
        self, visual: torch.Tensor, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Visual tokens (B, N, M1) and texts (B, L) of B pairs to ITM logits (B, 2): not matching, matching."""
        hidden, _ = self.ashnets.transformer(input_ids, attention_mask, visual)  # (B, L + N, M1)
        return self.itm(hidden[:, 0])  # (B, 2)

    @can_return_tuple
    def get_image_features(
        self,
        pixel_values: torch.Tensor,
        image_keys: ImageKeys | None = None,
        output_hidden_states: bool | None = None,
        **options: Unpack[VisualOptions],
    ) -> BaseModelOutputWithPooling:
        """What ITC reads of B images, as from transformers' CLIP; options as in ``AshNetsModel.forward``.

        Returns:
            ``pooler_output`` (B, 256), not normalized; ``last_hidden_state`` (B, N, M1), the visual tokens; on request
            ``hidden_states``, those of the backbone (None for an ``snn``). ``return_dict=False`` makes it a tuple.
        """
        _, output_hidden_states = self.asked(None, output_hidden_states)
        return self._image_features(
            self.ashnets.vision(pixel_values, image_keys, output_hidden_states=output_hidden_states, **options)
        )

    @can_return_tuple
    def get_text_features(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
    ) -> BaseModelOutputWithPooling:
        """What ITC reads of B texts, as from transformers' CLIP; arguments as in ``AshNetsModel.forward``.

        Returns:
            ``pooler_output`` (B, 256), not normalized; ``last_hidden_state`` (B, L, M1); on request ``hidden_states``
            and ``attentions``. ``return_dict=False`` makes it a tuple.
        """
        check_token_types(token_type_ids)
        output_attentions, output_hidden_states = self.asked(output_attentions, output_hidden_states)
        states: deque[torch.Tensor] | None = deque() if output_hidden_states else None
        hidden, attentions = self.ashnets.transformer(input_ids, attention_mask, None, output_attentions, states)
        return BaseModelOutputWithPooling(
            last_hidden_state=hidden,  # (B, L, M1)
            pooler_output=self.text_projection(hidden[:, 0]).float(),  # (B, 256)
            hidden_states=None if states is None else tuple(states),
            attentions=attentions,
        )

    def _image_features(self, visual: VisualOutput) -> BaseModelOutputWithPooling:
        assert visual.output is not None
        return BaseModelOutputWithPooling(
            last_hidden_state=visual.output,  # (B, N, M1)
            pooler_output=self.image_projection(visual.output).float(),  # (B, 256)
            hidden_states=visual.hidden_states,
        )

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.Tensor | None = None,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        output_attentions: bool | None = None,
        image_keys: ImageKeys | None = None,
        return_loss: bool | None = None,
        output_hidden_states: bool | None = None,
        token_type_ids: torch.Tensor | None = None,
        **options: Unpack[VisualOptions],
    ) -> RetrievalOutput:
        """Embed N images, K texts, or both, and score each image with each text; see :class:`RetrievalOutput`.

        If N = K, they are also matched as pairs (ITM).

        Args:
            return_loss: also return the contrastive loss of the B = N = K pairs.
            output_attentions, output_hidden_states, token_type_ids, return_dict: as in ``AshNetsModel.forward``.

        Raises:
            InputError: neither images nor texts were given, or ``return_loss`` without pairs.
        """
        if pixel_values is None and input_ids is None:
            raise InputError("nothing to embed: give pixel_values, input_ids, or both")
        output_attentions, output_hidden_states = self.asked(output_attentions, output_hidden_states)
        out = self.output_class()
        if pixel_values is not None:
            out.visual = self.ashnets.vision(
                pixel_values, image_keys, output_hidden_states=output_hidden_states, **options
            )
            out.vision_model_output = self._image_features(out.visual)
            out.image_embeds = unit(out.vision_model_output)  # (N, 256)
        if input_ids is not None:
            out.text_model_output = self.get_text_features(
                input_ids, attention_mask, token_type_ids, output_attentions, output_hidden_states, return_dict=True
            )
            out.text_embeds = unit(out.text_model_output)  # (K, 256)
        if out.image_embeds is not None and out.text_embeds is not None:
            device = out.text_embeds.device  # device_map="auto" may place each of the three on another one
            with torch.autocast(device.type, enabled=False):
                tau = self.temperature().to(device).float()
                out.logits_per_text = out.text_embeds @ out.image_embeds.to(device).T / tau  # (K, N)
            out.logits_per_image = out.logits_per_text.T  # (N, K)
        logits = out.logits_per_text
        pairs = logits is not None and logits.shape[0] == logits.shape[1]
        if return_loss:
            if logits is None or not pairs:
                raise InputError("return_loss=True needs pairs: give as many images as texts")
            out.loss = contrastive_loss(logits)
        if pairs and out.visual is not None:
            states: deque[torch.Tensor] | None = deque() if output_hidden_states else None
            joint, out.attentions = self.ashnets.transformer(
                input_ids, attention_mask, out.visual.output, output_attentions, states
            )  # (B, L + N, M1)
            out.hidden_states = None if states is None else tuple(states)
            self._read_pairs(out, joint)
        return out

    def _read_pairs(self, out: RetrievalOutput, joint: torch.Tensor) -> None:
        """Add what the heads read from the hidden states of pairs, (B, L + N, M1)."""
        out.itm_logits = self.itm(joint[:, 0])  # (B, 2)


def unit(features: BaseModelOutputWithPooling) -> torch.Tensor:
    """The pooled features (B, D), scaled to length 1."""
    assert features.pooler_output is not None
    return F.normalize(features.pooler_output, dim=-1)  # (B, D)


def contrastive_loss(logits: torch.Tensor) -> torch.Tensor:
    """The mean of both cross-entropies of B pairs, (B, B); text b belongs to image b."""
    own = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


class MaskedLanguageHead(nn.Module):
    """BERT's prediction head: dense, GELU, LayerNorm, then a decoder whose weights are the word embeddings."""

    def __init__(self, config: AshNetsConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.decoder = nn.Linear(config.hidden_size, config.vocab_size)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.decoder(self.norm(F.gelu(self.dense(hidden))))  # (B, L, vocabulary)


class MaskedVisualHead(nn.Module):
    """Logits of visual tokens (..., M1) over the M2 concepts: the cosine with each column of C, divided by τ."""

    def __init__(self, config: AshNetsConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.temperature = Temperature()

    def forward(self, hidden: torch.Tensor, concepts: torch.Tensor) -> torch.Tensor:
        token = F.normalize(self.dense(hidden).float(), dim=-1)  # (..., M1)
        columns = concepts.float()  # (M1, M2)
        # The products are divided by ‖C_j‖, not C itself, which is much larger.
        lengths = columns.square().sum(0).clamp_min(1e-24).sqrt()  # (M2,)
        # Divided by τ, the last bit of a cosine in bf16 would be 0.06 of a logit.
        with torch.autocast(token.device.type, enabled=False):
            return token @ columns / (lengths * self.temperature())  # (..., M2)


class AshNetsForPreTraining(AshNetsForRetrieval):
    """Retrieval's two heads and those of MLM, MVM and STUA; nothing is masked unless the caller masks it."""

    output_class = PreTrainingOutput
    _keys_to_ignore_on_load_unexpected = None
    _tied_weights_keys = {  # noqa: RUF012 - transformers' own form
        "mlm.decoder.weight": "ashnets.transformer.bert.embeddings.word_embeddings.weight"
    }

    def __init__(self, config: AshNetsConfig) -> None:
        super().__init__(config)
        self.mlm = MaskedLanguageHead(config)
        if config.has_spiking_branch and config.collector:
            self.visual_mask = nn.Parameter(torch.zeros(config.hidden_size))
            self.mvm = MaskedVisualHead(config)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if module is self and hasattr(self, "visual_mask"):
            init.normal_(self.visual_mask, std=self.config.initializer_range)

    def get_output_embeddings(self) -> nn.Module:
        return self.mlm.decoder

    def set_output_embeddings(self, value: nn.Module) -> None:
        self.mlm.decoder = value  # type: ignore[assignment]

    def mask_visual(self, visual: torch.Tensor, masked: torch.Tensor) -> torch.Tensor:
        """Replace the tokens of (B, N, M1) that ``masked`` (B, N) marks by the learned mask vector."""
        return torch.where(masked.unsqueeze(-1), self.visual_mask.to(visual.dtype), visual)

    def _read_pairs(self, out: RetrievalOutput, joint: torch.Tensor) -> None:
        super()._read_pairs(out, joint)
        assert isinstance(out, PreTrainingOutput) and out.visual is not None and out.text_model_output is not None
        text = out.text_model_output.last_hidden_state
        assert text is not None  # (B, L, M1)
        length = text.shape[1]
        out.mlm_logits = self.mlm(joint[:, :length])  # (B, L, vocabulary)
        if out.visual.abstract is not None:
            out.spiking_embeds = self.project_spiking(out.visual)  # (B, 256)
            out.stua_text_embeds = self.project_text_for_spikes(text)  # (B, 256)
            if self.config.collector:
                collector = self.ashnets.vision.collector
                with at_hand(collector):
                    out.mvm_logits = self.mvm(joint[:, length:], collector.concepts)  # (B, N, M2)


HEADS = {
    "base": AshNetsModel,
    "pretraining": AshNetsForPreTraining,
    "retrieval": AshNetsForRetrieval,
    "vqa": AshNetsForVQA,
    "nlvr2": AshNetsForVisualReasoning,
    "ve": AshNetsForVisualEntailment,
}


def head_class(task: str) -> type[AshNetsPreTrainedModel]:
    """The model class of a task name."""
    if task not in HEADS:
        raise ConfigurationError(f"task={task!r} is not one of {', '.join(HEADS)}")
    return HEADS[task]
