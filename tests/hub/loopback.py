"""A local Hub: the protocol of huggingface_hub's client over real sockets, with faults on demand.

Repositories live in memory. Small text files are kept as git blobs, the rest as large files (LFS), which a second port
serves: the client drops its token when a redirect leaves the origin, as on the real Hub. Tokens are ``write-token`` and
``read-token``.

    with LoopbackHub() as hub:
        hub.fail("PUT", "/", times=1, how="drop")
        ...  # clients with HF_ENDPOINT=hub.endpoint, or huggingface_hub.constants patched
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

import yaml

LICENSES = {"apache-2.0", "mit", "cc-by-4.0", "cc-by-sa-4.0", "other", "unknown"}
SDKS = {"gradio", "docker", "static"}
TEXT = re.compile(rb"[\x09\x0a\x0d\x20-\x7e\x80-\xff]*")


def git_blob(data: bytes) -> str:
    """The name that git gives to the content of a file."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def large(path: str, data: bytes) -> bool:
    """Whether a file is stored with LFS, roughly as in the .gitattributes of the real Hub."""
    return path.endswith((".safetensors", ".bin", ".onnx", ".h5")) or len(data) > 10_000_000


@dataclass
class Fault:
    """A fault of the next ``times`` requests with ``method`` whose path matches."""

    method: str
    pattern: str
    how: str  # "500", "drop" (no answer), "lost" (done, but no answer), "cut" (half a body), "flip" (one bit), "hold",
    # "sever" (gone when half of what the client sends has come)
    times: int
    held: threading.Event = field(default_factory=threading.Event)  # "hold": a request has come, and is never answered

    def meets(self, method: str, path: str) -> bool:
        if self.times and self.method == method and re.search(self.pattern, path):
            self.times -= 1
            return True
        return False


@dataclass
class Repository:
    """Commits (id → path → content), the newest last, and their names."""

    private: bool = False
    gated: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    titles: list[str] = field(default_factory=list)

    def commit(self, files: dict[str, bytes], title: str) -> str:
        seed = json.dumps([self.branches.get("main"), title, {p: git_blob(d) for p, d in sorted(files.items())}])
        oid = hashlib.sha1(seed.encode()).hexdigest()
        self.commits[oid] = files
        self.branches["main"] = oid
        self.titles.append(title)
        return oid

    def find(self, revision: str) -> str | None:
        found = self.branches.get(revision) or self.tags.get(revision) or revision
        return found if found in self.commits else None


