"""Walking folders and opening files: special files, missing permissions, unusual names."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from ashnets.data.folders import by_suffix, printable, read_file, walk
from ashnets.data.images import load_image
from ashnets.errors import DataError, InputError


@pytest.fixture
def odd_folder(tmp_path, monkeypatch) -> Path:
    """A file, a link to it, a hidden file, a folder with an image's name, and special entries."""
    folder = tmp_path / "odd"
    (folder / "folder.png").mkdir(parents=True)
    (folder / "folder.png" / "b.PNG").write_bytes(b"2")
    (folder / "a.png").write_bytes(b"1")
    (folder / ".hidden.png").write_bytes(b"3")
    (folder / "link.png").symlink_to("a.png")
    (folder / "nowhere.png").symlink_to("gone.png")
    (folder / "loop.png").symlink_to("loop.png")
    (folder / "back").symlink_to(folder)
    (folder / "device.png").symlink_to("/dev/zero")
    os.mkfifo(folder / "pipe.png")
    monkeypatch.chdir(folder)  # the path of a socket is short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.png")
    return folder


def test_a_walk_tells_files_from_what_is_none(odd_folder):
    found = walk(odd_folder)
    assert list(found.files) == ["a.png", "folder.png/b.PNG", "link.png"]
    assert found.odd == {
        "device.png": "is a device, not a file",
        "nowhere.png": "is a broken link",
        "pipe.png": "is a named pipe, not a file",
        "socket.png": "is a socket, not a file",
    }
    assert list(found.closed) == ["loop.png"]
    assert found.faults(lambda path: path.startswith("n")) == {
        "loop.png": f"{odd_folder}/loop.png {found.closed['loop.png']}",
        "nowhere.png": f"{odd_folder}/nowhere.png is a broken link",
    }


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("pipe.png", "it is a named pipe"),
        ("socket.png", "it is a socket"),
        ("device.png", "it is a device"),
        ("folder.png", "it is a folder"),
        ("loop.png", "symbolic links"),
    ],
)
def test_what_is_no_file_is_not_opened(odd_folder, name, says):
    with pytest.raises(OSError) as caught:
        read_file(odd_folder / name)
    assert says in caught.value.strerror and caught.value.filename == str(odd_folder / name)
    with pytest.raises(InputError, match=rf"{name}.*{'is a folder' if name == 'folder.png' else says}"):
        load_image(odd_folder / name)


def test_a_file_too_large_is_not_read(tmp_path):
    with open(tmp_path / "a.png", "wb") as stream:
        stream.truncate(2**30 + 1)
    with pytest.raises(InputError, match="it contains 1073741825 bytes; the limit is 1073741824"):
        load_image(tmp_path / "a.png")
    assert read_file(__file__, limit=2**20) == Path(__file__).read_bytes()


def test_folders_that_may_not_be_listed(tmp_path, ordinary_rights):
    (tmp_path / "open").mkdir()
    (tmp_path / "open" / "a.png").touch()
    (tmp_path / "locked" / "deep").mkdir(parents=True)
    (tmp_path / "locked").chmod(0)
    try:
        found = walk(tmp_path)
        with pytest.raises(DataError, match=r"locked cannot be read \(Permission denied\)"):
            walk(tmp_path / "locked")
    finally:
        (tmp_path / "locked").chmod(0o700)
    assert list(found.files) == ["open/a.png"]
    assert found.closed == {"locked": "cannot be read (Permission denied)"}


def test_a_path_is_printed_in_one_line():
    name = os.fsdecode("Gr\u00fc\u00dfe \u3000\n\x1b[2J\u2028.png".encode() + b"\xff")
    assert printable(name) == "Gr\u00fc\u00dfe \u3000\\n\\x1b[2J\\u2028.png\ufffd"
    assert printable("C:\\plain") == "C:\\plain"


def test_suffixes_are_counted():
    assert by_suffix(["a.HEIC", "b/c.heic", "d.txt", "e", "f.tar.gz"]) == {
        ".heic": 2,
        ".gz": 1,
        ".txt": 1,
        "no suffix": 1,
    }
