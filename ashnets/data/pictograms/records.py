"""Questions, pairs and hypotheses about the drawings of one split, balanced by construction.

Drawings are put in a ring: by group, names in random order, drawings of one name next to each other. Let m be the
greatest number of drawings of one name. The drawing m places further never has the same name, and usually has the same
group. It is the negative: over a split, each drawing is used equally often on both sides, and the text alone says
nothing about its label:

- yes/no: each name is asked about one of its own drawings as often as about another (exact, for every question);
- pairs: every sentence comes with two pairs, one true, one false (exact);
- entailment: every hypothesis comes with its three labels, once each (exact).

Object, group, color and number have the answers that the drawings have; the accuracy of a blind model on them is
measured (:mod:`ashnets.evaluation.text_baselines`). Trained models have read these sentences and answers: do not
reword them.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from ashnets.data.benchmarks.records import Captioned, Entailment, ImagePair, Question
from ashnets.data.pictograms.canvas import COVER, canvas_name
from ashnets.errors import DataError

NUMBERS = (1, 2, 3, 4, 5, 6)
OTHERS = 3  # drawings of another concept on a canvas that is counted, at most
CORNERS = ("top left", "top right", "bottom left", "bottom right")


@dataclass(frozen=True)
class Drawn:
    """One drawing: its ``image_id``, the bare name of its concept, its group, its captions."""

    id: str
    name: str
    group: str
    captions: tuple[str, ...]


class Ring:
    """The drawings of a split in their ring; ``ring.after(place, k)`` is the drawing k·m places further.

    Raises:
        DataError: too few concepts for four different names in a row.
    """

    def __init__(self, drawings: Iterable[Drawn], seed: int, split: str) -> None:
        self.draw = random.Random(f"pictogram tasks {seed} {split}")
        drawings = sorted(drawings, key=lambda drawn: drawn.id)
        names = sorted({drawn.name for drawn in drawings})
        self.draw.shuffle(names)
        place = {name: number for number, name in enumerate(names)}
        self.drawings = sorted(drawings, key=lambda drawn: (drawn.group, place[drawn.name], drawn.id))
        self.step = max(Counter(drawn.name for drawn in drawings).values(), default=0)
        if len(self.drawings) < 4 * max(self.step, 1):
            raise DataError(
                f"split {split!r} has {len(self.drawings)} drawings, up to {self.step} of one name: the tasks need "
                "four times as many drawings as one name has. Take a larger split."
            )

    def __len__(self) -> int:
        return len(self.drawings)

    def after(self, place: int, steps: int) -> Drawn:
        """The drawing ``steps``·m places after a place; for 1, 2 and 3 steps it has another name."""
        return self.drawings[(place + steps * self.step) % len(self)]

    def numbers(self, values: Sequence[int]) -> list[int]:
        """One value for each place, each value as often as any other, plus or minus one."""
        found = [values[i % len(values)] for i in range(len(self))]
        self.draw.shuffle(found)
        return found


def questions(ring: Ring, objects: bool, color: Callable[[str], str | None]) -> list[Question]:
    """Questions of five types: ``yes/no``, ``object``, ``group``, ``color`` and ``number``.

    Args:
        objects: also ask for names; where all concepts are new, the answer is not in the vocabulary.
        color: the main color of a drawing, if it has one.
    """
    found: list[Question] = []

    def ask(image: str, question: str, answer: str, kind: str) -> None:
        found.append(Question(len(found), image, question, (answer,), answer, kind))

    counts, others = ring.numbers(NUMBERS), ring.numbers(range(OTHERS + 1))
    for place, drawn in enumerate(ring.drawings):
        other = ring.after(place, 1)
        ask(drawn.id, f"is this {drawn.name}?", "yes", "yes/no")
        ask(other.id, f"is this {drawn.name}?", "no", "yes/no")
        if objects:
            ask(drawn.id, "what is this?", drawn.name, "object")
        ask(drawn.id, "what kind of thing is this?", drawn.group.lower(), "group")
        if (name := color(drawn.id)) is not None:
            ask(drawn.id, "what is its main color?", name, "color")
        canvas = _counted(ring, drawn, other, counts[place], others[place])
        ask(canvas, f"how many times is {drawn.name} shown?", str(counts[place]), "number")
    return found


def pairs(ring: Ring, split: str) -> list[ImagePair]:
    """Sentences about two images, each with a pair that makes it true and one that makes it false.

    Four kinds: which side shows a concept (the same two images, swapped), whether one of the two shows it, whether
    both belong to a group, on which side it is shown more often (the same two canvases, swapped).
    """
    found: list[ImagePair] = []
    prefix = split.replace("-", "_")
    sets = 0

    def state(sentence: str, true: tuple[str, str], false: tuple[str, str]) -> None:
        nonlocal sets
        for number, (images, label) in enumerate(((true, True), (false, False))):
            found.append(ImagePair(f"{prefix}-{sets}-{number}-0", images, sentence, label))
        sets += 1

    def either_way(one: str, other: str) -> tuple[str, str]:
        return (one, other) if ring.draw.random() < 0.5 else (other, one)

    counts = ring.numbers([2, 3, 4, 5, 6])
    for place, drawn in enumerate(ring.drawings):
        other, second, third = (ring.after(place, steps) for steps in (1, 2, 3))
        sides = [(drawn.id, other.id), (other.id, drawn.id)]
        left = place % 2 == 0
        state(f"the {'left' if left else 'right'} picture shows {drawn.name}", *(sides if left else sides[::-1]))
        state(
            f"one of the two pictures shows {drawn.name}",
            either_way(drawn.id, other.id),
            either_way(second.id, third.id),
        )
        if place % 2 == 0:
            more = counts[place]
            many = _counted(ring, drawn, other, more, min(OTHERS, 9 - more))
            few = _counted(ring, drawn, other, ring.draw.randint(1, more - 1), min(OTHERS, 9 - more))
            left = place % 4 == 0
            state(
                f"{drawn.name} is shown more often on the {'left' if left else 'right'}",
                *([(many, few), (few, many)] if left else [(few, many), (many, few)]),
            )
    _about_groups(ring, state, either_way)
    return found


def _about_groups(ring: Ring, state: Callable, either_way: Callable[[str, str], tuple[str, str]]) -> None:
    """Half of the false pairs have one image of the group, half have none: two of another group."""
    groups: dict[str, list[str]] = {}
    for drawn in ring.drawings:
        groups.setdefault(drawn.group, []).append(drawn.id)
    usable = {group: ids for group, ids in groups.items() if len(ids) >= 2}
    for group, ids in usable.items():
        others = [other for other in usable if other != group]
        for number in range(len(ids) // 2 if others else 0):
            one, two = ids[2 * number : 2 * number + 2]
            stranger, another = ring.draw.sample(usable[ring.draw.choice(others)], 2)
            false = (one, stranger) if number % 2 else (stranger, another)
            state(f"both pictures belong to {group.lower()}", either_way(one, two), either_way(*false))


def hypotheses(ring: Ring, split: str) -> list[Entailment]:
    """What a corner of a 2 × 2 canvas shows, of which one corner is covered by a card.

    ``the top left picture is red apple`` is entailed where the apple lies there, contradicted where another drawing
    lies there, and neutral where the card does. The apple is visible, and one corner covered, in all three.
    """
    found: list[Entailment] = []
    corners = ring.numbers(range(4))
    for place, drawn in enumerate(ring.drawings):
        corner = corners[place]
        two = [ring.after(place, 1).id, ring.after(place, 2).id]
        rest = [cell for cell in range(4) if cell != corner]
        for number, (label, here) in enumerate(
            (("entailment", drawn.id), ("neutral", COVER), ("contradiction", two[0]))
        ):
            elsewhere = [part for part in (drawn.id, *two, COVER) if part != here]
            ring.draw.shuffle(rest)
            cells = dict(sorted({here: corner, **dict(zip(elsewhere, rest, strict=True))}.items()))
            image = canvas_name(2, {part: [cell] for part, cell in cells.items()})
            hypothesis = f"the {CORNERS[corner]} picture is {drawn.name}"
            found.append(Entailment(f"{split}-{place}-{number}", image, hypothesis, label))
    return found


def captioned(ring: Ring, captions: bool) -> list[Captioned]:
    """Drawings with their texts: all captions for training, else the bare name alone."""
    found: list[Captioned] = []
    for number, drawn in enumerate(sorted(ring.drawings, key=lambda drawn: drawn.id)):
        texts = drawn.captions if captions else (drawn.captions[0],)
        found.append(Captioned(drawn.id, drawn.id, texts, tuple(1000 * number + i for i in range(len(texts)))))
    return found


def _counted(ring: Ring, drawn: Drawn, other: Drawn, count: int, others: int) -> str:
    cells = ring.draw.sample(range(9), count + others)
    return canvas_name(3, {drawn.id: sorted(cells[:count]), other.id: sorted(cells[count:])})
