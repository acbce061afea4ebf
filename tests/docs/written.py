"""The documents of the repository: their blocks, their command lines, their links."""

from __future__ import annotations

import re
from pathlib import Path

OTHERS = ("CONTRIBUTING.md", "zoo/README.md", "zoo/pretraining.md", "zoo/paper/README.md")
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
IMAGE = re.compile(r'(?:src|srcset)="([^"]+)"')


def guides(repository: Path) -> list[Path]:
    """README and the pages of docs."""
    return [repository / "README.md", *sorted((repository / "docs").rglob("*.md"))]


def documents(repository: Path) -> list[Path]:
    """The same and all other documents."""
    return [*guides(repository), *(repository / name for name in OTHERS)]


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def command_lines(text: str) -> list[str]:
    """Lines of shell blocks, indented lines, command lines in sentences; without incomplete ones (…, bare names)."""
    shell = [*blocks(text, "sh"), *re.findall(r"^    ashnets (?:.*\\\n)*.*\n", text, re.MULTILINE)]
    lines = [line.strip() for block in shell for line in block.replace("\\\n", " ").splitlines()]
    lines += [" ".join(line.split()) for line in re.findall(r"`(ashnets [a-z]+ [^`]*)`", text)]
    return [line for line in lines if "…" not in line]


def links(text: str) -> list[str]:
    """The targets of all links and images, outside of code."""
    prose = re.sub(r"^```.*?^```|^    .*?$|`[^`\n]*`", "", text, flags=re.DOTALL | re.MULTILINE)
    return LINK.findall(prose) + IMAGE.findall(prose)


def anchors(text: str) -> set[str]:
    """The anchors of the headings, as GitHub and mkdocs both write them."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}
