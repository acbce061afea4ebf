"""From a name to weights."""

from ashnets.hub.loading import from_pretrained
from ashnets.hub.resolving import resolve, verify

__all__ = ["from_pretrained", "resolve", "verify"]
