"""Where the drawings come from, and how each vendor's files are matched to Unicode concepts."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ashnets.data.pictograms.npm_packages import Package, read_json, read_members
from ashnets.data.pictograms.suitable import suitable
from ashnets.errors import DataError


@dataclass(frozen=True)
class Vendor:
    """One vendor's drawings: files named by code in ``folder`` or, without a folder, an Iconify set of named SVGs."""

    name: str
    package: Package
    test: bool = False
    folder: str | None = None
    suffix: str = ".png"
    spellings: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Sources:
    """All inputs of a build: drawings, and three packages of names, keywords and subgroups."""

    vendors: tuple[Vendor, ...]
    names: Package
    keywords: Package
    subgroups: Package

    def packages(self) -> list[Package]:
        """Each package once, in a fixed order."""
        every = [self.names, self.keywords, self.subgroups, *(vendor.package for vendor in self.vendors)]
        return list(dict.fromkeys(every))


@dataclass(frozen=True)
class Concept:
    """One Unicode pictogram; ``code`` is lower-case hexadecimal without fe0f, such as ``1f3f3-200d-1f308``."""

    code: str
    name: str
    group: str
    subgroup: str
    keywords: tuple[str, ...]
    other_names: tuple[str, ...] = ()


def normal_code(code: str) -> str:
    """``1F3F3-FE0F-200D-1F308`` → ``1f3f3-200d-1f308``: lower case, no variation selector."""
    return "-".join(part.zfill(4) for part in re.split(r"[-_ ]", code.lower()) if part != "fe0f")


def code_of(text: str) -> str:
    return normal_code("-".join(f"{ord(character):x}" for character in text))


def plain(name: str) -> str:
    """Letters and digits alone, without accents: the form in which vendors' spellings are compared."""
    ascii_name = unicodedata.normalize("NFKD", name.lower().replace("&", "and")).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]", "", ascii_name)


_KEYWORD = re.compile(r"[a-z0-9][a-z0-9 '.!-]*")


def _keywords(raw: list[str], name: str, vendor_words: frozenset[str]) -> tuple[str, ...]:
    words = (re.sub(r"\s+", " ", word.lower().replace("_", " ").replace("’", "'")).strip() for word in raw)
    kept = (w for w in words if _KEYWORD.fullmatch(w) and plain(w) != plain(name) and not vendor_words & set(w.split()))
    return tuple(dict.fromkeys(word for word in kept if suitable(word)))


def read_concepts(sources: Sources, tarballs: dict[str, Path]) -> tuple[dict[str, Concept], dict[str, int]]:
    """Concepts by code in Unicode's order, and how many were left out by which rule.

    The list of names contains no skin-tone variants; flags of countries and subdivisions are left out here.
    """
    (listed,) = read_json(tarballs[sources.names.spec], "data-by-emoji.json")
    (tags,) = read_json(tarballs[sources.keywords.spec], "dist/emoji-en-US.json")
    (records,) = read_json(tarballs[sources.subgroups.spec], "emoji.json")
    details = {normal_code(record["unified"]): record for record in records}
    vendor_words = frozenset(word for vendor in sources.vendors for word in re.split(r"[-\d]+", vendor.name) if word)
    vendor_words -= {"flat", "v"}
    concepts: dict[str, Concept] = {}
    flags = 0
    for character, entry in listed.items():
        if entry["group"] == "Flags" and re.match(r"flag[ :]", entry["name"]):
            flags += 1
            continue
        code = code_of(character)
        detail = details.get(code, {})
        concepts[code] = Concept(
            code=code,
            name=entry["name"],
            group=entry["group"],
            subgroup=detail.get("subcategory") or "",
            keywords=_keywords(tags.get(character, []), entry["name"], vendor_words),
            other_names=tuple(filter(None, [detail.get("name"), *detail.get("short_names", [])])),
        )
    if not concepts:
        raise DataError(f"{sources.names.spec}: no concept could be read; it is not the expected package.")
    return concepts, {"country and subdivision flags": flags}


@dataclass(frozen=True)
class Drawing:
    """One file of a vendor: the concept's code and the undecoded image (PNG, WebP or SVG)."""

    code: str
    data: bytes


