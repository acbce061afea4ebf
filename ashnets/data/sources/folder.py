"""A folder of images as rows: Hugging Face's imagefolder (metadata.jsonl or .csv), or one .txt per image."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from ashnets.data.folders import printable, read_file, reason
from ashnets.data.images import is_image
from ashnets.data.sources.rows import PATHS, SPLIT_WORDS, Missing, SourceRow, clean_row, path_inside, split_name
from ashnets.errors import DataError

METADATA = ("metadata.jsonl", "metadata.csv")


def read_folder(root: Path, files: list[str]) -> Iterator[SourceRow]:
    """Rows of ``files``, paths relative to ``root``.

    Metadata in ``root`` describes all files; metadata in a subfolder named after a split describes that subfolder.
    Every other image needs a .txt file. Images that the metadata does not name are left out.
    """
    parts = [PurePosixPath(file).parent.as_posix() for file in files if PurePosixPath(file).name in METADATA]
    described = [part for part in dict.fromkeys(parts) if part == "." or part.lower() in SPLIT_WORDS]
    if "." in described:
        described = ["."]
    missing = Missing(root)
    for part in described:
        yield from _read_metadata(root, "" if part == "." else f"{part}/", missing)
    missing.complain()
    if described != ["."]:
        rest = [file for file in files if file.partition("/")[0] not in described]
        yield from _read_sidecars(root, [file for file in rest if is_image(file)])


def _split_of(file: str) -> str:
    first, _, rest = file.partition("/")
    return split_name(first) if rest and first.lower() in SPLIT_WORDS else "train"


def _read_metadata(root: Path, part: str, missing: Missing) -> Iterator[SourceRow]:
    found = [root / part / name for name in METADATA if (root / part / name).is_file()]
    if len(found) > 1:
        raise DataError(f"{root / part} contains {' and '.join(METADATA)}; keep only one of them.")
    lines = _json_lines(found[0]) if found[0].suffix == ".jsonl" else _csv_lines(found[0])
    for number, raw in lines:
        where = f"{found[0]}, line {number}"
        given = next((raw[key] for key in PATHS if raw.get(key) is not None), None)
        file = part + path_inside(given, where)
        missing.look(file, f"{part}{found[0].name}, line {number}")
        yield clean_row(raw, where, file=file, row=-1, image_id=file, split=_split_of(file))


def _json_lines(path: Path) -> Iterator[tuple[int, dict[str, object]]]:
    for number, line in enumerate(_read(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DataError(f"{path}, line {number} is not valid JSON ({error}). Correct or remove it.") from None
        if not isinstance(row, dict):
            raise DataError(f"{path}, line {number} is {line.strip()[:60]!r}; each line must be one JSON object.")
        yield number, row


def _csv_lines(path: Path) -> Iterator[tuple[int, dict[str, object]]]:
    reader = csv.DictReader(io.StringIO(_read(path), newline=""), strict=True)
    try:
        if not set(reader.fieldnames or ()) & set(PATHS):
            raise DataError(f"{path}, line 1: the columns are {reader.fieldnames}; one must be {' or '.join(PATHS)}.")
        for row in reader:
            where = f"{path}, line {reader.line_num}"
            if None in row or None in row.values():
                raise DataError(
                    f"{where} has more or fewer fields than the {len(reader.fieldnames or ())} columns of line 1. "
                    "Put texts with commas in double quotes."
                )
            filled: dict[str, object] = {key: value for key, value in row.items() if value}
            if (captions := row.get("captions") or "").startswith("["):
                try:
                    filled["captions"] = json.loads(captions)
                except ValueError as error:
                    raise DataError(f"{where}: key 'captions' is not a JSON list ({error}). Correct it.") from None
            yield reader.line_num, filled
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.reader.line_num} is not valid CSV ({error}). Correct it.") from None


def _read_sidecars(root: Path, images: list[str]) -> Iterator[SourceRow]:
    captions = {file: _captions((root / file).with_suffix(".txt")) for file in images}
    if alone := [file for file, given in captions.items() if not given]:
        shown = ", ".join(map(printable, alone[:3])) + (f" and {len(alone) - 3} more" if len(alone) > 3 else "")
        example = printable(PurePosixPath(alone[0]).with_suffix(".txt"))
        raise DataError(
            f"{root}: {len(alone)} of {len(images)} images have no captions: {shown}. Write them, one per line, to "
            f"a text file next to each ({example}), or write {METADATA[0]} with file_name and captions."
        )
    for file, given in captions.items():
        where = str((root / file).with_suffix(".txt"))
        yield clean_row({"captions": given}, where, file=file, row=-1, image_id=file, split=_split_of(file))


def _captions(path: Path) -> list[str]:
    """The lines of a text file that are not blank; none if there is no such file."""
    return [line for line in _read(path).split("\n") if line.strip()] if path.is_file() else []


def _read(path: Path) -> str:
    try:
        text = read_file(path).decode("utf-8-sig")
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({reason(error)}). Save it as UTF-8 text.") from None
    return text.replace("\r\n", "\n").replace("\r", "\n")
