"""The page of the app: what a visitor gives, and what is shown of a `Session`."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Sequence
from html import escape

import gradio as gr
from PIL import Image

from ashnets.data.folders import printable
from ashnets.data.images import SUFFIXES, load_image
from ashnets.errors import AshNetsError, InputError, one_line
from ashnets.export.energy.html import page as energy_page
from ashnets.export.energy.placement_page import heading, latency_sentence
from ashnets.files import JsonObject
from ashnets.image_search.searching import Hit
from ashnets.web_app.session import PREVIEW, Given, Session
from ashnets.zoo.gallery_images import FOLDER

LONGEST = 2000  # characters of a text
MAPPINGS = ("best", "spatial", "linear")
FRAME = '<iframe sandbox="" title="{}" style="width: 100%; height: 80vh; border: 0" srcdoc="{}"></iframe>'
CACHE = (600, 3600)  # seconds: every ten minutes, files that are older than an hour are deleted


def build(session: Session) -> gr.Blocks:
    """The page; each action is also a call of the HTTP interface, under the name of its function."""
    with gr.Blocks(title=f"ashnets: {session.name}", analytics_enabled=False, delete_cache=CACHE) as page:
        gr.Markdown(_heading(session))
        given = gr.State(None)
        with gr.Row():
            with gr.Column(scale=1, min_width=260):
                _image(session, given)
            with gr.Column(scale=3):
                for label, what, fill in (
                    ("Search", "search", _search),
                    ("Ask", "ask", _ask),
                    ("Spikes", "spikes", _spikes),
                    ("Energy", "spikes", _energy),
                ):
                    with gr.Tab(label):
                        if what in session.cannot:
                            gr.Markdown(_plain(session.cannot[what]))
                        else:
                            fill(session, given)
    _refuse_addresses(page)
    return page


def _heading(session: Session) -> str:
    about = f"# {_plain(session.name)}\n"
    if (search := session.search) is not None:
        bundled = search.root.exists() and search.root.samefile(FOLDER)  # an index outlives its folder
        about += (
            f"{len(search):,} images of {'the bundled gallery' if bundled else _plain(printable(search.root.name))}"
        )
        if search.unreadable:
            about += f"; {len(search.unreadable)} could not be read"
    return about


def _image(session: Session, given: gr.State) -> None:
    upload = gr.File(label="Image", file_types=sorted(SUFFIXES), height=120)
    draw = gr.Button("Random image of the collection", visible=session.search is not None, size="sm")
    shown = gr.Image(format="png", interactive=False, buttons=[], show_label=False, visible=False)
    name = gr.Markdown()

    def show(found: Given) -> tuple[Given, JsonObject, str]:
        return found, gr.update(value=found.preview, visible=True), _plain(found.name)

    def read_upload(path: str) -> tuple[Given, JsonObject, str]:
        return show(session.read(path))

    def random_image() -> tuple[Given, JsonObject, str]:
        return show(session.draw())

    def clear_image() -> tuple[None, JsonObject, str]:
        return None, gr.update(value=None, visible=False), ""

    outputs = [given, shown, name]
    cleared = _on(upload.upload, clear_image, [], outputs)  # so that a damaged upload leaves no earlier image
    _on(cleared.success, read_upload, [upload], outputs)
    _on(upload.clear, clear_image, [], outputs, name="clear_image_1")
    _on(draw.click, random_image, [], outputs)


def _search(session: Session, given: gr.State) -> None:
    with gr.Row():
        text = gr.Textbox(label="Text", placeholder="a red car", max_length=LONGEST, scale=4)
        top = gr.Slider(1, 48, value=12, step=1, label="Images", scale=1)
        rerank = gr.Slider(0, 64, value=0, step=1, label="Re-ranked by ITM", scale=1)
    with gr.Row():
        by_text = gr.Button("Search by text", variant="primary")
        by_image = gr.Button("Search by the image")
    found = gr.Gallery(show_label=False, columns=4, height="auto", object_fit="contain", format="png", buttons=[])

    def search_by_text(text: str, top: float, rerank: float) -> list[tuple[Image.Image, str]]:
        return _thumbnails(session.by_text(text, int(top), int(rerank)))

    def search_by_image(given: Given | None, top: float) -> list[tuple[Image.Image, str]]:
        return _thumbnails(session.by_image(_required(given), int(top)))

    _on(by_text.click, search_by_text, [text, top, rerank], [found])
    _on(text.submit, search_by_text, [text, top, rerank], [found], name="search_by_text_1")
    _on(by_image.click, search_by_image, [given, top], [found])


def _ask(session: Session, given: gr.State) -> None:
    question = gr.Textbox(label="Question about the image", placeholder="what color is it?", max_length=LONGEST)
    send = gr.Button("Ask", variant="primary")
    answers = gr.Dataframe(headers=["answer", "score"], interactive=False, buttons=[])

    def ask(given: Given | None, question: str) -> list[list[str | float]]:
        return [[one["answer"], round(one["score"], 3)] for one in session.ask(_required(given), question)]

    _on(send.click, ask, [given, question], [answers])
    _on(question.submit, ask, [given, question], [answers], name="ask_1")


def _spikes(session: Session, given: gr.State) -> None:
    texts = gr.Textbox(
        label="Texts to compare the image with, one a line; empty: the names of the bundled images",
        lines=2,
        max_lines=6,
        max_length=10 * LONGEST,
        visible=session.spiking is not None and session.spiking.reads_texts,
    )
    run = gr.Button("Run the spiking branch", variant="primary")
    shown = gr.HTML()

    def spikes(given: Given | None, texts: str) -> str:
        return _frame("Spikes", session.spikes(_required(given), texts.splitlines()).page())

    _on(run.click, spikes, [given, texts], [shown])


def _energy(session: Session, given: gr.State) -> None:
    mapping = gr.Radio(MAPPINGS, value=MAPPINGS[0], label="Mapping of neurons to cores")
    run = gr.Button("Count, place and estimate", variant="primary")
    summary, report = gr.Markdown(), gr.HTML()

    def energy(given: Given | None, mapping: str) -> tuple[str, str]:
        found = session.energy(_required(given), mapping)
        placed = found["placement"]
        text = f"{heading(placed)} {latency_sentence(placed)}" if placed["fits"] else placed["reason"]
        return _plain(text), _frame("Energy report", energy_page(found))

    _on(run.click, energy, [given, mapping], [summary, report])


def _on(
    event: Callable[..., gr.events.Dependency],
    function: Callable[..., object],
    inputs: Sequence[gr.Component],
    outputs: Sequence[gr.Component],
    name: str | None = None,
) -> gr.events.Dependency:
    """Run ``function`` at an event; one at a time, since all of them compute on the same model."""
    name = name or getattr(function, "__name__", "")

    @functools.wraps(function)
    def told(*values: object) -> object:
        try:
            return function(*values)
        except AshNetsError as error:
            raise _shown(str(error)) from None
        except OSError as error:
            raise _shown(one_line(error)) from None

    return event(told, list(inputs), list(outputs), api_name=name, concurrency_limit=1, concurrency_id="model")


def _shown(message: str) -> gr.Error:
    """The message of the command line; Gradio would show a file name with tags in it as HTML."""
    return gr.Error(escape(message, quote=False), duration=None, title="error", print_exception=False)


def _required(given: Given | None) -> Given:
    if given is None:
        raise InputError("there is no image yet: upload one, or take a random one of the collection")
    return given


def _thumbnails(hits: list[Hit]) -> list[tuple[Image.Image, str]]:
    shown = []
    for hit in hits:
        try:
            image = load_image(hit["path"])
        except InputError as error:  # it has changed since it was indexed
            gr.Warning(escape(str(error), quote=False))
            continue
        image.thumbnail((PREVIEW, PREVIEW))
        matching = hit.get("matching")
        scores = f"{hit['score']:.3f}" + ("" if matching is None else f", matching {matching:.3f}")
        shown.append((image, f"{scores} · {hit['image']}"))
    return shown


def _frame(title: str, html: str) -> str:
    """A whole page, without scripts, inside this one."""
    return FRAME.format(title, escape(html))


def _plain(text: str) -> str:
    """Text as Markdown that shows it unchanged."""
    return "".join(f"\\{sign}" if sign in "\\`*_{}[]()#+-.!|<>~$&" else sign for sign in text)


def _refuse_addresses(page: gr.Blocks) -> None:
    """Where a file is expected, Gradio fetches any address that a client names; here nothing is fetched."""
    for block in page.blocks.values():
        move = block.async_move_resource_to_block_cache

        async def only_files(path: object, move: Callable[..., Awaitable[str | None]] = move) -> str | None:
            if "://" in str(path):
                raise gr.Error("an address is no file: upload the image itself", print_exception=False)
            return await move(path)

        block.async_move_resource_to_block_cache = only_files  # type: ignore[assignment, method-assign]
