"""Results are written to temporary files and renamed."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ashnets.errors import OutputError
from ashnets.files import read_csv, replaced_weights, require_writable, write_atomically, write_csv, write_json


def test_results_are_never_half_written(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "result.json"
    write_json(path, {"a": 1})
    assert json.loads(path.read_text(encoding="utf-8")) == {"a": 1}
    loop: dict[str, object] = {}
    loop["self"] = loop
    with pytest.raises(ValueError, match="Circular"):
        write_json(path, loop)
    assert json.loads(path.read_text(encoding="utf-8")) == {"a": 1}
    assert [one.name for one in path.parent.iterdir()] == ["result.json"]


def test_threads_that_write_one_file_never_mix(tmp_path: Path) -> None:
    """Each read is whole and of one writer, and no write fails."""
    path, size, writes = tmp_path / "result.bin", 1 << 20, 40
    found: list[bytes] = []

    def write(letter: bytes) -> None:
        for _ in range(writes):
            write_atomically(path, letter * size)
            found.append(path.read_bytes())

    with ThreadPoolExecutor(2) as threads:
        for done in [threads.submit(write, letter) for letter in (b"a", b"b")]:
            done.result()
    assert len(found) == 2 * writes and set(found) <= {b"a" * size, b"b" * size}
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    """A limit on the file size acts like a full disk: the kernel refuses the write in the middle."""
    path = tmp_path / "result.bin"
    write_atomically(path, b"old")
    code = (
        "import resource, signal, sys; from ashnets.files import write_atomically\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "write_atomically(sys.argv[1], bytes(1_000_000))"
    )
    result = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True)
    assert result.returncode != 0 and "File too large" in result.stderr
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_names_that_are_no_text(tmp_path: Path) -> None:
    """The Latin-1 name of a folder can appear in reports."""
    name = os.fsdecode(b"caf\xe9")
    assert json.loads(write_json(tmp_path / "a.json", {"é": name}).read_text(encoding="utf-8")) == {"é": name}
    assert write_csv(tmp_path / "a.csv", [{"é": name}]).read_text(encoding="utf-8") == "é\ncaf\\udce9\n"


def test_a_user_without_a_home_folder(tmp_path: Path) -> None:
    """Without HOME and without an entry in passwd for the user id, as in a container."""
    code = (
        "import os, pwd\n"
        "def nobody(number): raise KeyError(number)\n"
        "try: os.setreuid(54321, os.geteuid())\n"
        "except PermissionError: pwd.getpwuid = nobody\n"  # the tests of an ordinary user
        "from ashnets.files import cache_folder\n"
        "from ashnets.errors import ConfigurationError\n"
        "try: cache_folder('indexes')\n"
        "except ConfigurationError as error: print(error)\n"
        "os.environ['ASHNETS_CACHE'] = '/somewhere'\n"
        "print(cache_folder('indexes'))\n"
    )
    bare = {key: value for key, value in os.environ.items() if key not in ("HOME", "ASHNETS_CACHE", "XDG_CACHE_HOME")}
    said = subprocess.run([sys.executable, "-c", code], env=bare, cwd=tmp_path, capture_output=True, text=True)
    first, second = said.stdout.splitlines()
    assert "no home folder" in first and "set ASHNETS_CACHE to a folder" in first
    assert second == "/somewhere/indexes" and not list(tmp_path.iterdir())


def test_csv(tmp_path: Path) -> None:
    rows = [{"name": "a, b", "R@1": 0.5}, {"name": "c", "R@1": 1}]
    with open(write_csv(tmp_path / "t.csv", rows), newline="", encoding="utf-8") as stream:
        assert list(csv.DictReader(stream)) == [{"name": "a, b", "R@1": "0.5"}, {"name": "c", "R@1": "1"}]


def test_weights_that_others_replace_are_known_by_the_names_that_transformers_gives() -> None:
    plain = ["model.safetensors", "model-00001-of-00002.safetensors", "model.safetensors.index.json"]
    half = ["model.fp16.safetensors", "model.fp16-00001-of-00002.safetensors", "model.safetensors.index.fp16.json"]
    others = [
        "model.safetensors.sha256",
        "model-1-of-2.safetensors",
        "model-old.safetensors",
        "model.safetensors.json",
        "my-model.safetensors",
        "config.json",
    ]
    present = [*plain, *half, *others]
    for written in plain:
        assert replaced_weights(present, [written, "config.json"]) == sorted(set(plain) - {written})
    for written in half:
        assert replaced_weights(present, [written]) == sorted(set(half) - {written})
    assert replaced_weights(present, ["config.json"]) == replaced_weights(present, []) == []


def test_a_link_to_a_file_stays_and_the_file_keeps_its_permissions(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    link = tmp_path / "table.csv"
    link.symlink_to("real/table.csv")
    for content in (b"made", b"written over"):  # through a link to nothing, then to a file
        assert write_atomically(link, content) == link
        assert os.readlink(link) == "real/table.csv"
        assert (tmp_path / "real" / "table.csv").read_bytes() == content
        (tmp_path / "real" / "table.csv").chmod(0o600)
    assert (tmp_path / "real" / "table.csv").stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path / "real") == ["table.csv"] and sorted(os.listdir(tmp_path)) == ["real", "table.csv"]


def test_a_pipe_receives_the_bytes_and_stays_a_pipe(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.csv"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    require_writable(pipe)
    write_atomically(pipe, b"a,b\n")
    assert os.read(reader, 100) == b"a,b\n"
    os.close(reader)
    assert pipe.is_fifo() and os.listdir(tmp_path) == ["pipe.csv"]


def test_a_folder_that_takes_no_file_is_said_at_once(tmp_path: Path, no_power_over_files) -> None:
    closed = tmp_path / "closed"
    closed.mkdir()
    (closed / "old.csv").write_text("old")
    closed.chmod(0o555)
    with no_power_over_files():
        for path in (closed / "old.csv", closed / "new" / "deep.csv"):
            for write in (lambda path: write_atomically(path, b"new"), require_writable):
                with pytest.raises(OutputError, match=r"\.csv cannot be written \(Permission denied\): .*choose"):
                    write(path)
    assert (closed / "old.csv").read_text() == "old" and os.listdir(closed) == ["old.csv"]
    with pytest.raises(OutputError, match=r"closed cannot be written \(Is a directory\)"):
        write_atomically(closed, b"new")
    require_writable(tmp_path / "new" / "deep.csv")
    assert os.listdir(tmp_path) == ["closed"]


def test_a_csv_file_is_read_as_it_was_written(tmp_path):
    rows = [{"name": "a, b", "text": 'é "quoted"'}, {"name": "c\nd", "text": ""}]
    assert read_csv(write_csv(tmp_path / "table.csv", rows)) == rows
    assert read_csv(tmp_path / "none.csv") == []
