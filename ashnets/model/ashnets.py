"""ASH-Nets (paper, Fig. 1): images and text to one aligned sequence.

images ─┬─ V ─────────────────── F_CNN ─┬─ SR ─ Output ─┐
        └─ sampler ─ E ─ S ─ C ─ F_SNN ─┘               ├─ alignment transformer
text ───────────────────────────────────────────────────┘
"""

from __future__ import annotations

from collections import deque
from typing import Literal, TypedDict

import torch
from torch import nn
from transformers.utils.generic import can_return_tuple

from ashnets.configuration import AshNetsConfig
from ashnets.errors import InputError
from ashnets.model.abstract_encoder import AbstractEncoder, State, for_each
from ashnets.model.alignment_transformer import AlignmentTransformer, check_token_types
from ashnets.model.collector import SemanticCollector, SpikeRate, SummaryRatio
from ashnets.model.concrete_encoder import ConcreteEncoder, check_pixels
from ashnets.model.outputs import AshNetsOutput, VisualOutput
from ashnets.model.pretrained import AshNetsPreTrainedModel
from ashnets.model.sampling import ImageKeys, content_keys, probabilistic_sampling

Tokens = Literal["output", "concrete", "abstract"]


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

    output_attentions: bool | None
    output_hidden_states: bool | None
    token_type_ids: torch.Tensor | None


class VisualSemanticModule(nn.Module):
    """Both visual encoders, the collector and the summary ratio (section III-A)."""

    def __init__(self, config: AshNetsConfig) -> None:
        super().__init__()
        self.config = config
        if config.has_concrete_branch:
            self.concrete_encoder = ConcreteEncoder(config)
        if config.has_spiking_branch:
            self.abstract_encoder = AbstractEncoder(config)
            self.collector = SemanticCollector(config) if config.collector else SpikeRate(config)
        self.summary_ratio = SummaryRatio(config)

    def sample(self, pixel_values: torch.Tensor, image_keys: ImageKeys | None = None) -> torch.Tensor:
        """P_binary (T, B, 3, H, W); without keys, they are made from the content of the images."""
        if image_keys is None:
            image_keys = content_keys(pixel_values)
        return probabilistic_sampling(pixel_values, image_keys, self.config.time_steps, self.config.sampling_seed)

    def forward(
        self,
        pixel_values: torch.Tensor,
        image_keys: ImageKeys | None = None,
        spikes: torch.Tensor | None = None,
        group_size: int = 1,
        readout: str | None = None,
        state: State | None = None,
        concrete_only: bool = False,
        tokens: Tokens = "output",
        output_hidden_states: bool = False,
    ) -> VisualOutput:
        """Encode B images.

        Args:
            pixel_values: (B, 3, H, W) in [0, 1].
            image_keys: (B,), the keys of the images for the sampler.
            spikes: (T, B, 3, H, W), spikes to use instead of the sampler's.
            group_size: φ, the number of consecutive images that share a time axis; 1 encodes each alone.
            readout, state: see :meth:`AbstractEncoder.forward`.
            concrete_only: without the spiking branch, as in the paper's first phase.
            tokens: what becomes the visual tokens: ``output`` (eq. 8), or one summand, ``concrete`` (F_CNN, while
                the spiking branch also runs) or ``abstract`` (F_SNN).
            output_hidden_states: also return those of the backbone.

        Raises:
            InputError: ``spikes`` of another shape, or ``abstract`` tokens without a spiking branch.
        """
        if tokens == "abstract" and (concrete_only or not self.config.has_spiking_branch):
            raise InputError("tokens='abstract': the spiking branch is switched off, or this model has none")
        check_pixels(pixel_values, self.config.image_size)
        if not self.config.has_concrete_branch:
            if concrete_only or tokens == "concrete":
                raise InputError("the concrete branch alone: this model, an snn, has none")
            concrete = maps = None
        else:
            states: deque[torch.Tensor] | None = deque() if output_hidden_states else None
            concrete = self.concrete_encoder(pixel_values, states)  # (B, N, M1)
            maps = None if states is None else tuple(states)
        if concrete is not None and (concrete_only or not self.config.has_spiking_branch):
            return VisualOutput(
                output=concrete,
                concrete=concrete,
                summary_ratio=torch.zeros_like(concrete[..., :1]),
                hidden_states=maps,
            )
        if spikes is None:
            spikes = self.sample(pixel_values, image_keys)  # (T, B, 3, H, W)
        elif spikes.shape[1:] != pixel_values.shape:
            raise InputError(
                f"spikes of shape {tuple(spikes.shape)} for images of shape {tuple(pixel_values.shape)}: "
                f"they must be (T, {', '.join(map(str, pixel_values.shape))})"
            )
        spiking = self.abstract_encoder(spikes, group_size, readout, state)  # response (B, N, R)
        steps = spikes.shape[0]
        if spiking.shared is None:
            abstract = self.collector(spiking.response, steps)  # (B, N, M1)
        else:  # computed once for each group
            abstract = for_each(self.collector(spiking.shared, steps * group_size), group_size)  # (B, N, M1)
        if concrete is not None:
            abstract = abstract.to(concrete.dtype)
        output, ratio = self.summary_ratio(concrete, abstract)  # (B, N, M1), (B, N, 1)
        if tokens != "output":
            output = concrete if tokens == "concrete" else abstract
        return VisualOutput(
            output=output,
            concrete=concrete,
            abstract=abstract,
            summary_ratio=ratio,
            response=spiking.response,
            concept_counts=spiking.response if spiking.counts is None else spiking.counts,
            layer_spikes=spiking.layer_spikes,
            layer_rates={k: v / (spiking.layer_neurons[k] * steps) for k, v in spiking.layer_spikes.items()},
            state=spiking.state,
            hidden_states=maps,
        )


