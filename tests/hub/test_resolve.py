"""From a name to a folder: registry, local folder, Hub."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pathlib
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch

import ashnets
from ashnets.errors import UnknownModelError, WeightsError
from ashnets.hub import resolve, verify
from ashnets.zoo import Weights, create, list_models


def digest(path: pathlib.Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def weights(tmp_path) -> Weights:
    """What the registry pins, for a small model saved here."""
    folder = tmp_path / "checkpoint"
    small = {"hidden_size": 24, "num_concepts": 8, "intermediate_size": 24, "num_hidden_layers": 1, "vocab_size": 30}
    create("ashnets-tiny", **small).save_pretrained(folder)
    return Weights(
        tag="test", folder=folder, sha256={path.name: digest(path) for path in folder.iterdir()}, licence="none",
        training_data="none", recipe=folder, results=folder,
    )  # fmt: skip


def test_untouched_weights_pass(weights):
    assert verify(weights) == weights.folder


@pytest.mark.parametrize("file", ["model.safetensors", "config.json"])
@pytest.mark.parametrize("place", [0.0, 0.37, 0.999])
def test_one_flipped_bit_is_found(weights, file, place):
    path = weights.folder / file
    data = bytearray(path.read_bytes())
    data[int(place * len(data))] ^= 1
    path.write_bytes(data)
    with pytest.raises(WeightsError, match=rf"{file} is damaged.*nothing was loaded"):
        verify(weights)


def test_missing_and_foreign_files(weights):
    (weights.folder / "extra.safetensors").write_bytes(b"x")
    with pytest.raises(WeightsError, match=r"extra\.safetensors does not belong"):
        verify(weights)
    (weights.folder / "extra.safetensors").unlink()
    (weights.folder / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"model\.safetensors cannot be read"):
        verify(weights)
    with pytest.raises(WeightsError, match="cannot be read"):
        verify(dataclasses.replace(weights, folder=weights.folder / "none"))


def test_a_folder_is_itself(tmp_path):
    assert resolve(tmp_path) == resolve(str(tmp_path)) == str(tmp_path)


def test_a_registry_name_goes_before_a_folder_of_that_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = list_models(pretrained=False)[0]
    (tmp_path / name).mkdir()
    with pytest.raises(WeightsError, match="no trained weights"):
        resolve(name)
    assert resolve(f"./{name}") == f"./{name}"
    assert resolve(pathlib.Path(name)) == name


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ashnets-r101-t5-l3", "did you mean ashnets-r101-l3-t5"),
        ("ashnets-r18.coco", "no tag 'coco'"),
        ("./nowhere", r"there is no folder \./nowhere"),
        ("/no/where/at/all", "there is no folder /no/where"),
        ("hf-hub:model", "write hf-hub:org/repo"),
        ("", "no model is named ''"),
    ],
)
def test_names_that_nothing_answers_to(name, message):
    with pytest.raises(UnknownModelError, match=message):
        resolve(name)


@pytest.mark.parametrize("name", ["someone/model", "hf-hub:someone/model"])
def test_offline(name):
    with pytest.raises(UnknownModelError, match="neither in the cache nor reachable"):
        resolve(name)


def test_a_file_is_no_folder(tmp_path):
    torch.save({}, tmp_path / "model.pt")
    with pytest.raises(WeightsError, match="may run code"):
        ashnets.from_pretrained(tmp_path / "model.pt")
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(UnknownModelError, match="is a file; give the folder"):
        resolve(tmp_path / "model.safetensors")


# A Hub on this machine: as much of its protocol as a download needs ---------------------------------------------------

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(BaseHTTPRequestHandler):
    """One public repository, ``someone/model``, and a gated one, ``someone/gated``."""

    files: dict[str, bytes]
    asked: list[str]

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, body: bool) -> None:
        path = self.path.partition("?")[0]
        self.asked.append(path)
        if "someone/gated" in path:
            return self.send(403, b"{}", body, {"X-Error-Code": "GatedRepo"})
        if path.startswith("/api/models/someone/model/revision/"):
            if path.rpartition("/")[2] not in ("main", COMMIT):
                return self.send(404, b"{}", body, {"X-Error-Code": "RevisionNotFound"})
            files = [{"rfilename": name} for name in self.files]
            return self.send(200, json.dumps({"id": "someone/model", "sha": COMMIT, "siblings": files}).encode(), body)
        if path.startswith("/api/models/someone/model/tree/"):
            tree = [
                {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                for name, data in self.files.items()
            ]
            return self.send(200, json.dumps(tree).encode(), body)
        prefix = f"/someone/model/resolve/{COMMIT}/"
        if path.startswith(prefix) and path.removeprefix(prefix) in self.files:
            data = self.files[path.removeprefix(prefix)]
            tags = {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X-Repo-Commit": COMMIT}
            return self.send(200, data, body, tags)
        return self.send(404, b"{}", body, {"X-Error-Code": "RepoNotFound"})

    def send(self, status: int, data: bytes, body: bool, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if body:
            self.wfile.write(data)

    def log_message(self, *args) -> None:
        """Stay silent."""


@pytest.fixture
def hub(weights):
    files = {path.name: path.read_bytes() for path in weights.folder.iterdir()}
    files.update({"pytorch_model.bin": b"pickle", "train.pt": b"pickle", "README.md": b"card"})
    handler = type("TestHub", (Hub,), {"files": files, "asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield handler, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def from_hub(endpoint: str, cache, code: str) -> subprocess.CompletedProcess:
    """Run code in a process of its own: huggingface_hub reads its settings once, when it is imported."""
    settings = {"HF_ENDPOINT": endpoint, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(cache)}
    environment = {**os.environ, **settings, "HF_HUB_DISABLE_PROGRESS_BARS": "1", "NO_PROXY": "127.0.0.1"}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=120)


def test_a_repository_is_fetched_without_its_pickles(hub, weights, tmp_path):
    handler, endpoint = hub
    cache = tmp_path / "cache"
    code = "import ashnets; m = ashnets.from_pretrained('hf-hub:someone/model'); print(type(m).__name__, m.training)"
    result = from_hub(endpoint, cache, code)
    assert result.stdout.split() == ["AshNetsModel", "False"], result.stderr
    fetched = {path.name for path in cache.rglob("snapshots/*/*")}
    assert fetched == {"config.json", "model.safetensors"}
    assert not any(path.endswith((".bin", ".pt")) for path in handler.asked)
    again = from_hub("http://127.0.0.1:9", cache, f"import os; os.environ['HF_HUB_OFFLINE'] = '1'; {code}")
    assert again.stdout.split() == ["AshNetsModel", "False"], again.stderr  # from the cache


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("'someone/nothing'", "does not exist, or is private and needs a token"),
        ("'someone/gated'", "is gated: accept its terms"),
        ("'someone/model', revision='v9'", "no such branch, tag or commit"),
    ],
)
def test_what_the_hub_refuses(hub, tmp_path, call, message):
    result = from_hub(hub[1], tmp_path / "cache", f"import ashnets; ashnets.resolve({call})")
    assert result.returncode == 1
    assert "UnknownModelError" in result.stderr.splitlines()[-1]
    assert message in result.stderr.splitlines()[-1]
