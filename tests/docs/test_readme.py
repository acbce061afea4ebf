"""What README must be: short, with an image of the present weights."""

from __future__ import annotations

from pathlib import Path

from tests.docs.written import blocks


def test_readme_is_short(repository: Path) -> None:
    text = (repository / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 150
    assert [len(block.splitlines()) for block in blocks(text, "sh")] == [6]
