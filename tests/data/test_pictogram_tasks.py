"""Tasks derived from pictograms: what is asked is true of the images, and balanced by exact counts."""

from __future__ import annotations

import colorsys
import io
import pickle
from collections import Counter, defaultdict

import numpy as np
import pytest
from PIL import Image

from ashnets.data.pictograms.canvas import draw_canvas, is_canvas, read_name
from ashnets.data.pictograms.color import color_of, main_color
from ashnets.data.pictograms.tasks import PICTOGRAM_TASKS, open_pictogram_task
from ashnets.errors import ConfigurationError, DataError

NAMES = ["cat", "dog", "red apple", "rocket", "oak", "fish", "anchor", "eye", "trumpet", "key", "moon"]
GROUPS = {name: ("animals & nature", "objects", "travel & places")[i % 3] for i, name in enumerate(NAMES)}


def flat(name: str, vendor: int) -> tuple[int, int, int]:
    """A different vivid color for each drawing, and a darker one for the second vendor."""
    hue = NAMES.index(name) / len(NAMES) + 0.005
    return tuple(round(255 * c) for c in colorsys.hsv_to_rgb(hue, 1, (1, 0.75, 0.9)[vendor]))


def drawing(name: str, vendor: int) -> dict:
    buffer = io.BytesIO()
    Image.new("RGBA", (40, 40), (*flat(name, vendor), 255)).save(buffer, "PNG")
    return {
        "image": buffer.getvalue(),
        "image_id": f"v{vendor}/{NAMES.index(name):02x}",
        "concept": name,
        "name": name,
        "group": GROUPS[name].capitalize(),
        "captions": [name, f"an image of {name}"],
    }


@pytest.fixture(scope="module")
def folder(write_corpus, tmp_path_factory):
    rows = {
        "train": [drawing(name, vendor) for vendor in (0, 1) for name in NAMES[: 9 if vendor else 7]],
        "test-twitter-seen": [drawing(name, 2) for name in NAMES[:7]],
        "test-twitter-new": [drawing(name, 2) for name in NAMES[7:]],
    }
    return write_corpus(tmp_path_factory.mktemp("derived") / "corpus", rows)


@pytest.fixture(scope="module")
def known(folder):
    """image_id → name, and split → image_ids."""
    splits = open_pictogram_task("pictogram-questions", folder).corpus
    rows = {split: list(splits.split(split)) for split in splits.splits}
    names = {row["image_id"]: row["name"] for some in rows.values() for row in some}
    return names, {split: {row["image_id"] for row in some} for split, some in rows.items()}


def on(image: str) -> dict[str, list[int]]:
    return read_name(image)[1] if is_canvas(image) else {image: [0]}


def test_yes_and_no_are_balanced_for_each_question_and_each_drawing(folder, known):
    names, splits = known
    records = [r for r in open_pictogram_task("pictogram-questions", folder).read("train") if r.answer_type == "yes/no"]
    assert len(records) == 2 * len(splits["train"])
    by_text, by_image = defaultdict(Counter), defaultdict(Counter)
    for record in records:
        asked = record.question.removeprefix("is this ").removesuffix("?")
        assert record.answer == ("yes" if names[record.image] == asked else "no")
        by_text[asked][record.answer] += 1
        by_image[record.image][record.answer] += 1
    drawings = Counter(names[i] for i in splits["train"])
    assert by_text == {name: Counter(yes=count, no=count) for name, count in drawings.items()}
    assert all(counts == Counter(yes=1, no=1) for counts in by_image.values())


