"""Batches of an epoch: real damaged images, captions computed by hand, and images that do not depend on their place."""

from __future__ import annotations

import string
import threading
from collections import Counter
from math import sqrt

import numpy as np
import pytest
import torch

from ashnets.data.batches import Share
from ashnets.data.corpus import open_corpus
from ashnets.data.draws import draw
from ashnets.data.loading import Batches, load_epoch
from ashnets.data.pairs import Pairs
from ashnets.data.sources.opening import open_source
from ashnets.data.vocabulary import SPECIAL_TOKENS, tokenizer_from_vocabulary
from ashnets.errors import DataError
from ashnets.model.sampling import image_key
from ashnets.training.loader import EpochBatches, chosen_caption, read_group_by_group
from ashnets.training.reading import load_recipe

LENGTH = 24
UNREADABLE = (1, 5, 7, 9)  # cut short, noise, absent, empty


@pytest.fixture(scope="module")
def pairs(corpus):
    return Pairs(open_source(corpus), ["train"], 64)


@pytest.fixture(scope="module")
def damaged(corpus, write_corpus, tmp_path_factory):
    """Sixteen images, four of which cannot be read, each for another reason."""
    rows = list(open_corpus(corpus).split("train"))[:16]
    whole = rows[1]["image"]
    for place, data in zip(UNREADABLE, (whole[: len(whole) // 2], bytes(range(256)), None, b""), strict=True):
        rows[place]["image"] = data
    folder = write_corpus(tmp_path_factory.mktemp("damaged") / "corpus", {"train": rows})
    return Pairs(open_source(folder, hold_out=0), ["train"], 64)


@pytest.fixture(scope="module")
def tokenizer():
    """A word falls into its letters."""
    letters = string.ascii_lowercase + string.punctuation
    return tokenizer_from_vocabulary([*SPECIAL_TOKENS, *letters, *("##" + c for c in letters)], LENGTH)


@pytest.fixture
def batches_of(pairs, recipe, tokenizer):
    """A function of shares, given as (indices, φ)."""

    def make(*shares: tuple[list[int], int], epoch: int = 2, changes: tuple[str, ...] = ()) -> EpochBatches:
        planned = [Share(np.array(indices), size) for indices, size in shares]
        return EpochBatches(pairs, planned, load_recipe(recipe, ["seed=3", *changes]), epoch, tokenizer, LENGTH)

    return make


def rows_of(batch) -> dict[str, dict]:
    """Everything in a batch that belongs to each image, by its name, without the padding of its text."""
    found = {}
    for place, name in enumerate(batch.image_ids):
        words = batch.attention_mask[place].bool()
        assert (batch.special[place] | words).all() and not batch.input_ids[place][~words].any()
        found[name] = {
            "pixels": batch.pixel_values[place],
            "key": batch.image_keys[place],
            "sample": batch.samples[place],
            "ids": batch.input_ids[place][words],
            "special": batch.special[place][words],
            **{field: numbers[place] for field, numbers in vars(batch.draws).items()},
        }
    return found


def assert_same(a: dict, b: dict) -> None:
    assert a.keys() == b.keys()
    assert not [key for key in a if not torch.equal(a[key], b[key])]


@pytest.mark.parametrize(
    ("indices", "expected"),
    [
        ([8, 3, 5, 0, 2, 10, 6, 1], [8, 3, 3, 0, 2, 10, 6, 6]),  # of two as near the first; only one neighbor
        ([0, 2, 3, 4, 1, 5, 6, 8], [0, 2, 3, 4, 6, 6, 6, 8]),  # the group's own, though another's stands nearer
        ([0, 2, 3, 4, 1, 5, 7, 9, 6, 8, 10, 11], [0, 2, 3, 4, 4, 4, 6, 6, 6, 8, 10, 11]),  # none of the group
        ([1, 5, 7, 9, 9, 1, 5, 15], [15] * 8),
        ([4, 0, 3, 2], [4, 0, 3, 2]),
    ],
)
def test_the_nearest_readable_image_of_the_group_stands_in(damaged, indices, expected):
    read, images, skipped = read_group_by_group(damaged, Share(np.array(indices), 4), damaged.decode)
    assert read.tolist() == expected
    assert torch.equal(torch.stack(images), torch.stack([damaged.decode(i) for i in expected]))
    assert skipped.keys() == {damaged.image_ids[i] for i in indices if i in UNREADABLE}
    assert all(name in reason for name, reason in skipped.items())


def test_no_readable_image_at_all(damaged):
    with pytest.raises(DataError, match=r"none of 4 images could be read: image .*") as error:
        read_group_by_group(damaged, Share(np.array([9, 7, 5, 1]), 4), damaged.decode)
    assert damaged.image_ids[9] in str(error.value)


def test_a_batch_names_what_it_could_not_read(damaged, recipe, tokenizer):
    """The pair that replaces an unreadable one has its own caption and draws."""
    batch = EpochBatches(damaged, [Share(np.array([0, 1, 2, 3]), 4)], load_recipe(recipe), 0, tokenizer, LENGTH)[0]
    names = damaged.image_ids
    assert batch.image_ids == [names[0], names[0], names[2], names[3]] and list(batch.skipped) == [names[1]]
    assert torch.equal(batch.pixel_values[0], batch.pixel_values[1])
    assert batch.samples.tolist() == [int(damaged.samples[i]) for i in (0, 0, 2, 3)]
    assert batch.image_keys.tolist() == [image_key(name) for name in batch.image_ids]


def test_captions_by_hand():
    captions = ["name", "a", "b", "c"]
    edges = [(0.0, "a"), (0.333, "a"), (0.334, "b"), (0.667, "c"), (1 - 2**-24, "c")]
    for which, expected in edges:
        assert chosen_caption(captions, 0.4, which, 0.4) == expected
        assert chosen_caption(captions, 0.39, which, 0.4) == "name"
        assert chosen_caption(captions, 0.0, which, 0.0) == expected
        assert chosen_caption(captions, 1 - 2**-24, which, 1.0) == "name"
        assert chosen_caption(["name"], 0.9, which, 0.4) == "name", "there is no other"
    for which, expected in [(0.0, "name"), (0.249, "name"), (0.25, "a"), (0.75, "c"), (1 - 2**-24, "c")]:
        assert chosen_caption(captions, 0.0, which, None) == expected, "without a share any of all"
    assert chosen_caption([str(i) for i in range(1001)], 0.9, 1 - 2**-24, 0.4) == "1000"


def test_captions_have_their_shares():
    """20,000 images: the bare name 0.4 of them, each of three sentences 0.2, within five standard errors."""
    n = 20_000
    drawn = draw(5, 1, range(n), 1).caption
    found = Counter(chosen_caption(["name", "a", "b", "c"], *map(float, row), 0.4) for row in drawn)
    for caption, share in {"name": 0.4, "a": 0.2, "b": 0.2, "c": 0.2}.items():
        assert found[caption] / n == pytest.approx(share, abs=5 * sqrt(share * (1 - share) / n)), caption


def test_a_image_is_the_same_in_any_batch_share_and_order(batches_of):
    together = rows_of(batches_of(([4, 9, 0, 22, 13, 7, 26, 2], 4))[0])
    others = batches_of(([2, 26, 7, 13, 22, 0], 3), ([1, 9, 3, 4], 2), ([22], 1))
    for number, chosen in enumerate((6, 4, 1)):
        rows = rows_of(others[number])
        assert len(rows) == chosen
        common = rows.keys() & together.keys()
        assert len(common) == {0: 6, 1: 2, 2: 1}[number]
        for name in common:
            assert_same(rows[name], together[name])


def test_a_batch_is_what_the_corpus_holds(batches_of, pairs, tokenizer):
    """Names, samples and one of the image's own captions, cut to the length."""
    indices = [4, 9, 0, 22]
    batch = batches_of((indices, 2))[0]
    assert batch.image_ids == [pairs.image_ids[i] for i in indices] and batch.group_size == 2 and not batch.skipped
    assert batch.samples.tolist() == [int(pairs.samples[i]) for i in indices]
    longest = max(len(row["ids"]) for row in rows_of(batch).values())
    assert batch.input_ids.shape[1] == longest <= LENGTH, "padded to the longest text, not to the maximum"
    for row, i in zip(rows_of(batch).values(), indices, strict=True):
        own = [tokenizer(caption, truncation=True, max_length=LENGTH)["input_ids"] for caption in pairs.captions_of(i)]
        assert row["ids"].tolist() in own
        assert row["special"].tolist() == [True, *[False] * (len(row["ids"]) - 2), True]
    assert batch.pixel_values.min() >= 0 and batch.pixel_values.max() <= 1


def test_epochs_differ(batches_of):
    indices = list(range(12))
    first, second = (rows_of(batches_of((indices, 4), epoch=epoch)[0]) for epoch in (0, 1))
    for name, row in first.items():
        assert not torch.equal(row["pixels"], second[name]["pixels"]), name
        assert torch.equal(row["key"], second[name]["key"]) and torch.equal(row["sample"], second[name]["sample"])
        for field in ("augment", "caption", "fused", "negative_text", "negative_image", "concept", "words"):
            assert not (row[field] == second[name][field]).any(), field
    assert any(not torch.equal(row["ids"], second[name]["ids"]) for name, row in first.items())


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("first", [0, 1])
def test_workers_and_the_start_change_nothing(batches_of, workers, first):
    batches = batches_of(([4, 9, 0, 22], 4), ([13, 7], 2), ([26, 2, 1], 3))
    loaded = list(load_epoch(batches, first, workers, pin=False))
    assert len(loaded) == 3 - first
    for number, batch in enumerate(loaded, start=first):
        alone = batches[number]
        assert batch.image_ids == alone.image_ids and batch.group_size == alone.group_size
        rows, expected = rows_of(batch), rows_of(alone)
        for name in expected:
            assert_same(rows[name], expected[name])


@pytest.mark.parametrize("workers", [0, 1])
def test_a_batch_without_a_readable_image_ends_the_epoch(damaged, recipe, tokenizer, workers):
    """The batches before it come; the message is the image's, without a worker's traceback."""
    shares = [Share(np.array([0, 1]), 2), Share(np.array([5, 7]), 2), Share(np.array([2, 3]), 2)]
    loader = load_epoch(EpochBatches(damaged, shares, load_recipe(recipe), 0, tokenizer, LENGTH), 0, workers, pin=False)
    assert next(loader).image_ids == [damaged.image_ids[0]] * 2
    with pytest.raises(DataError, match=r"^none of 2 images could be read: image ") as error:
        next(loader)
    assert "Traceback" not in str(error.value) and damaged.image_ids[5] in str(error.value)


class Numbers(Batches[int]):
    """Each batch is its number; notes which thread has read which."""

    def __init__(self, count: int, fails_at: int = -1) -> None:
        self.shares = [Share(np.array([0]), 1)] * count
        self.fails_at = fails_at
        self.readers: dict[int, str] = {}
        self.read_now = [threading.Event() for _ in range(count)]

    def read(self, number: int) -> int:
        if number == self.fails_at:
            raise ZeroDivisionError("a bug")
        self.readers[number] = threading.current_thread().name
        self.read_now[number].set()
        return number


def test_the_next_batch_is_read_while_one_is_used():
    batches = Numbers(4)
    for number in (loaded := load_epoch(batches, 0, 0, pin=False)):
        assert number == 3 or batches.read_now[number + 1].wait(60), "while this one is in use"
        assert number > 1 or not batches.read_now[number + 2].is_set(), "one batch ahead, no more"
    assert threading.current_thread().name not in batches.readers.values() and not list(loaded)
    begun = load_epoch(Numbers(4), 0, 0, pin=False)
    next(begun)
    begun.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("reader")]


def test_a_bug_in_the_reading_thread_is_raised_where_its_batch_is_taken():
    loaded = load_epoch(Numbers(3, fails_at=1), 0, 0, pin=False)
    assert next(loaded) == 0
    with pytest.raises(ZeroDivisionError, match="a bug"):
        next(loaded)


def test_reading_does_not_depend_on_the_state_of_the_step(batches_of):
    """Autocast, the generator and the threads are those of the step; reading neither sees nor changes them."""
    batches = batches_of(([4, 9, 0, 22], 4), ([13, 7], 2), ([26, 2, 1], 3))
    alone, threads, found = [batches[number] for number in range(3)], torch.get_num_threads(), []
    torch.manual_seed(5)
    expected, drawn = [torch.rand(2) for _ in alone], []
    loaded = load_epoch(batches, 0, 0, pin=False)
    with torch.autocast("cpu", torch.bfloat16):
        for batch in loaded:
            torch.manual_seed(5) if not found else None
            found.append(batch)
            drawn.append(torch.rand(2))
    assert torch.equal(torch.stack(drawn), torch.stack(expected))
    for batch, one in zip(found, alone, strict=True):
        rows, own = rows_of(batch), rows_of(one)
        for name in own:
            assert_same(rows[name], own[name])
    later: list[int] = []
    thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert [torch.get_num_threads(), *later] == [threads, threads]


def test_without_variation_a_image_stands_on_white(batches_of, pairs):
    indices = [3, 11, 20]
    plain, varied = (batches_of((indices, 3), changes=changes)[0] for changes in (("augment=false",), ()))
    assert torch.equal(plain.pixel_values, pairs.on_white(indices))
    assert not torch.equal(varied.pixel_values, plain.pixel_values)
    assert torch.equal(plain.input_ids, varied.input_ids), "the caption is drawn by itself"


def test_photographs_are_varied_by_their_own_draws(batches_of, pairs):
    """An image has the same variant in any batch; it depends only on its draws and its caption."""
    indices = [3, 11, 20]
    together = batches_of((indices, 3), changes=("augment=photographs",))[0]
    for place, index in enumerate(indices):
        alone = batches_of(([index], 1), changes=("augment=photographs",))[0]
        assert torch.equal(alone.pixel_values[0], together.pixel_values[place])
    assert not torch.equal(together.pixel_values, pairs.on_white(indices))
    assert together.pixel_values.shape == pairs.on_white(indices).shape and together.pixel_values.max() <= 1


def test_views_come_back_after_so_many_epochs(batches_of):
    """Two variants: even epochs show one, odd epochs the other; captions are still drawn anew."""
    shown = [
        batches_of(([3, 11, 20], 3), epoch=epoch, changes=("augment=photographs", "views=2"))[0] for epoch in range(4)
    ]
    assert torch.equal(shown[0].pixel_values, shown[2].pixel_values)
    assert torch.equal(shown[1].pixel_values, shown[3].pixel_values)
    assert not torch.equal(shown[0].pixel_values, shown[1].pixel_values)
    assert not torch.equal(shown[0].draws.words, shown[2].draws.words)
