"""Publishing: uploaded files, refused input, and interrupted connections."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import typer
import yaml
from huggingface_hub import ModelCard, constants, hf_hub_download, parse_eval_result_entries
from safetensors.torch import load_file, save, save_file

import ashnets
from ashnets.cli import publish as commands
from ashnets.errors import AshNetsError, ConfigurationError, DataError, UnknownModelError, WeightsError
from ashnets.export.exporting import export_model
from ashnets.hub import publish, verify
from ashnets.hub.checks import check_model, is_pickle

COMMANDS = typer.Typer()
COMMANDS.command("publish")(commands.publish)
COMMANDS.command("verify")(commands.verify)

NAME = "someone/letters"
WORDS = {"license": "mit", "training_data": "ten letters, drawn here (CC0)"}


def send(run: Path, **options):
    return publish(run, NAME, **{**WORDS, **options})


def asked(hub, method: str) -> list[str]:
    return [path for verb, path in hub.asked if verb == method]


def digest_of(run: Path) -> str:
    return hashlib.sha256((run / "model" / "model.safetensors").read_bytes()).hexdigest()


def main(words: list[str]) -> int | None:
    return COMMANDS(words, standalone_mode=False)


def blocks(card: str) -> str:
    return card.partition("```python\n")[2].partition("```")[0]


def test_push_tag_and_load_in_fresh_caches(hub, finished_run, tmp_path):
    exported = tmp_path / "graphs"
    digest = digest_of(finished_run)
    export_model(ashnets.from_pretrained(finished_run / "model"), "onnx", exported, "letters", weights_sha256=digest)
    results = tmp_path / "letters.csv"
    lines = [f"letters,valid,0.5,0.1,0,{digest}", f"letters,valid,0.9,0.1,1,{64 * '0'}", "letters,valid,0.8,0.1,2,"]
    results.write_text("\n".join(["model,split,R@1,chance R@1,seed,weights_sha256", *lines]))
    result = send(finished_run, tag="v1", exports=exported, results=[results], dataset="someone/letters-corpus")
    repository = hub.repositories[NAME]
    assert repository.titles == ["initial commit", "ashnets v1"], "one commit"
    assert repository.tags == {"v1": result["commit"]} and result["verified"]
    files = repository.commits[result["commit"]]
    model = finished_run / "model"
    for name in ("model.safetensors", "config.json", "tokenizer.json", "processor_config.json", "recipe.yaml"):
        assert files[name] == (model / name).read_bytes()
    sent = {f"exports/{path.name}": path.read_bytes() for path in exported.iterdir() if path.name[0] != "."}
    assert sent.items() <= files.items() and {"exports/sample.npz", "exports/README.md"} < set(sent)
    assert files["results/letters.csv"] == results.read_bytes()
    data = ModelCard(files["README.md"].decode()).data
    assert [(one.dataset_type, one.metric_value) for one in data.eval_results] == [("someone/letters-corpus", 0.5)]
    assert data.datasets == ["someone/letters-corpus"]
    assert ".eval_results/ashnets.yaml" not in files, "that corpus is no benchmark of the Hub"

    # transformers' own classes after a bare import, then the three lines of the card, in a process of their own
    card = files["README.md"].decode()
    code = blocks(card)
    assert len(code.strip().splitlines()) == 3 and "someone/letters@v1" in code
    code = (
        "import ashnets\n"
        "from transformers import AutoModel, AutoProcessor\n"
        f"{code}"
        "auto = AutoModel.from_pretrained('someone/letters', revision='v1')\n"
        "print(type(model).__name__, type(processor).__name__, type(auto).__name__,\n"
        "      type(AutoProcessor.from_pretrained('someone/letters')).__name__,\n"
        "      float(sum(p.detach().double().sum() for p in model.parameters())))"
    )
    environment = {**os.environ, **hub.environment(tmp_path / "other-cache")}
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    *classes, total = ran.stdout.split()
    assert classes == ["AshNetsForRetrieval", "AshNetsProcessor", "AshNetsModel", "AshNetsProcessor"], ran.stderr
    ours = ashnets.from_pretrained(model)
    assert float(total) == float(sum(p.detach().double().sum() for p in ours.parameters()))

    # the Hub's own client fetches every file as it was sent
    client = [str(Path(sys.executable).with_name("hf")), "download", NAME, "--revision", "v1"]
    fetched = subprocess.run(
        [*client, "--local-dir", str(tmp_path / "fetched")], capture_output=True, text=True, env=environment
    )
    assert fetched.returncode == 0, fetched.stderr
    assert {name: (tmp_path / "fetched" / name).read_bytes() for name in files} == files


@pytest.mark.parametrize("tag", ["v1+cu", "größe/a@b"])
def test_a_tag_that_is_accepted_is_found_by_the_name_that_the_card_tells(hub, finished_run, tag, tmp_path):
    result = send(finished_run, tag=tag)
    assert hub.repositories[NAME].tags == {tag: result["commit"]}
    assert f'from_pretrained("{NAME}@{tag}")' in published(hub).text
    assert ashnets.resolve(f"{NAME}@{tag}", cache_dir=tmp_path / "other").endswith(result["commit"])
    with pytest.raises(ConfigurationError, match="so git does not allow a tag"):
        send(finished_run, tag=f"{tag}/more")


def test_a_dry_run_checks_and_sends_nothing(hub, finished_run, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["publish", str(finished_run), "--repo", NAME, "--license", "mit", "--dry-run"]
    assert not main([*words, "--json"])
    planned = json.loads(capsys.readouterr().out)
    assert planned["dry_run"] and "README.md" in planned["files"] and hub.asked == []
    assert [check["name"] for check in planned["checks"]] == [
        "no pickles",
        "no training state",
        "strict load",
        "finite weights",
        "processor",
        "parity after reload",
        "firing rates",
        "license",
    ]
    assert all(check["passed"] for check in planned["checks"])
    (draft,) = planned["drafts"]
    text = Path(draft).read_text(encoding="utf-8")
    assert draft == f"out/publish/{NAME}/README.md" and len(text.encode()) == planned["files"]["README.md"]
    assert text.partition("\n## Training\n")[2].startswith("\n- Training items: 142 images of `letters`, train.")
    assert not main(words)
    assert "strict load: passed" in capsys.readouterr().out


def test_again_makes_no_commit_and_a_change_replaces_shards(hub, run):
    others = {"model.safetensors.sha256": b"a digest", "model.fp16.safetensors": save({"x": torch.ones(1)})}
    hub.put(NAME, others)
    first = send(run, tag="v1")
    commits = len(hub.repositories[NAME].commits)
    puts = len(asked(hub, "PUT"))
    again = send(run, tag="v1")
    assert again["commit"] == first["commit"] and len(asked(hub, "PUT")) == puts
    assert len(hub.repositories[NAME].commits) == commits
    # shards in place of the one file: the old file must go, or it would be loaded before them
    model = ashnets.from_pretrained(run / "model")
    model.save_pretrained(run / "model", max_shard_size=8000)
    with pytest.raises(ConfigurationError, match="has a tag 'v1' with another"):
        send(run, tag="v1")
    assert len(hub.repositories[NAME].commits) == commits, "refused before anything was sent"
    second = send(run, tag="v2")
    there = hub.repositories[NAME].commits[second["commit"]]
    assert others.items() <= there.items(), "of other names and variants"
    assert "model.safetensors" not in there and "model.safetensors.index.json" in there
    loaded = ashnets.from_pretrained(NAME, revision="v2", dtype=torch.bfloat16, device_map="cpu")
    assert {p.dtype for p in loaded.parameters()} == {torch.bfloat16}
    expected = model.state_dict()
    assert all(torch.equal(value, expected[name].to(value.dtype)) for name, value in loaded.state_dict().items())
    assert set(expected) == set(loaded.state_dict())


def test_push_to_hub_sends_what_was_saved(hub, run, tmp_path):
    """The upload of transformers; if it fails, the local folder is complete."""
    model = ashnets.from_pretrained(run / "model")
    processor = ashnets.AshNetsProcessor.from_pretrained(run / "model")
    saved = tmp_path / "letters"
    hub.put(NAME, {"README.md": b"---\nlicense: mit\n---\n"})
    broken = hub.fail("POST", "/commit", how="500", times=100)
    for one in (model, processor):
        with pytest.raises(OSError):
            one.save_pretrained(saved, push_to_hub=True, repo_id=NAME)
    assert ashnets.from_pretrained(saved) and ashnets.AshNetsProcessor.from_pretrained(saved)
    broken.times = 0
    for one in (model, processor):
        one.save_pretrained(saved, push_to_hub=True, repo_id=NAME)
    assert "README.md" not in {path.name for path in saved.iterdir()}
    folder = ashnets.resolve(NAME)
    for path in saved.iterdir():
        assert (Path(folder) / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("how", ["500", "drop", "sever"])
def test_an_upload_that_fails_once_is_tried_again(hub, finished_run, how):
    fault = hub.fail("PUT", "/", how=how)
    assert send(finished_run)["verified"]
    assert fault.times == 0 and len(asked(hub, "PUT")) == 2


def test_a_connection_that_breaks_in_the_middle_of_the_weights(hub, large_run, monkeypatch):
    """The Hub disappears during each attempt to send; the pauses of the client are skipped."""
    monkeypatch.setattr("huggingface_hub.utils._http.time", SimpleNamespace(sleep=lambda seconds: None))
    assert (large_run / "model" / "model.safetensors").stat().st_size > 8_000_000
    broken = hub.fail("PUT", "/", how="sever", times=100)
    with pytest.raises(AshNetsError, match=r"publishing stopped.*run the same command again"):
        send(large_run, tag="v1")
    assert broken.times < 100 and len(hub.repositories[NAME].commits) == 1 and hub.repositories[NAME].tags == {}
    broken.times = 0
    assert send(large_run, tag="v1")["verified"]
    assert len(hub.repositories[NAME].commits) == 2


@pytest.mark.parametrize("how", ["500", "lost"])
def test_after_a_commit_that_fails_the_same_command_finishes(hub, finished_run, how):
    hub.fail("POST", "/commit/", how=how)
    with pytest.raises(AshNetsError, match="run the same command again"):
        send(finished_run, tag="v1")
    assert hub.repositories[NAME].tags == {}
    assert send(finished_run, tag="v1")["verified"]
    assert len(hub.repositories[NAME].commits) == 2
    assert len(asked(hub, "PUT")) == 1, "the weights were not sent twice"


def test_after_a_kill_the_same_command_finishes(hub, finished_run, tmp_path):
    fault = hub.fail("PUT", "/", how="hold")
    code = f"from ashnets.hub import publish\npublish({str(finished_run)!r}, {NAME!r}, license='mit')"
    words = [sys.executable, "-c", code]
    environment = {**os.environ, **hub.environment(tmp_path / "killed", "write-token")}
    with subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        assert fault.held.wait(280)
        process.kill()
    assert len(hub.repositories[NAME].commits) == 1, "a repository without a model"
    with pytest.raises(WeightsError, match="contains no model"):
        ashnets.from_pretrained(NAME)
    assert send(finished_run)["verified"]


def test_private_gated_and_read_only(hub, finished_run, tmp_path, monkeypatch):
    assert send(finished_run, private=True)["verified"]
    assert hub.repositories[NAME].private
    monkeypatch.setenv("HF_TOKEN", "read-token")
    assert type(ashnets.from_pretrained(NAME)).__name__ == "AshNetsForRetrieval"
    with pytest.raises(AshNetsError, match=r"cannot be written \(403\).*the token has no write access"):
        publish(finished_run, "someone/other", **WORDS)
    hub.repositories[NAME].gated = True
    with pytest.raises(UnknownModelError, match="is gated: accept its terms"):
        ashnets.resolve(NAME, force_download=True, cache_dir=tmp_path / "gated")
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(UnknownModelError, match="is private and needs a token"):
        ashnets.resolve(NAME, cache_dir=tmp_path / "anonymous")
    with pytest.raises(AshNetsError, match="cannot be written"):
        send(finished_run)
    hub.put("someone/open", {"a.txt": b"a"})
    monkeypatch.setenv("HF_TOKEN", "write-token")
    with pytest.raises(ConfigurationError, match="exists and is public"):
        publish(finished_run, "someone/open", private=True, **WORDS)


def test_what_comes_back_damaged_is_an_error(hub, finished_run):
    hub.fail("GET", r"/[0-9a-f]{64}$", how="flip")
    with pytest.raises(WeightsError, match=r"model\.safetensors is damaged"):
        send(finished_run)
    assert send(finished_run)["verified"]


# What is refused before anything is sent ------------------------------------------------------------------------------


def spoil(run: Path, how: str) -> None:
    model = run / "model"
    weights = load_file(model / "model.safetensors")
    first = next(name for name, value in weights.items() if value.is_floating_point())
    if how == "pickle by name":
        torch.save({}, model / "optimizer.pt")
    elif how == "pickle by content":
        (model / "notes.txt").write_bytes(pickle.dumps([1]))
    elif how == "archive by content":
        torch.save({}, model / "notes.json")
    elif how == "no processor":
        (model / "tokenizer.json").unlink()
    else:
        weights.update(
            {
                "queue": {"queue.image": torch.zeros(2)},
                "momentum": {f"momentum.{first}": weights[first].clone()},
                "optimizer": {f"exp_avg.{first}": weights[first].clone()},
                "left over": {"further.weight": torch.zeros(2)},
                "no number": {first: torch.full_like(weights[first], torch.nan)},
                "missing": {},
            }[how]
        )
        if how == "missing":
            weights.pop(first)
        save_file(weights, model / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("pickle by name", r"no pickles: may run code: optimizer\.pt"),
        ("pickle by content", r"no pickles: may run code: notes\.txt"),
        ("archive by content", r"no pickles: may run code: notes\.json"),
        ("queue", r"no training state: only for training: queue\.image"),
        ("momentum", r"no training state: only for training: momentum\."),
        ("optimizer", r"no training state: only for training: exp_avg\."),
        ("left over", r"strict load: .*unexpected keys: further\.weight"),
        ("missing", r"strict load: .*missing keys"),
        ("no number", "finite weights: not finite"),
        ("no processor", r"processor: .*has no tokenizer\.json"),
    ],
)
def test_what_must_not_be_published_is_refused(hub, run, how, message):
    spoil(run, how)
    with pytest.raises(WeightsError, match=message):
        send(run)
    assert hub.asked == []


def test_no_license_no_name_no_file(hub, finished_run, tmp_path):
    with pytest.raises(WeightsError, match="license: not given: set --license"):
        publish(finished_run, NAME)
    with pytest.raises(WeightsError, match=r"'cc-by-40' is not a license of the Hub. Did you mean cc-by-4\.0\?"):
        send(finished_run, license="cc-by-40")
    for name in ("letters", "a/b/c", "a b/c", "a/b.git", "a/-b", "a--b/c"):
        with pytest.raises(ConfigurationError, match="repository"):
            publish(finished_run, name, dry_run=True, **WORDS)
    for name in ("", "v 1", "..", "a..b", "x.lock", "@", "a@{b", "-v1", "v1/", ".v1", "main", "refs/pr/1", 40 * "a"):
        with pytest.raises(ConfigurationError, match=rf"tag {name!r}: .*choose another name"):
            send(finished_run, tag=name, dry_run=True)
    twice = [tmp_path / part / "table.csv" for part in ("a", "b")]
    told = rf"{twice[0]} and {twice[1]} would both become results/table\.csv: rename one of them"
    with pytest.raises(ConfigurationError, match=told):
        send(finished_run, results=twice)
    with pytest.raises(ConfigurationError, match=told):
        send(finished_run, results=twice[:1], energy=twice[1])
    with pytest.raises(ConfigurationError, match="there is no results file"):
        send(finished_run, results=[tmp_path / "none.csv"])
    graphs = tmp_path / "graphs"
    graphs.mkdir()
    with pytest.raises(ConfigurationError, match="no exported graphs"):
        send(finished_run, exports=graphs)
    torch.save({}, graphs / "step.onnx")
    with pytest.raises(WeightsError, match=r"step\.onnx may run code"):
        send(finished_run, exports=graphs)
    assert hub.asked == []


def test_numbers_of_other_weights_are_no_part_of_the_card(hub, finished_run, tmp_path, monkeypatch):
    """It is refused before anything is sent; the message has the file and both digests."""
    ours, other = digest_of(finished_run), 64 * "0"
    results, energy, graphs = tmp_path / "a b.csv", tmp_path / "energy.json", tmp_path / "graphs"
    graphs.mkdir()

    def refused(file: Path, found: str, **options) -> None:
        message = rf"{file} contains numbers .*{found}.* have {ours}: they do not belong.*make it again: `ashnets "
        with pytest.raises(ConfigurationError, match=message):
            send(finished_run, **options)

    results.write_text("model,split,R@1\nletters,valid,0.5\n")
    refused(results, "without the SHA-256 of the weights", results=[results])
    results.write_text(f"model,split,R@1,weights_sha256\nletters,valid,0.5,{other}\n")
    refused(results, f"of weights with the SHA-256 {other}", results=[results])
    report = {
        "counts": {"images": 1, "spikes": 1, "synaptic_operations": 1},
        "estimates": [
            {
                "profile": "p",
                "title": "p",
                "data": "d",
                "assumptions": [],
                "dense_twin": 1.0,
                "artificial": {},
                "spiking": {"total": 1.0, "total_with_memory": {"low": 1.0, "high": 1.0}},
            }
        ],
    }
    for digest, found in ((None, "without"), (other, other)):
        energy.write_text(json.dumps({**report, "model": {"weights_sha256": digest}}))
        refused(energy, found, energy=energy)
    (graphs / "network.onnx").write_bytes(b"a graph")
    with pytest.raises(ConfigurationError, match=r"cannot be read .*, so the weights of .*network\.onnx are unknown"):
        send(finished_run, exports=graphs)
    export = {"files": {"network.onnx": {"sha256": hashlib.sha256(b"another").hexdigest()}}, "weights_sha256": other}
    (graphs / "report.json").write_text(json.dumps(export))
    refused(graphs / "report.json", other, exports=graphs)
    (graphs / "report.json").write_text(json.dumps({**export, "weights_sha256": ours}))
    with pytest.raises(WeightsError, match=r"network\.onnx is not the exported file"):
        send(finished_run, exports=graphs)
    assert hub.asked == []


def test_a_license_of_ones_own_needs_its_text(run):
    from ashnets.hub.licenses import hub_licenses, license_fields, license_problem

    assert {"apache-2.0", "cc-by-4.0", "other"} < {*hub_licenses()} and len(hub_licenses()) > 70
    assert license_problem("Apache-2.0", run) is None and license_problem("other", run) is not None
    assert "put its text into" in str(license_problem("other:Birds 1", run))
    (run / "LICENSE").write_text("Look, do not touch.")
    assert license_problem("other:Birds 1", run) is None
    (run / "LICENSE").unlink()
    for license in ("other:Birds 1", "birds"):
        assert f"copy {run} to a folder of your own" in str(license_problem(license, run, pinned=True))
    assert license_fields("other:Birds 1") == {"license": "other", "license_name": "birds-1"}


def test_arrays_are_no_pickles_unless_they_hold_objects(tmp_path):
    objects = np.array([{"a": 1}, None], dtype=object)
    np.savez(tmp_path / "objects.npz", plain=np.ones(2), objects=objects)
    np.save(tmp_path / "objects.npy", objects)
    torch.save({}, tmp_path / "torch.npz")
    (tmp_path / "damaged.npz").write_bytes(b"PK\x03\x04 and nothing")
    (tmp_path / "damaged.npy").write_bytes(b"\x93NUMPY\x01")
    with zipfile.ZipFile(tmp_path / "more.npz", "w") as archive:
        archive.writestr("data.pkl", pickle.dumps([1]))
    assert all(is_pickle(path) for path in tmp_path.iterdir())
    graphs = tmp_path / "plain"
    graphs.mkdir()
    np.savez(graphs / "plain.npz", a=np.ones(2), b=np.array(["text"]))
    np.savez_compressed(graphs / "packed.npz", a=np.ones(2))
    np.save(graphs / "plain.npy", np.ones(2))
    assert not any(is_pickle(path) for path in graphs.iterdir())


def test_the_bundled_weights_pass_every_check():
    folder = Path(ashnets.resolve("ashnets-tiny"))
    assert all(check.passed for check in check_model(folder))


def test_a_license_text_is_not_asked_for_in_the_folder_of_pinned_weights(hub):
    """With one more file in that folder, the weights are refused."""
    folder = ashnets.resolve("ashnets-tiny")
    for source in ("ashnets-tiny", folder):
        with pytest.raises(WeightsError, match=f"other:Birds: publish a copy: copy {folder} to a folder of your own"):
            publish(source, NAME, license="other:Birds", dry_run=True)


# Verify ---------------------------------------------------------------------------------------------------------------


def test_verify_says_what_was_compared_with_what(hub, finished_run, run, tmp_path, capsys, monkeypatch):
    send(finished_run)
    found = verify(NAME)
    assert found["passed"] and found["origin"] == "hub"
    assert found["commit"] == hub.repositories[NAME].branches["main"]
    weights = (finished_run / "model" / "model.safetensors").read_bytes()
    file = found["files"]["model.safetensors"]
    assert file == {"sha256": hashlib.sha256(weights).hexdigest(), "compared_with": "announced by the Hub"}
    folder = Path(found["folder"])
    (folder / "notes.md").write_text("of another program")  # neither fetched nor compared
    hf_hub_download(NAME, "recipe.yaml", revision=found["commit"])  # by another program, and not compared
    assert (folder / "recipe.yaml").is_symlink()
    (folder / "config.json").resolve().rename(tmp_path / "config.json")
    (folder / "config.json").unlink()
    shutil.copy(tmp_path / "config.json", folder / "config.json")  # its name no longer tells what the Hub announced
    with monkeypatch.context() as patched:
        patched.setattr(constants, "HF_HUB_OFFLINE", True)
        compared = {name: one["compared_with"] for name, one in verify(NAME)["files"].items()}
    assert compared.pop("notes.md") == compared.pop("recipe.yaml") == compared.pop("config.json") == "nothing"
    assert set(compared.values()) == {"announced by the Hub"} and "tokenizer.json" in compared
    assert main(["verify", str(run / "model"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert main(["verify", str(run), "--json"]) == 0, "what publish takes, verify takes"
    assert json.loads(capsys.readouterr().out)["files"] == found["files"]
    assert found["origin"] == "folder" and "no pins" in found["files"]["config.json"]["compared_with"]
    spoil(run, "no number")
    assert main(["verify", str(run / "model")]) == 5
    assert "finite weights: FAILED" in capsys.readouterr().out
    shutil.rmtree(run / "model")
    with pytest.raises(UnknownModelError, match="there is no folder"):
        main(["verify", str(run / "model")])


# What codecarbon 3.3.2 wrote here of two runs, the first of which was flushed once: its rows are cumulative.
CODECARBON = """timestamp,run_id,duration,emissions,energy_consumed,country_name,codecarbon_version,cpu_model,gpu_model
2026-11-24T15:35:29,4c3c,2.5,5.753278045975274e-06,1.5102449260992976e-05,Germany,3.3.2,Xeon,
2026-11-24T15:35:30,4c3c,4.0,9.201710380789493e-06,2.4154640716076897e-05,Germany,3.3.2,Xeon,
2026-11-24T15:38:00,db31,2.0,2.131126755679948e-06,5.583138772231501e-06,Germany,3.3.2,Xeon,
"""


def test_a_card_of_codecarbons_numbers(hub, run):
    send(run)
    assert "CO2 equivalents: not measured." in published(hub).text
    assert not hasattr(published(hub).data, "co2_eq_emissions")
    (run / "emissions.csv").write_text(CODECARBON)
    send(run)
    data = published(hub).data.co2_eq_emissions
    grams = 1000 * (9.201710380789493e-06 + 2.131126755679948e-06)
    assert data["emissions"] == pytest.approx(grams, rel=1e-3), "grams on the Hub, kilograms in the file; no row twice"
    assert (data["source"], data["geographical_location"]) == ("codecarbon 3.3.2", "Germany")
    assert data["hardware_used"] == "Xeon" and data["training_type"] == "pre-training"
    assert f"{grams:.3g} g (2.97e-05 kWh, Germany)" in published(hub).text
    for content in ("a,b\n1,2\n", "run_id,emissions\n", "run_id,emissions\n1,nan\n", "run_id,emissions\n1,much\n"):
        (run / "emissions.csv").write_text(content)
        with pytest.raises(DataError, match=r"emissions\.csv"):
            send(run)


def published(hub) -> ModelCard:
    repository = hub.repositories[NAME]
    return ModelCard(repository.commits[repository.branches["main"]]["README.md"].decode())


# Results on benchmarks of the Hub -------------------------------------------------------------------------------------

BENCHMARK = "someone/letter-questions"
EVAL_YAML = b"name: Letters\nevaluation_framework: x\ntasks:\n- {id: letters_test, config: default, split: test}\n"


@pytest.fixture
def results(tmp_path, finished_run) -> Path:
    """The rows that `ashnets evaluate` writes for a task: variants of the model, then chance and baselines."""
    rows = [
        "letters,letters,test,reset,10,0.6,0.5",
        "letters,letters,test,constant image,10,0.45,0.5",
        "letters,letters,test,chance,10,0.1,",
        "letters,letters,test,bag of words,10,0.44,0.5",
        "letters,letters,valid,reset,10,0.7,0.5",
    ]
    digest = digest_of(finished_run)
    rows = ["model,data,split,variant,n,accuracy,by kind a,weights_sha256", *(f"{row},{digest}" for row in rows)]
    (tmp_path / "task.csv").write_text("\n".join(rows) + "\n")
    return tmp_path / "task.csv"


def test_eval_results_are_for_benchmarks_of_the_hub(hub, finished_run, results):
    hub.put(f"datasets/{BENCHMARK}", {"eval.yaml": EVAL_YAML})
    result = send(finished_run, results=[results], benchmark=BENCHMARK)
    files = hub.repositories[NAME].commits[result["commit"]]
    found = parse_eval_result_entries(yaml.safe_load(files[".eval_results/ashnets.yaml"]))
    assert [(one.dataset_id, one.task_id, one.value) for one in found] == [(BENCHMARK, "letters_test", 0.6)]
    assert "accuracy" in found[0].notes and "reset" in found[0].notes
    card = published(hub)
    assert [(one.dataset_split, one.metric_value) for one in card.data.eval_results] == [("test", 0.6), ("valid", 0.7)]
    table = card.text.partition("## Results, measured")[2].partition("\n## ")[0]
    for line in ("| chance | 10 | 0.1 |", "| bag of words | 10 | 0.44 |", "| constant image | 10 | 0.45 |"):
        assert line in table
    assert "by kind" not in table and "neither chance" not in table and f"benchmark `{BENCHMARK}`" in table
    # without the benchmark the file goes, and the card says why there is none
    send(finished_run, results=[results])
    assert ".eval_results/ashnets.yaml" not in hub.repositories[NAME].commits[hub.repositories[NAME].branches["main"]]
    assert "There is no `.eval_results`" in published(hub).text


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (None, "the Hub has no data set"),
        ({"README.md": b"x"}, r"is not a benchmark of the Hub: it has no eval\.yaml"),
        ({"eval.yaml": b"name: x\n"}, "names no tasks"),
        ({"eval.yaml": b"- [\n"}, "names no tasks"),
        ({"eval.yaml": b"\xff\xfe"}, "names no tasks"),
        ({"eval.yaml": b"tasks: [{id: a, split: train}]"}, "has tasks on train, but the results are on test, valid"),
    ],
)
def test_what_is_no_benchmark_is_refused_before_anything_is_sent(hub, finished_run, results, files, message):
    if files is not None:
        hub.put(f"datasets/{BENCHMARK}", files)
    with pytest.raises(ConfigurationError, match=f"{message}.*leave --benchmark out"):
        send(finished_run, results=[results], benchmark=BENCHMARK)
    assert NAME not in hub.repositories


def test_offline_no_benchmark_can_be_asked(hub, finished_run, results, offline):
    offline()
    with pytest.raises(ConfigurationError, match=r"eval\.yaml cannot be fetched"):
        send(finished_run, results=[results], benchmark=BENCHMARK)


# The bundled weights --------------------------------------------------------------------------------------------------


def test_the_bundled_weights_published_are_their_own_mirror(hub, tmp_path):
    """A registry name provides license, results and energy; the copy matches the pinned digests of this package."""
    name = "someone/ashnets-tiny.pictograms"
    result = publish("ashnets-tiny", name, tag="v1")
    files = hub.repositories[name].commits[result["commit"]]
    card = ModelCard(files["README.md"].decode())
    assert card.data.license == "apache-2.0" and "µJ" in card.text and "results/pictograms.csv" in files
    assert len(card.data.eval_results) == 3 * card.text.count("\n| test-")
    mirrored = ashnets.from_pretrained("ashnets-tiny", namespace="someone", revision="v1")
    found = ashnets.resolve("ashnets-tiny", namespace="someone")
    assert found.endswith(result["commit"]) and Path(found).is_relative_to(tmp_path / "cache")
    ours = ashnets.from_pretrained("ashnets-tiny").state_dict()
    assert all(torch.equal(value, ours[key]) for key, value in mirrored.state_dict().items())
