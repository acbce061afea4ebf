"""The images of a run: groups, what cannot be read, and the spikes of the first stage."""

from __future__ import annotations

import math
from itertools import chain

import numpy as np
import pytest
import torch

from ashnets.data.corpus import open_corpus
from ashnets.data.sources.opening import open_source
from ashnets.errors import ConfigurationError, DataError
from ashnets.model.heads import AshNetsForPreTraining
from ashnets.model.sampling import image_key
from ashnets.training.images import TrainingImages
from ashnets.training.reading import load_recipe

LOST = {"train": (3, 20), "valid": (1,)}


@pytest.fixture
def config(small_pretraining_config):
    """The small model, narrower."""
    changes = {"hidden_size": 24, "num_attention_heads": 2, "intermediate_size": 24, "projection_size": 16}
    return type(small_pretraining_config)(**{**small_pretraining_config.to_dict(), **changes})


@pytest.fixture
def warned() -> list[tuple[str, str]]:
    """(sentence, image) of each that was left out."""
    return []


@pytest.fixture
def images_of(config, recipe, warned):
    """A function of a corpus and overrides of the recipe; warnings are kept. Nothing here tokenizes."""

    def make(folder, *overrides: str) -> TrainingImages:
        return TrainingImages(
            load_recipe(recipe, list(overrides)),
            config,
            open_source(folder),
            None,
            lambda text, name, _ahead: warned.append((text, name)),
        )

    return make


@pytest.fixture(scope="module")
def damaged(corpus, write_corpus, tmp_path_factory):
    """The small corpus with two training images and one to validate cut short."""
    rows = {name: list(open_corpus(corpus).split(name)) for name in LOST}
    for name, places in LOST.items():
        for place in places:
            rows[name][place]["image"] = rows[name][place]["image"][:40]
    return write_corpus(tmp_path_factory.mktemp("damaged") / "corpus", rows)


def as_lists(groups: list[np.ndarray]) -> list[list[int]]:
    return [group.tolist() for group in groups]


def test_random_groups_by_seed_and_epoch(images_of, corpus):
    images = images_of(corpus)
    found = {}
    for seed in (0, 1):
        for epoch in (0, 1, 2):
            groups = as_lists(images_of(corpus, f"seed={seed}").random_groups(epoch))
            assert [len(group) for group in groups] == [4] * 5 + [7]
            assert sorted(chain(*groups)) == list(range(27))
            found[seed, epoch] = str(groups)
    assert len(set(found.values())) == 6
    for epoch in (2, 0):
        assert str(as_lists(images.random_groups(epoch))) == found[0, epoch], "whatever came before"


def test_a_plan_shows_each_image_once(images_of, corpus):
    images = images_of(corpus)
    groups = images.random_groups(0)
    planned = images.plan(groups)
    shown = np.concatenate([share.indices for shares in planned for share in shares])
    assert shown.tolist() == np.concatenate(groups).tolist()
    batches = images.batches(planned, 3)
    assert (len(batches), batches.epoch, batches.max_length) == (len(planned), 3, images.config.max_text_length)


def test_passes_of_an_epoch_are_partitions_of_their_own(images_of, corpus):
    """Two passes an epoch are the epochs 6 and 7 of one pass each: groups, micro-batches, and what is drawn."""
    images, single = images_of(corpus, "passes=2"), images_of(corpus)
    groups = images.random_groups(3)
    assert as_lists(groups) == as_lists(single.random_groups(6)) + as_lists(single.random_groups(7))
    planned = images.plan(groups)
    for shares, other in zip(planned, single.plan(groups[:6]) + single.plan(groups[6:]), strict=True):
        assert [share.indices.tolist() for share in shares] == [share.indices.tolist() for share in other]
    batches = images.batches(planned, 3)
    half = len(planned) // 2
    assert list(batches.passes) == [0] * half + [1] * half
    assert list(images.batches(planned[half:], 3).passes) == [0] * half


def test_pairs_that_would_cut_a_group_are_refused(images_of, corpus):
    with pytest.raises(ConfigurationError, match="batch_size=10 must be a multiple of φ × devices = 4 × 1"):
        images_of(corpus, "batch_size=10")


def test_an_unreadable_image_is_left_out_from_the_next_epoch_on(images_of, corpus, warned):
    images = images_of(corpus)
    lost = images.train.image_ids[5]
    assert 5 in np.concatenate(images.random_groups(0))
    images.note({lost: "cut short"})
    images.note({lost: "cut short again"})
    assert 5 in np.concatenate(images.random_groups(1)), "other ranks do not know it yet"
    images.share_notes()
    images.note({lost: "cut short again"})
    assert warned == [("left out: cut short", lost)] and images.skipped == {lost: "cut short"}
    groups = images.random_groups(1)
    assert sorted(np.concatenate(groups).tolist()) == [i for i in range(27) if i != 5]
    assert [len(group) for group in groups] == [4] * 5 + [6]
    images.share_notes()
    assert len(warned) == 1


def test_too_many_are_refused_by_name(images_of, corpus, warned):
    images = images_of(corpus, "max_skipped=2")
    images.note({"a": "image 'a' is torn", "b": "image 'b' is empty"})
    with pytest.raises(DataError) as error:
        images.note({"c": "image 'c' is noise"})
    message = str(error.value)
    assert message.startswith("3 images cannot be read, more than max_skipped=2: ")
    assert all(f"image {name!r} is" in message for name in "abc") and "ashnets data check" in message
    assert [name for _, name in warned] == ["a", "b", "c"]


