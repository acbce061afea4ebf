"""The configuration of a baseline: that of the ASH-Nets architecture whose measures it takes."""

from __future__ import annotations

from typing import Any

from ashnets.configuration import AshNetsConfig
from ashnets.errors import ConfigurationError
from ashnets.training.recipe import BASELINES


class BaselineConfig(AshNetsConfig):
    """An ASH-Nets configuration and which baseline stands in its place.

    The baseline has its own encoder of images and no spiking branch; it takes the transformer's widths, layers, heads and
    vocabulary, the image's side and, for ViLT's patches, the stride of a visual token.

    Args:
        baseline: ``vilt`` or ``frozen``.

    Raises:
        ConfigurationError: no such baseline, or as `AshNetsConfig`.
    """

    model_type = "ashnets-baseline"

    baseline: str = "vilt"

    def __post_init__(self, **kwargs: Any) -> None:
        self.summary_ratio = "ann"
        super().__post_init__(**kwargs)
        if self.baseline not in BASELINES:
            raise ConfigurationError(f"baseline={self.baseline!r} is not one of {', '.join(BASELINES)}")