def read_drawings(
    vendor: Vendor, tarball: Path, concepts: dict[str, Concept]
) -> tuple[list[Drawing], dict[str, int | list[str]]]:
    """The vendor's drawings of known concepts in code order, and counts of what was left out."""
    found = _iconify(vendor, tarball, concepts) if vendor.folder is None else _by_code(vendor, tarball, concepts)
    drawings, losses = found
    if not drawings:
        raise DataError(f"{vendor.package.spec}: no drawing of a known concept; it is not the expected package.")
    return sorted(drawings, key=lambda drawing: drawing.code), losses


def _by_code(vendor: Vendor, tarball: Path, concepts: dict[str, Concept]) -> tuple[list[Drawing], dict]:
    prefix = f"{vendor.folder}/"
    unknown: list[str] = []

    def wanted(inner: str) -> bool:
        name = inner.removeprefix(prefix)
        if not inner.startswith(prefix) or "/" in name or not name.lower().endswith(vendor.suffix):
            return False
        known = normal_code(name[: -len(vendor.suffix)]) in concepts
        if not known:
            unknown.append(name)
        return known

    # Sorted, so that of two spellings of one code (with and without fe0f) the same one wins each time.
    members = sorted(read_members(tarball, wanted).items())
    by_code: dict[str, bytes] = {}
    for inner, data in members:
        by_code.setdefault(normal_code(inner.removeprefix(prefix)[: -len(vendor.suffix)]), data)
    skin = sum(1 for name in unknown if re.search(r"1f3f[b-f]", name.lower()))
    losses = {
        "skin-tone variants": skin,
        "other files outside the concept list": len(unknown) - skin,
        "second spellings of a code": len(members) - len(by_code),
    }
    return [Drawing(code, data) for code, data in by_code.items()], losses


def name_finder(concepts: dict[str, Concept]) -> Callable[[str], str | None]:
    """A function from a vendor's spelling to a code: current names first, then Unicode's old names, then short names.

    A spelling that two concepts share within one of these layers finds nothing there.
    """
    layers: list[dict[str, set[str]]] = [{}, {}, {}]
    for concept in concepts.values():
        layers[0].setdefault(plain(concept.name), set()).add(concept.code)
        for position, other in enumerate(concept.other_names):
            layers[1 if position == 0 else 2].setdefault(plain(other), set()).add(concept.code)

    def find(spelling: str) -> str | None:
        for layer in layers:
            codes = layer.get(plain(spelling), set())
            if len(codes) == 1:
                return next(iter(codes))
        return None

    return find


def _iconify(vendor: Vendor, tarball: Path, concepts: dict[str, Concept]) -> tuple[list[Drawing], dict]:
    icons, metadata = read_json(tarball, "icons.json", "metadata.json")
    find = name_finder(concepts)
    spellings = dict(vendor.spellings)
    exact = {concept.name: concept.code for concept in concepts.values()}
    aliases: dict[str, list[str]] = {}
    for alias, entry in icons.get("aliases", {}).items():
        if set(entry) == {"parent"}:  # others are turned or mirrored drawings
            aliases.setdefault(entry["parent"], []).append(alias)
    flags = {name for title, names in metadata.get("categories", {}).items() if title == "Flags" for name in names}

    by_code: dict[str, str] = {}
    unmatched: list[str] = []
    flag_count = skin = second = 0
    for name in sorted(icons["icons"], key=lambda name: (name not in spellings, name)):  # listed spellings come first
        if name in spellings:
            code = exact.get(spellings[name])
        else:
            code = _first(find(each) for each in [name, *aliases.get(name, [])])
        if code in by_code:
            second += 1
        elif code is not None:
            by_code[code] = name
        elif "skin-tone" in name:
            skin += 1
        elif name in flags or name.startswith("flag-"):
            flag_count += 1
        else:
            unmatched.append(name)
    drawings = [Drawing(code, _svg(icons, icons["icons"][name])) for code, name in by_code.items()]
    losses = {
        "skin-tone variants": skin,
        "flags": flag_count,
        "second drawings of a concept": second,
        "names without a concept": sorted(unmatched),
    }
    return drawings, losses


def _first(codes: Iterator[str | None]) -> str | None:
    return next((code for code in codes if code is not None), None)


def _svg(icons: dict, icon: dict) -> bytes:
    left, top = icon.get("left", 0), icon.get("top", 0)
    width = icon.get("width", icons.get("width", 16))
    height = icon.get("height", icons.get("height", 16))
    head = (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{json.dumps(left)} {json.dumps(top)} {json.dumps(width)} {json.dumps(height)}" '
        f'width="{json.dumps(width)}" height="{json.dumps(height)}">'
    )
    return f"{head}{icon['body']}</svg>".encode()
