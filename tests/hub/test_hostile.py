"""Hostile folders and repositories, whose files try to run code, read other places, or fill memory or disk."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import ashnets
from ashnets.errors import UnknownModelError, WeightsError
from ashnets.hub import inspecting, resolve
from ashnets.hub.checks import check_model
from ashnets.zoo import registry
from ashnets.zoo.numbers import numbers

NAME = "someone/letters"
Spoil = Callable[[Path], object]


def config(**changes: object) -> Spoil:
    return keys("config.json", **changes)


def keys(name: str, **changes: object) -> Spoil:
    def spoil(folder: Path) -> None:
        data = json.loads((folder / name).read_text(encoding="utf-8"))
        (folder / name).write_text(json.dumps({**data, **changes}))

    return spoil


def text(name: str, content: str) -> Spoil:
    return lambda folder: (folder / name).write_text(content)


def header(length: int, content: bytes = b"") -> Spoil:
    """Weights that declare a header of ``length`` bytes."""
    return lambda folder: (folder / "model.safetensors").write_bytes(struct.pack("<Q", length) + content)


def shards(where: str, write: Callable[[dict, Path], object], index: str = "model.safetensors.index.json") -> Spoil:
    """An index that points to weights in another place, next to an empty safetensors file."""

    def spoil(folder: Path) -> None:
        weights = load_file(folder / "model.safetensors")
        (folder / "model.safetensors").unlink()
        write(weights, folder / where)
        save_file({"nothing": torch.zeros(1)}, folder / "other.safetensors")
        content = {"metadata": {"total_size": 1}, "weight_map": dict.fromkeys(weights, where)}
        (folder / index).write_text(json.dumps(content))

    return spoil


BEYOND = json.dumps({"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}).encode()
HOSTILE: dict[str, tuple[Spoil, str]] = {
    "attention from the Hub": (
        config(attn_implementation="some/kernel"),
        r"config\.json has attn_implementation='some/kernel', which may",
    ),
    "attention, hidden": (config(_attn_implementation="a/b"), "has _attn_implementation='a/b', which may fetch code"),
    "attention from another package": (config(attn_implementation="flash_attention_2"), "which may fetch code"),
    "code of its own": (config(auto_map={"AutoModel": "x.Y"}), r"config\.json names custom code"),
    "a tokenizer's code": (
        keys("tokenizer_config.json", auto_map={"AutoTokenizer": ["x.Y", None]}),
        r"tokenizer_config\.json names custom code",
    ),
    "a processor's code": (keys("processor_config.json", auto_map={}), r"processor_config\.json names custom code"),
    "an adapter": (text("adapter_config.json", "{}"), "would load another model"),
    "nested lists": (text("config.json", "[" * 100_000), r"config\.json is not valid JSON \(maximum recursion"),
    "nested mappings": (text("config.json", '{"a":' * 100_000), r"config\.json is not valid JSON \(maximum recursion"),
    "digits": (text("config.json", '{"hidden_size": ' + "9" * 5000 + "}"), "is not valid JSON"),
    "a size": (config(hidden_size=96 * 10**10), "has hidden_size=960000000000: no ashnets model"),
    "a size in a list": (config(spiking_channels=[4, 10**9, 6]), "has spiking_channels=1000000000"),
    "width": (config(hidden_size=960_000), "describes at least 3,6"),
    "words": (config(vocab_size=999_999), "describes at least 2[34],"),
    "layers": (config(num_hidden_layers=10_000), "has num_hidden_layers=10000, but the weights contain 1.. tensors"),
    "a header of 2^63 bytes": (header(2**63, b"{}"), r"model\.safetensors is damaged.*header too large"),
    "a header longer than the file": (header(1000, b"{}"), r"model\.safetensors is damaged"),
    "a header that is no JSON": (header(5, b"hello"), r"model\.safetensors is damaged"),
    "a nested header": (header(50_000, b"[" * 50_000), r"model\.safetensors is damaged"),
    "tensors beyond the file": (header(len(BEYOND), BEYOND), r"model\.safetensors is damaged"),
    "no bytes": (lambda folder: (folder / "model.safetensors").write_bytes(b""), r"model\.safetensors is damaged"),
    "a shard that is a pickle": (shards("weights.bin", torch.save), r"names 'weights\.bin' as weights: only"),
    "a variant's shard that is a pickle": (
        shards("weights.bin", torch.save, "model.safetensors.index.fp16.json"),
        r"fp16\.json names 'weights\.bin'",
    ),
    "a pickle by another name": (shards("weights.json", torch.save), r"names 'weights\.json' as weights"),
    "a shard elsewhere": (shards("../other.safetensors", save_file), r"names '\.\./other\.safetensors' as weights"),
    "a missing shard": (shards("a.safetensors", lambda weights, path: None), r"names a\.safetensors, which is missing"),
    "an index without files": (text("model.safetensors.index.json", "[]"), "is not an index of weights"),
    "a nested index": (text("model.safetensors.index.json", "[" * 100_000), r"index\.json is not valid JSON"),
}


@pytest.fixture
def folder(finished_run, tmp_path) -> Path:
    return Path(shutil.copytree(finished_run / "model", tmp_path / "inner" / "model"))


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_folder_is_refused_by_every_door(folder, case, monkeypatch):
    spoil, message = HOSTILE[case]
    spoil(folder)
    monkeypatch.setattr(torch, "load", lambda *a, **k: pytest.fail("something was unpickled"))
    for enter in (ashnets.from_pretrained, ashnets.AshNetsModel.from_pretrained, ashnets.resolve, str_processor):
        with pytest.raises(WeightsError, match=message):
            enter(folder)
    assert not all(check.passed for check in check_model(folder)), "nor is it published"


def str_processor(folder: Path) -> object:
    return ashnets.AshNetsProcessor.from_pretrained(str(folder))


@pytest.mark.parametrize(
    "case", ["attention from the Hub", "nested lists", "layers", "tensors beyond the file", "a pickle by another name"]
)
def test_a_hostile_repository_is_refused_and_not_kept(hub, folder, tmp_path, case):
    """All digests are correct: this is the published state."""
    spoil, message = HOSTILE[case]
    spoil(folder)
    hub.put(NAME, {path.name: path.read_bytes() for path in folder.iterdir()})
    with pytest.raises(WeightsError, match=rf"{message}.*Nothing was loaded and nothing of it kept"):
        ashnets.from_pretrained(NAME)
    kept = {path.name for path in (tmp_path / "cache").rglob("snapshots/*/*")}
    assert not kept, "a link to a file that was refused"


def test_what_we_write_passes(finished_run, tmp_path):
    bundled = registry.entry("ashnets-tiny").weights.folder
    assert list(inspecting.problems(bundled)) == list(inspecting.problems(finished_run / "model")) == []
    sharded = ashnets.from_pretrained(finished_run / "model")
    sharded.save_pretrained(tmp_path, max_shard_size=8000)
    assert list(tmp_path.glob(inspecting.INDEX)) and list(inspecting.problems(tmp_path)) == []
    half = sharded.to(torch.float16)
    half.save_pretrained(tmp_path / "half")
    assert list(inspecting.problems(tmp_path / "half")) == []


@pytest.mark.parametrize("name", registry.list_models())
def test_no_size_of_the_registry_is_taken_for_hostile(name):
    data = {**registry.config_of(name).to_dict()}
    assert list(inspecting._commands(data)) == []
    assert list(inspecting._too_much(data, 100, numbers(name)["parameters"])) == []


# Listings, sizes, room ------------------------------------------------------------------------------------------------


def test_names_that_lead_out_of_the_folder_are_not_fetched(hub, folder, tmp_path):
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    outside = ["../../../../escaped.json", "/escaped.json", "a/../../escaped.json", "..\\escaped.json", "deep/x.json"]
    hub.put(NAME, {**files, **dict.fromkeys(outside, b'{"escaped": 1}')})
    found = Path(resolve(NAME))
    assert {path.name for path in found.iterdir() if path.suffix == ".json"} >= {"config.json", "tokenizer.json"}
    assert [path for path in tmp_path.rglob("*escaped*") if path.parent != found] == []
    assert all(path.parent == found for path in found.rglob("*"))
    assert not any("/escaped" in path or "x.json" in path for _, path in hub.asked)


def test_a_link_in_a_repository_is_its_text(hub, folder):
    """git stores a symbolic link as a file with its target; it is never followed."""
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    hub.put(NAME, {**files, "config.json": b"../../../../etc/hostname"})
    with pytest.raises(WeightsError, match=r"config\.json is not valid JSON.*nothing of it kept"):
        resolve(NAME)


@pytest.mark.parametrize("file", ["tokenizer.json", "vocab.txt", "other.json"])
def test_an_oversize_file_is_not_fetched(hub, folder, monkeypatch, file):
    hub.put(NAME, {**{path.name: path.read_bytes() for path in folder.iterdir()}, file: b" " * 30_000})
    monkeypatch.setattr("ashnets.hub.fetching.LARGEST_JSON", 20_000)
    with pytest.raises(WeightsError, match=rf"{file} has 30,000 bytes; at most 20,000 are read.*Nothing was fetched"):
        resolve(NAME)
    assert not any("/resolve/" in path for _, path in hub.asked)


def test_more_than_the_disk_holds_is_not_fetched(hub, folder, tmp_path):
    """The listing claims ten exabytes; the disk is real."""
    hub.put(NAME, {path.name: path.read_bytes() for path in folder.iterdir()})
    hub.sizes["model.safetensors"] = 10**19
    with pytest.raises(WeightsError, match=r"needs 10,000,000,000\.00 GB, and .* GB free.*HF_HUB_CACHE"):
        resolve(NAME)
    assert not any("/resolve/" in path for _, path in hub.asked)
    del hub.sizes["model.safetensors"]
    found = resolve(NAME)
    hub.sizes["model.safetensors"] = 10**19
    assert resolve(NAME) == found, "what is in the cache needs no room"


def test_a_disk_that_is_full_half_way(hub, folder, tmp_path):
    """A limit of 20 kB for each file acts like a full disk: the system refuses the rest of the weights."""
    hub.put(NAME, {path.name: path.read_bytes() for path in folder.iterdir()})
    assert (folder / "model.safetensors").stat().st_size > 25_000
    cache = tmp_path / "small"
    code = (
        "import resource, sys\nfrom ashnets.hub import resolve\nfrom ashnets.errors import AshNetsError\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        f"try:\n    resolve({NAME!r})\nexcept AshNetsError as error:\n    print(type(error).__name__, error)"
    )
    environment = {**os.environ, **hub.environment(cache)}
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert ran.stdout.startswith("WeightsError someone/letters: "), ran.stderr
    assert "is full" in ran.stdout and "free some space" in ran.stdout and "File too large" in ran.stdout
    assert not [path for path in cache.rglob("*") if path.name.endswith(".incomplete")]
    assert not [path for path in cache.rglob("snapshots/*/*") if path.name == "model.safetensors"]
    with pytest.raises(UnknownModelError):
        resolve(NAME, cache_dir=cache / "hub", local_files_only=True, revision="0" * 40)