def test_questions_of_the_other_types_are_true(folder, known):
    names, splits = known
    data = open_pictogram_task("pictogram-questions", folder)
    records = data.records("train")
    assert [r.id for r in records] == list(range(len(records)))
    assert all(r.answers == (r.answer,) for r in records)
    numbers = Counter()
    for record in records:
        if record.answer_type == "object":
            assert record.answer == names[record.image]
        elif record.answer_type == "group":
            assert record.answer == GROUPS[names[record.image]]
        elif record.answer_type == "color":
            assert record.answer == color_of(*flat(names[record.image], int(record.image[1])))
        elif record.answer_type == "number":
            asked = record.question.removeprefix("how many times is ").removesuffix(" shown?")
            cells = {names[i]: at for i, at in on(record.image).items()}
            assert record.answer == str(len(cells[asked])) and len(cells) <= 2
            numbers[record.answer] += 1
    drawings = len(splits["train"])
    assert sorted(numbers) == list("123456") and max(numbers.values()) - min(numbers.values()) <= 1
    assert Counter(r.answer_type for r in records) == {
        "yes/no": 2 * drawings,
        "object": drawings,
        "group": drawings,
        "color": drawings,
        "number": drawings,
    }
    new = Counter(r.answer_type for r in data.read("test-twitter-new"))
    assert "object" not in new and new["yes/no"] == 8


def test_the_number_can_be_counted_in_the_pixels(folder, known):
    names, _ = known
    data = open_pictogram_task("pictogram-questions", folder)
    for record in [r for r in data.read("train") if r.answer_type == "number"][:6]:
        asked = record.question.removeprefix("how many times is ").removesuffix(" shown?")
        drawn = next(i for i in on(record.image) if names[i] == asked)
        pixels = np.asarray(data.open_image(record.image))
        assert pixels.shape == (192, 192, 3)
        middles = pixels[32::64, 32::64].reshape(-1, 3)
        assert (middles == flat(asked, int(drawn[1]))).all(1).sum() == int(record.answer)


def holds(sentence: str, left: str, right: str, names: dict[str, str]) -> bool:
    """Whether a sentence is true of two images; only their names are used."""
    sides = [Counter({names[i]: len(at) for i, at in on(image).items()}) for image in (left, right)]
    if "shown more often" in sentence:
        name, side = sentence.split(" is shown more often on the ")
        more, less = sides if side == "left" else sides[::-1]
        return more[name] > less[name]
    if sentence.startswith("both pictures belong to "):
        return all(GROUPS[name] == sentence.removeprefix("both pictures belong to ") for side in sides for name in side)
    where, name = sentence.removeprefix("the ").split(" shows ")
    chosen = {"left picture": sides[:1], "right picture": sides[1:], "one of the two pictures": sides}[where]
    return any(name in side for side in chosen)


def test_every_sentence_has_both_labels_and_they_are_right(folder, known):
    names, _ = known
    records = open_pictogram_task("pictogram-pairs", folder).records("test-twitter-seen")
    sets, by_text = defaultdict(list), defaultdict(Counter)
    for record in records:
        split, number, _, sentence = record.id.split("-")
        assert split == "test_twitter_seen" and sentence == "0"
        sets[number].append(record)
        by_text[record.sentence][record.label] += 1
        assert record.label == holds(record.sentence, *record.images, names), record
    assert len({r.id for r in records}) == len(records)
    assert all(
        [r.label for r in pair] == [True, False] and pair[0].sentence == pair[1].sentence for pair in sets.values()
    )
    assert all(counts[True] == counts[False] for counts in by_text.values())
    for kind in ("the left picture", "the right picture", "one of", "both", "on the left", "on the right"):
        assert any(kind in text for text in by_text), kind


def test_every_hypothesis_has_its_three_labels_and_they_are_right(folder, known):
    names, splits = known
    records = open_pictogram_task("pictogram-entailment", folder).records("train")
    assert len(records) == 3 * len(splits["train"])
    by_set, corners = defaultdict(Counter), Counter()
    for record in records:
        corner, name = record.hypothesis.removeprefix("the ").split(" picture is ")
        cell = {"top left": 0, "top right": 1, "bottom left": 2, "bottom right": 3}[corner]
        cells = {at[0]: part for part, at in on(record.image).items()}
        assert sorted(cells) == [0, 1, 2, 3] and list(cells.values()).count("cover") == 1
        seen = cells[cell]
        expected = "neutral" if seen == "cover" else "entailment" if names[seen] == name else "contradiction"
        assert record.label == expected
        assert any(names.get(part) == name for part in cells.values()), "it lies on every canvas"
        by_set[record.id.rpartition("-")[0]][record.label] += 1
        corners[corner] += 1
    assert all(counts == Counter(entailment=1, neutral=1, contradiction=1) for counts in by_set.values())
    assert max(corners.values()) - min(corners.values()) <= 3


