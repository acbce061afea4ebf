"""Drawings of the Open Clip Art Library, as additional training images: the selection of drawings, and their words.

A name comes from the title. Many titles name a collection ("Clipart by Nicu Buculei - pear" on 10 files, "AIGA_Symbol_
Signs" on 122), so a title that shares no word with its file's name gives way to the file's name. Authors who wrote in
Italian or French get English keywords in its place.
"""

from __future__ import annotations

import html
import re
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from ashnets.data.pictograms.debian import DebianPackage, read_deb
from ashnets.data.pictograms.drawing import refers_outside, with_view
from ashnets.data.pictograms.splits import FUNCTION_WORDS, content_words
from ashnets.data.pictograms.suitable import suitable
from ashnets.errors import DataError

OPENCLIPART = DebianPackage(
    "openclipart-svg",
    "0.18+dfsg-19",
    "989712d90d57dfa3230049f553bb43b76c30ee4d4b8c5f6e106e33f7db5cbdc5",
    "CC-PDDC",
    "Open Clip Art Library 0.18, its many authors; each file is marked as public domain. Rendered from SVG.",
    pool="pool/main/o/openclipart",
)
VENDOR = "openclipart"
RULE = (
    "Training only. A drawing is left out when its path, title, keywords or description contain a content word of a "
    "new concept's name, also inside a longer word from six letters on."
)
_ROOT = "usr/share/openclipart/svg/"
# Icons of desktop themes, geometry, lamps, playing cards, flags and maps: their words name no thing that one can see.
_LEFT_OUT = re.compile(
    r"(computer/(bb_\w+\.svg|icons|buttons|folders|cursors)|shapes|special|logos|buttons|decorations|unsorted/duplicates"
    r"|signs_and_symbols/(flags|led|patterns)|recreation/games/cards|geography/(?!astronomy)[^/]*)(/|$)"
)
_FOREIGN = ("rollandin", "balin", "guillou", "jacq", "biele", "vasamaa")
_NO_WORD = frozenset(
    """hash unsorted icon icons theme symbol symbols sign signs shape shapes clipart clip art svg simple special work
    mapsym networksym weathersym musicsym musicstuff roadsign stickmen activities miscellany openclipart color colour
    bw drawing image various collection example illustration silhouette stock application action menu design computer
    aiga copy new final version inc tux sm st fr de la le da di del il
    animal animals mammal office hardware building people desktop tool tools education transport transportation
    equipment device entertainment appicon logo diagrams filesystem""".split()
)
_NO_NAME = frozenset(
    {"signs and symbols", "map symbols", "australian maps", "boating rules illustration", "lemon theme icon"}
)
_NOT_IN_NAMES = frozenset(
    "rpg map elements contour aiga bw svg clipart openclipart hash copy final version silhouet".split()
)
_KEYWORD = re.compile(r"[a-z][a-z' -]{1,30}")
_DUBLIN = "{http://purl.org/dc/elements/1.1/}"
_RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"


@dataclass(frozen=True)
class Clip:
    """One drawing: its file in the package, what the file says of it, and the name and keywords made from that."""

    file: str
    svg: bytes
    title: str
    author: str
    name: str
    keywords: tuple[str, ...]
    group: str

    @property
    def image_id(self) -> str:
        return f"{VENDOR}/{self.file.removesuffix('.svg')}"  # as it is: files may differ in a hyphen alone


@dataclass(frozen=True)
class _Metadata:
    title: str = ""
    author: str = ""
    description: str = ""
    keywords: tuple[str, ...] = ()
    licenses: tuple[str, ...] = ()


def read_clips(deb: Path, held_out: Collection[str]) -> tuple[list[Clip], dict[str, int]]:
    """The drawings that are taken, in the order of their files, and how many were left out by which rule.

    Args:
        deb: the package.
        held_out: names of the new concepts.
    """
    files = {p.removeprefix(_ROOT): d for p, d in read_deb(deb, lambda p: p.startswith(_ROOT)).items()}
    files = {path: data for path, data in sorted(files.items()) if path.endswith(".svg")}
    if not files:
        raise DataError(f"{deb}: no drawing in {_ROOT}; it is not the expected package.")
    lost: Counter[str] = Counter()
    read: dict[str, _Metadata] = {}
    for path, data in files.items():
        if _LEFT_OUT.match(path):
            lost["icons, shapes, flags, maps and playing cards"] += 1
            continue
        try:
            root = ElementTree.fromstring(data)
        except (ElementTree.ParseError, ValueError, LookupError):
            lost["not valid XML"] += 1
            continue
        found = _metadata(root)
        if not found.licenses or not all("publicdomain" in name.lower() for name in found.licenses):
            lost["not marked as public domain"] += 1
        elif refers_outside(root):
            lost["refers to other files"] += 1
        else:
            read[path] = found
            files[path] = with_view(root, data)
    common = Counter(word for found in read.values() for word in set(found.keywords))
    banned = frozenset(word for name in held_out for word in content_words(name))
    clips = []
    for path, found in read.items():
        clip = _clip(path, files[path], found, common)
        if _mentions(" ".join([path, found.title, found.description, *found.keywords]), banned):
            lost["a word of a new concept"] += 1
        elif clip is None:
            lost["no word"] += 1
        elif not suitable(" ".join([clip.name, path.replace("_", " "), words(found.title), *found.keywords])):
            lost["an unsuitable word"] += 1
        else:
            clips.append(clip)
    return clips, dict(lost)


