"""Two-stage retrieval against loops over all pairs: candidates, order, pairs scored, and the matching head itself."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from ashnets.data.benchmarks import BENCHMARKS
from ashnets.data.benchmarks.coco_captions import CocoCaptions
from ashnets.data.benchmarks.flickr30k import Flickr30K
from ashnets.data.pairs import Pairs
from ashnets.data.sources.opening import open_source
from ashnets.evaluation.options import EvaluationOptions
from ashnets.evaluation.results import Evaluation, ModelResult, SplitResult
from ashnets.evaluation.retrieval import RetrievalSet, Retrieved, rank
from ashnets.evaluation.two_stage import (
    CANDIDATES,
    matching_score,
    rank_by_embeddings,
    rank_every_way,
    rank_exhaustively,
)
from ashnets.metrics.retrieval import ranks, recall_at
from ashnets.model.sampling import image_key
from ashnets.ties import LOG_ODDS, TIE, products


def embeddings(texts: int = 30, images: int = 41, dimensions: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    return tuple(torch.nn.functional.normalize(torch.randn(n, dimensions, generator=draw)) for n in (texts, images))  # type: ignore[return-value]


def loop(first: np.ndarray, second: np.ndarray, k: int) -> list[list[int]]:
    """The items of each query: the k best of the first table in the order of the second, then the others."""
    found = []
    for before, after in zip(first.tolist(), second.tolist(), strict=True):
        order = sorted(range(len(before)), key=lambda i: -before[i])
        found.append(sorted(order[:k], key=lambda i: -after[i]) + order[k:])
    return found


@pytest.mark.parametrize("k", [1, 5, 1000])
def test_both_directions_equal_a_loop_and_each_pair_is_scored_once(k: int) -> None:
    text, image = embeddings()
    second = torch.randn(len(text), len(image), generator=torch.Generator().manual_seed(1))
    asked: list[tuple[int, int]] = []
    tau = 0.3

    def match(texts: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        asked.extend(zip(texts.tolist(), images.tolist(), strict=True))
        return second[texts, images]

    found = rank_every_way(text, image, match, tau, k, progress=False)
    first = (text.double() @ image.double().T).numpy()
    scores = {"ITC": first, f"ITC, then ITM on the best {k}": second.numpy()}
    scores[f"ITC, then ITC + ITM on the best {k}"] = first / tau + second.double().numpy()
    assert list(found) == list(scores)
    for name, ranking in found.items():
        expected = loop(first, scores[name], k), loop(first.T, scores[name].T, k)
        assert ranking.text_to_image.argsort(1, descending=True).tolist() == expected[0], name
        assert ranking.image_to_text.argsort(1, descending=True).tolist() == expected[1], name
    orders = [ranking.text_to_image.argsort(1).tolist() for ranking in found.values()]
    assert k == 1 or all(a != b for a, b in itertools.combinations(orders, 2)), "equal orders would prove nothing"
    wanted = {(q, i) for q, row in enumerate(loop(first, first, k)) for i in row[:k]}
    wanted |= {(i, q) for q, row in enumerate(loop(first.T, first.T, k)) for i in row[:k]}
    assert sorted(asked) == sorted(wanted)
    for ranking in [*found.values()][1:]:
        assert (ranking.cost.pairs, ranking.cost.of) == (len(wanted), 30 * 41)


def test_with_all_items_as_candidates_the_ranking_is_exhaustive() -> None:
    text, image = embeddings()
    second = torch.randn(len(text), len(image), generator=torch.Generator().manual_seed(1))
    ranking = rank_exhaustively(30, 41, lambda t, p: second[t, p], progress=False)
    assert torch.equal(ranking.text_to_image, second)
    assert torch.equal(ranking.image_to_text, second.T)
    assert ranking.cost.pairs == ranking.cost.of == 30 * 41
    found = rank_every_way(text, image, lambda t, p: second[t, p], 0.3, 41, exhaustive=True, progress=False)
    gold, both = torch.arange(30), (text.double() @ image.double().T / 0.3 + second.double())
    for stages, exhaustive, expected in (
        ("ITC, then ITM on the best 41", "ITM on all pairs", second),
        ("ITC, then ITC + ITM on the best 41", "ITC + ITM on all pairs", both),
    ):
        for name in (stages, exhaustive):
            assert recall_at(found[name].text_to_image, gold) == recall_at(expected, gold)
            assert recall_at(found[name].image_to_text[:30], gold) == recall_at(expected.T[:30], gold)


def test_embeddings_alone_score_no_pair() -> None:
    text, image = embeddings()
    ranking = rank_by_embeddings(text, image)
    np.testing.assert_allclose(ranking.text_to_image.numpy(), text.numpy() @ image.numpy().T, atol=1e-6)
    assert torch.equal(ranking.image_to_text, ranking.text_to_image.T)
    assert ranking.cost.pairs == 0


@torch.inference_mode()
def test_the_matching_score_equals_that_of_each_pair_alone(retrieval_model) -> None:
    """Sorted and padded batches against the model's forward on single pairs."""
    model, processor = retrieval_model
    texts = ["a red car", "fox", "a very long sentence about a house on a hill", "two dogs"]
    pixels = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    tokens = model.encode_image(pixels, image_keys=[1, 2, 3])[1].output
    score = matching_score(model, processor.tokenizer, texts, tokens, batch=5)
    text, image = (part.flatten() for part in torch.meshgrid(torch.arange(4), torch.arange(3), indexing="ij"))
    found = score(text, image).view(4, 3)
    for q, sentence in enumerate(texts):
        for i in range(3):
            out = model(pixels[i : i + 1], image_keys=[i + 1], **processor(text=sentence))
            assert float(found[q, i]) == pytest.approx(float(out.itm_logits[0, 1] - out.itm_logits[0, 0]), abs=1e-5)
    assert len(set(found.flatten().tolist())) == 12, "a constant score would prove nothing"


