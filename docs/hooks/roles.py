"""``:func:`ashnets.x.y``` in a docstring becomes a link to what it names, where a page shows that."""

from __future__ import annotations

import re
from typing import Any

import griffe

ROLE = re.compile(r":(?:attr|class|data|func|meth|mod):`~?([\w.]+)`")


class Roles(griffe.Extension):
    """Rewrites the docstrings of all objects."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = ROLE.sub(
                r'<autoref identifier="\1" optional><code>\1</code></autoref>', obj.docstring.value
            )
