"""A headless Chromium by the WebDriver protocol of chromedriver: the few commands that a test of a page needs."""

from __future__ import annotations

import base64
import contextlib
import json
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ashnets.files import JsonObject

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the key of an element, by the standard
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1280,1400",
)
PATIENCE = 60  # seconds


class Browser:
    """One window."""

    def __init__(self, driver: str, profile: Path) -> None:
        self.driver = driver
        options = {"args": [*FLAGS, f"--user-data-dir={profile}"]}
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"performance": "ALL", "browser": "ALL"}}
        self.session = self._call("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})["sessionId"]

    def open(self, address: str) -> None:
        self.command("POST", "url", {"url": address})

    def close(self) -> None:
        self._call("DELETE", f"/session/{self.session}")

    def run(self, script: str, *values: Any) -> Any:
        """The value that a script returns."""
        return self.command("POST", "execute/sync", {"script": script, "args": list(values)})

    def find(self, css: str, text: str = "") -> dict[str, str]:
        """The first visible element that matches and contains ``text``, or a file input; waits for it."""
        script = """
            const found = [...document.querySelectorAll(arguments[0])];
            const seen = one => one.type === "file" || one.getClientRects().length;
            return found.find(one => seen(one) && one.textContent.includes(arguments[1])) || null;"""
        return self.wait(lambda: self.run(script, css, text), f"{css} with {text!r}")

    def click(self, css: str, text: str = "") -> None:
        self.command("POST", f"element/{self.find(css, text)[ELEMENT]}/click", {})

    def type(self, css: str, text: str) -> None:
        self.command("POST", f"element/{self.find(css)[ELEMENT]}/value", {"text": text})

    def text(self) -> str:
        """The text that is shown."""
        return self.run("return document.body.innerText")

    def wait(self, condition: Callable[[], Any], what: str) -> Any:
        end = time.monotonic() + PATIENCE
        while not (found := condition()):
            assert time.monotonic() < end, f"waited for {what}; the page says: {self.text()[:2000]}"
            time.sleep(0.1)
        return found

    def screenshot(self, path: Path) -> Path:
        path.write_bytes(base64.b64decode(self.command("GET", "screenshot")))
        return path

    def requested(self) -> list[str]:
        """Addresses that the page has asked for since the last call."""
        events = [json.loads(one["message"])["message"] for one in self.log("performance")]
        return [one["params"]["request"]["url"] for one in events if one["method"] == "Network.requestWillBeSent"]

    def log(self, kind: str) -> list[JsonObject]:
        """New lines of one of the browser's logs: ``performance`` or ``browser``."""
        return self.command("POST", "se/log", {"type": kind})

    def command(self, method: str, path: str, body: JsonObject | None = None) -> Any:
        return self._call(method, f"/session/{self.session}/{path}", body)

    def _call(self, method: str, path: str, body: JsonObject | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.driver + path, data, {"Content-Type": "application/json"}, method=method)
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=PATIENCE) as answer:
            return json.load(answer)["value"]


@contextlib.contextmanager
def chromium(folder: Path) -> Iterator[Browser]:
    """A browser with a new profile below ``folder``; chromium and chromedriver must be on PATH."""
    command = ["chromedriver", "--port=0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            ready = next(line for line in process.stdout if "started successfully on port" in line)
            browser = Browser(f"http://127.0.0.1:{ready.rstrip().rstrip('.').rsplit(' ', 1)[1]}", folder / "profile")
            try:
                yield browser
            finally:
                browser.close()
        finally:
            process.terminate()
