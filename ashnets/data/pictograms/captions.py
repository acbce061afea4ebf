"""Sentences about one concept, from its name, keywords and group. All lower case, all deterministic."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

# Words that decide the article before spelling does. A phrase is judged by its first word when that word is a person.
_SINGULAR_FIRST = frozenset("person man woman face head leaf index chart".split())
# Plurals, names, determiners and adjectives: such a phrase takes no article.
_BARE_FIRST = frozenset("people men women children palms the no input mount santa mrs. mx locked keycap".split())
_BARE_FIRST |= frozenset("a an this that these those his her its our their your my some any each every".split())
_BARE = frozenset({"star-struck", "prohibited", "passport control", "vibration mode", "tokyo tower", "mate"})
_SINGULAR_HEADS = frozenset("wing ring wedding warning building seedling dumpling rhinoceros fleur-de-lis".split())
_MASS_HEADS = frozenset(
    """away badminton blood bread bacon broccoli butter claus construction copyright coral custard divide dizzy dna
    exchange fire fog foggy fondue food garlic hockey ice infinity information lacrosse liquid luggage meat milk minus
    money multiply oden ophiuchus plus polo
    pong popcorn radioactive registered rice sake salt soap spaghetti sushi tea tennis
    unlocked voltage water wireless wood yarn zzz lowercase uppercase together entry
    aries taurus gemini cancer leo virgo libra scorpio sagittarius capricorn aquarius pisces""".split()
)
_SPECIFIC = {name: f"the {name}" for name in ("sun", "milky way", "statue of liberty", "kaaba")} | {"om": "the om sign"}
_AN_ALTHOUGH = ("herb", "honest", "hour", "sos ", "x-ray", "ng ")
_A_ALTHOUGH = ("uni", "euro ", "one", "ewe")
_TIME = re.compile(r"[a-z]+(?: o'clock|-thirty)")
_HEAD_ENDS_AT = re.compile(r"\s(?:with|of|in|on|and|without|over|at|behind|holding|showing|facing|tilted)\s|\s?[:,(]")


def spoken(name: str) -> str:
    """The Unicode name as one would say it: ``woman red hair`` becomes ``woman with red hair``."""
    name = re.sub(r"\s+", " ", name.lower().replace("’", "'").replace("“", "").replace("”", "")).strip()
    name = re.sub(r"^(person|man|woman) (blond hair|red hair|curly hair|white hair|beard)$", r"\1 with \2", name)
    name = re.sub(r"^(person|man|woman) bald$", r"bald \1", name.replace("with beard", "with a beard"))
    members = re.fullmatch(r"(kiss|couple with heart|family) ((?:man|woman|boy|girl|adult|child)(?:, \w+)*)", name)
    if members:
        people = members[2].split(", ")
        listed = " and ".join([", ".join(people[:-1]), people[-1]] if len(people) > 1 else people)
        return f"{members[1]}, {listed}" if members[1].startswith("couple") else f"{members[1]} of {listed}"
    return name


def with_article(phrase: str) -> str:
    """``red apple`` → ``a red apple``, ``eye`` → ``an eye``.

    No article: plurals (``grapes``), masses (``cooked rice``), numbers and single letters (``a button (blood type)``),
    times (``one o'clock``) and phrases that begin with a determiner.
    """
    if phrase in _SPECIFIC:
        return _SPECIFIC[phrase]
    first = phrase.split()[0]
    bare = first in _BARE_FIRST or phrase in _BARE or len(first) == 1 or first.isdecimal() or _TIME.fullmatch(phrase)
    if bare or (first not in _SINGULAR_FIRST and _plural_or_mass(phrase)):
        return phrase
    vowel = phrase.startswith(_AN_ALTHOUGH) or (phrase[0] in "aeiou" and not phrase.startswith(_A_ALTHOUGH))
    return f"{'an' if vowel else 'a'} {phrase}"


def _plural_or_mass(phrase: str) -> bool:
    head = _HEAD_ENDS_AT.split(phrase, maxsplit=1)[0].split()[-1]
    if head in _SINGULAR_HEADS:
        return False
    plural = head.endswith("s") and not head.endswith(("ss", "us", "is"))
    return plural or head.endswith("ing") or head in _MASS_HEADS or head == "skis"


def topic(group: str) -> str:
    """``Food & Drink`` → ``food and drink``."""
    return group.lower().replace("&", "and")


def sentences(name: str, keywords: Sequence[str], group: str, subgroup: str, *, key: str) -> list[str]:
    """The bare name, then about seven sentences; ``key`` (seed and image) alone decides which.

    Without keywords the sentences that need them fall away; no sentence is repeated.
    """
    draw = random.Random(key)
    spoken_name = spoken(name)
    thing = with_article(spoken_name)
    about = topic(group)
    detail = subgroup.replace("-", " ") or about
    plain = [
        f"a picture of {thing}",
        f"an icon that shows {thing}",
        f"a small drawing of {thing}",
        f"this is {thing}",
        f"{thing}, drawn as a pictogram",
        f"a colourful image of {thing}",
        f"{thing}, one of the signs for {about}",
        f"a sign from {about}: {spoken_name}",
        f"{spoken_name} ({detail})",
    ]
    chosen = draw.sample(plain, 4)
    pool = list(keywords)
    draw.shuffle(pool)
    if pool:
        first, rest = pool[0], pool[1:]
        chosen.append(f"{spoken_name}, also known for {first}" if not rest else f"{spoken_name}: {first}, {rest[0]}")
        chosen.append(draw.choice([f"a picture about {first}", f"an icon for {first}", f"something that says {first}"]))
    if len(pool) >= 2:
        a, b = draw.sample(pool, 2)
        about_two = [f"something to do with {a}, {b}", f"a sign for {a} and {b}", f"a drawing about {a}, {b}"]
        chosen.append(draw.choice(about_two))
    chosen.append(f"something to do with {about}" if not pool else f"something to do with {draw.choice(pool)}, {about}")
    return list(dict.fromkeys([spoken_name, *chosen]))
