"""Folders of results: complete or not at all; links, volumes, the current folder and other files stay."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from ashnets.errors import OutputError
from ashnets.result_folder import check_place, result_folder
from tests.dying import KILLED_AT

MARK = "config.json"


def put(output: Path | str, content: str, existing: str = "replace", names: Iterable[str] = (MARK, "b.txt")) -> None:
    """A result of two files and a folder with one."""
    with result_folder(output, MARK, existing) as folder:
        for name in names:
            (folder / name).write_text(content)
        (folder / "images").mkdir()
        (folder / "images" / "a.png").write_text(content)


def assert_holds(folder: Path, content: str, *others: str, names: Iterable[str] = (MARK, "b.txt")) -> None:
    assert sorted(os.listdir(folder)) == sorted(["images", *names, *others])
    assert [path.read_text() for path in folder.rglob("*") if path.name in (*names, "a.png")] == [content] * 3


def test_a_new_folder_appears_when_it_is_whole(tmp_path: Path) -> None:
    with result_folder(tmp_path / "deep" / "out", MARK) as folder:
        (folder / MARK).write_text("1")
        assert not (tmp_path / "deep" / "out").exists()
    assert (tmp_path / "deep" / "out" / MARK).read_text() == "1"
    assert os.listdir(tmp_path / "deep") == ["out"]
    plain = tmp_path / "plain"
    plain.mkdir()
    assert (tmp_path / "deep" / "out").stat().st_mode == plain.stat().st_mode, "as open to others as any new folder"


@pytest.mark.parametrize("there", [False, True])
def test_a_failure_leaves_what_was_there(tmp_path: Path, there: bool) -> None:
    if there:
        put(tmp_path / "out", "old")
    with pytest.raises(ValueError, match="no number"), result_folder(tmp_path / "out", MARK) as folder:
        (folder / MARK).write_text("half")
        raise ValueError("no number")
    assert os.listdir(tmp_path) == (["out"] if there else [])
    if there:
        assert_holds(tmp_path / "out", "old")


def test_an_earlier_result_is_replaced_whole(tmp_path: Path) -> None:
    put(tmp_path / "out", "old", names=[MARK, "only-old.txt"])
    put(tmp_path / "out", "new")
    assert_holds(tmp_path / "out", "new")
    assert os.listdir(tmp_path) == ["out"]
    with pytest.raises(OutputError, match=r"out is there already, with a config\.json"):
        put(tmp_path / "out", "newer", "refuse")
    assert_holds(tmp_path / "out", "new")


@pytest.mark.parametrize("state", ["dangling", "empty", "filled"])
def test_a_link_stays_and_its_folder_is_filled(tmp_path: Path, state: str) -> None:
    real, link = tmp_path / "volume" / "real", tmp_path / "link"
    real.parent.mkdir()
    link.symlink_to("volume/real")
    if state != "dangling":
        real.mkdir()
    if state == "filled":
        put(real, "old")
    put(link, "new")
    assert os.readlink(link) == "volume/real"
    assert_holds(real, "new")
    assert sorted(os.listdir(tmp_path)) == ["link", "volume"] and os.listdir(real.parent) == ["real"]


@pytest.mark.parametrize("filled", [False, True])
def test_the_current_folder_stays_the_same_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, filled: bool
) -> None:
    """The current folder of this process or another one: a shell in it continues."""
    monkeypatch.chdir(tmp_path)
    if filled:
        put(".", "old")
    before = tmp_path.stat().st_ino
    put(".", "new")
    assert_holds(tmp_path, "new")
    assert Path.cwd() == tmp_path and os.stat(".").st_ino == tmp_path.stat().st_ino == before


def test_files_of_others_are_refused_or_kept(tmp_path: Path) -> None:
    mine = tmp_path / "thesis.tex"
    mine.write_text("years")
    with pytest.raises(OutputError, match=r"contains something else \(thesis\.tex\) and no config\.json"):
        put(tmp_path, "new")
    with pytest.raises(OutputError, match=r"thesis\.tex is a file: name a folder"):
        put(mine, "new")
    assert os.listdir(tmp_path) == ["thesis.tex"]
    put(tmp_path, "old", "keep")
    put(tmp_path, "new", "keep")
    assert_holds(tmp_path, "new", "thesis.tex")
    assert mine.read_text() == "years"


def test_hidden_entries_and_those_of_a_volume_are_in_nobodys_way(tmp_path: Path) -> None:
    (tmp_path / "lost+found").mkdir()
    (tmp_path / ".gitignore").write_text("*")
    put(tmp_path, "old")
    put(tmp_path, "new")
    assert_holds(tmp_path, "new", "lost+found", ".gitignore")


def test_what_came_during_the_work_is_not_removed_and_the_result_is_kept(tmp_path: Path) -> None:
    for there in (False, True):
        output = tmp_path / str(there)
        if there:
            output.mkdir()
        told = pytest.raises(OutputError, match=r"is finished, but .* \(.*mine.*\)\. It is kept in (\S+):")
        with told as error, result_folder(output, MARK) as folder:
            (folder / MARK).write_text("hours of work")
            output.mkdir(exist_ok=True)
            (output / "mine").write_text("mine")
        kept = Path(str(error.value).partition("It is kept in ")[2].partition(":")[0])
        (output / "mine").unlink()
        put(output, "next")
        assert (kept / MARK).read_text() == "hours of work", "the next run leaves it alone"
    with pytest.raises(OutputError, match="It is kept in"), result_folder(tmp_path / "file", MARK) as folder:
        (folder / MARK).write_text("hours of work")
        (tmp_path / "file").write_text("in the way")
    assert (tmp_path / "file").read_text() == "in the way"


def test_a_folder_that_takes_no_file_is_refused_before_the_work(tmp_path: Path, no_power_over_files) -> None:
    (tmp_path / "closed").mkdir(mode=0o555)
    with no_power_over_files():
        for output in (tmp_path / "closed", tmp_path / "closed" / "new"):
            told = pytest.raises(OutputError, match=r"cannot be written \(Permission denied\): choose a folder")
            with told, result_folder(output, MARK):
                pytest.fail("the work had begun")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(OutputError, match="name a folder"):
        check_place(tmp_path / "loop", MARK)


def test_two_at_once_do_not_meet(tmp_path: Path) -> None:
    """The result of the process that ends last remains; the folder of a living process is not removed."""
    with result_folder(tmp_path / "out", MARK) as first:
        put(tmp_path / "out", "second")
        put(tmp_path / "out", "third")
        for name in (MARK, "b.txt"):
            (first / name).write_text("first")
        (first / "images").mkdir()
        (first / "images" / "a.png").write_text("first")
    assert_holds(tmp_path / "out", "first")
    assert os.listdir(tmp_path) == ["out"]


KILLED = (
    KILLED_AT
    + """
