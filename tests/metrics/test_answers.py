"""Normalized answers of VQA: cases by hand from the published rules, and the published list of contractions."""

from __future__ import annotations

import hashlib
import json

import pytest

from ashnets.metrics.answers import CONTRACTIONS, normalize_answer, trimmed


@pytest.mark.parametrize(
    ("answer", "form"),
    [
        ("Yes", "yes"),
        ("a red, white and blue flag", "red white and blue flag"),  # the comma stands beside a space: it vanishes
        ("red,white", "red white"),  # it does not: it becomes a space
        ("red/white", "red white"),
        ("red /white-ish", "red white ish"),
        ("1,000", "1000"),  # a comma between digits lets every mark vanish
        ("1,000-ish", "1000ish"),
        ("t-shirt", "t shirt"),
        ("2.5", "2.5"),
        ("2.", "2"),
        ("p.m.", "pm"),
        ("version .5", "version .5"),
        ("none", "0"),
        ("The Two an Ten", "2 10"),
        ("twenty one", "twenty 1"),
        ("a", ""),
        ("dont", "don't"),
        ("Im", "im"),  # the list has Im, words are looked up in lower case
        ("I'm", "i'm"),  # apostrophes are no marks
        ("somebody'd", "somebodyd"),
        ("couldnt've", "couldn't've"),
        ("yall'd've", "y'all'd've"),
        ("ow's'at", "'ow's'at"),
        ("oclock", "o'clock"),
        ("wed", "wed"),
        ("  two \n dogs\t", "2 dogs"),
        ("100%", "100%"),  # per cent, colon, ampersand, dollar stay
        ("5:30", "5:30"),
        ("{yes}!", "yes"),
        ("Žluťoučký kůň", "žluťoučký kůň"),
    ],
)
def test_by_hand(answer: str, form: str) -> None:
    assert normalize_answer(answer) == form


def test_only_32_full_stops_vanish() -> None:
    assert normalize_answer("x" + "." * 40) == "x" + "." * 8


def test_the_published_contractions() -> None:
    """The digest is that of the official dictionary without entries that cannot apply or change nothing."""
    assert len(CONTRACTIONS) == 114
    digest = hashlib.sha256(json.dumps(sorted(CONTRACTIONS.items())).encode()).hexdigest()
    assert digest == "853d25c89947b7f6d41f6c5f81b2d6c3119927f4b16f557fc1b03af6ef45605e"


def test_trimmed() -> None:
    assert trimmed("\n two\tdogs ") == "two dogs"
