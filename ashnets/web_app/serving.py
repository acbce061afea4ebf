"""Serve the app: on this machine by default, without telemetry and without anything from other machines."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import signal
import tempfile
import threading
from collections.abc import Awaitable, Callable, Iterator
from types import FrameType
from urllib.parse import urlsplit

from ashnets.errors import ConfigurationError, MissingExtraError
from ashnets.files import JsonObject
from ashnets.web_app.session import UPLOAD_BYTES, Session
from ashnets.words import install

HOST = "127.0.0.1"
OWN_NAMES = ("127.0.0.1", "localhost", "::1")
WAITING = 32  # requests; more are refused
SESSIONS = 64  # visitors whose image is kept

REFUSED = "Other web pages may not use this one. Open it as 127.0.0.1 or localhost, or serve it with --host ADDRESS."

# The browser loads nothing from other machines, even if the page asks for it. Its scripts need inline code and eval.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: blob:; "
    "worker-src 'self' blob:; object-src 'none'; form-action 'self'"
)


def app(
    model: str | os.PathLike = "ashnets-tiny",
    *,
    images: str | os.PathLike | None = None,
    chip: str | os.PathLike | None = None,
    host: str = HOST,
    port: int | None = None,
    open_browser: bool = False,
    report: Callable[[str], None] = print,
) -> None:
    """Serve a page with a model in the browser until it is interrupted: search, questions, spikes and energy.

        ashnets.app("ashnets-tiny", images="my-images")

    In the main thread, SIGTERM and SIGHUP end it as Ctrl+C does, unless the program handles or ignores them itself.

    Args:
        model: a name, folder or Hub repository with weights.
        images: the collection, a folder of images or an index; the bundled gallery by default. A folder is indexed
            first, as by ``ashnets.search``.
        chip: name of a bundled chip, or a chip file, for the placement; by default that of the energy profiles.
        host: address to listen on. Every machine that reaches it can use the page; there is no password.
        port: by default the first free one from 7860 on.
        open_browser: open the page in the default browser.
        report: receives the address of the page.

    Raises:
        MissingExtraError: Gradio is not installed.
        UnknownModelError, WeightsError: no such model, or one without weights.
        ConfigurationError: the port is in use, or an unusable chip.
        DataError: no such folder or index, or no images in it.
    """
    with (
        _ended_by_signals(),
        serving(model, images=images, chip=chip, host=host, port=port, open_browser=open_browser) as address,
        contextlib.suppress(KeyboardInterrupt),
    ):
        report(f"{address} (Ctrl+C stops it)")
        threading.Event().wait()


@contextlib.contextmanager
def serving(
    model: str | os.PathLike,
    *,
    images: str | os.PathLike | None = None,
    chip: str | os.PathLike | None = None,
    host: str = HOST,
    port: int | None = None,
    open_browser: bool = False,
) -> Iterator[str]:
    """Serve the page in threads of this process, as a context; gives its address. Arguments and errors as in `app`.

    Uploads and shown images lie in a temporary folder, which is removed at the end. Requests that a foreign web page
    may have made are refused, see `OwnOrigin`.
    """
    try:
        import gradio
    except ImportError as error:
        raise MissingExtraError(f"the app needs gradio ({error}): {install('app')}") from error
    from ashnets.web_app.page import build

    session = Session(model, images, chip)
    with tempfile.TemporaryDirectory(prefix="ashnets-app-") as folder, _environment(GRADIO_TEMP_DIR=folder):
        page = build(session).queue(max_size=WAITING)
        try:
            _, address, _ = page.launch(
                server_name=host,
                server_port=port,
                inbrowser=open_browser,
                prevent_thread_lock=True,
                quiet=True,
                inline=False,
                share=False,
                footer_links=[],
                run_history=False,
                enable_monitoring=False,
                ssr_mode=False,
                mcp_server=False,
                num_workers=0,
                pwa=False,
                max_file_size=UPLOAD_BYTES,
                state_session_capacity=SESSIONS,
                theme=gradio.themes.Default(),
                app_kwargs={"middleware": [(OwnOrigin, (), {"names": _names(host)})]},
            )
        except OSError:
            raise ConfigurationError(f"port {port} of {host} is in use or not allowed: give another --port") from None
        try:
            yield address
        finally:
            page.close(verbose=False)


Application = Callable[..., Awaitable[object]]  # of ASGI; so are its channels


class OwnOrigin:
    """ASGI middleware: only the page itself may use this server, and it loads only from here.

    A foreign web page in the visitor's browser could reach 127.0.0.1 too, by its own name if that resolves to here (DNS
    rebinding), or by a request across origins. Both get 403: a request by another name than ``names``, and one whose
    Origin is not its Host. A program sends no Origin. On a host that others reach, a reverse proxy may say in
    X-Forwarded-Host what the visitor's browser has asked for. Every other answer tells the browser to load only from
    here, and to name no address elsewhere.

    Args:
        names: of this host; None: any.
    """

    def __init__(self, app: Application, names: frozenset[str] | None) -> None:
        self.app, self.names = app, names

    async def __call__(self, scope: JsonObject, receive: Application, send: Application) -> None:
        if scope["type"] in ("http", "websocket") and not self._own(dict(scope["headers"])):
            if scope["type"] == "websocket":  # closed before it is accepted: 403
                await send({"type": "websocket.close", "code": 1008})
                return
            kind = [(b"content-type", b"text/plain; charset=utf-8")]
            await send({"type": "http.response.start", "status": 403, "headers": kind})
            await send({"type": "http.response.body", "body": REFUSED.encode()})
            return

        async def with_policy(message: JsonObject) -> None:
            if message["type"] == "http.response.start":
                policy = (b"content-security-policy", POLICY.encode()), (b"referrer-policy", b"no-referrer")
                message = {**message, "headers": [*message.get("headers", ()), *policy]}
            await send(message)

        await self.app(scope, receive, with_policy)

    def _own(self, headers: dict[bytes, bytes]) -> bool:
        origin = headers.get(b"origin")
        try:
            here = urlsplit(f"//{headers.get(b'host', b'').decode('latin-1')}")
            if self.names is not None and here.hostname not in self.names:
                return False
            if origin is None:
                return True
            there = urlsplit(origin.decode("latin-1"))
            usual = {"http": 80, "https": 443}.get(there.scheme)
            forwarded = b"" if self.names is not None else headers.get(b"x-forwarded-host", b"")
            hosts = [here, *(urlsplit(f"//{one.strip()}") for one in forwarded.decode("latin-1").split(","))]
            allowed = [(one.hostname, one.port or usual) for one in hosts if one.hostname is not None]
            return (there.hostname, there.port or usual) in allowed
        except ValueError:  # no port, or no address in brackets
            return False


def _names(host: str) -> frozenset[str] | None:
    """The names of a host that only this machine reaches; None for other hosts, which may have any name."""
    try:
        local = ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = host.lower() == "localhost"
    return frozenset({*OWN_NAMES, host.lower()}) if local else None


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[None]:
    """In the main thread, SIGTERM and SIGHUP become KeyboardInterrupt, so that the temporary folder is removed."""
    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    if threading.current_thread() is not threading.main_thread():
        numbers = []
    taken = [number for number in numbers if signal.getsignal(number) == signal.SIG_DFL]  # nohup ignores SIGHUP

    def end(_number: int, _frame: FrameType | None) -> None:
        for number in taken:  # a terminal that closes may send two: the second must not stop the removal
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    for number in taken:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)


@contextlib.contextmanager
def _environment(**values: str) -> Iterator[None]:
    """Environment variables that Gradio reads, and a proxy that it must not use for this machine."""
    around = ",".join(filter(None, (os.environ.get("no_proxy"), os.environ.get("NO_PROXY"), "127.0.0.1,localhost")))
    values |= {"GRADIO_ANALYTICS_ENABLED": "False", "no_proxy": around, "NO_PROXY": around}
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
