"""WordNet's files and the similarity of Wu and Palmer, on a small taxonomy, by hand."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ashnets.errors import DataError
from ashnets.metrics.wordnet import WordNet

sys.path.insert(0, str(Path(__file__).parent))
from small_wordnet import write_wordnet


@pytest.fixture(scope="module")
def wordnet(tmp_path_factory: pytest.TempPathFactory) -> WordNet:
    return WordNet(write_wordnet(tmp_path_factory.mktemp("wordnet")))


def test_words_have_senses_in_order(wordnet: WordNet) -> None:
    (domestic,) = wordnet.senses("domestic_dog")
    (cur,) = wordnet.senses("mongrel")
    assert wordnet.senses("dog") == [domestic, cur]
    assert wordnet.senses("Sofa") == wordnet.senses("couch") == wordnet.senses("lounge")
    assert wordnet.senses("unicorn") == []


@pytest.mark.parametrize(
    ("plural", "singulars"),
    [
        ("cats", ["cat"]),
        ("couches", ["couch"]),  # ches → ch
        ("firemen", ["fireman"]),  # men → man
        ("men", ["man"]),
        ("people", ["person", "man"]),  # noun.exc
        ("curs_of_war", ["cur"]),
        ("entities", ["entity"]),  # ies → y
        ("cates", []),
        ("catses", ["cat"]),  # ses → s gives no noun, and then s → nothing does
        ("men_of_war", []),  # noun.exc knows it, but its singular is no noun: endings are not tried
    ],
)
def test_plurals_lead_to_their_singulars(plural: str, singulars: list[str], wordnet: WordNet) -> None:
    assert wordnet.senses(plural) == [sense for singular in singulars for sense in wordnet.senses(singular)]


@pytest.mark.parametrize(
    ("one", "other", "similarity"),
    [
        ("dog", "dog", 1),
        ("couch", "sofa", 1),
        ("domestic_dog", "cat", 2 * 2 / (4 + 4)),
        ("domestic_dog", "canine", 2 * 3 / (4 + 3)),
        ("canine", "domestic_dog", 2 * 3 / (4 + 3)),
        ("mongrel", "cat", 2 * 2 / (5 + 4)),
        ("domestic_dog", "couch", 2 * 1 / (4 + 3)),
        ("two", "three", 2 * 2 / (3 + 3)),
        ("number", "entity", 2 * 1 / (2 + 1)),
        # organism and person are two steps from the root by their shortest ways: organism comes first by name.
        ("chef", "fireman", 2 * 3 / (5 + 5)),
        # A word that is itself one of the deepest common hypernyms is taken, with its longest way to the root.
        ("person", "chef", 2 * 4 / (4 + 5)),
        ("einstein", "man", 2 * 5 / (6 + 5)),
        ("loner", "dog", 0),
    ],
)
def test_similarity_by_hand(one: str, other: str, similarity: float, wordnet: WordNet) -> None:
    assert wordnet.similarity(wordnet.senses(one)[0], wordnet.senses(other)[0]) == pytest.approx(similarity)


def test_the_folder_may_be_the_one_above_dict(tmp_path: Path) -> None:
    write_wordnet(tmp_path / "dict")
    assert WordNet(tmp_path).senses("cat")


def test_what_is_missing_or_does_not_fit(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"index\.noun, data\.noun, noun\.exc missing\. .*wordnet-base"):
        WordNet(tmp_path)
    folder = write_wordnet(tmp_path / "wordnet")
    data = (folder / "data.noun").read_text()
    (folder / "data.noun").write_text(" " + data)
    broken = WordNet(folder)
    with pytest.raises(DataError, match=r"data\.noun, byte \d+: no sense begins here"):
        broken.similarity(broken.senses("cat")[0], broken.senses("dog")[0])
    (folder / "index.noun").write_text("cat n x\n")
    with pytest.raises(DataError, match=r"index\.noun, line 1 is 'cat n x'"):
        WordNet(folder)
