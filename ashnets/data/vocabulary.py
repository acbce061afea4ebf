"""A smaller WordPiece vocabulary for a small model, cut from BERT's so that its word embeddings can be copied.

It keeps the pieces used by a corpus, and every ASCII character alone and after '##', so that other words are split
into pieces instead of [UNK]. WordPiece takes the longest matching piece, so texts of the corpus are tokenized exactly
as with the full vocabulary.
"""

from __future__ import annotations

import os
import string
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path

from transformers import BatchEncoding, BertTokenizer, PreTrainedTokenizerBase

from ashnets.errors import DataError

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_CHARACTERS = string.ascii_lowercase + string.digits + string.punctuation


def read_vocabulary(vocab_file: str | os.PathLike) -> list[str]:
    """The pieces of a ``vocab.txt``, one per line, in order.

    Raises:
        DataError: no such file, not UTF-8, a piece twice, or a special token of BERT missing.
    """
    path = Path(vocab_file)
    try:
        pieces = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not a vocabulary: it is not UTF-8 text ({error})") from None
    except OSError as error:
        raise DataError(f"vocabulary {path} cannot be read ({error.strerror}); give the path of a vocab.txt") from None
    _check(pieces, str(path))
    return pieces


def prune_vocabulary(vocab_file: str | os.PathLike, texts: Iterable[str], *, extra: Iterable[str] = ()) -> list[str]:
    """The pieces worth keeping, in the order of ``vocab_file``: [PAD] stays 0.

    Args:
        vocab_file: BERT's ``vocab.txt`` (lower case).
        texts: the corpus; every piece that tokenizing it uses is kept.
        extra: additional pieces to keep.

    Raises:
        DataError: an unusable file, or an ``extra`` piece that it does not contain.
    """
    pieces = read_vocabulary(vocab_file)
    known = set(pieces)
    if absent := sorted(set(extra) - known):
        raise DataError(f"{vocab_file} does not contain the extra pieces {', '.join(map(repr, absent))}")
    keep = {*SPECIAL_TOKENS, *extra, *_CHARACTERS, *("##" + c for c in _CHARACTERS)}
    backend = tokenizer_from_vocabulary(pieces, max_length=512).backend_tokenizer
    distinct = list(dict.fromkeys(texts))
    for start in range(0, len(distinct), 4096):
        for encoding in backend.encode_batch(distinct[start : start + 4096]):
            keep.update(encoding.tokens)
    return [piece for piece in pieces if piece in keep]


def row_indices(vocab_file: str | os.PathLike, pieces: Sequence[str]) -> list[int]:
    """The line of each piece in ``vocab_file``, which is its row in that vocabulary's word embeddings.

    Raises:
        DataError: a piece that the file does not contain.
    """
    rows = {piece: i for i, piece in enumerate(read_vocabulary(vocab_file))}
    if absent := [piece for piece in pieces if piece not in rows]:
        raise DataError(f"{vocab_file} does not contain {len(absent)} of the pieces, {absent[0]!r} for one")
    return [rows[piece] for piece in pieces]


def tokenizer_from_vocabulary(pieces: Sequence[str], max_length: int) -> BertTokenizer:
    """A lower-casing WordPiece tokenizer of BERT; at most ``max_length`` tokens per text, [CLS] and [SEP] included.

    Names of special tokens within a text are split like any other characters.
    """
    _check(pieces, "the vocabulary")
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    # "[SEP]" in a text is not the special token
    return BertTokenizer(vocab=vocabulary, model_max_length=max_length, split_special_tokens=True)


_one_at_a_time = threading.Lock()


def encode(
    tokenizer: PreTrainedTokenizerBase, texts: list[str], max_length: int, **options: str | bool
) -> BatchEncoding:
    """Token ids and masks of texts, by default cut to ``max_length`` tokens and padded to the longest.

    Thread-safe by a lock: a fast tokenizer stores truncation and padding as state. Options are those of a call.
    """
    options = {"padding": True, "truncation": True, **options}
    cut = options["truncation"] not in (False, "do_not_truncate")
    length = max_length if cut or options["padding"] == "max_length" else None  # transformers warns if it needs none
    with _one_at_a_time:
        return tokenizer(texts, max_length=length, return_token_type_ids=False, **options)


def tokenize(tokenizer: PreTrainedTokenizerBase, texts: list[str], max_length: int) -> BatchEncoding:
    """Token ids and masks of texts, (B, L), and which tokens are special."""
    return encode(tokenizer, texts, max_length, return_tensors="pt", return_special_tokens_mask=True)


def unknown_words(tokenizer: PreTrainedTokenizerBase, text: str) -> list[str]:
    """Words of a text that the vocabulary has only in fragments: no piece covers half of the word, or one is [UNK].

    A model has never read such a word as a whole, and what it makes of the fragments is close to chance.
    """
    encoding = encode(tokenizer, [text], tokenizer.model_max_length)[0]
    spans: dict[int, list[tuple[int, int]]] = {}
    fragments = set()
    for word, span, piece in zip(encoding.word_ids, encoding.offsets, encoding.ids, strict=True):
        if word is not None:
            spans.setdefault(word, []).append(span)
            if piece == tokenizer.unk_token_id:
                fragments.add(word)
    found = []
    for word, pieces in spans.items():
        start, end = pieces[0][0], pieces[-1][1]
        if word in fragments or 2 * max(last - first for first, last in pieces) < end - start:
            found.append(text[start:end])
    return list(dict.fromkeys(found))


def _check(pieces: Sequence[str], name: str) -> None:
    distinct = set(pieces)
    if len(distinct) != len(pieces):
        twice = next(piece for i, piece in enumerate(pieces) if piece in pieces[:i])
        raise DataError(f"{name} contains the piece {twice!r} twice")
    if absent := [token for token in SPECIAL_TOKENS if token not in distinct]:
        raise DataError(f"{name} lacks the special tokens {', '.join(absent)}: it is not a vocabulary of BERT")