def test_validation_images_are_tried_once_each(images_of, damaged, warned):
    images = images_of(damaged)
    lost = images.valid.image_ids[1]
    assert images.readable_valid() == [0, 2, 3, 4, 5]
    images.share_notes()
    assert list(images.skipped) == [lost] and warned[0][1] == lost and lost in warned[0][0]
    assert images_of(damaged, "max_skipped=1").readable_valid() == [0, 2, 3, 4, 5]
    with pytest.raises(DataError, match="1 images cannot be read, more than max_skipped=0"):
        images_of(damaged, "max_skipped=0").readable_valid()


def test_validation_on_a_sample_of_stated_size(images_of, corpus):
    images = images_of(corpus, "valid_images=4")
    found = images.readable_valid()
    assert len(found) == 4 and found == sorted(set(found)) and found == images.readable_valid()
    assert images_of(corpus, "valid_images=4", "seed=1").readable_valid() != found
    assert images_of(corpus, "valid_images=99").readable_valid() == list(range(6))


def loop_similarity(embeddings: np.ndarray, groups: list[np.ndarray]) -> float:
    """Mean inner product over the pairs of two images of one group, one at a time."""
    products = [
        math.fsum(a * b for a, b in zip(embeddings[i].tolist(), embeddings[j].tolist(), strict=True))
        for group in groups
        for i in group
        for j in group
        if i != j
    ]
    return math.fsum(products) / len(products)


def test_similar_groups_of_a_real_model(images_of, damaged, config, recipe, warned):
    """Each usable image once; the figures are those of embeddings made one image at a time."""
    torch.manual_seed(0)
    model, images = AshNetsForPreTraining(config).eval(), images_of(damaged)
    phase, precision = load_recipe(recipe).phases[0], torch.autocast("cpu", enabled=False)
    groups, figures = images.similar_groups(model, 4, phase, precision, False)
    names = images.train.image_ids
    assert list(images.skipped) == [names[3], names[20]] and [name for _, name in warned] == [names[3], names[20]]
    usable = [i for i in range(27) if i not in LOST["train"]]
    assert sorted(np.concatenate(groups).tolist()) == usable and [len(g) for g in groups] == [4] * 5 + [5]
    embeddings = np.zeros((27, config.projection_size))
    with torch.no_grad():
        for i in usable:
            embed, _ = model.encode_image(images.train.on_white([i]), concrete_only=True)
            embeddings[i] = embed[0].double().numpy()
    by_chance = images.random_groups(4)
    assert figures["neighbors"].startswith("exact search over 25")
    assert figures["group_similarity"] == pytest.approx(loop_similarity(embeddings, groups), abs=1e-4)
    assert figures["random_group_similarity"] == pytest.approx(loop_similarity(embeddings, by_chance), abs=1e-4)
    assert figures["group_similarity"] > figures["random_group_similarity"]
    # an opener is followed by its group in descending similarity
    for group in groups:
        nearness = embeddings[group[1:]] @ embeddings[group[0]]
        assert (np.diff(nearness) < 1e-6).all()
    again, _ = images.similar_groups(model, 4, phase, precision, False)
    other, _ = images.similar_groups(model, 5, phase, precision, False)
    assert as_lists(again) == as_lists(groups) != as_lists(other)
    assert len(warned) == 2


def test_the_spikes_of_a_draw_of_images(images_of, corpus, config):
    """Read twice, and one inside the other; each image's are those it has alone."""
    torch.manual_seed(0)
    vision = AshNetsForPreTraining(config).ashnets.vision
    images = images_of(corpus)
    batches = images.spikes(vision, 10, 4, torch.device("cpu"))
    first = list(batches)
    assert [tuple(x.shape) for x in first] == [(3, 4, 3, 64, 64), (3, 4, 3, 64, 64), (3, 2, 3, 64, 64)]
    assert len(batches) == 3
    for a, b in zip(batches, batches, strict=True):
        assert torch.equal(a, b)
    chosen = np.concatenate(batches.batches).tolist()
    assert len(set(chosen)) == 10
    for place, index in enumerate(chosen):
        key = image_key(images.train.image_ids[index])
        alone = vision.sample(images.train.on_white([index]), [key])
        assert torch.equal(first[place // 4][:, place % 4], alone[:, 0])
    others = [
        np.concatenate(images_of(corpus, f"seed={seed}").spikes(vision, 10, 4, torch.device("cpu")).batches).tolist()
        for seed in (0, 1)
    ]
    assert others[0] == chosen != others[1]
    everything = images.spikes(vision, 1000, 8, torch.device("cpu")).batches
    assert [len(batch) for batch in everything] == [8, 8, 8, 3]
    assert sorted(np.concatenate(everything).tolist()) == list(range(27))


def test_spikes_leave_unreadable_images_out(images_of, damaged, config, warned):
    """Those that are known and those that are found."""
    images = images_of(damaged)
    images.note({images.train.image_ids[8]: "torn"})
    batches = images.spikes(AshNetsForPreTraining(config).ashnets.vision, 27, 9, torch.device("cpu"))
    assert sorted(np.concatenate(batches.batches).tolist()) == [i for i in range(27) if i not in (3, 8, 20)]
    assert [x.shape[1] for x in batches] == [9, 9, 6]
    assert {name for _, name in warned} == {images.train.image_ids[i] for i in (3, 8, 20)}