import sys
from ashnets.result_folder import complete, result_folder

def put(output, content, *others):
    with result_folder(output, "config.json") as folder:
        for name in ("config.json", "b.txt", *others):
            (folder / name).write_text(content)
        (folder / "images").mkdir()
        (folder / "images" / "a.png").write_text(content)

def content(folder):
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*.*")
            if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)}

names, moves, seen = ("config.json", "b.txt", "images/a.png"), 0, set()
results = {content: dict.fromkeys(names, content) for content in ("old", "new")}
results["old"]["old.npz"] = "old"  # which the new result lacks
for there in (True, False):
    for moves in range(100):
        output = Path(sys.argv[1]) / f"{there}-{moves}" / "out"
        output.parent.mkdir()
        if there:
            put(output, "old", "old.npz")
        died = killed_at(moves, lambda: put(output, "new"))
        found = content(output) if output.exists() else {}
        if "config.json" in found:
            assert found in results.values(), found
        seen.add(found.get("config.json"))
        whole = [path for path in output.parent.rglob("*") if path.name == "config.json"]
        assert whole, "the old result or the new one is somewhere"
        if output.exists():
            complete(output, "config.json")
            assert content(output) in results.values(), content(output)
        put(output, "next")
        assert content(output) == {name: "next" for name in names}
        assert [path.name for path in output.parent.iterdir()] == ["out"]
        assert not [path for path in output.iterdir() if path.name.startswith(".")]
        if not died:
            break
    else:
        raise AssertionError("it dies for ever")
    print(there, moves)
