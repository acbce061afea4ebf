"""Which concepts are new, and which drawings are kept for validation. Deterministic by seed.

New concepts are isolated by word: concepts that share a content word in their names are joined, directly or through
others, and only whole families move. So no content word of a new concept's name occurs in any other concept's name.
"""

from __future__ import annotations

import random
import re
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping

FUNCTION_WORDS = frozenset("a an and at by for from in into not of off on or over the to under with without".split())
LARGEST_FAMILY = 12  # the giant family (face, woman, button, ...) always stays in training

RULE = (
    "Two concepts are of one family when their names share a content word (lower-case letters and digits, singular and "
    "plural alike, function words apart), directly or through other concepts; all listed concepts count, drawn or not. "
    f"Families of at most {LARGEST_FAMILY} concepts are drawn at random, whole, until enough concepts are held out. "
    "Keywords and group names are not isolated and may occur in training captions; a word inside a longer word (plant "
    "in eggplant) does not count as shared."
)


def content_words(name: str) -> frozenset[str]:
    """``skull and crossbones`` → {skull, crossbone}: letters and digits, no function words, no plural s."""
    ascii_name = unicodedata.normalize("NFKD", name.lower()).encode("ascii", "ignore").decode()
    words = re.findall(r"[a-z0-9]+", ascii_name)
    return frozenset(_singular(word) for word in words if word not in FUNCTION_WORDS)


def _singular(word: str) -> str:
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if len(word) > 4 and word.endswith(("shes", "ches", "sses", "xes")):
        return word[:-2]
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word


def families(names: Mapping[str, str]) -> list[list[str]]:
    """Codes grouped by shared content words (union–find), in order of first appearance."""
    parent: dict[str, str] = {}

    def root(node: str) -> str:
        while parent.setdefault(node, node) != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for code, name in names.items():
        for word in sorted(content_words(name)):
            parent[root(f"word {word}")] = root(code)
    grouped: dict[str, list[str]] = defaultdict(list)
    for code in names:
        grouped[root(code)].append(code)
    return list(grouped.values())


def choose_new(names: Mapping[str, str], testable: Collection[str], *, count: int, seed: int) -> set[str]:
    """Codes of new concepts: whole families that a test vendor drew completely, until ``count`` is reached."""
    candidates = [f for f in families(names) if len(f) <= LARGEST_FAMILY and all(code in testable for code in f)]
    random.Random(f"new concepts {seed}").shuffle(candidates)
    chosen: set[str] = set()
    for family in candidates:
        if len(chosen) + len(family) <= count:
            chosen.update(family)
    return chosen


def choose_valid(drawings: Iterable[tuple[str, str]], *, share: float, seed: int) -> set[tuple[str, str]]:
    """(vendor, code) pairs for validation: at most one a concept, and two other drawings of it stay for training."""
    vendors: dict[str, list[str]] = defaultdict(list)
    total = 0
    for vendor, code in drawings:
        vendors[code].append(vendor)
        total += 1
    draw = random.Random(f"validation {seed}")
    eligible = sorted(code for code, names in vendors.items() if len(names) >= 3)
    chosen = draw.sample(eligible, min(round(share * total), len(eligible)))
    return {(draw.choice(vendors[code]), code) for code in sorted(chosen)}
