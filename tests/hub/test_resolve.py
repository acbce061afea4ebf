"""From a name to a folder: registry, local folder, Hub."""

from __future__ import annotations

import dataclasses
import hashlib
import pathlib
import shutil
import socket
import subprocess
from types import SimpleNamespace

import pytest
import torch
import yaml
from huggingface_hub import constants, hf_hub_download

import ashnets
from ashnets.errors import ConfigurationError, UnknownModelError, WeightsError
from ashnets.hub import resolve
from ashnets.hub.names import revision_problem
from ashnets.hub.resolving import compare_with_pins
from ashnets.zoo import Weights, create, list_models, registry


def digest(path: pathlib.Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def weights(tmp_path) -> Weights:
    """A small saved model with its pinned digests."""
    folder = tmp_path / "checkpoint"
    small = {"hidden_size": 24, "num_concepts": 8, "intermediate_size": 24, "num_hidden_layers": 1, "vocab_size": 30}
    create("ashnets-tiny", **small).save_pretrained(folder)
    return Weights(
        tag="test",
        folder=folder,
        sha256={path.name: digest(path) for path in folder.iterdir()},
        license="none",
        training_data="none",
        recipe=folder,
        results=folder,
    )


def test_untouched_weights_pass(weights):
    assert compare_with_pins(weights) == weights.folder


@pytest.mark.parametrize("file", ["model.safetensors", "config.json"])
@pytest.mark.parametrize("place", [0.0, 0.37, 0.999])
def test_one_flipped_bit_is_found(weights, file, place):
    path = weights.folder / file
    data = bytearray(path.read_bytes())
    data[int(place * len(data))] ^= 1
    path.write_bytes(data)
    with pytest.raises(WeightsError, match=rf"{file} is damaged.*nothing was loaded"):
        compare_with_pins(weights)


def test_missing_and_foreign_files(weights):
    (weights.folder / "extra.safetensors").write_bytes(b"x")
    with pytest.raises(WeightsError, match=r"extra\.safetensors does not belong"):
        compare_with_pins(weights)
    (weights.folder / "extra.safetensors").unlink()
    (weights.folder / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"model\.safetensors cannot be read"):
        compare_with_pins(weights)
    with pytest.raises(WeightsError, match="cannot be read"):
        compare_with_pins(dataclasses.replace(weights, folder=weights.folder / "none"))


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
        ("https://huggingface.co/me/birds", "there is no folder https://huggingface.*, give ORGANIZATION/NAME"),
        ("hf-hub:model", "write hf-hub:org/repo"),
        ("", "no model is named ''"),
    ],
)
def test_names_that_nothing_answers_to(name, message):
    with pytest.raises(UnknownModelError, match=message):
        resolve(name)


def test_a_mistyped_path_is_not_looked_for_on_the_hub(hub, files, tmp_path, monkeypatch):
    hub.put(NAME, files)
    (tmp_path / "runs" / "letters").mkdir(parents=True)
    (tmp_path / "someone").mkdir()
    monkeypatch.chdir(tmp_path)
    for load in (resolve, ashnets.from_pretrained, ashnets.AshNetsProcessor.from_pretrained):
        with pytest.raises(UnknownModelError, match=r"there is no folder runs/leters\. Did you mean runs/letters\?"):
            load("runs/leters")
        with pytest.raises(UnknownModelError, match="there is no folder nowhere/model"):
            load(pathlib.Path("nowhere/model"))
        with pytest.raises(UnknownModelError, match=f"For a Hub repository, write hf-hub:{NAME}"):
            load(NAME)
    assert hub.asked == []
    assert resolve(f"hf-hub:{NAME}")


def test_a_hub_that_cannot_be_reached_is_not_waited_for(hub, files, monkeypatch):
    """A closed port replaces the missing network; the client makes only one attempt, without a pause."""
    hub.put(NAME, files)
    found = resolve(NAME)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{closed.getsockname()[1]}")
        clock = SimpleNamespace(sleep=lambda seconds: pytest.fail("another attempt"))
        monkeypatch.setattr("huggingface_hub.utils._http.time", clock)
        assert resolve(NAME) == found
        with pytest.raises(UnknownModelError, match="neither in the cache nor reachable"):
            resolve("someone/numbers")


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


