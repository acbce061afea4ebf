"""Annotation files as entries, each with its place: JSON documents, JSON lines, lines of text.

An unreadable file is one fault; in JSON lines, a broken line is one fault and the other lines are read.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from ashnets.data.benchmarks.faults import BROKEN, Faults, Place, shown
from ashnets.errors import DataError

_AGAIN = "Download or unpack it again."
_CHUNK = 1 << 20
_LARGEST = 1 << 26  # characters of one element; no benchmark comes near


def json_document(path: Path, faults: Faults) -> object:
    """The content of a JSON file, or None after a fault, which names line and column. ``null`` is a fault too."""
    content = _content(path, faults)
    if content is None:
        return None
    try:
        found = json.loads(content)
        if found is None:
            faults.report(BROKEN, Place(path), f"it contains null, and nothing else. {_AGAIN}")
        return found
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        faults.report(BROKEN, Place(path), f"{where}: it is not valid JSON ({error.msg}); it may be cut off. {_AGAIN}")
    except (ValueError, RecursionError) as error:
        faults.report(BROKEN, Place(path), f"it cannot be read as JSON ({error}). {_AGAIN}")
    return None


def json_entries(path: Path, key: str, faults: Faults, document: object = None) -> Iterator[tuple[Place, object]]:
    """The entries of ``{key: [...]}``, of a bare list, or of an object of objects whose keys are ids.

    ``document`` is what the file contains, where it has been read already.
    """
    if document is None and (document := json_document(path, faults)) is None:
        return
    entries = document.get(key, document) if isinstance(document, dict) else document
    if isinstance(entries, list):
        pairs: Iterable[tuple[int | str, object]] = enumerate(entries)
    elif isinstance(entries, dict) and entries and all(isinstance(entry, dict) for entry in entries.values()):
        pairs = entries.items()
    else:
        message = f"it contains {shown(document)}; it must be a list, or an object with a list under {key!r}. {_AGAIN}"
        faults.report(BROKEN, Place(path), message)
        return
    for number, entry in pairs:
        yield Place(path, key, number), entry


def json_elements(path: Path, faults: Faults) -> Iterator[tuple[Place, object]]:
    """The elements of a file that is one long JSON list, read piece by piece: such a file may exceed the memory."""
    decoder = json.JSONDecoder()
    number = 0

    def broken(message: str) -> None:
        faults.report(BROKEN, Place(path, "element", number), f"{message} {_AGAIN}")

    try:
        with open(path, encoding="utf-8-sig") as file:
            buffer = ""
            while not buffer and (more := file.read(_CHUNK)):
                buffer = more.lstrip()
            if not buffer.startswith("["):
                faults.report(BROKEN, Place(path), f"it begins with {shown(buffer[:20])}; it must be a list. {_AGAIN}")
                return
            at, want = 1, _CHUNK
            while True:
                at = _skip(buffer, at)
                if buffer[at : at + 1] == "]":
                    return
                try:
                    element, end = decoder.raw_decode(buffer, at)
                except json.JSONDecodeError as error:
                    more = file.read(want) if len(buffer) - at < _LARGEST else ""
                    if not more:
                        broken(f"the file is cut off or no JSON here ({error.msg}).")
                        return
                    buffer, at, want = buffer[at:] + more, 0, 2 * want
                    continue
                yield Place(path, "element", number), element
                at, want, number = end, _CHUNK, number + 1
    except DataError:
        raise
    except UnicodeDecodeError as error:
        broken(f"it is not UTF-8 text ({error.reason}).")
    except (OSError, ValueError, RecursionError) as error:
        broken(f"it cannot be read ({error}).")


def _skip(buffer: str, at: int) -> int:
    while buffer[at : at + 1] in (" ", "\t", "\r", "\n", ","):
        at += 1
    return at


def text_lines(path: Path, faults: Faults) -> list[str]:
    """The lines of a text file; a line break at its end makes no further line. None of them after a fault."""
    content = _content(path, faults)
    if content is None:
        return []
    # Not splitlines: it also breaks at characters that JSON may hold, such as U+2028.
    lines = content.split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def json_lines(path: Path, faults: Faults) -> Iterator[tuple[Place, object]]:
    """What each line of a file of JSON lines holds; empty lines are left out."""
    for number, line in enumerate(text_lines(path, faults), start=1):
        if not line.strip():
            continue
        place = Place(path, "line", number)
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError) as error:
            faults.report(BROKEN, place, f"it is not valid JSON ({error}). Correct the line or remove it.")
            continue
        yield place, entry


def _content(path: Path, faults: Faults) -> str | None:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        faults.report(BROKEN, Place(path), f"byte {error.start}: it is not UTF-8 text ({error.reason}). {_AGAIN}")
    except OSError as error:
        faults.report(BROKEN, Place(path), f"it cannot be read ({error.strerror or error}).")
    return None
