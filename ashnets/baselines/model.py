"""The base class of the baselines, and their classifier over answers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from ashnets.baselines.configuration import BaselineConfig
from ashnets.errors import WeightsError
from ashnets.model.classifiers import answer_loss, two_layers
from ashnets.model.outputs import ClassifierOutput, VisualOutput
from ashnets.model.pretrained import AshNetsPreTrainedModel, check_folder

WEIGHTS = "model.safetensors"


class BaselineModel(AshNetsPreTrainedModel):
    """Base of the baselines: saved like ASH-Nets models, but loaded only from the folder of their run."""

    config_class = BaselineConfig

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls, folder: str | os.PathLike, **keys: Any
    ) -> Self:
        """The model of a finished run in evaluation mode, float32; ``keys`` override its configuration.

        Raises:
            WeightsError: there is no such folder, or its weights do not match this class.
        """
        model = cls(baseline_config(folder, **keys))
        tensors = _read(folder)
        own, tied = model.state_dict(), getattr(cls, "_tied_weights_keys", None) or {}
        missing = [key for key in own if key not in tensors and key not in tied]
        strange = [key for key in tensors if key not in own or own[key].shape != tensors[key].shape]
        if missing or strange:
            raise WeightsError(
                f"{folder} does not hold a {cls.__name__}: missing {missing[:3]}, unknown or of another shape "
                f"{strange[:3]}"
            )
        model.load_state_dict(tensors, strict=False)
        return model.eval()

    def take_base(self, folder: str | os.PathLike) -> None:
        """Load all weights but the head's from a run with another head. Raises WeightsError if they do not match."""
        prefix = f"{self.base_model_prefix}."
        tensors = {key: value for key, value in _read(folder).items() if key.startswith(prefix)}
        own = {key: value for key, value in self.state_dict().items() if key.startswith(prefix)}
        wrong = [key for key in own.keys() | tensors.keys() if key not in own or key not in tensors]
        wrong += [key for key in own.keys() & tensors.keys() if own[key].shape != tensors[key].shape]
        if wrong:
            raise WeightsError(f"{folder} is another model: {sorted(wrong)[0]} and {len(wrong) - 1} more do not fit")
        self.load_state_dict(tensors, strict=False)


class BaselineForVQA(BaselineModel):
    """A classifier over answers on a baseline's features of an image and a question.

    Args:
        core: the baseline without a head: ``vision`` and ``transformer``.
        features: width of the output of `joint`.
    """

    def __init__(self, config: BaselineConfig, core: Any, features: int) -> None:
        super().__init__(config)
        self.ashnets: Any = core
        self.classifier = two_layers(config, features, config.num_answers)
        self.post_init()

    def joint(self, visual: VisualOutput, input_ids: torch.Tensor, attention_mask: torch.Tensor | None) -> torch.Tensor:
        """The output of ``vision`` for B images, and texts (B, L), to (B, features)."""
        raise NotImplementedError

    def forward(
        self,
        pixel_values: torch.Tensor,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        **options: object,
    ) -> ClassifierOutput:
        """See `ashnets.model.classifiers.AshNetsForVQA`."""
        visual = self.ashnets.vision(pixel_values)
        logits = self.classifier(self.joint(visual, input_ids, attention_mask))
        loss = None if labels is None else answer_loss(logits, labels)
        return ClassifierOutput(logits=logits, loss=loss, visual=visual)


def baseline_config(folder: str | os.PathLike, **keys: Any) -> BaselineConfig:
    """The configuration of a finished baseline run, with ``keys`` changed. Raises WeightsError if there is none."""
    check_folder(Path(folder))
    config = BaselineConfig.from_json_file(Path(folder) / "config.json")
    return BaselineConfig(**{**config.to_dict(), **keys})


def _read(folder: str | os.PathLike) -> dict[str, torch.Tensor]:
    path = Path(folder) / WEIGHTS
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{path} cannot be read ({error}); train the baseline again") from error


def normalized(pixel_values: torch.Tensor, config: BaselineConfig) -> torch.Tensor:
    """Intensities (B, 3, S, S) in [0, 1], normalized by the mean and the standard deviation of each channel."""
    mean, std = (pixel_values.new_tensor(x).view(1, 3, 1, 1) for x in (config.image_mean, config.image_std))
    return (pixel_values - mean) / std