@pytest.mark.parametrize(
    "name",
    [
        "v1",
        "v1+cu",
        "a@b",
        "@b",
        "a/b",
        "ä",
        "a{b",
        "x.lock.y",
        "a-",
        "v1.0-rc.1",
        "HEAD~",
        "a^",
        "a:b",
        "a?b",
        "a*b",
        "a[b",
        "a\\b",
        "a b",
        "a\tb",
        "a..b",
        "..",
        ".",
        ".a",
        "a/.b",
        "a.lock",
        "a.lock/b",
        "/a",
        "a/",
        "a//b",
        "a.",
        "@",
        "a@{b",
        "\x7f",
        "",
    ],
)
def test_a_revision_is_what_git_takes_for_one(name):
    asked = subprocess.run(["git", "check-ref-format", f"refs/tags/{name}"])
    taken = asked.returncode == 0 and name != "@"  # alone it is short for HEAD, wherever a revision is typed
    assert (revision_problem(name) is None) == taken
    if not taken:
        with pytest.raises(ConfigurationError, match="revision"):
            resolve(f"someone/model@{name}")


# Repositories of the Hub ----------------------------------------------------------------------------------------------

NAME = "someone/letters"


@pytest.fixture
def files(finished_run) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (finished_run / "model").iterdir()}


def kept(cache) -> list[str]:
    """The files of all snapshots in a cache."""
    return sorted(path.name for path in cache.rglob("snapshots/*/*"))


def flipped(data: bytes, place: float = 0.6) -> bytes:
    changed = bytearray(data)
    changed[int(place * len(data))] ^= 4
    return bytes(changed)


def test_a_repository_is_fetched_without_its_pickles(hub, files, tmp_path, offline):
    commit = hub.put(NAME, {**files, "pytorch_model.bin": b"pickle", "train.pt": b"pickle", "deep/x.json": b"{}"})
    model = ashnets.from_pretrained("hf-hub:someone/letters")
    assert type(model).__name__ == "AshNetsForRetrieval" and not model.training
    assert not any(path.endswith((".bin", ".pt", "x.json")) for _, path in hub.asked)
    assert resolve(NAME, revision=commit) == resolve(f"{NAME}@{commit}") == resolve(f"hf-hub:{NAME}@main")
    offline()
    assert resolve(NAME) and resolve(NAME, local_files_only=True)
    assert type(ashnets.from_pretrained(NAME)).__name__ == "AshNetsForRetrieval"
    with pytest.raises(UnknownModelError, match="neither in the cache nor reachable"):
        resolve(NAME, cache_dir=tmp_path / "empty")


@pytest.mark.parametrize("present", [["config.json"], ["config.json", "model.safetensors"]])
def test_a_few_files_of_another_program_are_no_copy(hub, files, offline, present):
    """Neither is said to be without weights, nor without a processor."""
    hub.put(NAME, files)
    for file in present:
        hf_hub_download(NAME, file)
    offline()
    for load in (ashnets.from_pretrained, ashnets.AshNetsProcessor.from_pretrained):
        for options in ({}, {"local_files_only": True}):
            with pytest.raises(UnknownModelError, match=f"{NAME}: the copy in the cache is incomplete and the Hub"):
                load(NAME, **options)


def test_a_copy_without_a_processor_is_whole_if_the_hub_has_none(hub, files, offline):
    hub.put(NAME, {name: files[name] for name in ("config.json", "model.safetensors")})
    found = resolve(NAME)
    offline()
    assert resolve(NAME) == found and ashnets.from_pretrained(NAME)
    with pytest.raises(ConfigurationError, match=r"has no processor_config\.json"):
        ashnets.AshNetsProcessor.from_pretrained(NAME)


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_bit_that_flips_on_the_way_keeps_nothing(hub, files, tmp_path, file):
    hub.put(NAME, files)
    address = rf"/{digest_of(files[file])}$" if file.endswith("safetensors") else rf"/{file}$"
    hub.fail("GET", address, how="flip")
    with pytest.raises(WeightsError, match=rf"{file} is damaged.*Nothing was loaded and nothing of it kept"):
        ashnets.from_pretrained(NAME)
    assert kept(tmp_path / "cache") == []
    assert (pathlib.Path(resolve(NAME)) / file).read_bytes() == files[file]


