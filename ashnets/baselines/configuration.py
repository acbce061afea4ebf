"""The configuration of a baseline."""

from __future__ import annotations

from typing import Any

from ashnets.configuration import AshNetsConfig
from ashnets.errors import ConfigurationError
from ashnets.training.recipe import BASELINES


class BaselineConfig(AshNetsConfig):
    """The configuration of a baseline, made from that of an ASH-Nets model.

    The baseline has its own image encoder and no spiking branch. It uses the same widths, layers, heads and vocabulary
    of the transformer, the same image size and, for the patches of ViLT, the stride of a visual token.

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
