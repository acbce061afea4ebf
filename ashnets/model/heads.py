"""Task heads on ASH-Nets: retrieval, pre-training, VQA, NLVR2 and visual entailment."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol, TypedDict, Unpack

import torch
from torch import nn
from torch.nn import functional as F
from transformers import initialization as init

from ashnets.configuration import AshNetsConfig
from ashnets.errors import ConfigurationError, InputError
from ashnets.model.ashnets import AshNetsModel, Tokens
from ashnets.model.memory_saving import State
from ashnets.model.offloading import at_hand
from ashnets.model.outputs import AshNetsOutput, ClassifierOutput, PreTrainingOutput, RetrievalOutput, VisualOutput
from ashnets.model.pretrained import AshNetsPreTrainedModel
from ashnets.model.sampling import ImageKeys

TEMPERATURE = 0.07  # where ITC, STUA and MVM start (Li et al., paper's reference [30])
TEMPERATURE_RANGE = (0.001, 0.5)


class VisualOptions(TypedDict, total=False):
    """Options of the visual branch; see ``AshNetsModel.forward``."""

    spikes: torch.Tensor | None
    group_size: int
    readout: str | None
    state: State | None
    concrete_only: bool
    tokens: Tokens


class ModelOptions(VisualOptions, total=False):
    """Options of the whole model; see ``AshNetsModel.forward``."""

    output_attentions: bool


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

    # A pre-training checkpoint also loads here: the heads of its other objectives are ignored on purpose.
    _keys_to_ignore_on_load_unexpected: list[str] | None = [  # noqa: RUF012 - transformers' own form
        r"^mlm\.",
        r"^visual_mask$",
        r"^mvm\.",
    ]

    def __init__(self, config: AshNetsConfig) -> None:
        super().__init__(config)
        self.ashnets = AshNetsModel(config)
        self.image_projection = TokenReading(config)
        self.text_projection = nn.Linear(config.hidden_size, config.projection_size)
        self.temperature = Temperature()
        self.itm = nn.Linear(config.hidden_size, 2)
        if config.has_spiking_branch:
            self.stua = SpikingTextHead(config)
        if type(self) is AshNetsForRetrieval:
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
        v = visual.summary_ratio.detach() * visual.abstract  # (B, N, M1)
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

    def forward(
        self,
        pixel_values: torch.Tensor | None = None,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        output_attentions: bool = False,
        image_keys: ImageKeys | None = None,
        **options: Unpack[VisualOptions],
    ) -> RetrievalOutput:
        """Embed images, texts, or pairs; pairs also get their matching score and, on request, attentions."""
        out = RetrievalOutput()
        self._fill(out, pixel_values, input_ids, attention_mask, output_attentions, image_keys, **options)
        return out

    def _fill(
        self,
        out: RetrievalOutput,
        pixel_values: torch.Tensor | None,
        input_ids: torch.Tensor | None,
        attention_mask: torch.Tensor | None,
        output_attentions: bool,
        image_keys: ImageKeys | None,
        **options: Unpack[VisualOptions],
    ) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """Fill ``out``; returns the hidden states of the text alone and of the pair."""
        if pixel_values is None and input_ids is None:
            raise InputError("nothing to embed: give pixel_values, input_ids, or both")
        transformer, text, joint = self.ashnets.transformer, None, None
        if pixel_values is not None:
            out.image_embeds, out.visual = self.encode_image(pixel_values, image_keys, **options)  # (B, 256)
        if input_ids is not None:
            text, _ = transformer(input_ids, attention_mask, None)  # (B, L, M1)
            out.text_embeds = self.project_text(text)  # (B, 256)
        if pixel_values is not None and out.visual is not None and input_ids is not None:
            if input_ids.shape[0] != pixel_values.shape[0]:
                raise InputError(
                    f"{pixel_values.shape[0]} images and {input_ids.shape[0]} texts do not make pairs: give as many"
                )
            joint, out.attentions = transformer(input_ids, attention_mask, out.visual.output, output_attentions)
            out.itm_logits = self.itm(joint[:, 0])  # (B, 2), of joint (B, L + N, M1)
        return text, joint


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
    """Retrieval's two heads and those of MLM, MVM and STUA."""

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

    def forward(
        self,
        pixel_values: torch.Tensor | None = None,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        output_attentions: bool = False,
        image_keys: ImageKeys | None = None,
        **options: Unpack[VisualOptions],
    ) -> PreTrainingOutput:
        """All heads on B pairs, without masks; images or texts alone give only their embeddings."""
        out = PreTrainingOutput()
        text, joint = self._fill(out, pixel_values, input_ids, attention_mask, output_attentions, image_keys, **options)
        if text is None or joint is None or out.visual is None:
            return out
        length = text.shape[1]
        out.mlm_logits = self.mlm(joint[:, :length])  # (B, L, vocabulary)
        if out.visual.abstract is not None:
            out.spiking_embeds = self.project_spiking(out.visual)  # (B, 256)
            out.stua_text_embeds = self.project_text_for_spikes(text)  # (B, 256)
            if self.config.collector:
                collector = self.ashnets.vision.collector
                with at_hand(collector):
                    out.mvm_logits = self.mvm(joint[:, length:], collector.concepts)  # (B, N, M2)
        return out


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
        self.ashnets = AshNetsModel(config)
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
            attentions=out.attentions,
        )


class AshNetsForVQA(_Classifier):
    """Visual question answering as classification over ``config.num_answers`` answers."""

    def __init__(self, config: AshNetsConfig) -> None:
        super().__init__(config, config.hidden_size, config.num_answers)

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
        out = self.ashnets(pixel_values, input_ids, attention_mask, image_keys, **options)
        return self._output(out.pooled, labels, answer_loss, out)  # pooled (B, M1)


class AshNetsForVisualReasoning(_Classifier):
    """NLVR2: is the sentence true of two images? Each image is encoded with it, and both [CLS] are concatenated."""

    def __init__(self, config: AshNetsConfig) -> None:
        super().__init__(config, 2 * config.hidden_size, 2)

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
        out = self.ashnets(pixel_values.flatten(0, 1), input_ids.repeat_interleave(2, 0), mask, keys, **options)
        joined = out.pooled.unflatten(0, (-1, 2)).flatten(1)  # (2·B, M1) to (B, 2·M1)
        return self._output(joined, labels, F.cross_entropy, out)


class AshNetsForVisualEntailment(_Classifier):
    """SNLI-VE: entailment, neutral or contradiction."""

    LABELS = ("entailment", "neutral", "contradiction")

    def __init__(self, config: AshNetsConfig) -> None:
        super().__init__(config, config.hidden_size, len(self.LABELS))

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
        out = self.ashnets(pixel_values, input_ids, attention_mask, image_keys, **options)
        return self._output(out.pooled, labels, F.cross_entropy, out)  # pooled (B, M1)


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