assert seen == {"old", "new", None}, seen
"""
)


def test_killed_at_any_move(tmp_path: Path) -> None:
    """A mark never exists with an incomplete result, and the next run removes what is left."""
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["True", "9", "False", "1"]  # four entries out, three in, and two names of state


VOLUME = """
import errno, os, subprocess, sys
from pathlib import Path
from ashnets.errors import OutputError
from ashnets.result_folder import result_folder

volume = Path(sys.argv[1])
mounted = "mount" in sys.argv
if mounted:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", volume], check=True)
    (volume / "lost+found").mkdir()
    try:
        volume.rename(volume.with_name("other"))
    except OSError as error:
        assert error.errno == errno.EBUSY
for content in ("old", "new"):
    with result_folder(volume, "config.json") as folder:
        for name in ("config.json", "b.txt"):
            (folder / name).write_text(content)
assert {path.name: path.read_text() for path in volume.glob("*.*")} == {"config.json": "new", "b.txt": "new"}
if mounted:
    try:
        with result_folder(volume, "config.json") as folder:
            (folder / "config.json").write_bytes(bytes(100_000))
    except OutputError as error:
        assert "No space left" in str(error) and str(volume) in str(error) and "make room" in str(error), error
    else:
        raise AssertionError("64 KiB took 100,000 bytes")
    assert sorted(os.listdir(volume)) == ["b.txt", "config.json", "lost+found"], os.listdir(volume)
    assert (volume / "config.json").read_text() == "new"
"""


def test_a_mounted_volume_and_a_full_one(tmp_path: Path) -> None:
    """A separate volume if the user may mount one; otherwise the folder must at least stay the same folder."""
    (tmp_path / "volume").mkdir()
    before = (tmp_path / "volume").stat().st_ino
    command = [sys.executable, "-c", VOLUME, str(tmp_path / "volume")]
    try:
        may_mount = (
            subprocess.run(
                ["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", tmp_path / "volume"], capture_output=True
            ).returncode
            == 0
        )
    except FileNotFoundError:
        may_mount = False
    done = subprocess.run(
        ["unshare", "-rm", *command, "mount"] if may_mount else command, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "volume").stat().st_ino == before and os.listdir(tmp_path) == ["volume"]


def test_a_full_disk_leaves_the_old_result(tmp_path: Path) -> None:
    """A limit on the file size acts like a full disk; the message of a library may differ from Python's."""
    put(tmp_path / "out", "old")
    code = (
        "import resource, signal, sys, numpy\n"
        "from safetensors.numpy import save_file\n"
        "from ashnets.errors import OutputError\n"
        "from ashnets.result_folder import result_folder\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "try:\n"
        "    with result_folder(sys.argv[1], 'config.json') as folder:\n"
        "        save_file({'x': numpy.zeros(1_000_000, numpy.uint8)}, folder / 'model.safetensors')\n"
        "except OutputError as error:\n"
        "    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "out")], capture_output=True, text=True)
    assert done.stdout.startswith(f"{tmp_path / 'out'} cannot be written (") and "make room" in done.stdout, done.stderr
    assert_holds(tmp_path / "out", "old")
    assert os.listdir(tmp_path) == ["out"]


def test_on_windows_only_files_are_flushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There, a folder cannot be opened, and a file that is open for reading cannot be flushed."""
    opened, flags_of, flushed = os.open, {}, []

    def open_(path: Path, flags: int, *rest: int) -> int:
        if os.path.isdir(path):
            raise PermissionError(errno.EACCES, "a folder")
        descriptor = opened(path, flags, *rest)
        flags_of[descriptor] = flags
        return descriptor

    def fsync(descriptor: int) -> None:
        assert flags_of[descriptor] & os.O_RDWR
        flushed.append(descriptor)

    monkeypatch.setattr(os, "open", open_)
    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(sys, "platform", "win32")
    put(tmp_path / "out", "new")
    assert_holds(tmp_path / "out", "new")
    assert len(flushed) == 3