def test_numbers_of_candidates_exist_for_benchmarks_with_captions() -> None:
    assert CANDIDATES == {"coco-captions": 256, "flickr30k": 128}
    assert {name for name, reader in BENCHMARKS.items() if reader in (CocoCaptions, Flickr30K)} == {*CANDIDATES}


@torch.inference_mode()
def test_the_rankings_of_a_split(retrieval_model, corpus) -> None:
    """Recalls, costs and lost R@1 on real images; recalls are recomputed from single pairs."""
    model, processor = retrieval_model
    pairs, chosen = Pairs(open_source(corpus), ["train"], 64), [0, 3, 5, 8, 11, 20]
    measured = RetrievalSet.of_pairs(pairs, chosen)
    options = EvaluationOptions(candidates=2, exhaustive=True, progress=False)
    ranked = rank(model, processor.tokenizer, measured, options=options)
    entries = ranked.to_list()
    assert [entry["ranking"] for entry in entries] == [
        "ITC",
        "ITC, then ITM on the best 2",
        "ITC, then ITC + ITM on the best 2",
        "ITM on all pairs",
        "ITC + ITM on all pairs",
    ]
    costs = [entry["cost"]["pairs"] for entry in entries]
    assert costs == [0, costs[1], costs[1], 36, 36] and 12 <= costs[1] <= 24
    for entry, best in zip(entries, (4, 3, 4), strict=False):
        for way in ("text_to_image", "image_to_text"):
            assert entry["lost"][way] == entries[best][way]["R@1"] - entry[way]["R@1"]
    hits, hits_of_both, tau = [], [], float(model.temperature())
    for i in chosen:
        seen = {"pixel_values": pairs.on_white([i]), "image_keys": [image_key(pairs.image_ids[i])]}
        out = [model(**seen, **processor(text=pairs.names[j])) for j in chosen]
        odds = np.array([float(one.itm_logits[0].diff()) for one in out])
        both = odds + [float(one.image_embeds[0] @ one.text_embeds[0]) / tau for one in out]
        hits.append(chosen[int(np.argmax(odds))] == i)
        hits_of_both.append(chosen[int(np.argmax(both))] == i)
    assert entries[3]["image_to_text"]["R@1"] == pytest.approx(np.mean(hits))
    assert entries[4]["image_to_text"]["R@1"] == pytest.approx(np.mean(hits_of_both))

    def rows() -> list[dict]:
        found = Retrieved("both", measured, {"reset": ranked}, own=True)
        split = SplitResult("retrieval", "images", "train", len(chosen), "both", found)
        models = [ModelResult("small", None, None, [split], on_record=True)]
        return Evaluation("retrieval", "images", models, {"device": "", "torch": ""}).as_rows()

    assert [row["pairs scored"] for row in rows()][-2:] == [36, 36]
    assert [row["R@1 lost"] for row in rows()][-2:] == ["", ""]
    ranked.entries = {"ITC": ranked.main}
    assert "pairs scored" not in rows()[0], "without ITM the table has no costs"


