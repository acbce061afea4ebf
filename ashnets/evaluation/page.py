"""Self-contained HTML pages of images and texts; the page of examples shows correct and predicted answers."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from PIL import Image

from ashnets.files import Row

SIDE = 128
EXAMPLES = 24  # of each kind on the page

_FRAME = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>
:root {{ --paper: #fff; --ink: #1b1f24; --soft: #5b6570; --rule: #d9dee4; --panel: #f6f8fa; --good: #2b7a50; --bad: #b8412a; }}
@media (prefers-color-scheme: dark) {{
  :root {{ --paper: #14171b; --ink: #e6e9ed; --soft: #a2abb6; --rule: #333a43; --panel: #1c2127; --good: #5cc397; --bad: #f0806a; }}
}}
* {{ box-sizing: border-box; }}
body {{ margin: 0 auto; max-width: 1180px; padding: 1.25rem 1rem 3rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }}
h1 {{ font-size: 1.5rem; margin: 0 0 .25rem; overflow-wrap: anywhere; }}
h2 {{ font-size: 1.15rem; margin: 2rem 0 .5rem; padding-top: .6rem; border-top: 1px solid var(--rule); }}
p {{ margin: .3rem 0; overflow-wrap: anywhere; }}
.soft {{ color: var(--soft); font-size: .9rem; }}
.wide {{ overflow-x: auto; }}
table {{ border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }}
th, td {{ padding: .3rem .6rem; text-align: right; border-bottom: 1px solid var(--rule); }}
th:first-child, td:first-child {{ text-align: left; }}
.cards {{ display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 290px), 1fr)); }}
.card {{ background: var(--panel); border: 1px solid var(--rule); border-radius: 10px; padding: .8rem; min-width: 0; }}
.card img {{ width: 128px; max-width: 48%; height: auto; border-radius: 6px; background: #fff; }}
.large .card img {{ width: 100%; max-width: 100%; }}
.good {{ color: var(--good); font-weight: 600; }}
.bad {{ color: var(--bad); font-weight: 600; }}
</style>
</head>
<body>
<h1>{title}</h1>
<p class="soft">{subject}</p>
{parts}
</body>
</html>
"""  # noqa: E501


@dataclass(frozen=True)
class Example:
    """One item: its images in RGB, the text, the correct answer, the predicted answer and its score."""

    images: Sequence[Image.Image]
    text: str
    truth: str
    said: str
    score: float


def chosen_examples(scores: Sequence[float], seed: int) -> list[int]:
    """A random sample of at most `EXAMPLES` wrong and `EXAMPLES` correct items, in the order of the data."""
    order = np.random.default_rng(seed).permutation(len(scores)).tolist()
    wrong = [i for i in order if scores[i] < 0.5][:EXAMPLES]
    right = [i for i in order if scores[i] >= 0.5][:EXAMPLES]
    return sorted([*wrong, *right])


def examples_page(title: str, subject: str, rows: Sequence[Row], examples: Sequence[Example]) -> str:
    """The page: a table of ``rows``, which have the same keys, then wrong and correct examples."""
    wrong = [example for example in examples if example.score < 0.5]
    right = [example for example in examples if example.score >= 0.5]
    parts = [f"<h2>{name}</h2>{cards(map(_card, some))}" for name, some in (("Wrong", wrong), ("Right", right)) if some]
    return page(title, subject, [table(rows), *parts])


def page(title: str, subject: str, parts: Iterable[str]) -> str:
    """A whole page: title, a line about its subject, and parts in HTML."""
    return _FRAME.format(title=escape(title), subject=escape(subject), parts="\n".join(parts))


def cards(some: Iterable[str], large: bool = False) -> str:
    """Cards side by side, each in HTML; ``large`` shows images as wide as their cards."""
    kind = "cards large" if large else "cards"
    return f'<div class="{kind}">{"".join(f"""<div class="card">{one}</div>""" for one in some)}</div>'


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph, ``soft``, ``good`` or ``bad`` on request."""
    return f'<p class="{kind}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>"


def image_tag(image: Image.Image, name: str, side: int = SIDE) -> str:
    """An image inside the page, scaled down to at most ``side`` pixels."""
    small = image.copy()
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    small.save(stream, "PNG", optimize=True)
    data = base64.b64encode(stream.getvalue()).decode()
    return f'<img src="data:image/png;base64,{data}" alt="{escape(name)}"> '


def table(rows: Sequence[Row]) -> str:
    """A table of rows with the same keys."""
    head = "".join(f"<th>{escape(key)}</th>" for key in rows[0])
    body = "".join(f"<tr>{''.join(f'<td>{_cell(value)}</td>' for value in row.values())}</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _cell(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else escape(str(value))


def _card(example: Example) -> str:
    images = "".join(image_tag(image, f"image {number}") for number, image in enumerate(example.images, start=1))
    mark = "good" if example.score >= 0.5 else "bad"
    said = f'<p><span class="{mark}">{escape(example.said)}</span></p>'
    return f"{images}{paragraph(example.text)}{said}{paragraph(f'right: {example.truth}', 'soft')}"
