"""One configuration for all of ASH-Nets; every design decision with a real alternative is a field."""

from __future__ import annotations

import inspect
import math
from functools import cache
from typing import Any

import torch
from huggingface_hub.dataclasses import type_validator
from transformers import PreTrainedConfig
from transformers.activations import ACT2FN

from ashnets.errors import ConfigurationError, did_you_mean

BACKBONES = ("resnet18", "resnet50", "resnet101", "resnet152", "vit-b16", "resnet-tiny")
SUMMARY_RATIOS = ("trainable", "fixed", "ann", "snn")
CARRIES = ("group", "image")
READOUTS = ("shared", "per_image")
ABSTRACT_SCALES = ("normalized", "literal")
READINGS = ("mean", "positions")
STUA_PROJECTIONS = ("own", "itc")
PRECISIONS = ("float", "int8")

# Keys that transformers writes into config.json or passes while loading.
_LIBRARY_KEYS = {
    "transformers_version",
    "torch_dtype",
    "dtype",
    "model_type",
    "auto_map",
    "name_or_path",
    "_name_or_path",
    "_commit_hash",
    "attn_implementation",
    "_attn_implementation",
    "_attn_implementation_internal",
    "experts_implementation",
    "_experts_implementation_internal",
    "use_cache",
}


class AshNetsConfig(PreTrainedConfig):
    r"""Architecture of an ASH-Nets model (paper, sections III-A and III-B).

    Symbols: ``T`` time steps per image, ``φ`` images of one similar group, ``N`` visual tokens, ``M1`` feature width
    and hidden size of the transformer, ``M2`` concepts of the collector.

    Args:
        backbone: concrete encoder V (eq. 4): one of ``resnet18``, ``resnet101``, ``resnet152``, ``vit-b16``; ours are
            ``resnet50`` and ``resnet-tiny``.
        backbone_widths: widths of the stages of ``resnet-tiny``; its first stage has stride 4, and each further stage
            doubles the stride. The other backbones have their published widths; leave this empty for them.
        downsample_in_bottleneck: the stride of a bottleneck lies on its first convolution, as in He et al.'s first
            ResNets and Keras' weights, not on its 3×3 convolution, as in the weights of the Hub.
        image_size: side of the square input in pixels.
        image_mean, image_std: normalization of each channel in the concrete branch. The spiking branch samples the
            plain intensities in [0, 1].
        hidden_size: M1.
        num_concepts: M2.
        time_steps: T.
        group_size: φ, images of one similar group.
        carry: ``group`` keeps the membrane from image to image within a group; ``image`` resets it at each image.
        readout: ``shared`` counts spikes over the whole group, so that all its images have the same response (as in the
            paper); ``per_image`` counts only an image's own T steps. The inference form of both is an image alone: a
            group of one, from a reset state. Eq. 6 reads spikes per step, so the response of a model that was trained
            with ``shared`` has the same scale there.
        spiking_channels: widths of the stride-2 3×3 convolutions of the abstract encoder; their number determines the
            grid, which must equal the backbone's. A 1×1 convolution to M2 follows.
        spiking_grid_channels: widths of further 3×3 convolutions of stride 1 on that grid, before the 1×1 convolution.
        decay_k: k of β = 1 − k/4096; k/4096 is the share of the membrane that leaks at each step.
        threshold: θ, one scalar for all layers.
        surrogate_k: k of the surrogate derivative (k/2)·sech²(k·(v − θ)).
        detach_reset: cut the gradient through the reset.
        tdbn_alpha: α of tdBN, whose γ starts at αθ.
        sampling_seed: seed of the probabilistic sampler.
        precision: ``float``, or ``int8``: the abstract encoder has 8-bit weights, 24-bit membranes and folded tdBN, as
            on a neuromorphic chip; training uses a straight-through gradient.
        collector: express the response in the basis C (eq. 6); ``False`` is the "without" row of Table XIV, in which
            the spiking stack ends with M1 channels instead of M2.
        summary_ratio: ``trainable`` (eq. 7, 8), ``fixed`` (SR = 1), ``ann`` (SR = 0, no spiking branch) or ``snn``
            (F_SNN alone, no concrete encoder): the rows of Table XI.
        abstract_scale: ``normalized`` centers the spike rates and brings F_SNN and F_CNN to one scale before SR gates
            them; ``literal`` is eq. 6 and 8 as printed (:mod:`ashnets.model.collector`).
        token_reading: how ITC reads the visual tokens and STUA the spiking ones: ``mean``, or ``positions``, which adds
            a linear map of all tokens in their order (:class:`ashnets.model.heads.TokenReading`).
        stua_projections: the projections of eq. 9: STUA's ``own``, or those of ``itc``. With these, spikes learn to say
            in the tokens what the concrete features say there, and the sum of eq. 8 adds two answers to one question.
        num_hidden_layers, num_attention_heads, intermediate_size, hidden_act: the alignment transformer, as in BERT.
        hidden_dropout_prob, attention_probs_dropout_prob, layer_norm_eps, initializer_range: its training, as in BERT.
        max_position_embeddings, vocab_size, pad_token_id: its texts, as in BERT.
        max_text_length: tokens to which the processor cuts a text, [CLS] and [SEP] included.
        projection_size: width of the ITC and STUA projections.
        num_answers: number of answers of the VQA head.

    Raises:
        ConfigurationError: an unknown key or an impossible value.
    """

    model_type = "ashnets"
    keys_to_ignore_at_inference = [  # noqa: RUF012 - not predictions for transformers' Trainer
        "visual",
        "hidden_states",
        "attentions",
        "text_model_output",
        "vision_model_output",
    ]

    backbone: str = "resnet152"
    backbone_widths: list[int] | tuple[int, ...] = ()
    downsample_in_bottleneck: bool = False
    image_size: int = 256
    image_mean: list[float | int] | tuple[float | int, ...] = (0.485, 0.456, 0.406)
    image_std: list[float | int] | tuple[float | int, ...] = (0.229, 0.224, 0.225)

    hidden_size: int = 768
    num_concepts: int = 2048
    time_steps: int = 10
    group_size: int = 16
    carry: str = "group"
    readout: str = "shared"
    spiking_channels: list[int] | tuple[int, ...] = (24, 48, 96, 192, 384)
    spiking_grid_channels: list[int] | tuple[int, ...] = ()
    decay_k: int = 2048
    threshold: float = 1.0
    surrogate_k: float = 2.0
    detach_reset: bool = True
    tdbn_alpha: float = 1.0
    sampling_seed: int = 0
    precision: str = "float"

    collector: bool = True
    summary_ratio: str = "trainable"
    abstract_scale: str = "normalized"
    token_reading: str = "mean"
    stua_projections: str = "own"

    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float | int = 0.1
    attention_probs_dropout_prob: float | int = 0.1
    layer_norm_eps: float = 1e-12
    initializer_range: float = 0.02
    max_position_embeddings: int = 512
    vocab_size: int = 30522
    pad_token_id: int | None = 0
    max_text_length: int = 40
    projection_size: int = 256
    num_answers: int = 3129
    tie_word_embeddings: bool = True

    def __post_init__(self, **kwargs: Any) -> None:
        known = set(self.__dataclass_fields__) | _LIBRARY_KEYS | set(PreTrainedConfig().to_dict())
        unknown = sorted(key for key in kwargs if key not in known)
        if unknown:
            raise ConfigurationError(
                f"unknown configuration key {', '.join(map(repr, unknown))}."
                f"{did_you_mean(unknown[0], self.own_keys())} "
                f"The keys of AshNetsConfig are: {', '.join(sorted(self.own_keys()))}"
            )
        self._check_types()
        kind = self.dtype if self.dtype is not None else kwargs.get("torch_dtype")
        if kind is not None:
            dtype_of(kind)
        super().__post_init__(**kwargs)
        for field in ("backbone_widths", "spiking_channels", "spiking_grid_channels", "image_mean", "image_std"):
            setattr(self, field, list(getattr(self, field)))
        self._check()

    @classmethod
    def own_keys(cls) -> list[str]:
        """The keys of ASH-Nets alone, without those of every transformers configuration."""
        return [key for key in cls.__dataclass_fields__ if key not in PreTrainedConfig.__dataclass_fields__]

    @property
    def stride(self) -> int:
        """Side of a visual token in pixels."""
        if self.backbone == "vit-b16":
            return 16
        if self.backbone == "resnet-tiny":
            return 4 * 2 ** (len(self.backbone_widths) - 1)
        return 32

    @property
    def grid(self) -> int:
        """Number of tokens along one side; N = grid²."""
        return self.image_size // self.stride

    @property
    def num_visual_tokens(self) -> int:
        """N."""
        return self.grid**2

    @property
    def response_size(self) -> int:
        """Width of the spiking response S: M2, or M1 without a collector."""
        return self.num_concepts if self.collector else self.hidden_size

    @property
    def beta(self) -> float:
        """β, the share of the membrane that remains at each step."""
        return 1.0 - self.decay_k / 4096

    @property
    def has_spiking_branch(self) -> bool:
        """False only for the variant ``ann``."""
        return self.summary_ratio != "ann"

    @property
    def has_concrete_branch(self) -> bool:
        """False only for the variant ``snn``."""
        return self.summary_ratio != "snn"

    def _check_types(self) -> None:
        # huggingface_hub's @strict does this too, but not in a module with postponed annotations.
        for field, kind in _types().items():
            try:
                type_validator(field, getattr(self, field), float | int if kind is float else kind)
            except TypeError as error:
                raise ConfigurationError(str(error)) from None
        for key in self.id2label or ():
            if not str(key).isdecimal():
                raise ConfigurationError(f"id2label has the key {key!r}: its keys must be the numbers of the answers")

    def _check(self) -> None:
        _one_of("backbone", self.backbone, BACKBONES)
        _one_of("carry", self.carry, CARRIES)
        _one_of("readout", self.readout, READOUTS)
        _one_of("precision", self.precision, PRECISIONS)
        _one_of("summary_ratio", self.summary_ratio, SUMMARY_RATIOS)
        _one_of("abstract_scale", self.abstract_scale, ABSTRACT_SCALES)
        _one_of("token_reading", self.token_reading, READINGS)
        _one_of("stua_projections", self.stua_projections, STUA_PROJECTIONS)
        _one_of("hidden_act", self.hidden_act, tuple(ACT2FN))
        for field in (
            "image_size",
            "hidden_size",
            "num_concepts",
            "time_steps",
            "group_size",
            "num_hidden_layers",
            "vocab_size",
            "max_text_length",
            "projection_size",
            "num_answers",
            "num_attention_heads",
            "intermediate_size",
            "backbone_widths",
            "spiking_channels",
            "spiking_grid_channels",
        ):
            value = getattr(self, field)
            if min(value, default=1) < 1 if isinstance(value, list) else value < 1:
                raise ConfigurationError(f"{field}={value!r} must be at least 1")
        if not 0 < self.decay_k <= 4096:
            raise ConfigurationError(
                f"decay_k={self.decay_k} must be in 1..4096, so that β = 1 − decay_k/4096 is in [0, 1)"
            )
        for field in ("threshold", "surrogate_k", "tdbn_alpha", "layer_norm_eps"):
            if not 0 < getattr(self, field) < math.inf:
                raise ConfigurationError(f"{field}={getattr(self, field)!r} must be positive and finite")
        for field in ("hidden_dropout_prob", "attention_probs_dropout_prob"):
            if not 0 <= getattr(self, field) <= 1:
                raise ConfigurationError(f"{field}={getattr(self, field)!r} must be in [0, 1]")
        if self.pad_token_id is not None and not 0 <= self.pad_token_id < self.vocab_size:
            raise ConfigurationError(
                f"pad_token_id={self.pad_token_id} must be None or below vocab_size={self.vocab_size}"
            )
        six = [*self.image_mean, *self.image_std]
        if len(self.image_mean) != 3 or len(six) != 6 or not all(map(math.isfinite, six)) or min(self.image_std) <= 0:
            raise ConfigurationError(
                f"image_mean={self.image_mean} and image_std={self.image_std} must have three finite numbers each, "
                "and image_std positive ones"
            )
        if not 0 <= self.initializer_range < math.inf:
            raise ConfigurationError(f"initializer_range={self.initializer_range!r} must be finite and not negative")
        if self.hidden_size % self.num_attention_heads:
            raise ConfigurationError(
                f"hidden_size={self.hidden_size} must be a multiple of num_attention_heads={self.num_attention_heads}"
            )
        if (self.backbone == "resnet-tiny") != bool(self.backbone_widths):
            raise ConfigurationError(
                f"backbone_widths={self.backbone_widths} with backbone={self.backbone!r}: "
                "give them for resnet-tiny; leave them empty for all other backbones, whose widths are fixed"
            )
        if self.image_size % self.stride:
            raise ConfigurationError(
                f"image_size={self.image_size} must be a multiple of the backbone's stride, {self.stride}"
            )
        if self.has_spiking_branch and 2 ** len(self.spiking_channels) != self.stride:
            raise ConfigurationError(
                f"{len(self.spiking_channels)} spiking layers of stride 2 have the total stride "
                f"{2 ** len(self.spiking_channels)}, but {self.backbone} has stride {self.stride}: "
                f"give {self.stride.bit_length() - 1} spiking_channels"
            )
        if self.max_text_length > self.max_position_embeddings:
            raise ConfigurationError(
                f"max_text_length={self.max_text_length} must be at most "
                f"max_position_embeddings={self.max_position_embeddings}"
            )


@cache
def _types() -> dict[str, object]:
    labels = {"id2label": dict[int, str] | dict[str, str] | None, "label2id": dict[str, Any] | None}
    return {**inspect.get_annotations(AshNetsConfig, eval_str=True), "architectures": list[str] | None, **labels}


def dtype_of(value: object) -> torch.dtype:
    """A type given as such or by its name. Raises ConfigurationError if it is not a floating-point type."""
    kind = getattr(torch, value, None) if isinstance(value, str) else value
    if not isinstance(kind, torch.dtype) or not kind.is_floating_point:
        raise ConfigurationError(
            f"dtype={value!r} is not a floating-point type of torch: give 'float32', 'bfloat16', 'float16' or 'float64'"
        )
    return kind


def _one_of(field: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigurationError(f"{field}={value!r} is not one of {', '.join(choices)}")