def digest_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_a_bit_that_flips_in_the_cache_is_found_offline(hub, files, offline):
    hub.put(NAME, files)
    blob = (pathlib.Path(resolve(NAME)) / "model.safetensors").resolve()
    blob.write_bytes(flipped(files["model.safetensors"]))
    offline()
    with pytest.raises(WeightsError, match=r"model\.safetensors is damaged"):
        resolve(NAME)
    assert not blob.exists()


def test_a_damaged_file_in_a_cache_that_is_only_read_is_named(hub, files, offline, tmp_path, no_power_over_files):
    hub.put(NAME, files)
    folder = pathlib.Path(resolve(NAME))
    blob = (folder / "model.safetensors").resolve()
    offline()
    closed = [blob.parent, folder, folder.parent]
    for path in closed:
        path.chmod(0o555)
    try:
        with no_power_over_files():
            assert pathlib.Path(resolve(NAME)) == folder, "what is whole is loaded from there"
            blob.chmod(0o644)
            blob.write_bytes(flipped(files["model.safetensors"]))
            told = rf"model\.safetensors is damaged.*{blob} cannot be removed \(Permission denied\).*another cache"
            with pytest.raises(WeightsError, match=told):
                resolve(NAME)
    finally:
        for path in closed:
            path.chmod(0o755)
    assert blob.exists() and (folder / "config.json").exists()


def test_a_cache_that_takes_no_file_is_named(hub, files, tmp_path, no_power_over_files):
    hub.put(NAME, files)
    (tmp_path / "closed").mkdir(mode=0o555)
    with no_power_over_files(), pytest.raises(WeightsError, match=r"closed is not writable .*name another cache"):
        resolve(NAME, cache_dir=tmp_path / "closed")


def test_half_a_download_is_no_download(hub, files, tmp_path):
    hub.put(NAME, files)
    hub.fail("GET", r"/tokenizer\.json$", how="cut", times=20)
    with pytest.raises(UnknownModelError, match="could not be fetched"):
        resolve(NAME)
    assert "tokenizer.json" not in kept(tmp_path / "cache")


def test_a_revision_that_vanished(hub, files, offline, tmp_path):
    first = hub.put(NAME, files)
    hub.repositories[NAME].tags["v1"] = first
    assert resolve(f"{NAME}@v1") == resolve(NAME, revision=first)
    hub.put(NAME, {**files, "more.json": b"{}"})
    del hub.repositories[NAME].tags["v1"], hub.repositories[NAME].commits[first]
    for gone in ("v1", first):
        with pytest.raises(UnknownModelError, match="there is no such branch, tag or commit"):
            resolve(NAME, revision=gone, cache_dir=tmp_path / "fresh")
    assert resolve(NAME, revision=first).endswith(first), "what is in the cache stays of use, by its commit"


def test_a_repository_with_pickles_alone_is_refused(hub, files):
    hub.put(NAME, {"config.json": files["config.json"], "pytorch_model.bin": b"\x80\x02}q\x00."})
    with pytest.raises(WeightsError, match=r"contains pytorch_model\.bin but no \.safetensors: pickled weights can"):
        ashnets.from_pretrained(NAME)
    assert not any(path.endswith(".bin") for _, path in hub.asked)


def test_a_repository_without_a_model(hub):
    hub.put(NAME, {"README.md": b"soon"})
    with pytest.raises(WeightsError, match="contains no model"):
        resolve(NAME)


def test_two_revisions_that_differ(hub):
    with pytest.raises(ConfigurationError, match="revision='v2' differs from @v1"):
        resolve(f"{NAME}@v1", revision="v2")
    with pytest.raises(ConfigurationError, match="have no revision 'v1'"):
        resolve("ashnets-tiny@v1")
    assert hub.asked == []


# Weights of the registry that stand on the Hub ------------------------------------------------------------------------


@pytest.fixture
def published(hub, files, tmp_path, monkeypatch) -> str:
    """``ashnets-r18.letters``, pinned in a separate registry to a commit of ``someone/letters``; the commit."""
    commit = hub.put(NAME, {**files, "README.md": b"card"})
    pins = {name: digest_of(data) for name, data in files.items()}
    words = {"license": "mit", "training_data": "letters", "recipe": "x.yaml", "results": "x.csv"}
    data = {"ashnets-r18": {"letters": {"repository": NAME, "commit": commit, "sha256": pins, **words}}}
    (tmp_path / "weights.yaml").write_text(yaml.safe_dump(data))
    monkeypatch.setattr(registry, "_weights", lambda: registry.read_weights(tmp_path / "weights.yaml"))
    registry._entries.cache_clear()
    yield commit
    registry._entries.cache_clear()