class LoopbackHub:
    """The two servers, their content, and their requests (``asked``: method, path)."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.store: dict[str, bytes] = {}  # SHA-256 → content
        self.sizes: dict[str, int] = {}  # path → what listings say instead of the truth
        self.faults: list[Fault] = []
        self.asked: list[tuple[str, str]] = []
        self.lock = threading.RLock()
        self.api = ThreadingHTTPServer(("127.0.0.1", 0), type("Api", (_Api,), {"hub": self}))
        self.storage = ThreadingHTTPServer(("127.0.0.1", 0), type("Storage", (_Storage,), {"hub": self}))
        self.endpoint = f"http://127.0.0.1:{self.api.server_port}"
        self.storage_endpoint = f"http://127.0.0.1:{self.storage.server_port}"

    def __enter__(self) -> LoopbackHub:
        for server in (self.api, self.storage):
            server.daemon_threads = True
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for server in (self.api, self.storage):
            server.shutdown()
            server.server_close()

    def put(self, name: str, files: dict[str, bytes], title: str = "put", **options: Any) -> str:
        """Add a commit directly; the repository is created if it does not exist."""
        repository = self.repositories.setdefault(name, Repository(**options))
        for data in files.values():
            self.store[hashlib.sha256(data).hexdigest()] = data
        return repository.commit(files, title)

    def fail(self, method: str, pattern: str, *, how: str, times: int = 1) -> Fault:
        """Add a fault; see :class:`Fault`."""
        fault = Fault(method, pattern, how, times)
        self.faults.append(fault)
        return fault

    def environment(self, cache: object, token: str | None = None) -> dict[str, str]:
        """Environment variables for a client in another process, with its own cache."""
        settings = {
            "HF_ENDPOINT": self.endpoint,
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HOME": str(cache),
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
        }
        return settings if token is None else {**settings, "HF_TOKEN": token}


class _Handler(BaseHTTPRequestHandler):
    hub: LoopbackHub
    protocol_version = "HTTP/1.1"
    fault: str | None = None

    def handle_one_method(self) -> None:
        path = unquote(self.path.partition("?")[0])
        length = int(self.headers.get("Content-Length") or 0)
        with self.hub.lock:
            self.hub.asked.append((self.command, path))
            fault = next((one for one in self.hub.faults if one.meets(self.command, path)), None)
            self.fault = fault.how if fault else None
        if self.fault == "sever":
            self.rfile.read(length // 2)
            return self._hang_up()
        body = self._chunks() if self._chunked() else self.rfile.read(length)
        if fault and fault.how == "hold":
            fault.held.set()
            self.rfile.read(1)  # until the client is gone
            self.close_connection = True
            return None
        with self.hub.lock:
            if self.fault == "drop":
                return self._hang_up()
            if self.fault == "500":
                return self.answer(500, b"{}")
            return self.handle_request(path, body)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = handle_one_method

    def handle_request(self, path: str, body: bytes) -> None:
        raise NotImplementedError

    def answer(self, status: int, data: bytes | dict | list = b"", **headers: str) -> None:
        if self.fault == "lost":
            return self._hang_up()
        if not isinstance(data, bytes):
            data = json.dumps(data).encode()
        sent = data
        if self.command == "GET" and self.fault == "flip":
            sent = data[:-1] + bytes([data[-1] ^ 1])
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), value)
        self.end_headers()
        if self.command == "HEAD":
            return None
        if self.fault == "cut":
            self.wfile.write(sent[: len(sent) // 2])
            return self._hang_up()
        self.wfile.write(sent)
        return None

    def log_message(self, *args: object) -> None:
        """Log nothing."""

    def _hang_up(self) -> None:
        self.close_connection = True
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)

    def _chunked(self) -> bool:
        return self.headers.get("Transfer-Encoding", "") == "chunked"

    def _chunks(self) -> bytes:
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)


class _Storage(_Handler):
    def handle_request(self, path: str, body: bytes) -> None:
        name = path.rpartition("/")[2]
        if self.command == "PUT":
            if hashlib.sha256(body).hexdigest() != name:
                return self.answer(400, b"BadDigest")
            self.hub.store[name] = body
            return self.answer(200, ETag=f'"{name}"')
        if name not in self.hub.store:
            return self.answer(404)
        return self.answer(200, self.hub.store[name], ETag=f'"{name}"')


class _Api(_Handler):
    ROUTES = (
        ("GET", r"/api/whoami-v2", "whoami"),
        ("POST", r"/api/repos/create", "create"),
        ("POST", r"/api/validate-yaml", "validate_yaml"),
        ("POST", r"/api/models/(?P<name>(spaces/)?[^/]+/[^/]+)/preupload/(?P<revision>.+)", "preupload"),
        ("POST", r"/(?P<name>(spaces/)?[^/]+/[^/]+)\.git/info/lfs/objects/batch", "batch"),
        ("POST", r"/api/models/(?P<name>(spaces/)?[^/]+/[^/]+)/commit/(?P<revision>.+)", "commit"),
        ("POST", r"/api/models/(?P<name>(spaces/)?[^/]+/[^/]+)/tag/(?P<revision>.+)", "tag"),
        ("GET", r"/api/models/(?P<name>(spaces/)?[^/]+/[^/]+)/refs", "refs"),
        ("GET", r"/api/models/(?P<name>(spaces/)?[^/]+/[^/]+)/tree/(?P<revision>[^/]+)(/.*)?", "tree"),
        ("GET", r"/api/models/(?P<name>(spaces/)?[^/]+/[^/]+)(/revision/(?P<revision>.+))?", "info"),
        (
            "GET|HEAD",
            r"/(?P<name>(datasets/|spaces/)?[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<file>.+)",
            "resolve",
        ),
    )
    WRITING = ("create", "preupload", "batch", "commit", "tag")

    def handle_request(self, path: str, body: bytes) -> None:
        path = path.replace("/api/spaces/", "/api/models/spaces/", 1)
        for methods, pattern, name in self.ROUTES:
            match = re.fullmatch(pattern, path)
            if match and self.command in methods.split("|"):
                groups = {key: value for key, value in match.groupdict().items() if value is not None}
                if name in self.WRITING and self._token() != "write-token":
                    status = 403 if self._token() else 401
                    message = "This token has no right to write" if self._token() else "Invalid username or password."
                    return self.answer(status, {"error": message}, X_Error_Message=message)
                repository = self.hub.repositories.get(groups.get("name", ""))
                if "name" in groups:
                    if repository is None or (repository.private and self._token() is None):
                        return self.answer(404 if self._token() else 401, {}, X_Error_Code="RepoNotFound")
                    if repository.gated and name in ("resolve", "tree") and self._token() != "write-token":
                        return self.answer(403, {}, X_Error_Code="GatedRepo")
                    if "revision" in groups and repository.commits and not repository.find(groups["revision"]):
                        return self.answer(404, {}, X_Error_Code="RevisionNotFound")
                return getattr(self, name)(body, repository, groups)
        return self.answer(404, {"error": f"no route for {self.command} {path}"})

    def _token(self) -> str | None:
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        return token if token in ("write-token", "read-token") else None

    def whoami(self, body: bytes, *_: Any) -> None:
        if self._token() is None:
            return self.answer(401, {"error": "Invalid credentials"})
        return self.answer(200, {"name": "someone", "type": "user", "auth": {}})

    def create(self, body: bytes, *_: Any) -> None:
        asked = json.loads(body)
        space = asked.get("type") == "space"
        if space and asked.get("sdk") not in SDKS:
            return self.answer(400, {"error": "a Space needs an sdk"})
        name = f"{'spaces/' * space}{asked['organization'] or 'someone'}/{asked['name']}"
        url = {"url": f"{self.hub.endpoint}/{name}"}
        if name in self.hub.repositories:
            return self.answer(409, {**url, "error": "You already created this model repo"})
        private = asked.get("visibility") == "private" or asked.get("private") is True
        self.hub.put(name, {".gitattributes": b"*.safetensors filter=lfs\n"}, "initial commit", private=private)
        return self.answer(200, url)

    def validate_yaml(self, body: bytes, *_: Any) -> None:
        asked = json.loads(body)
        errors = card_errors(asked["content"], asked["repoType"] == "space")
        found = {"errors": [{"message": text} for text in errors], "warnings": []}
        return self.answer(400 if errors else 200, found)

    def preupload(self, body: bytes, repository: Repository, groups: dict[str, str]) -> None:
        have = repository.commits[repository.find(groups["revision"]) or ""]
        files = []
        for file in json.loads(body)["files"]:
            path, sample = file["path"], base64.b64decode(file["sample"])
            mode = "lfs" if large(path, sample) or not TEXT.fullmatch(sample) else "regular"
            entry = {"path": path, "uploadMode": mode, "shouldIgnore": False}
            if path in have:
                data = have[path]
                entry["oid"] = hashlib.sha256(data).hexdigest() if mode == "lfs" else git_blob(data)
            files.append(entry)
        return self.answer(200, {"files": files})

    def batch(self, body: bytes, *_: Any) -> None:
        objects = []
        for asked in json.loads(body)["objects"]:
            entry = {"oid": asked["oid"], "size": asked["size"]}
            if asked["oid"] not in self.hub.store:
                entry["actions"] = {"upload": {"href": f"{self.hub.storage_endpoint}/{asked['oid']}", "header": {}}}
            objects.append(entry)
        return self.answer(200, {"transfer": "basic", "objects": objects})

    def commit(self, body: bytes, repository: Repository, groups: dict[str, str]) -> None:
        files = dict(repository.commits[repository.find(groups["revision"]) or ""])
        title = ""
        for line in body.splitlines():
            item = json.loads(line)
            value = item["value"]
            if item["key"] == "header":
                title = value["summary"]
                if value.get("parentCommit") not in (None, repository.branches["main"]):
                    return self.answer(412, {"error": "A commit has happened since. Please refresh and try again."})
            elif item["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif item["key"] == "lfsFile":
                if value["oid"] not in self.hub.store:
                    return self.answer(400, {"error": f"no object {value['oid']}"})
                files[value["path"]] = self.hub.store[value["oid"]]
            elif item["key"] == "deletedFile":
                del files[value["path"]]
        for data in files.values():
            self.hub.store[hashlib.sha256(data).hexdigest()] = data
        oid = repository.commit(files, title)
        url = f"{self.hub.endpoint}/{groups['name']}/commit/{oid}"
        return self.answer(200, {"success": True, "commitOid": oid, "commitUrl": url, "hookOutput": ""})

    def tag(self, body: bytes, repository: Repository, groups: dict[str, str]) -> None:
        name = json.loads(body)["tag"]
        if name in repository.tags:
            return self.answer(409, {"error": "Tag reference exists already"})
        repository.tags[name] = repository.find(groups["revision"]) or ""
        return self.answer(200, {})

    def refs(self, body: bytes, repository: Repository, groups: dict[str, str]) -> None:
        def named(kind: str, refs: dict[str, str]) -> list[dict[str, str]]:
            return [{"name": n, "ref": f"refs/{kind}/{n}", "targetCommit": oid} for n, oid in refs.items()]

        found = {"branches": named("heads", repository.branches), "tags": named("tags", repository.tags)}
        return self.answer(200, {**found, "converts": []})

    def tree(self, body: bytes, repository: Repository, groups: dict[str, str]) -> None:
        entries = []
        for path, data in repository.commits[repository.find(groups["revision"]) or ""].items():
            size = self.hub.sizes.get(path, len(data))
            entry: dict[str, Any] = {"type": "file", "path": path, "size": size, "oid": git_blob(data)}
            if large(path, data):
                entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": size, "pointerSize": 130}
            entries.append(entry)
        return self.answer(200, entries)

    def info(self, body: bytes, repository: Repository, groups: dict[str, str]) -> None:
        oid = repository.find(groups.get("revision", "main")) or ""
        files = []
        for path, data in repository.commits.get(oid, {}).items():
            size = self.hub.sizes.get(path, len(data))
            lfs = {"sha256": hashlib.sha256(data).hexdigest(), "size": size, "pointerSize": 130}
            entry = {"rfilename": path, "size": size, "blobId": git_blob(data)}
            files.append({**entry, "lfs": lfs} if large(path, data) else entry)
        gated = "manual" if repository.gated else False
        found = {"_id": "0", "id": groups["name"], "modelId": groups["name"], "sha": oid, "siblings": files}
        return self.answer(200, {**found, "private": repository.private, "gated": gated, "tags": [], "downloads": 0})

    def resolve(self, body: bytes, repository: Repository, groups: dict[str, str]) -> None:
        oid = repository.find(groups["revision"]) or ""
        data = repository.commits[oid].get(groups["file"])
        if data is None:
            return self.answer(404, {}, X_Error_Code="EntryNotFound", X_Repo_Commit=oid)
        if not large(groups["file"], data):
            return self.answer(200, data, ETag=f'"{git_blob(data)}"', X_Repo_Commit=oid)
        name = hashlib.sha256(data).hexdigest()
        return self.answer(
            302,
            b"",
            Location=f"{self.hub.storage_endpoint}/{name}",
            X_Repo_Commit=oid,
            X_Linked_ETag=f'"{name}"',
            X_Linked_Size=str(len(data)),
            ETag=f'"{git_blob(data)}"',
        )


def card_errors(content: str, space: bool = False) -> list[str]:
    """The Hub's objections to the metadata of a card, as far as its documentation states the rules."""
    match = re.match(r"---\n(.*?)\n---(\n|$)", content, re.DOTALL)
    if not match:
        return ["the card has no YAML metadata"]
    try:
        data = yaml.safe_load(match[1])
    except yaml.YAMLError as error:
        return [f"the YAML cannot be read: {error}"]
    if not isinstance(data, dict):
        return ["the YAML is no mapping"]
    errors = []
    if space and (data.get("sdk") not in SDKS or not data.get("app_file")):
        errors.append(f'"sdk" must be one of {sorted(SDKS)}, with an "app_file"')
    if data.get("license") not in LICENSES:
        errors.append(f'"license" must be one of {sorted(LICENSES)}')
    if data.get("license") == "other" and not data.get("license_name"):
        errors.append('"license_name" is required with license: other')
    for key in ("tags", "datasets", "metrics", "language"):
        if key in data and not (isinstance(data[key], list) and all(isinstance(one, str) for one in data[key])):
            errors.append(f'"{key}" must be a list of strings')
    for model in data.get("model-index", ()):
        if not model.get("name"):
            errors.append('"model-index[0].name" is required')
        for result in model.get("results", ()):
            if not (result.get("task", {}).get("type") and result.get("dataset", {}).get("type")):
                errors.append('"model-index[0].results[0]" needs task.type and dataset.type')
            for metric in result.get("metrics", ()):
                if not metric.get("type") or isinstance(metric.get("value"), type(None)):
                    errors.append("a metric needs type and value")
    return errors
