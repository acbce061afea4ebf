"""Parameters and multiply-accumulates of every model in the registry, stored in ``results/sizes.json``.

``python -m ashnets.zoo.numbers --count`` counts them again. Reading the file needs no torch.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache

from ashnets.zoo.registry import ROOT

SIZES = ROOT / "results" / "sizes.json"
STEP, TEXT = "abstract encoder, a step", "transformer, text alone"  # parts of Sizes.macs


@dataclass(frozen=True)
class Sizes:
    """Parameters and MACs.

    Attributes:
        parameters: part → parameters; the parts of the bare model add up to its total.
        backbone_with_classifier: the backbone with an ImageNet classifier, counted as in the paper; None for
            ``resnet-tiny``, which is not an ImageNet model.
        total: of the bare model.
        heads: task → parameters of the whole model with that head.
        macs: part → MACs for one image and one text of the greatest length; the spiking encoder for one step.
        time_steps: T.
    """

    parameters: dict[str, int]
    backbone_with_classifier: int | None
    total: int
    heads: dict[str, int]
    macs: dict[str, int]
    time_steps: int

    @property
    def spiking_macs(self) -> int:
        """MACs of the spiking encoder over all T steps, as if every input were a spike."""
        return self.macs.get(STEP, 0) * self.time_steps

    @property
    def all_macs(self) -> int:
        """MACs for an image and a text, the spiking encoder over all T steps."""
        return sum(n for part, n in self.macs.items() if part not in (STEP, TEXT)) + self.spiking_macs


@cache
def counted() -> dict[str, Sizes]:
    """Model → sizes, for the models in the file."""
    if not SIZES.is_file():
        return {}
    return {name: Sizes(**parts) for name, parts in json.loads(SIZES.read_text(encoding="utf-8")).items()}
