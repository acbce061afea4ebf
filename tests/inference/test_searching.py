"""Search against every picture compared by itself: the order of ITC, of ITM, and what cannot be searched."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path

import pytest
import torch

import ashnets
from ashnets import PictureSearch
from ashnets.cli.search import index as index_command
from ashnets.cli.search import search as search_command
from ashnets.errors import DataError, InputError, UnknownModelError, WeightsError
from ashnets.inference.store import index_folder

QUERIES = ["a red car", "fox", "two dogs on a hill"]


@torch.inference_mode()
def brute_force(model: Path, pictures: Path, query: str) -> dict[str, tuple[float, float, float]]:
    """Path → cosine, matching probability, and cosine/τ + log-odds of matching, by the model on one pair at a time."""
    loaded = ashnets.from_pretrained(model, task="retrieval")
    processor = ashnets.AshNetsProcessor.from_pretrained(model)
    found = {}
    for path in sorted(pictures.rglob("[0-9][0-9].png")):
        out = loaded(**processor(images=path, text=query))
        cosine = float((out.text_embeds @ out.image_embeds.T).squeeze())
        odds = float(out.itm_logits[0, 1] - out.itm_logits[0, 0])
        both = cosine / float(loaded.temperature()) + odds
        found[path.relative_to(pictures).as_posix()] = cosine, float(out.itm_logits.softmax(1)[0, 1]), both
    return found


def test_the_order_is_that_of_all_pictures_one_by_one(pictures, model):
    search = PictureSearch(pictures, model, progress=False)
    assert len(search) == 21
    assert set(search.unreadable) == {"a/broken.jpg", "empty.png"}
    together = search(QUERIES, top=21)
    for query, hits in zip(QUERIES, together, strict=True):
        exact = brute_force(model, pictures, query)
        assert [hit["picture"] for hit in hits] == sorted(exact, key=lambda path: -exact[path][0])
        for hit in hits:
            assert hit["score"] == pytest.approx(exact[hit["picture"]][0], abs=1e-5)
            assert hit["path"] == str(pictures / hit["picture"])
        alone = search(query, top=3)
        assert [hit["picture"] for hit in alone] == [hit["picture"] for hit in hits[:3]]
        assert set(alone[0]) == {"picture", "path", "score"}
    assert len(search("fox", top=1000)) == 21


def test_matching_orders_the_candidates_anew(pictures, model):
    search = PictureSearch(pictures, model, progress=False)
    exact = brute_force(model, pictures, "fox")
    by_cosine = sorted(exact, key=lambda path: -exact[path][0])
    expected = sorted(by_cosine[:8], key=lambda path: -exact[path][2])
    assert expected != by_cosine[:8] and expected != sorted(by_cosine[:8], key=lambda path: -exact[path][1])
    hits = search("fox", top=12, rerank=8)
    assert [hit["picture"] for hit in hits] == expected + by_cosine[8:12]
    for hit in hits[:8]:
        assert hit["matching"] == pytest.approx(exact[hit["picture"]][1], abs=1e-5)
    assert [hit["matching"] for hit in hits[8:]] == [None] * 4
    assert [hit["picture"] for hit in search("fox", top=3, rerank=8)] == expected[:3]
    # a candidate that has gone since cannot be matched: it goes behind those that were
    (pictures / expected[0]).unlink()
    assert [hit["picture"] for hit in search("fox", top=8, rerank=8)] == [*expected[1:], expected[0]]


def test_equal_pictures_stand_in_the_order_of_their_paths(pictures, model):
    """Wherever they were in the batches of the index and of the matching head, and whatever was asked for."""
    copies = ["a/01.png", *(f"a/copy-{i}.png" for i in range(9)), "z.png"]
    for name in copies[1:]:
        shutil.copy(pictures / copies[0], pictures / name)
    ashnets.index(pictures, "mine", model, batch=7, progress=False)
    search = PictureSearch("mine", model)
    for rerank in (0, 31):
        hits = search("fox", top=31, rerank=rerank)
        equal = [hit for hit in hits if hit["picture"] in copies]
        assert [hit["picture"] for hit in equal] == copies
        assert len({(hit["score"], hit.get("matching")) for hit in equal}) == 1
        assert all(hits.index(b) == hits.index(a) + 1 for a, b in itertools.pairwise(equal))
        for top in (1, 5, 15, 30):
            found = search(["a red car", "fox"], top=top, rerank=rerank)[1]
            assert [hit["picture"] for hit in found] == [hit["picture"] for hit in hits[:top]]


def test_a_folder_is_brought_up_to_date_and_an_index_is_not(pictures, model, draw, tmp_path):
    PictureSearch(pictures, model, progress=False)
    ashnets.index(pictures, "mine", model, progress=False)
    draw(pictures / "new.png", seed=80)
    assert len(PictureSearch("mine")) == 21
    assert len(PictureSearch(index_folder("mine"))) == 21
    assert len(PictureSearch(pictures, model, progress=False)) == 22
    hits = ashnets.search(pictures, "fox", top=22, model=model, progress=False)
    assert "new.png" in [hit["picture"] for hit in hits]


def test_what_cannot_be_searched(pictures, model, other_model, vqa_model, tmp_path):
    ashnets.index(pictures, "mine", model, progress=False)
    with pytest.raises(WeightsError, match="cannot be compared"):
        PictureSearch("mine", other_model)
    with pytest.raises(WeightsError, match="do not fit"):
        PictureSearch(pictures, vqa_model, progress=False)
    with pytest.raises(DataError, match="neither a folder of pictures nor the name of an index"):
        PictureSearch("no-such-index")
    with pytest.raises(DataError, match="is a file"):
        PictureSearch(pictures / "a" / "01.png")
    gone = shutil.copytree(model, tmp_path / "gone")
    ashnets.index(pictures, "by-gone", gone, progress=False)
    shutil.rmtree(gone)
    with pytest.raises(UnknownModelError, match="gone"):
        PictureSearch("by-gone")
    search = PictureSearch("mine")
    for query, options in (("", {}), ([], {}), ("fox", {"top": 0}), ("fox", {"rerank": -1})):
        with pytest.raises(InputError):
            search(query, **options)


def test_the_commands(pictures, model, capsys):
    index_command(pictures, "mine", str(model))
    out, err = capsys.readouterr()
    assert "pictures: 21\n" in out
    assert "unreadable: 2" in out
    assert "broken.jpg" in err
    assert "left out: 2" in err
    index_command(pictures, "mine", str(model), as_json_=True)
    told = json.loads(capsys.readouterr().out)
    assert (told["pictures"], told["embedded"], sorted(told["unreadable"])) == (21, 0, ["a/broken.jpg", "empty.png"])

    search_command("mine", "fox", top=4, rerank=2)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["rank", "score", "matching", "picture"]
    assert [line.split()[0] for line in lines[1:]] == ["1", "2", "3", "4"]
    search_command("mine", "fox", top=4, rerank=2, as_json_=True)
    told = json.loads(capsys.readouterr().out)
    assert told["hits"] == PictureSearch("mine")("fox", top=4, rerank=2)
    assert (told["query"], told["pictures"], told["unreadable"]) == ("fox", 21, 2)


@pytest.mark.parametrize("name", ["PictureQuestions", "PictureSearch", "ask", "index", "search"])
def test_the_public_face_offers_them(name):
    assert name in dir(ashnets)
    assert getattr(ashnets, name).__module__.startswith("ashnets.inference.")