class AshNetsModel(AshNetsPreTrainedModel):
    """The whole of ASH-Nets without a task head.

    ``forward`` takes images, text, or both. Groups of similar images (``group_size`` = φ) share the spiking time
    axis; without it each image starts from a reset state, and its result does not depend on the rest of the batch.
    """

    # A checkpoint with a head also loads here: the head is ignored on purpose.
    _keys_to_ignore_on_load_unexpected = [  # noqa: RUF012
        r"^(image_projection|text_projection|temperature|itm|mlm|mvm|stua|classifier)\.",
        r"^visual_mask$",
    ]

    def __init__(self, config: AshNetsConfig) -> None:
        super().__init__(config)
        self.vision = VisualSemanticModule(config)
        self.transformer = AlignmentTransformer(config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.transformer.bert.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.transformer.bert.set_input_embeddings(value)

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.Tensor | None = None,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        image_keys: ImageKeys | None = None,
        spikes: torch.Tensor | None = None,
        group_size: int = 1,
        readout: str | None = None,
        state: State | None = None,
        concrete_only: bool = False,
        output_attentions: bool | None = None,
        tokens: Tokens = "output",
        output_hidden_states: bool | None = None,
        token_type_ids: torch.Tensor | None = None,
    ) -> AshNetsOutput:
        """Encode B images (B, 3, H, W), B texts (B, L), or B pairs; see :class:`AshNetsOutput`.

        Args:
            output_attentions, output_hidden_states: also return them; the configuration's by default.
            token_type_ids: (B, L) as BERT's tokenizer makes them for one text, all 0.
            return_dict: False returns a tuple.

        Raises:
            InputError: neither images nor texts were given, or different numbers of them.
        """
        check_token_types(token_type_ids)
        output_attentions, output_hidden_states = self.asked(output_attentions, output_hidden_states)
        visual = None
        if pixel_values is not None:
            if input_ids is not None and input_ids.shape[0] != pixel_values.shape[0]:
                raise InputError(
                    f"{pixel_values.shape[0]} images and {input_ids.shape[0]} texts do not make pairs: give as many"
                )
            visual = self.vision(
                pixel_values,
                image_keys,
                spikes,
                group_size,
                readout,
                state,
                concrete_only,
                tokens,
                output_hidden_states,
            )
        states: deque[torch.Tensor] | None = deque() if output_hidden_states else None
        hidden, attentions = self.transformer(
            input_ids, attention_mask, None if visual is None else visual.output, output_attentions, states
        )  # (B, L + N, M1)
        return AshNetsOutput(
            last_hidden_state=hidden,
            pooler_output=hidden[:, 0],
            visual=visual,
            hidden_states=None if states is None else tuple(states),
            attentions=attentions,
        )
