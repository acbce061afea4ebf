"""The configuration of a peer: that of the ASH-Nets architecture whose measures it takes."""

from __future__ import annotations

from typing import Any

from ashnets.configuration import AshNetsConfig
from ashnets.errors import ConfigurationError
from ashnets.training.recipe import PEERS


class PeerConfig(AshNetsConfig):
    """An ASH-Nets configuration and which peer stands in its place.

    The peer has its own encoder of pictures and no spiking branch; it takes the transformer's widths, layers, heads and
    vocabulary, the picture's side and, for ViLT's patches, the stride of a visual token.

    Args:
        peer: ``vilt`` or ``frozen``.

    Raises:
        ConfigurationError: no such peer, or as `AshNetsConfig`.
    """

    model_type = "ashnets-peer"

    peer: str = "vilt"

    def __post_init__(self, **kwargs: Any) -> None:
        self.summary_ratio = "ann"
        super().__post_init__(**kwargs)
        if self.peer not in PEERS:
            raise ConfigurationError(f"peer={self.peer!r} is not one of {', '.join(PEERS)}")
