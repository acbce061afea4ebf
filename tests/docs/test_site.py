"""The site: built without a warning, with every command and every public name, closed in itself."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
import typer

import ashnets
from ashnets.cli import app


class Elements(HTMLParser):
    """The ids of a page, what it links, and what a browser loads for it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids, self.links, self.loaded = set(), [], []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.ids |= {found[name] for name in ("id", "name") if name in found}
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        elif "src" in found or (tag == "link" and "canonical" not in found.get("rel", "")):
            self.loaded.append((found.get("src") or found.get("href", "")).partition("#")[0])


@pytest.fixture(scope="module")
def site(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site as `make docs` builds it."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=repository, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Elements]:
    return {path: Elements(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")}


def test_links_reach_a_page_and_a_place(site: Path, pages: dict[Path, Elements]) -> None:
    broken = []
    for page, elements in pages.items():
        for link in {*elements.links, *elements.loaded}:
            if page.name == "404.html" or re.match(r"[a-z]+:", link):
                continue
            path, _, anchor = unquote(link).partition("#")
            target = (page.parent / path.partition("?")[0]).resolve() if path else page
            target = target / "index.html" if target.is_dir() else target
            known = pages[target].ids if target in pages else set()
            if not target.is_file() or (anchor and anchor != "__top" and anchor not in known):
                broken.append(f"{page.relative_to(site)}: {link}")
    assert not broken


def test_a_reader_asks_no_other_server(pages: dict[Path, Elements]) -> None:
    assert not [link for elements in pages.values() for link in elements.loaded if re.match(r"(https?:)?//", link)]


def test_every_command_and_option_is_there(site: Path) -> None:
    text = re.sub(r"<[^>]*>", "", (site / "reference" / "commands.html").read_text(encoding="utf-8"))
    waiting = [("ashnets", typer.main.get_command(app))]
    while waiting:
        name, command = waiting.pop()
        assert name in text
        assert all(option in text for one in command.params for option in one.opts if option.startswith("--"))
        waiting += [(f"{name} {word}", one) for word, one in getattr(command, "commands", {}).items()]


def test_every_public_name_has_its_documentation(pages: dict[Path, Elements]) -> None:
    ids = {name for elements in pages.values() for name in elements.ids}
    for name in ashnets.__all__:
        found = getattr(ashnets, name)
        assert f"{found.__module__}.{found.__qualname__}" in ids, name
