"""Plots of the benchmarks, from zoo/results/speed: in the place of ``<!-- chart: MACHINE/RECORD -->``."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType, SimpleNamespace

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from ashnets.figures import THEMES, style, svg

ROOT = Path(__file__).resolve().parents[2]
PLACE = re.compile(r"<!-- chart: ([\w/-]+) -->")
FOLDER = "assets/charts"  # of the site


def on_files(files: Files, config: MkDocsConfig) -> None:
    drawing = _drawing()
    for page in files.documentation_pages():
        for record in PLACE.findall(page.content_string):
            text = (ROOT / "zoo" / "results" / "speed" / f"{record}.json").read_text(encoding="utf-8")
            rows = [SimpleNamespace(**row) for row in json.loads(text)["rows"]]
            for name, theme in THEMES.items():
                with style(theme):
                    data = svg(drawing.draw(rows))
                files.append(File.generated(config, f"{FOLDER}/{record}-{name}.svg", content=data))


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    def images(place: re.Match[str]) -> str:
        return "\n".join(f"![{place[1]}]({FOLDER}/{place[1]}-{name}.svg#only-{name})" for name in THEMES)

    return PLACE.sub(images, markdown)


def _drawing() -> ModuleType:
    """The module that draws the plots of ``make bench``."""
    spec = importlib.util.spec_from_file_location("drawing", ROOT / "tests" / "bench" / "drawing.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
