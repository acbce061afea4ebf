"""The generated pages at the end of mkdocs.yml's nav. mkdocs warns of a page of docs/ that the nav does not name."""

from __future__ import annotations

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files


def on_files(files: Files, config: MkDocsConfig) -> None:
    assert config.nav is not None
    named = set(leaves(config.nav))
    pages = [file.src_uri for file in files.documentation_pages() if file.src_uri not in named]
    api = [uri for uri in pages if uri.startswith("reference/api/")]
    config.nav.append({"Reference": ["reference/commands.md", {"API": api}]})
    config.nav.append({"Repository": [uri for uri in pages if uri.startswith("repository/")]})


def leaves(nav: object) -> list[str]:
    """The pages of a nav, of whatever depth."""
    if isinstance(nav, str):
        return [nav]
    return [leaf for one in (nav.values() if isinstance(nav, dict) else nav) for leaf in leaves(one)]
