"""Links from the documentation to files of the repository: modules to their reference, others to a copy in the site."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
COPIES = "repository/"  # folder of the site
LINK = re.compile(r"\[([^\]\n]*)\]\((?![a-z]+:|#|/)([^)#\s]+)(#[^)\s]*)?\)")
PACKAGES = {"ashnets": "ashnets", "zoo": "ashnets.zoo", "export": "ashnets.export", "hub": "ashnets.hub"}


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Add every file that a page links and that is not in docs, and those that such a page links."""
    waiting = [(file.src_uri, file.content_string) for file in files.documentation_pages()]
    while waiting:
        page, text = waiting.pop()
        for target in {outside(page, link[2]) for link in LINK.finditer(text)}:
            uri = COPIES + target if target else ""
            if not target or module(target) or uri in files.src_uris or not (ROOT / target).is_file():
                continue
            files.append(File.generated(config, uri, abs_src_path=str(ROOT / target)))
            if target.endswith(".md"):
                waiting.append((uri, (ROOT / target).read_text(encoding="utf-8")))


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    def here(link: re.Match[str]) -> str:
        text, path, anchor = link[1], link[2], link[3] or ""
        if name := module(outside(page.file.src_uri, path)):
            return f"[{text}][{name}]"
        return f"[{text}]({in_site(page.file.src_uri, path)}{anchor})"

    return LINK.sub(here, markdown)


def place(page: str, link: str) -> str:
    """Where a link of a page points to, from the root of the repository."""
    source = page.removeprefix(COPIES) if page.startswith(COPIES) else f"docs/{page}"
    return posixpath.normpath(posixpath.join(posixpath.dirname(source), link))


def outside(page: str, link: str) -> str:
    """The same for a file that is not in docs; else empty."""
    found = place(page, link)
    return "" if found.startswith("docs/") else found


def in_site(page: str, link: str) -> str:
    """The link between the same two files in the site."""
    found = place(page, link)
    uri = found.removeprefix("docs/") if found.startswith("docs/") else COPIES + found
    return posixpath.relpath(uri, posixpath.dirname(page) or ".")


def module(path: str) -> str:
    """``zoo/registry.py`` → ``ashnets.zoo.registry``; empty for what has no page."""
    first, *rest = path.removesuffix(".py").split("/")
    if not path.endswith(".py") or first not in PACKAGES or rest[-1] == "__main__":
        return ""
    return ".".join([PACKAGES[first], *rest]).removesuffix(".__init__")
