"""Publishing: what goes up, what is refused, and what happens when the way is cut."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import typer
import yaml
from huggingface_hub import ModelCard, parse_eval_result_entries
from safetensors.torch import load_file, save_file

import ashnets
from ashnets.cli import publish as commands
from ashnets.errors import AshNetsError, ConfigurationError, UnknownModelError, WeightsError
from ashnets.hub import publish, verify_model
from ashnets.hub.checks import check_model

COMMANDS = typer.Typer()
COMMANDS.command("publish")(commands.publish)
COMMANDS.command("verify")(commands.verify)

NAME = "someone/letters"
WORDS = {"licence": "mit", "training_data": "ten letters, drawn here (CC0)"}


def send(run: Path, **options):
    return publish(run, NAME, **{**WORDS, **options})


def asked(hub, method: str) -> list[str]:
    return [path for verb, path in hub.asked if verb == method]


def main(words: list[str]) -> int | None:
    return COMMANDS(words, standalone_mode=False)


def blocks(card: str) -> str:
    return card.partition("```python\n")[2].partition("```")[0]


def test_push_tag_and_load_in_fresh_caches(hub, finished_run, tmp_path):
    (tmp_path / "graphs").mkdir()
    (tmp_path / "graphs" / "step.onnx").write_bytes(b"\x08\x01 not opened here")
    results = tmp_path / "letters.csv"
    results.write_text("model,split,R@1,chance R@1,seed\nletters,valid,0.5,0.1,0\n")
    result = send(
        finished_run, tag="v1", exports=tmp_path / "graphs", results=[results], dataset="someone/letters-corpus"
    )
    repository = hub.repositories[NAME]
    assert repository.titles == ["initial commit", "ashnets v1"], "one commit"
    assert repository.tags == {"v1": result["commit"]} and result["verified"]
    files = repository.commits[result["commit"]]
    model = finished_run / "model"
    for name in ("model.safetensors", "config.json", "tokenizer.json", "processor_config.json", "recipe.yaml"):
        assert files[name] == (model / name).read_bytes()
    assert files["exports/step.onnx"] == b"\x08\x01 not opened here"
    assert files["results/letters.csv"] == results.read_bytes()
    found = parse_eval_result_entries(yaml.safe_load(files[".eval_results/ashnets.yaml"]))
    assert [(one.dataset_id, one.task_id, one.value) for one in found] == [("someone/letters-corpus", "valid", 0.5)]

    # the three lines of the card, then transformers' own classes, in a process of their own
    card = files["README.md"].decode()
    code = blocks(card)
    assert len(code.strip().splitlines()) == 3 and "someone/letters@v1" in code
    code += (
        "from ashnets.auto_classes import offer\noffer()\n"
        "from transformers import AutoModel, AutoProcessor\n"
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


def test_a_dry_run_checks_and_sends_nothing(hub, finished_run, capsys):
    words = ["publish", str(finished_run), "--repo", NAME, "--licence", "mit", "--dry-run"]
    assert not main([*words, "--json"])
    planned = json.loads(capsys.readouterr().out)
    assert planned["dry_run"] and "README.md" in planned["files"] and hub.asked == []
    assert [check["name"] for check in planned["checks"]] == [
        "no pickles", "no training state", "strict load", "finite weights", "processor", "parity after reload",
        "licence",
    ]  # fmt: skip
    assert all(check["passed"] for check in planned["checks"])
    assert not main(words)
    assert "strict load: passed" in capsys.readouterr().out


def test_again_makes_no_commit_and_a_change_replaces_shards(hub, run):
    first = send(run, tag="v1")
    puts = len(asked(hub, "PUT"))
    again = send(run, tag="v1")
    assert again["commit"] == first["commit"] and len(asked(hub, "PUT")) == puts
    assert len(hub.repositories[NAME].commits) == 2
    # shards in place of the one file: the old file must go, or it would be loaded before them
    model = ashnets.from_pretrained(run / "model")
    model.save_pretrained(run / "model", max_shard_size=8000)
    with pytest.raises(ConfigurationError, match="has a tag 'v1' with another"):
        send(run, tag="v1")
    assert len(hub.repositories[NAME].commits) == 2, "refused before anything was sent"
    second = send(run, tag="v2")
    there = hub.repositories[NAME].commits[second["commit"]]
    assert "model.safetensors" not in there and "model.safetensors.index.json" in there
    loaded = ashnets.from_pretrained(NAME, revision="v2", dtype=torch.bfloat16, device_map="cpu")
    assert {p.dtype for p in loaded.parameters()} == {torch.bfloat16}
    expected = model.state_dict()
    assert all(torch.equal(value, expected[name].to(value.dtype)) for name, value in loaded.state_dict().items())
    assert set(expected) == set(loaded.state_dict())


@pytest.mark.parametrize("how", ["500", "drop"])
def test_an_upload_that_fails_once_is_tried_again(hub, finished_run, how):
    fault = hub.fail("PUT", "/", how=how)
    assert send(finished_run)["verified"]
    assert fault.times == 0 and len(asked(hub, "PUT")) == 2


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
    code = f"from ashnets.hub import publish\npublish({str(finished_run)!r}, {NAME!r}, licence='mit')"
    words = [sys.executable, "-c", code]
    environment = {**os.environ, **hub.environment(tmp_path / "killed", "write-token")}
    with subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        assert fault.held.wait(280)
        process.kill()
    assert len(hub.repositories[NAME].commits) == 1, "a repository without a model"
    with pytest.raises(WeightsError, match="holds no model"):
        ashnets.from_pretrained(NAME)
    assert send(finished_run)["verified"]


def test_private_gated_and_read_only(hub, finished_run, tmp_path, monkeypatch):
    assert send(finished_run, private=True)["verified"]
    assert hub.repositories[NAME].private
    monkeypatch.setenv("HF_TOKEN", "read-token")
    assert type(ashnets.from_pretrained(NAME)).__name__ == "AshNetsForRetrieval"
    with pytest.raises(AshNetsError, match=r"cannot be written \(403\).*the token may only read"):
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
        weights.update({
            "queue": {"queue.image": torch.zeros(2)},
            "momentum": {f"momentum.{first}": weights[first].clone()},
            "optimiser": {f"exp_avg.{first}": weights[first].clone()},
            "left over": {"further.weight": torch.zeros(2)},
            "no number": {first: torch.full_like(weights[first], torch.nan)},
            "missing": {},
        }[how])  # fmt: skip
        if how == "missing":
            weights.pop(first)
        save_file(weights, model / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("pickle by name", r"no pickles: may run code: optimizer\.pt"),
        ("pickle by content", r"no pickles: may run code: notes\.txt"),
        ("archive by content", r"no pickles: may run code: notes\.json"),
        ("queue", r"no training state: of training alone: queue\.image"),
        ("momentum", r"no training state: of training alone: momentum\."),
        ("optimiser", r"no training state: of training alone: exp_avg\."),
        ("left over", r"strict load: .*unexpected keys: further\.weight"),
        ("missing", r"strict load: .*missing keys"),
        ("no number", "finite weights: not finite"),
        ("no processor", r"processor: .*holds no tokenizer\.json"),
    ],
)
def test_what_must_not_be_published_is_refused(hub, run, how, message):
    spoil(run, how)
    with pytest.raises(WeightsError, match=message):
        send(run)
    assert hub.asked == []


def test_no_licence_no_name_no_file(hub, finished_run, tmp_path):
    with pytest.raises(WeightsError, match="licence: not given: --licence says it"):
        publish(finished_run, NAME)
    for name in ("letters", "a/b/c", "a b/c"):
        with pytest.raises(ConfigurationError, match="repository"):
            publish(finished_run, name, **WORDS)
    with pytest.raises(ConfigurationError, match="there is no results file"):
        send(finished_run, results=[tmp_path / "none.csv"])
    (tmp_path / "graphs").mkdir()
    with pytest.raises(ConfigurationError, match="no exported graphs"):
        send(finished_run, exports=tmp_path / "graphs")
    torch.save({}, tmp_path / "graphs" / "step.onnx")
    with pytest.raises(WeightsError, match=r"step\.onnx may run code"):
        send(finished_run, exports=tmp_path / "graphs")
    assert hub.asked == []


def test_the_bundled_weights_pass_every_check():
    folder = Path(ashnets.resolve("ashnets-tiny"))
    assert all(check.passed for check in check_model(folder))


# Verify ---------------------------------------------------------------------------------------------------------------


def test_verify_says_what_was_compared_with_what(hub, finished_run, run, tmp_path, capsys):
    send(finished_run)
    found = verify_model(NAME)
    assert found["passed"] and found["origin"] == "hub"
    assert found["commit"] == hub.repositories[NAME].branches["main"]
    weights = (finished_run / "model" / "model.safetensors").read_bytes()
    file = found["files"]["model.safetensors"]
    assert file == {"sha256": hashlib.sha256(weights).hexdigest(), "compared_with": "announced by the Hub"}
    assert main(["verify", str(run / "model"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["origin"] == "folder" and "no pins" in found["files"]["config.json"]["compared_with"]
    spoil(run, "no number")
    assert main(["verify", str(run / "model")]) == 5
    assert "finite weights: FAILED" in capsys.readouterr().out
    shutil.rmtree(run / "model")
    with pytest.raises(UnknownModelError, match="there is no folder"):
        main(["verify", str(run / "model")])


def test_a_card_of_codecarbons_numbers(hub, run):
    (run / "emissions.csv").write_text("timestamp,emissions\n1,0.002\n2,0.0015\n")
    send(run)
    data = ModelCard(hub.repositories[NAME].commits[hub.repositories[NAME].branches["main"]]["README.md"].decode()).data
    assert data.co2_eq_emissions["emissions"] == 3.5, "the Hub counts grams, codecarbon kilograms"
    assert data.co2_eq_emissions["source"] == "codecarbon"
