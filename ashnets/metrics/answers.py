r"""Answers in the form in which VQA compares them: without punctuation and articles, numbers as digits.

The rules are those of the official evaluation, including its peculiarities, because scores are only comparable if the
same answers count as right:

- a punctuation mark is removed if it is next to a space anywhere in the answer, or if the answer contains a comma
  between two digits; otherwise it becomes a space, so that ``red/white`` is two words;
- a full stop is removed unless a digit follows, so ``1.`` is ``1`` and ``2.5`` stays; only the first 32 of them, since
  the evaluation hands ``re.UNICODE`` to ``sub`` in the place of a count;
- ``none`` to ``ten`` become digits, before articles go and apostrophes come back (``dont`` → ``don't``);
- ``somebody'd`` becomes ``somebodyd``, the one reversed entry of the list. Its entries with a capital
  (``Im``, ``Ive``) never apply, as they are looked up in lower case, and are left out here.

Source: A. Agrawal, PythonEvaluationTools/vqaEvaluation/vqaEval.py at https://github.com/GT-Vision-Lab/VQA.
"""

from __future__ import annotations

import re
from functools import lru_cache

# Each is restored wherever one of its apostrophes, and one only, has been left out.
_CONTRACTIONS = """
ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've he's
how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't not've o'clock
oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd
someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've there're there's
they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's what've when's
where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've wouldn't wouldn't've
y'all y'all'll y'all'd've you'd you'd've you'll you're you've
""".split()

CONTRACTIONS = {
    **{
        word[:at] + word[at + 1 :]: word
        for word in _CONTRACTIONS
        for at, character in enumerate(word)
        if character == "'"
    },
    "somebody'd": "somebodyd",
}
DIGITS = dict(zip("zero one two three four five six seven eight nine ten".split(), map(str, range(11)), strict=True))
DIGITS["none"] = "0"
ARTICLES = frozenset(("a", "an", "the"))

_MARKS = ';/[]"{}()=+\\_-><@`,?!'
_FULL_STOP = re.compile(r"\.(?!\d)")
_COMMA_IN_NUMBER = re.compile(r"\d,\d")
_MOST_FULL_STOPS = int(re.UNICODE)


@lru_cache(maxsize=1 << 17)
def normalize_answer(answer: str) -> str:
    """An answer as VQA compares it: `without_punctuation`, then `with_digits`."""
    return with_digits(without_punctuation(answer))


def without_punctuation(answer: str) -> str:
    """The answer with its marks taken out or replaced by spaces; its case and its spaces stay."""
    numeric = _COMMA_IN_NUMBER.search(answer) is not None
    cleaned = answer
    for mark in _MARKS:
        beside_a_space = mark + " " in answer or " " + mark in answer
        cleaned = cleaned.replace(mark, "" if numeric or beside_a_space else " ")
    return _FULL_STOP.sub("", cleaned, count=_MOST_FULL_STOPS)


def with_digits(answer: str) -> str:
    """The answer in lower case, number words as digits, articles out, apostrophes restored, one space between words."""
    words = (DIGITS.get(word, word) for word in answer.lower().split())
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in ARTICLES)


def trimmed(answer: str) -> str:
    """Replace line breaks and tabs by spaces, and strip: the first step of the official evaluation."""
    return answer.replace("\n", " ").replace("\t", " ").strip()
