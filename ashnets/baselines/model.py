"""What the baselines share: their base class, and their classifier over answers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from ashnets.baselines.configuration import BaselineConfig
from ashnets.errors import WeightsError
from ashnets.model.heads import answer_loss, two_layers
from ashnets.model.outputs import ClassifierOutput
from ashnets.model.pretrained import AshNetsPreTrainedModel, check_folder

WEIGHTS = "model.safetensors"


class BaselineModel(AshNetsPreTrainedModel):
    """Base of the baselines: saved as ASH-Nets' models are, and found by the folder of their run alone."""

    config_class = BaselineConfig

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls, folder: str | os.PathLike, **keys: Any
    ) -> Any:
        """The model of a finished run in evaluation mode, float32; ``keys`` override its configuration.

        Raises:
            WeightsError: no such folder, or weights that do not fill this class.
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
        """Fill all but the head from another head's run. Raises WeightsError if the folder does not serve."""
        prefix = f"{self.base_model_prefix}."
        tensors = {key: value for key, value in _read(folder).items() if key.startswith(prefix)}
        own = {key: value for key, value in self.state_dict().items() if key.startswith(prefix)}
        wrong = [key for key in own.keys() | tensors.keys() if key not in own or key not in tensors]
        wrong += [key for key in own.keys() & tensors.keys() if own[key].shape != tensors[key].shape]
        if wrong:
            raise WeightsError(f"{folder} is another model: {sorted(wrong)[0]} and {len(wrong) - 1} more do not fit")
        self.load_state_dict(tensors, strict=False)


class BaselineForVQA(BaselineModel):
    """A classifier over answers on what a baseline makes of an image and a question.

    Args:
        core: the baseline without a head: ``vision`` and ``transformer``.
        features: width of what `joint` gives.
    """

    def __init__(self, config: BaselineConfig, core: Any, features: int) -> None:
        super().__init__(config)
        self.ashnets: Any = core
        self.classifier = two_layers(config, features, config.num_answers)
        self.post_init()

    def joint(self, visual: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor | None) -> torch.Tensor:
        """What ``vision`` gave of B images, and texts (B, L), to (B, features)."""
        raise NotImplementedError

    def forward(
        self,
        pixel_values: torch.Tensor,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        **options: Any,
    ) -> ClassifierOutput:
        """As `ashnets.model.heads.AshNetsForVQA`."""
        visual = self.ashnets.vision(pixel_values)
        logits = self.classifier(self.joint(visual, input_ids, attention_mask))
        loss = None if labels is None else answer_loss(logits, labels)
        return ClassifierOutput(logits=logits, loss=loss, visual=visual)


def baseline_config(folder: str | os.PathLike, **keys: Any) -> BaselineConfig:
    """The configuration of a finished baseline's run with other ``keys``. Raises WeightsError if it is none."""
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
    """Intensities (B, 3, S, S) in [0, 1] less the mean, over the deviation, of each channel."""
    mean, std = (pixel_values.new_tensor(x).view(1, 3, 1, 1) for x in (config.image_mean, config.image_std))
    return (pixel_values - mean) / std