def _metadata(root: ElementTree.Element) -> _Metadata:
    work = next((node for node in root.iter() if node.tag.endswith("}Work")), None)
    if work is None:
        return _Metadata()

    def text(path: str) -> str:
        return html.unescape(html.unescape(work.findtext(path) or "")).strip()

    def agent(kind: str) -> str:
        node = work.find(f"{_DUBLIN}{kind}")
        title = None if node is None else next((each for each in node.iter(f"{_DUBLIN}title")), None)
        return "" if title is None else (title.text or "").strip()

    subject = work.find(f"{_DUBLIN}subject")
    listed = [] if subject is None else [node.text or "" for node in subject.iter(f"{_RDF}li")]
    licenses = [node.get(f"{_RDF}resource", "") for node in work if node.tag.endswith("}license")]
    return _Metadata(
        text(f"{_DUBLIN}title"),
        agent("creator"),
        text(f"{_DUBLIN}description"),
        tuple(dict.fromkeys(filter(None, (words(html.unescape(word)) for word in listed)))),
        tuple(licenses),
    )


def words(text: str) -> str:
    """``AfricanDrum_2 (B and W)`` → ``african drum``: lower case, no numbers, brackets or file endings."""
    text = re.sub(r"\([^)]*\)?|\S+@\S+|\.(svg|png)\b", " ", text)
    text = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text)
    text = re.sub(r"[^a-zà-ÿ' -]|(?<![a-z])['-]|['-](?![a-z])", " ", text.lower().replace("’", "'"))
    return " ".join(text.split())


def _clip(path: str, svg: bytes, found: _Metadata, common: Counter[str]) -> Clip | None:
    """None without a word."""
    folder, _, file = path.rpartition("/")
    author = set(content_words(found.author)) | set(_stem_author(file))
    stem = _name(re.sub(r"[_-]+", " ", file.removesuffix(".svg")), author)
    name = _name(found.title.replace("_", " "), author)
    if found.title.startswith("Clipart by") or not name.isascii() or not _alike(name, stem):
        name = stem
    keywords = [word for word in found.keywords if _KEYWORD.fullmatch(word) and _is_word(word, author)]
    keywords.sort(key=lambda word: common[word])
    if any(each in found.author.lower() or each in file.lower() for each in _FOREIGN):
        name = next((word for word in keywords if common[word] >= 2), "")
        keywords = [word for word in keywords if common[word] >= 2]
    if not any(len(word) >= 3 and word not in _NO_WORD for word in name.split()):
        name = next(iter(keywords), "")
    if not name.isascii() or name in _NO_NAME | _NO_WORD or not 1 <= len(name.split()) <= 6:
        return None
    kept = tuple(word for word in keywords if word not in (name, *_NO_NAME))
    return Clip(path, svg, found.title, found.author, name, kept, folder.split("/")[0].replace("_", " "))


def _name(text: str, author: set[str]) -> str:
    kept = [word for word in words(text).split() if word not in _NOT_IN_NAMES | author and len(word) > 1]
    while kept and kept[0] in ("an", "the"):
        kept.pop(0)
    while kept and kept[-1] in FUNCTION_WORDS:
        kept.pop()
    return " ".join(kept)


def _stem_author(file: str) -> list[str]:
    """Files are named ``thing_author_01.svg``, the author often cut short."""
    match = re.search(r"_(architetto\w*|rollandin\w*|gerald\w*|geral|jean.victor\w*|benji\w*|ganson)", file.lower())
    return re.split(r"[_-]", match[1]) if match else []


def _alike(name: str, stem: str) -> bool:
    """Whether they share a word, or the beginning of one: file names are cut short."""
    squeezed = stem.replace(" ", "").replace("-", "")
    return any(len(word) >= 3 and word[:5] in squeezed for word in name.replace("-", " ").split())


def _is_word(word: str, author: set[str]) -> bool:
    return word not in _NO_WORD and not author & set(word.split())


def _mentions(text: str, banned: frozenset[str]) -> bool:
    plain = words(re.sub(r"[_/]", " ", text))
    squeezed = re.sub(r"[^a-z]", "", text.lower())
    inside = any(len(word) >= 6 and word in squeezed for word in banned)
    return inside or bool(banned & content_words(plain))
