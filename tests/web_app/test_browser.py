"""The app in a headless Chromium (Debian: chromium and chromium-driver), with the bundled model and gallery."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import ashnets
from ashnets.web_app.serving import serving
from ashnets.zoo.gallery_images import FOLDER
from tests.web_app.webdriver import Browser, chromium

pytestmark = pytest.mark.full


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with serving("ashnets-tiny") as found:
        yield found


@pytest.fixture
def browser(address: str, tmp_path: Path) -> Iterator[Browser]:
    """A window that shows the page, and that at the end has asked no other machine for anything."""
    with chromium(tmp_path) as window:
        window.requested()  # of the browser's own first page
        window.open(address)
        window.find("button", "Search by text")
        yield window
        window.screenshot(tmp_path / "last.png")
        others = [one for one in window.requested() if not one.startswith((address, "data:", "blob:", "chrome:"))]
        assert others == []
        assert [one["message"] for one in window.log("browser") if one["level"] == "SEVERE"] == []


def test_a_query_shows_the_images_that_the_command_finds(browser: Browser, tmp_path: Path) -> None:
    browser.type("input[type=text], textarea", "a pineapple")
    browser.click("button", "Search by text")
    browser.wait(lambda: ".png" in browser.text(), "images")
    names = [hit["image"] for hit in ashnets.search(FOLDER, "a pineapple", top=12, progress=False)]
    captions = [line for line in browser.text().splitlines() if line.endswith(".png")]
    assert [line.partition(" · ")[2] for line in captions] == names
    browser.wait(
        lambda: browser.run("return [...document.images].filter(one => one.naturalWidth > 40).length") == 12,
        "12 images",
    )
    assert browser.screenshot(tmp_path / "search.png").stat().st_size > 20_000


def test_an_upload_is_shown_searched_and_looked_at(browser: Browser, tmp_path: Path) -> None:
    browser.type("input[type=file]", str(FOLDER / "1f34d.png"))
    browser.wait(lambda: "1f34d.png" in browser.text(), "the name")
    browser.click("button", "Search by the image")
    browser.wait(lambda: "1.000 · 1f34d.png" in browser.text(), "the image itself")
    browser.click("button[role=tab]", "Spikes")
    browser.click("button", "Run the spiking branch")
    browser.find("iframe[title=Spikes]")
    browser.screenshot(tmp_path / "spikes.png")
    browser.click("button[role=tab]", "Energy")
    browser.click("button", "Count, place and estimate")
    browser.find("iframe[title='Energy report']")
    assert "messages" not in browser.text(), "the report lies in its frame"
    assert "mapping" in browser.text() and "cores on" in browser.text() and "Latency" in browser.text()
    browser.screenshot(tmp_path / "energy.png")


def test_a_damaged_upload_is_told(browser: Browser, tmp_path: Path) -> None:
    browser.click("button", "Random image of the collection")
    browser.wait(lambda: ".png" in browser.text(), "the name")
    damaged = tmp_path / "damaged.png"
    damaged.write_bytes((FOLDER / "1f34d.png").read_bytes()[:700])
    browser.type("input[type=file]", str(damaged))
    browser.wait(lambda: "Image 'damaged.png' is damaged or cut short" in browser.text(), "the message")
    browser.screenshot(tmp_path / "told.png")
    browser.click("button", "Search by the image")
    browser.wait(lambda: "there is no image yet" in browser.text(), "the message")


def test_what_the_model_cannot_do_is_told(browser: Browser) -> None:
    browser.click("button[role=tab]", "Ask")
    browser.wait(lambda: "lack the task" in browser.text(), "the reason")
