"""Two-stage retrieval against loops over all pairs: candidates, order, pairs scored, and the matching head itself."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from ashnets.data import similar
from ashnets.data.benchmarks import BENCHMARKS
from ashnets.data.benchmarks.coco_captions import CocoCaptions
from ashnets.data.benchmarks.flickr30k import Flickr30K
from ashnets.data.pairs import Pairs
from ashnets.data.sources import open_source
from ashnets.metrics.retrieval import recall_at
from ashnets.model.sampling import image_key
from ashnets.retrieval.two_stage import (
    CANDIDATES,
    matching_score,
    rank_by_embeddings,
    rank_exhaustively,
    rank_in_two_stages,
)
from ashnets.training.evaluate import as_rows, rankings


def embeddings(texts: int = 30, pictures: int = 41, dimensions: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    return tuple(torch.nn.functional.normalize(torch.randn(n, dimensions, generator=draw)) for n in (texts, pictures))  # type: ignore[return-value]


def loop(first: np.ndarray, second: np.ndarray, k: int) -> list[list[int]]:
    """Order of each query's items: the k best of the first table by the second, then the others by the first."""
    found = []
    for before, after in zip(first.tolist(), second.tolist(), strict=True):
        order = sorted(range(len(before)), key=lambda i: -before[i])
        found.append(sorted(order[:k], key=lambda i: -after[i]) + order[k:])
    return found


@pytest.mark.parametrize("k", [1, 5, 1000])
@pytest.mark.parametrize("faiss", [True, False])
def test_both_directions_equal_a_loop_and_each_pair_is_scored_once(k: int, faiss: bool, monkeypatch) -> None:
    if not faiss:
        monkeypatch.setattr(similar, "has_faiss", lambda: False)
    text, image = embeddings()
    second = torch.randn(len(text), len(image), generator=torch.Generator().manual_seed(1))
    asked: list[tuple[int, int]] = []

    def match(texts: torch.Tensor, pictures: torch.Tensor) -> torch.Tensor:
        asked.extend(zip(texts.tolist(), pictures.tolist(), strict=True))
        return second[texts, pictures]

    ranking = rank_in_two_stages(text, image, k, match, progress=False)
    first = (text.double() @ image.double().T).numpy()
    expected = loop(first, second.numpy(), k), loop(first.T, second.numpy().T, k)
    assert ranking.text_to_image.argsort(1, descending=True).tolist() == expected[0]
    assert ranking.image_to_text.argsort(1, descending=True).tolist() == expected[1]
    wanted = {(q, i) for q, row in enumerate(loop(first, first, k)) for i in row[:k]}
    wanted |= {(i, q) for q, row in enumerate(loop(first.T, first.T, k)) for i in row[:k]}
    assert sorted(asked) == sorted(wanted)
    assert (ranking.cost.pairs, ranking.cost.of) == (len(wanted), 30 * 41)


def test_all_candidates_are_the_exhaustive_ranking() -> None:
    text, image = embeddings()
    second = torch.randn(len(text), len(image), generator=torch.Generator().manual_seed(1))
    ranking = rank_exhaustively(30, 41, lambda t, p: second[t, p], progress=False)
    assert torch.equal(ranking.text_to_image, second)
    assert torch.equal(ranking.image_to_text, second.T)
    assert ranking.cost.pairs == ranking.cost.of == 30 * 41
    two = rank_in_two_stages(text, image, 41, lambda t, p: second[t, p], progress=False)
    gold = torch.arange(30)
    assert recall_at(two.text_to_image, gold) == recall_at(second, gold)


def test_embeddings_alone_score_no_pair() -> None:
    text, image = embeddings()
    ranking = rank_by_embeddings(text, image)
    np.testing.assert_allclose(ranking.text_to_image.numpy(), text.numpy() @ image.numpy().T, atol=1e-6)
    assert torch.equal(ranking.image_to_text, ranking.text_to_image.T)
    assert ranking.cost.pairs == 0


@torch.inference_mode()
def test_the_matching_score_is_that_of_each_pair_alone(small_model) -> None:
    """In batches, sorted by length and padded, against the model's own forward on one pair at a time."""
    model, processor = small_model
    texts = ["a red car", "fox", "a very long sentence about a house on a hill", "two dogs"]
    pixels = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    tokens = model.encode_image(pixels, image_ids=[1, 2, 3])[1].output
    score = matching_score(model, processor.tokenizer, texts, tokens, batch=5)
    text, picture = (part.flatten() for part in torch.meshgrid(torch.arange(4), torch.arange(3), indexing="ij"))
    found = score(text, picture).view(4, 3)
    for q, sentence in enumerate(texts):
        for i in range(3):
            out = model(pixels[i : i + 1], image_ids=[i + 1], **processor(text=sentence))
            assert float(found[q, i]) == pytest.approx(float(out.itm_logits.softmax(1)[0, 1].log()), abs=1e-5)
    assert len(set(found.flatten().tolist())) == 12, "a constant score would show nothing"


def test_the_numbers_of_candidates_are_those_of_benchmarks_with_captions() -> None:
    assert CANDIDATES == {"coco-captions": 256, "flickr30k": 128}
    assert {name for name, reader in BENCHMARKS.items() if reader in (CocoCaptions, Flickr30K)} == {*CANDIDATES}


@torch.inference_mode()
def test_the_rankings_of_a_split(small_model, corpus) -> None:
    """Recalls, costs and what is lost, of real pictures; recalls recomputed from single pairs."""
    model, processor = small_model
    pairs, chosen = Pairs(open_source(corpus), ["train"], 64), [0, 3, 5, 8, 11, 20]
    entries = rankings(model, processor.tokenizer, pairs, 2, True, False, chosen)
    assert [entry["ranking"] for entry in entries] == ["ITC", "ITC, then ITM on the best 2", "ITM on all pairs"]
    assert [entry["cost"]["pairs"] for entry in entries][::2] == [0, 36]
    assert 12 <= entries[1]["cost"]["pairs"] <= 24
    for entry in entries[:2]:
        for way in ("text_to_image", "image_to_text"):
            assert entry["lost"][way] == entries[2][way]["R@1"] - entry[way]["R@1"]
    hits = []
    for i in chosen:
        seen = {"pixel_values": pairs.on_white([i]), "image_ids": [image_key(pairs.image_ids[i])]}
        scores = [float(model(**seen, **processor(text=pairs.names[j])).itm_logits[0].diff()) for j in chosen]
        hits.append(chosen[int(np.argmax(scores))] == i)
    assert entries[2]["image_to_text"]["R@1"] == pytest.approx(np.mean(hits))
    report = {"models": {"small": {"training": None, "splits": {"train": [{"branch": "both", **e} for e in entries]}}},
              "environment": {"device": "", "torch": ""}}  # fmt: skip
    rows = as_rows(report)
    assert [row["pairs scored"] for row in rows][-2:] == [36, 36]
    assert [row["R@1 lost"] for row in rows][-2:] == ["", ""]
    report["models"]["small"]["splits"]["train"] = [{"branch": "both", **entries[0]}]
    assert "pairs scored" not in as_rows(report)[0], "without ITM the table stays as it was"


def test_search_runs_without_faiss(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    monkeypatch.setattr(similar, "has_faiss", lambda: False)
    text, image = embeddings()
    ranking = rank_in_two_stages(text, image, 3, lambda t, p: (t * 41 + p).float(), progress=False)
    assert ranking.cost.pairs > 0