def test_equal_images_tie_in_every_ranking() -> None:
    """A blind model whose log-odds differ only by rounding: it finds no correct image, and k candidates remain k."""
    text, image = embeddings(30, 1, 256)
    image = image.expand(41, -1).contiguous()
    noise = 1e-6 * torch.rand(30, 41, generator=torch.Generator().manual_seed(1))
    gold_text = torch.arange(41) % 30
    found = rank_every_way(text, image, lambda t, p: noise[t, p], 0.07, 5, exhaustive=True, progress=False)
    for name, ranking in found.items():
        recalls = ranking.recalls(torch.arange(30), gold_text, (4, 40))["text_to_image"]
        candidates = 5 if "on the best" in name else 0  # images 0 to 4
        assert recalls == {"R@4": 0, "R@40": candidates / 30}, name
    asked: list[tuple[int, int]] = []

    def match(t: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
        asked.extend(zip(t.tolist(), p.tolist(), strict=True))
        return noise[t, p]

    rank_every_way(text, image, match, 0.07, 5, progress=False)
    of_images = (text.double() @ image[0].double()).topk(5).indices.tolist()
    assert sorted(asked) == sorted({(t, p) for t in range(30) for p in range(41) if p < 5 or t in of_images})


@pytest.mark.slow
def test_the_size_of_the_test_split_of_coco() -> None:
    """5,000 images, 25,000 captions, 256 candidates: every query against a loop in numpy."""
    images, captions, k, tau = 5000, 25_000, 256, 0.07
    draw = torch.Generator().manual_seed(0)
    image = torch.nn.functional.normalize(torch.randn(images, 32, generator=draw))
    owners = torch.arange(images).repeat_interleave(5)
    text = torch.nn.functional.normalize(image[owners] + 0.3 * torch.randn(captions, 32, generator=draw))
    noise = torch.randn(captions, 4, generator=draw), torch.randn(images, 4, generator=draw)

    def match(t: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
        return (noise[0][t] * noise[1][p]).sum(1) + 4.0 * (owners[t] == p)

    found = rank_every_way(text, image, match, tau, k, progress=False)
    itc = products(text, image).numpy()
    itm = (noise[0] @ noise[1].T).numpy()
    itm[np.arange(captions), owners.numpy()] += 4.0
    for name, second, scale in (("ITM", itm, LOG_ODDS), ("ITC + ITM", itm + itc / tau, LOG_ODDS + 1 / tau)):

        def as_high(scores: np.ndarray, own: float, scale: float = scale) -> tuple[int, int]:
            """Numbers of equal or higher scores, for a slightly smaller and a slightly larger tolerance."""
            gap = TIE * max(abs(own), scale)
            return (scores >= own - 0.9 * gap).sum(), (scores >= own - 1.1 * gap).sum()

        ranking = found[f"ITC, then {name} on the best {k}"]
        places = ranks(ranking.text_to_image, owners, ranking.scale).numpy()
        for caption in range(captions):
            own = int(owners[caption])
            better = np.argpartition(-itc[caption], k - 1)[:k]
            if own in better:
                low, high = as_high(second[caption, better], second[caption, own])
                assert low <= places[caption] <= high, (name, caption)
            else:  # below the candidates, where similarities were shifted by the range of the candidates' scores
                low, high = ((itc[caption] >= itc[caption, own] + gap).sum() for gap in (1e-4, -1e-4))
                assert low <= places[caption] <= high, (name, caption)
        gold = [set(range(5 * i, 5 * i + 5)) for i in range(images)]
        places = ranks(ranking.image_to_text, gold, ranking.scale).numpy()
        for image in range(images):
            better = np.argsort(-itc[:, image], kind="stable")[:k]
            is_own = owners.numpy()[better] == image
            low, high = as_high(second[better[~is_own], image], second[better[is_own], image].max())
            assert low + 1 <= places[image] <= high + 1, (name, image)
    cost = found[f"ITC, then ITM on the best {k}"].cost
    assert cost.of == images * captions and k * captions <= cost.pairs <= k * (captions + images)
