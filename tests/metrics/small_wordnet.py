"""A small WordNet in the published format (wndb(5WN)), with byte offsets.

entity ─┬─ animal ─┬─ canine ──── dog (domestic_dog), hound's sense 2 is cur
        │          └─ feline ──── cat
        ├─ furniture ── couch (sofa, lounge)
        ├─ thing ──── organism ─┐
        ├─ causal_agent ────────┴─ person ─┬─ chef
        │                                  ├─ fireman
        │                                  └─ man ··· Einstein (an instance)
        └─ number ─┬─ two
                   └─ three
"""

from __future__ import annotations

from pathlib import Path

LICENSE = "".join(f"  {number} This software and database is for tests.  \n" for number in (1, 2))
HYPERNYMS = {
    "entity": (),
    "animal": ("entity",),
    "canine": ("animal",),
    "dog domestic_dog": ("canine",),
    "cur mongrel dog": ("dog domestic_dog",),
    "feline": ("animal",),
    "cat": ("feline",),
    "furniture": ("entity",),
    "couch sofa lounge": ("furniture",),
    "thing": ("entity",),
    "organism": ("thing",),
    "causal_agent": ("entity",),
    "person": ("organism", "causal_agent"),
    "chef": ("person",),
    "fireman": ("person",),
    "man": ("person",),
    "Einstein": ("man",),
    "number": ("entity",),
    "two": ("number",),
    "three": ("number",),
    "loner": (),
}


def write_wordnet(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    offsets = dict.fromkeys(HYPERNYMS, 0)

    def line(synset: str) -> str:
        words = synset.split()
        pointers = [("@i" if synset == "Einstein" else "@", offsets[above], "n") for above in HYPERNYMS[synset]]
        pointers += [("+", 123456, "v"), ("~", 99, "n")]
        shown = " ".join(f"{symbol} {offset:08d} {part} 0000" for symbol, offset, part in pointers)
        listed = " ".join(f"{word} 0" for word in words)
        return f"{offsets[synset]:08d} 03 n {len(words):02x} {listed} {len(pointers):03d} {shown} | what @ is said  \n"

    at = len(LICENSE)
    for synset in HYPERNYMS:  # the length of a line does not depend on the offsets in it
        offsets[synset] = at
        at += len(line(synset))
    (folder / "data.noun").write_text(LICENSE + "".join(line(synset) for synset in HYPERNYMS), encoding="ascii")

    senses: dict[str, list[int]] = {}
    for synset, offset in offsets.items():
        for word in synset.lower().split():
            senses.setdefault(word, []).append(offset)
    index = "".join(
        f"{word} n {len(of)} 2 @ ~ {len(of)} 0 {' '.join(f'{offset:08d}' for offset in of)}  \n"
        for word, of in sorted(senses.items())
    )
    (folder / "index.noun").write_text(LICENSE + index, encoding="ascii")
    (folder / "noun.exc").write_text("curs_of_war cur\nmen_of_war man_of_war\npeople person man\n", encoding="ascii")
    return folder
