"""The pruned vocabulary: unchanged tokens of the corpus, and pieces for every ASCII word."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import BertTokenizer

from ashnets.data.vocabulary import (
    prune_vocabulary,
    read_vocabulary,
    row_indices,
    tokenizer_from_vocabulary,
    unknown_words,
)
from ashnets.errors import DataError

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
CHARACTERS = list(string.ascii_lowercase + string.digits + string.punctuation)
WORDS = ["cat", "dog", "dogs", "sleep", "##ing", "rain", "##bow", "rainbow", "ß", "猫", "umbrella", "##rella", "mask"]
TEXTS = ["A cat sleeping", "two dogs, one rainbow!", "cats"]


def full_vocabulary() -> list[str]:
    unused = [f"[unused{i}]" for i in range(3)]
    return [SPECIAL[0], *unused, *SPECIAL[1:], *CHARACTERS, *("##" + c for c in CHARACTERS), *WORDS]


@pytest.fixture
def vocab_file(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(full_vocabulary()) + "\n", encoding="utf-8")
    return path


def test_keeps_what_the_texts_use_in_order(vocab_file):
    pieces = prune_vocabulary(vocab_file, TEXTS)
    words = ["cat", "dogs", "sleep", "##ing", "rainbow"]
    assert pieces == [*SPECIAL, *CHARACTERS, *("##" + c for c in CHARACTERS), *words]


def test_extra_pieces_are_kept(vocab_file):
    assert "umbrella" in prune_vocabulary(vocab_file, TEXTS, extra=["umbrella"])
    assert "mask" in prune_vocabulary(vocab_file, ["a [MASK] of a cat"]), "as it will be split"
    with pytest.raises(DataError, match="'parasol'"):
        prune_vocabulary(vocab_file, TEXTS, extra=["parasol"])


def test_rows_point_at_the_same_pieces(vocab_file):
    pieces = prune_vocabulary(vocab_file, TEXTS)
    full = full_vocabulary()
    assert [full[row] for row in row_indices(vocab_file, pieces)] == pieces
    with pytest.raises(DataError, match="'parasol'"):
        row_indices(vocab_file, ["cat", "parasol"])


def test_corpus_tokens_do_not_change(vocab_file):
    full = BertTokenizer(vocab={piece: i for i, piece in enumerate(full_vocabulary())})
    small = tokenizer_from_vocabulary(prune_vocabulary(vocab_file, TEXTS), 16)
    for text in TEXTS:
        assert small.tokenize(text) == full.tokenize(text)


@given(st.text(alphabet=string.ascii_letters + string.digits + string.punctuation + " ", max_size=60))
def test_other_ascii_words_fall_into_pieces(text):
    pieces = [*SPECIAL, *CHARACTERS, *("##" + c for c in CHARACTERS), "cat"]
    tokens = tokenizer_from_vocabulary(pieces, 512).tokenize(text)
    if not any(token in text for token in SPECIAL):
        assert "[UNK]" not in tokens
        assert "".join(t.removeprefix("##") if len(t) > 2 else t for t in tokens) == text.lower().replace(" ", "")


def test_tokenizer_adds_cls_sep_and_knows_its_length():
    tokenizer = tokenizer_from_vocabulary([*SPECIAL, "a", "cat"], 7)
    assert tokenizer("A cat dog")["input_ids"] == [2, 5, 6, 1, 3]
    assert tokenizer.model_max_length == 7
    assert tokenizer.pad_token_id == 0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe\x00", "not UTF-8"),
        (b"cat\ndog\n", "lacks the special tokens"),
        ("\n".join([*SPECIAL, "cat", "cat"]).encode(), "'cat' twice"),
    ],
)
def test_unusable_vocabularies(tmp_path, content, message):
    path = tmp_path / "vocab.txt"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_vocabulary(path)


def test_missing_vocabulary(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        read_vocabulary(tmp_path / "none.txt")


def test_words_that_a_vocabulary_has_only_in_fragments():
    """By hand: a word is known if one of its pieces covers half of it."""
    tokenizer = tokenizer_from_vocabulary(full_vocabulary(), 40)
    assert unknown_words(tokenizer, "Cats sleeping at an umbrella, dogs in the rain") == ["the"]
    assert unknown_words(tokenizer, "a Kettle, a kettle and 猫 犬 🐟") == ["Kettle", "kettle", "and", "犬", "🐟"]
