"""The app by HTTP on loopback, as a browser or a program uses it."""

from __future__ import annotations

import os
import re
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

import psutil
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image

import ashnets
from ashnets.errors import ConfigurationError, MissingExtraError
from ashnets.web_app.serving import serving
from ashnets.web_app.session import UPLOAD_BYTES


@pytest.fixture(scope="module")
def address(model: Path, images: Path, outside: list[Any]) -> Iterator[str]:
    with serving(model, images=images) as found:
        yield found


@pytest.fixture
def client(address: str, tmp_path: Path) -> Iterator[Client]:
    """A visitor."""
    one = Client(address, verbose=False, download_files=tmp_path, analytics_enabled=False)
    yield one
    one.close()


def fetch(url: str, data: bytes | None = None, kind: str = "") -> tuple[int, Any, bytes]:
    """Status, headers and body."""
    request = urllib.request.Request(url, data, {"Content-Type": kind} if kind else {})
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


def test_search_by_text_shows_the_images_of_the_command(client: Client, model: Path, images: Path) -> None:
    hits = ashnets.search(images, "a b c", top=3, model=model, progress=False)
    shown = client.predict("a b c", 3, 0, api_name="/search_by_text")
    assert [one["caption"] for one in shown] == [f"{hit['score']:.3f} · {hit['image']}" for hit in hits]
    for one, hit in zip(shown, hits, strict=True):
        with Image.open(one["image"]) as image, Image.open(hit["path"]) as original:
            assert image.convert("RGB").tobytes() == original.convert("RGB").tobytes()
    reranked = client.predict("a b c", 3, 3, api_name="/search_by_text")
    assert all(", matching 0." in one["caption"] for one in reranked)


def test_an_upload_is_searched_looked_at_and_placed(client: Client, images: Path) -> None:
    *_, name = client.predict(handle_file(images / "4.png"), api_name="/read_upload")
    assert name == "4\\.png"
    best = client.predict(2, api_name="/search_by_image")[0]
    assert best["caption"] == "1.000 · 4.png"
    frame = unescape(client.predict("a b\nc", api_name="/spikes"))
    assert all(len(re.findall(rf"<td>{text} \(-?[01]\.\d+\)", frame)) == 3 for text in ("a b", "c"))
    assert frame.count("<img") == 2 + 5 and "<h1>4.png</h1>" in frame and "<script" not in frame
    summary, report = client.predict("spatial", api_name="/energy")
    assert "mapping spatial" in summary and "srcdoc=" in report and "<script" not in report
    client.predict(api_name="/clear_image")
    with pytest.raises(AppError, match="there is no image yet"):
        client.predict(2, api_name="/search_by_image")


def test_a_random_image_is_one_of_the_collection(client: Client) -> None:
    *_, name = client.predict(api_name="/random_image")
    assert name in {f"{i}\\.png" for i in range(7)}
    assert client.predict(1, api_name="/search_by_image")[0]["caption"] == f"1.000 · {name.replace(chr(92), '')}"


def test_visitors_do_not_see_each_others_images(client: Client, address: str, images: Path, tmp_path: Path) -> None:
    client.predict(handle_file(images / "4.png"), api_name="/read_upload")
    other = Client(address, verbose=False, download_files=tmp_path, analytics_enabled=False)
    with pytest.raises(AppError, match="there is no image yet"):
        other.predict(2, api_name="/search_by_image")
    other.close()


@pytest.mark.parametrize(
    ("name", "data", "told"),
    [
        ("cut.png", None, "Image 'cut.png' is damaged or cut short"),
        ("text.png", b"no image", "Image 'text.png' is not an image that can be read"),
        ("empty.png", b"", "is empty"),
        ("<i>.png", b"no image", "is not an image that can be read"),
    ],
)
def test_a_damaged_upload_says_what_the_command_line_says(
    client: Client, images: Path, tmp_path: Path, name: str, data: bytes | None, told: str
) -> None:
    upload = tmp_path / name
    upload.write_bytes((images / "damaged.png").read_bytes() if data is None else data)
    with pytest.raises(AppError) as error:
        client.predict(handle_file(upload), api_name="/read_upload")
    assert told in str(error.value) and "<i>" not in str(error.value) and tempfile.gettempdir() not in str(error.value)


def test_an_empty_query_says_what_the_command_line_says(client: Client) -> None:
    with pytest.raises(AppError, match="empty"):
        client.predict("  ", 3, 0, api_name="/search_by_text")


def test_a_file_that_is_too_large_is_not_taken(address: str) -> None:
    head = b'--edge\r\nContent-Disposition: form-data; name="files"; filename="large.png"\r\n\r\n'
    body = head + bytes(UPLOAD_BYTES + 1) + b"\r\n--edge--\r\n"
    status, _, _ = fetch(f"{address}gradio_api/upload", body, "multipart/form-data; boundary=edge")
    assert status == 413
    small = head + b"small" + b"\r\n--edge--\r\n"
    assert fetch(f"{address}gradio_api/upload", small, "multipart/form-data; boundary=edge")[0] == 200


def test_nothing_is_fetched_for_a_visitor(client: Client, outside: list[Any]) -> None:
    """Gradio would fetch an address in the place of a file, also for a text field."""
    named = {"path": "http://no-such-host.invalid/image.png", "meta": {"_type": "gradio.FileData"}}
    for words, name in (((named,), "/read_upload"), ((named, 3, 0), "/search_by_text")):
        with pytest.raises(AppError, match="an address is no file"):
            client.predict(*words, api_name=name)
    assert outside == []


def test_only_what_the_page_shows_is_served(address: str, images: Path, repository: Path) -> None:
    for path in ("/etc/passwd", images / "0.png", repository / "pyproject.toml", "pyproject.toml"):
        assert fetch(f"{address}gradio_api/file={str(path).replace(' ', '%20')}")[0] in (403, 404), path


def test_every_answer_keeps_the_browser_here(address: str) -> None:
    for path in ("", "config", "theme.css", "no-such-page"):
        policy = fetch(address + path)[1]["Content-Security-Policy"]
        assert "default-src 'self'" in policy and "http" not in policy


def test_it_listens_here_alone_and_calls_nobody(address: str, client: Client, outside: list[Any]) -> None:
    client.predict("a", 1, 0, api_name="/search_by_text")
    port = int(address.rstrip("/").rpartition(":")[2])
    listening = [one.laddr for one in psutil.Process().net_connections("inet") if one.status == psutil.CONN_LISTEN]
    assert {one.ip for one in listening if one.port == port} == {"127.0.0.1"}
    assert outside == []


def test_nothing_is_left_behind_and_a_port_is_held_once(
    vqa_model: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = dict(os.environ)
    with serving(vqa_model, images=images) as address:
        port = int(address.rstrip("/").rpartition(":")[2])
        client = Client(address, verbose=False, analytics_enabled=False)
        client.predict(handle_file(images / "0.png"), api_name="/read_upload")
        expected = ashnets.ask(images / "0.png", "a b", model=vqa_model)
        rows = client.predict("a b", api_name="/ask")["data"]
        assert rows == [[one["answer"], round(one["score"], 3)] for one in expected]
        client.close()
        assert list(tmp_path.glob("ashnets-app-*/*/0.png"))
        with (
            pytest.raises(ConfigurationError, match=f"port {port} of 127.0.0.1 is in use"),
            serving(vqa_model, images=images, port=port),
        ):
            pass
    assert not list(tmp_path.glob("ashnets-app-*"))
    assert dict(os.environ) == before


def test_without_gradio_the_extra_is_named(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'ashnets\[app\]'"), serving(model):
        pass
