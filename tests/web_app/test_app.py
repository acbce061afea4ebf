"""The app by HTTP on loopback, as a browser or a program uses it."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
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
from ashnets.web_app import serving as serving_module
from ashnets.web_app.serving import OwnOrigin, serving
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


def fetch(url: str, data: bytes | None = None, kind: str = "", **headers: str) -> tuple[int, Any, bytes]:
    """Status, headers and body."""
    request = urllib.request.Request(url, data, {**headers, **({"Content-Type": kind} if kind else {})})
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


def upload(address: str, data: bytes, **headers: str) -> int:
    """The status of the answer."""
    head = b'--edge\r\nContent-Disposition: form-data; name="files"; filename="sent.png"\r\n\r\n'
    body = head + data + b"\r\n--edge--\r\n"
    return fetch(f"{address}gradio_api/upload", body, "multipart/form-data; boundary=edge", **headers)[0]


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
    assert upload(address, bytes(UPLOAD_BYTES + 1)) == 413
    assert upload(address, b"small") == 200


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


def test_a_foreign_page_is_refused(address: str) -> None:
    """A name that was made to resolve to this machine, and requests across origins, need no permission by CORS."""
    port = address.rstrip("/").rpartition(":")[2]
    own, foreign = address.rstrip("/"), f"http://evil.example:{port}"
    rebound = {"Host": f"evil.example:{port}", "Origin": foreign}
    call = f"{address}gradio_api/call/clear_image", b'{"data": []}', "application/json"
    assert fetch(address)[0] == fetch(address, Host=f"localhost:{port}")[0] == fetch(*call, Origin=own)[0] == 200
    assert fetch(address, Host=f"evil.example:{port}")[0] == fetch(address, **rebound)[0] == 403
    assert fetch(*call, **rebound)[0] == fetch(*call, Origin=foreign)[0] == fetch(*call, Origin="null")[0] == 403
    assert upload(address, b"small", Origin=own) == 200
    assert upload(address, b"small", Origin="http://evil.example") == upload(address, b"small", **rebound) == 403


@pytest.mark.parametrize(
    ("bound", "host", "origin", "allowed"),
    [
        ("0.0.0.0", "10.0.0.7:7860, for me-birds.hf.space", "https://me-birds.hf.space", True),  # behind a proxy
        ("0.0.0.0", "10.0.0.7:7860, for a.example, proxy.example", "https://a.example", True),
        ("0.0.0.0", "10.0.0.7:7860, for me-birds.hf.space", "https://evil.example", False),
        ("127.0.0.1", "127.0.0.1:7860, for evil.example", "http://evil.example", False),
        ("127.0.0.1", "127.0.0.1:7860", None, True),
        ("127.0.0.1", "LOCALHOST:7860", "http://localhost:7860", True),
        ("localhost", "[::1]:7860", "http://[::1]:7860", True),
        ("127.0.0.1", "127.0.0.1:7860", "http://localhost:7860", False),
        ("127.0.0.1", "127.0.0.1:7860", "http://127.0.0.1:8888", False),
        ("::1", "evil.example:7860", None, False),
        ("127.0.0.1", "localhost.evil.example:7860", None, False),
        ("127.0.0.1", None, None, False),
        ("127.0.0.1", "[::1", None, False),
        ("0.0.0.0", "lab.example:7860", None, True),
        ("0.0.0.0", "lab.example:7860", "http://lab.example:7860", True),
        ("0.0.0.0", "me-birds.hf.space", "https://me-birds.hf.space", True),
        ("0.0.0.0", "lab.example:80", "http://lab.example", True),
        ("0.0.0.0", "lab.example:7860", "http://evil.example:7860", False),
        ("0.0.0.0", "lab.example:7860", "null", False),
        ("0.0.0.0", "lab.example:port", "http://lab.example:7860", False),
    ],
)
def test_names_and_origins(bound: str, host: str | None, origin: str | None, allowed: bool) -> None:
    reached, sent = [], []

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        reached.append(scope)

    async def send(message: Any) -> None:
        sent.append(message)

    direct, _, forwarded = (host or "").partition(", for ")
    given = [(b"host", host and direct), (b"x-forwarded-host", forwarded or None), (b"origin", origin)]
    headers = [(name, value.encode()) for name, value in given if value is not None]
    guard = OwnOrigin(inner, serving_module._names(bound))
    asyncio.run(guard({"type": "http", "method": "POST", "headers": headers}, None, send))  # type: ignore[arg-type]
    assert bool(reached) == allowed
    assert [one["status"] for one in sent if "status" in one] == ([] if allowed else [403])


def test_a_websocket_of_a_foreign_page_is_closed_before_it_is_accepted() -> None:
    sent = []

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("it reached the app")

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"host", b"127.0.0.1:7860"), (b"origin", b"http://evil.example")]
    guard = OwnOrigin(inner, serving_module._names("127.0.0.1"))
    asyncio.run(guard({"type": "websocket", "headers": headers}, None, send))  # type: ignore[arg-type]
    assert sent == [{"type": "websocket.close", "code": 1008}]


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


SERVE = """
import signal, sys
import ashnets
for number in (signal.SIGTERM, signal.SIGHUP):
    ashnets.app(sys.argv[1], images=sys.argv[2], report=lambda line: print(line, flush=True))
    assert signal.getsignal(number) == signal.SIG_DFL
signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
ashnets.app(sys.argv[1], images=sys.argv[2], report=lambda line: print(line, flush=True))
assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
print("ended", flush=True)
"""


def test_a_signal_ends_it_and_removes_the_uploads(model: Path, images: Path, tmp_path: Path) -> None:
    folder = tmp_path / "temporary"
    folder.mkdir()
    environment = {**os.environ, "TMPDIR": str(folder), "ASHNETS_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "-W", "ignore", "-c", SERVE, str(model), str(images)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as served:
        assert served.stdout is not None
        try:
            for numbers in ([signal.SIGTERM], [signal.SIGHUP, signal.SIGHUP], [signal.SIGHUP, signal.SIGTERM]):
                address = served.stdout.readline().split()[0]  # waits until the page before has ended
                assert len(list(folder.glob("ashnets-app-*"))) == 1, "that of the page before is gone"
                assert upload(address, b"private") == 200
                assert list(folder.glob("ashnets-app-*/*/sent.png"))
                for number in numbers:
                    served.send_signal(number)
            assert served.stdout.readline() == "ended\n"
            assert served.wait(60) == 0
        finally:
            served.kill()
    assert not list(folder.glob("ashnets-app-*"))


def test_without_gradio_the_extra_is_named(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(MissingExtraError, match=r'pip install -e "\.\[app\]"'), serving(model):
        pass
