"""What the pages of mkdocs.yml's nav do not name: the generated pages, and new guides."""

from __future__ import annotations

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files


def on_files(files: Files, config: MkDocsConfig) -> None:
    assert config.nav is not None
    named = set(leaves(config.nav))
    pages = [file.src_uri for file in files.documentation_pages() if file.src_uri not in named]
    (guides,) = [one["Guides"] for one in config.nav if isinstance(one, dict) and "Guides" in one]
    guides += sorted(uri for uri in pages if not uri.startswith(("reference/", "repository/")))
    api = [uri for uri in pages if uri.startswith("reference/api/")]
    config.nav.append({"Reference": ["reference/commands.md", {"API": api}]})
    config.nav.append({"Repository": [uri for uri in pages if uri.startswith("repository/")]})


def leaves(nav: object) -> list[str]:
    """The pages of a nav, of whatever depth."""
    if isinstance(nav, str):
        return [nav]
    return [leaf for one in (nav.values() if isinstance(nav, dict) else nav) for leaf in leaves(one)]