@pytest.mark.parametrize("name", PICTOGRAM_TASKS)
def test_items_stay_in_their_split_and_repeat_by_seed(folder, known, name):
    _, splits = known
    data = open_pictogram_task(name, folder)
    for split in data.splits:
        records = data.records(split)
        parts = {part for record in records for image in record.images for part in on(image)}
        assert parts - {"cover"} == splits[split], "every drawing is used, and none of another split"
        assert all(data.has_image(image) for record in records for image in record.images)
        assert records == pickle.loads(pickle.dumps(data)).records(split)
    again = open_pictogram_task(name, folder, seed=1)
    if name != "pictogram-retrieval":
        assert again.records("train") != data.records("train")


def test_retrieval_has_all_captions_to_train_on_and_names_to_search_by(folder, known):
    names, _ = known
    data = open_pictogram_task("pictogram-retrieval", folder)
    assert all(r.captions == (names[r.id], f"an image of {names[r.id]}") for r in data.read("train"))
    assert all(r.captions == (names[r.id],) for r in data.read("test-twitter-seen"))


@pytest.mark.parametrize(
    ("rgb", "name"),
    [
        ((10, 10, 10), "black"),
        ((250, 250, 250), "white"),
        ((128, 128, 130), "grey"),
        ((221, 46, 68), "red"),
        ((244, 144, 12), "orange"),
        ((255, 204, 77), "yellow"),
        ((119, 178, 85), "green"),
        ((85, 172, 238), "blue"),
        ((146, 102, 204), "purple"),
        ((234, 89, 110 + 80), "pink"),
        ((255, 150, 150), "pink"),
        ((120, 70, 30), "brown"),
    ],
)
def test_colors_have_their_names(rgb, name):
    assert color_of(*rgb) == name
    assert main_color(Image.new("RGBA", (50, 50), (*rgb, 255))) == name


def test_the_main_color_has_half_of_the_opaque_pixels():
    image = Image.new("RGBA", (32, 32), (255, 0, 0, 255))
    image.paste((0, 0, 255, 255), (0, 0, 32, 15))
    assert main_color(image) == "red"
    image.paste((0, 160, 0, 255), (0, 15, 32, 24))
    assert main_color(image) is None, "15, 9 and 8 rows of 32"
    image.paste((255, 0, 0, 20), (0, 15, 32, 32))
    assert main_color(image) == "blue", "what is nearly clear does not count"
    assert main_color(Image.new("RGBA", (32, 32), (255, 0, 0, 0))) is None


def test_what_cannot_be_is_refused(folder, write_corpus, tmp_path):
    with pytest.raises(ConfigurationError, match="Did you mean pictogram-pairs"):
        open_pictogram_task("pictogram-pair", folder)
    with pytest.raises(DataError, match=r"no manifest\.json"):
        open_pictogram_task("pictogram-pairs", tmp_path)
    few = write_corpus(tmp_path / "few", {"train": [drawing(name, v) for v in (0, 1) for name in NAMES[:3]]})
    with pytest.raises(DataError, match="has 6 drawings, up to 2 of one name"):
        open_pictogram_task("pictogram-pairs", few).records("train")
    data = open_pictogram_task("pictogram-pairs", folder)
    with pytest.raises(DataError, match="contains no drawing 'v9/00'"):
        data.open_image("grid2:v9/00@0")
    for name, message in (
        ("grid2:a@4", r"0\.\.3"),
        ("grid2:a@0;b@0", "one drawing each"),
        ("grid2:a", "not a drawing with"),
        ("a", "is not a canvas"),
    ):
        with pytest.raises(DataError, match=message):
            draw_canvas(name, lambda _: Image.new("RGB", (8, 8)))
