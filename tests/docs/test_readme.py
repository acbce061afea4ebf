"""What README must be: short, with an image of the present weights."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from ashnets.figures import THEMES
from ashnets.hub.resolving import weights_sha256
from tests.docs.written import blocks


def test_readme_is_short(repository: Path) -> None:
    text = (repository / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 150
    assert [len(block.splitlines()) for block in blocks(text, "sh")] == [6]


@pytest.mark.parametrize("theme", THEMES)
def test_the_image_shows_the_bundled_weights(repository: Path, theme: str) -> None:
    path = repository / "docs" / "assets" / f"at_work_{theme}.png"
    assert str(path.relative_to(repository)) in (repository / "README.md").read_text(encoding="utf-8")
    assert path.stat().st_size < 300_000
    with Image.open(path) as image:
        assert image.info["weights"] == weights_sha256("ashnets-tiny"), "run: make pages"
        corner = image.convert("L").getpixel((0, 0))
    assert (corner > 200) == (theme == "light")