def test_pinned_weights_come_from_their_commit(hub, files, published, offline):
    hub.put(NAME, {**files, "config.json": b"{}"})  # what main becomes later does not matter
    found = resolve("ashnets-r18")
    assert found == resolve("ashnets-r18.letters") and found.endswith(published)
    assert f"on the Hub at {published}" in ashnets.describe("ashnets-r18").weights
    offline()
    assert resolve("ashnets-r18") == found


def test_another_file_of_the_same_length_under_the_pinned_name_keeps_nothing(hub, files, published, tmp_path):
    changed = {**files, "model.safetensors": flipped(files["model.safetensors"]), "README.md": b"card"}
    for data in changed.values():
        hub.store[digest_of(data)] = data
    hub.repositories[NAME].commits[published] = changed  # served consistently: its own digest fits it
    with pytest.raises(WeightsError, match=r"model\.safetensors is not the pinned file"):
        ashnets.from_pretrained("ashnets-r18")
    assert kept(tmp_path / "cache") == []
    assert not list((tmp_path / "cache").rglob(digest_of(changed["model.safetensors"])))
    # asked for by repository, it is whoever's it is, and loads
    assert resolve(NAME, revision=published)


def test_a_few_of_the_pinned_files_are_kept_for_the_next_attempt(hub, files, published, offline, tmp_path):
    hf_hub_download(NAME, "config.json", revision=published)
    offline()
    with pytest.raises(UnknownModelError, match="the copy in the cache is incomplete"):
        resolve("ashnets-r18")
    assert kept(tmp_path / "cache") == ["config.json"]


def test_a_pinned_file_that_is_not_there(hub, files, published):
    del hub.repositories[NAME].commits[published]["tokenizer.json"]
    with pytest.raises(WeightsError, match=r"tokenizer\.json is pinned but is not in the repository"):
        resolve("ashnets-r18")


def test_a_namespace_is_a_mirror_and_the_pins_hold_there_too(hub, files, published, monkeypatch):
    hub.put("mirror/ashnets-r18.letters", files)
    assert "mirror--ashnets-r18.letters" in resolve("ashnets-r18", namespace="mirror")
    hub.put("bad/ashnets-r18.letters", {**files, "config.json": files["config.json"] + b" "})
    monkeypatch.setenv("ASHNETS_NAMESPACE", "bad")
    with pytest.raises(WeightsError, match=r"config\.json is not the pinned file"):
        resolve("ashnets-r18")
    # a tag that the registry does not know, an untrained model, a revision: somebody's own, without pins
    hub.put("bad/ashnets-r152.mine", files)
    hub.put("bad/ashnets-r101", files)
    assert resolve("ashnets-r152.mine") and resolve("ashnets-r101") and resolve("ashnets-r18@main")
    with pytest.raises(UnknownModelError, match=r"bad/ashnets-r152\.yours does not exist"):
        resolve("ashnets-r152.yours")


def test_what_is_here_never_asks_the_network(hub, finished_run, tmp_path, monkeypatch):
    monkeypatch.setenv("ASHNETS_NAMESPACE", "somebody")
    shutil.copytree(finished_run / "model", tmp_path / "mine")
    assert resolve("ashnets-tiny") == resolve(f"ashnets-tiny.{registry.entry('ashnets-tiny').tag}")
    ashnets.from_pretrained(tmp_path / "mine")
    ashnets.AshNetsProcessor.from_pretrained(str(tmp_path / "mine"))
    assert hub.asked == []


def test_without_a_home_folder_the_variable_to_set_is_named(monkeypatch):
    """The library then keeps `~` and would create a folder of that name."""
    monkeypatch.setenv("HOME", "~")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", "~/.cache/huggingface/hub")
    with pytest.raises(ConfigurationError, match=r"no home folder.*set HF_HOME to a folder"):
        resolve("somebody/model")
