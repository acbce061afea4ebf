"""Search against comparisons with single images: the order of ITC and of ITM, and refused searches."""

from __future__ import annotations

import base64
import io
import itertools
import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

import ashnets
from ashnets import ImageSearch
from ashnets.cli.search import index as index_command
from ashnets.cli.search import search as search_command
from ashnets.errors import DataError, InputError, OutputError, UnknownModelError, WeightsError
from ashnets.image_search.store import index_folder

QUERIES = ["a red car", "fox", "two dogs on a hill"]


@torch.inference_mode()
def brute_force(model: Path, images: Path, query: str) -> dict[str, tuple[float, float, float]]:
    """Path → cosine, matching probability, and cosine/τ + log-odds of matching, computed for single pairs."""
    loaded = ashnets.from_pretrained(model, task="retrieval")
    processor = ashnets.AshNetsProcessor.from_pretrained(model)
    found = {}
    for path in sorted(images.rglob("[0-9][0-9].png")):
        out = loaded(**processor(images=path, text=query))
        cosine = float((out.text_embeds @ out.image_embeds.T).squeeze())
        odds = float(out.itm_logits[0, 1] - out.itm_logits[0, 0])
        both = cosine / float(loaded.temperature()) + odds
        found[path.relative_to(images).as_posix()] = cosine, float(out.itm_logits.softmax(1)[0, 1]), both
    return found


def test_the_order_is_that_of_all_images_one_by_one(images, model):
    search = ImageSearch(images, model, progress=False)
    assert len(search) == 21
    assert set(search.unreadable) == {"a/broken.jpg", "empty.png"}
    together = search(QUERIES, top=21)
    for query, hits in zip(QUERIES, together, strict=True):
        exact = brute_force(model, images, query)
        assert [hit["image"] for hit in hits] == sorted(exact, key=lambda path: -exact[path][0])
        for hit in hits:
            assert hit["score"] == pytest.approx(exact[hit["image"]][0], abs=1e-5)
            assert hit["path"] == str(images / hit["image"])
        alone = search(query, top=3)
        assert [hit["image"] for hit in alone] == [hit["image"] for hit in hits[:3]]
        assert set(alone[0]) == {"image", "path", "score"}
    assert len(search("fox", top=1000)) == 21


@torch.inference_mode()
def test_an_image_finds_itself_then_the_nearest_embeddings(images, model):
    search = ImageSearch(images, model, progress=False)
    loaded = ashnets.from_pretrained(model, task="retrieval")
    embeds = {}
    for path in sorted(images.rglob("[0-9][0-9].png")):
        embeds[path.relative_to(images).as_posix()] = loaded(**search.processor(images=path)).image_embeds[0]
    cosines = {name: float(embed @ embeds["a/04.png"]) for name, embed in embeds.items()}
    hits = search.similar(images / "a" / "04.png", top=30)
    assert hits[0]["image"] == "a/04.png" and len(hits) == 21
    assert {hit["image"]: hit["score"] for hit in hits} == pytest.approx(cosines, abs=1e-5)
    assert search.similar((images / "a" / "04.png").read_bytes(), top=3) == hits[:3], "the content alone counts"
    with pytest.raises(InputError, match="damaged"):
        search.similar(images / "a" / "broken.jpg")
    with pytest.raises(InputError, match="top=0"):
        search.similar(images / "a" / "04.png", top=0)


def test_matching_orders_the_candidates_anew(images, model):
    search = ImageSearch(images, model, progress=False)
    exact = brute_force(model, images, "fox")
    by_cosine = sorted(exact, key=lambda path: -exact[path][0])
    expected = sorted(by_cosine[:8], key=lambda path: -exact[path][2])
    assert expected != by_cosine[:8] and expected != sorted(by_cosine[:8], key=lambda path: -exact[path][1])
    hits = search("fox", top=12, rerank=8)
    assert [hit["image"] for hit in hits] == expected + by_cosine[8:12]
    for hit in hits[:8]:
        assert hit["matching"] == pytest.approx(exact[hit["image"]][1], abs=1e-5)
    assert [hit["matching"] for hit in hits[8:]] == [None] * 4
    assert [hit["image"] for hit in search("fox", top=3, rerank=8)] == expected[:3]
    # a candidate that has gone since cannot be matched: it goes behind those that were
    (images / expected[0]).unlink()
    assert [hit["image"] for hit in search("fox", top=8, rerank=8)] == [*expected[1:], expected[0]]


def test_equal_images_stand_in_the_order_of_their_paths(images, model):
    """At any place in the batches of the index and of the matching head, and for any query."""
    copies = ["a/01.png", *(f"a/copy-{i}.png" for i in range(9)), "z.png"]
    for name in copies[1:]:
        shutil.copy(images / copies[0], images / name)
    ashnets.index(images, "mine", model, batch=7, progress=False)
    search = ImageSearch("mine", model)
    for rerank in (0, 31):
        hits = search("fox", top=31, rerank=rerank)
        equal = [hit for hit in hits if hit["image"] in copies]
        assert [hit["image"] for hit in equal] == copies
        assert len({(hit["score"], hit.get("matching")) for hit in equal}) == 1
        assert all(hits.index(b) == hits.index(a) + 1 for a, b in itertools.pairwise(equal))
        for top in (1, 5, 15, 30):
            found = search(["a red car", "fox"], top=top, rerank=rerank)[1]
            assert [hit["image"] for hit in found] == [hit["image"] for hit in hits[:top]]


def test_a_folder_is_brought_up_to_date_and_an_index_is_not(images, model, draw, tmp_path):
    ImageSearch(images, model, progress=False)
    ashnets.index(images, "mine", model, progress=False)
    draw(images / "new.png", seed=80)
    assert len(ImageSearch("mine")) == 21
    assert len(ImageSearch(index_folder("mine"))) == 21
    assert len(ImageSearch(images, model, progress=False)) == 22
    hits = ashnets.search(images, "fox", top=22, model=model, progress=False)
    assert "new.png" in [hit["image"] for hit in hits]


def test_what_cannot_be_searched(images, model, other_model, vqa_model, tmp_path):
    ashnets.index(images, "mine", model, progress=False)
    with pytest.raises(WeightsError, match="cannot be compared"):
        ImageSearch("mine", other_model)
    with pytest.raises(WeightsError, match="lack the task 'retrieval'"):
        ImageSearch(images, vqa_model, progress=False)
    for url in ("https://example.org/cats", Path("https://example.org/cats")):
        with pytest.raises(DataError, match=r"^https://example\.org/cats is a URL: download the images"):
            ImageSearch(url)
        with pytest.raises(DataError, match=r"^https://example\.org/cats is a URL: download the images"):
            ashnets.index(url)
    with pytest.raises(InputError, match="the query ' ' is empty: give at least one word"):
        ashnets.search("no such folder", " ")
    with pytest.raises(DataError, match="neither a folder of images nor the name of an index"):
        ImageSearch("no-such-index")
    with pytest.raises(DataError, match="is a file"):
        ImageSearch(images / "a" / "01.png")
    gone = shutil.copytree(model, tmp_path / "gone")
    ashnets.index(images, "by-gone", gone, progress=False)
    shutil.rmtree(gone)
    with pytest.raises(UnknownModelError, match="gone"):
        ImageSearch("by-gone")
    search = ImageSearch("mine")
    for query, options, message in (
        ("", {}, "text is empty"),
        ([], {}, "text is an empty list"),
        ("fox", {"top": 0}, "top=0, rerank=0: give at least 1, and at least 0"),
        ("fox", {"rerank": -1}, "rerank=-1: give at least 1, and at least 0"),
    ):
        with pytest.raises(InputError, match=message):
            search(query, **options)


def test_the_commands(images, model, capsys):
    index_command(images, "mine", str(model))
    out, err = capsys.readouterr()
    assert "images: 21\n" in out
    assert "unreadable: 2" in out
    assert "broken.jpg" in err
    assert "left out: 2" in err
    index_command(images, "mine", str(model), as_json_=True)
    told = json.loads(capsys.readouterr().out)
    assert (told["images"], told["embedded"], sorted(told["unreadable"])) == (21, 0, ["a/broken.jpg", "empty.png"])

    search_command("mine", "fox", top=4, rerank=2)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["rank", "score", "matching", "image"]
    assert [line.split()[0] for line in lines[1:]] == ["1", "2", "3", "4"]
    search_command("mine", "fox", top=4, rerank=2, as_json_=True)
    told = json.loads(capsys.readouterr().out)
    assert told["hits"] == ImageSearch("mine")("fox", top=4, rerank=2)
    assert (told["query"], told["images"], told["unreadable"]) == ("fox", 21, 2)


def test_the_page_shows_every_hit_and_names_unknown_words(images, model, tmp_path, capsys):
    """The small model's vocabulary has letters alone, so it knows no word of more than two."""
    page = tmp_path / "out" / "fox.html"
    with pytest.warns(UserWarning, match="no piece for '&'"):
        hits = ashnets.search(images, "a fox & <i>", top=5, model=model, page=page, progress=False)
    text = page.read_text(encoding="utf-8")
    shown = [base64.b64decode(data) for data in re.findall(r'src="data:image/png;base64,([^"]+)"', text)]
    assert [Image.open(io.BytesIO(one)).size for one in shown] == [(45, 36)] * 5
    said = re.findall(r"<p>(\d)\. score (-?\d\.\d{3})</p><p class=\"soft\">([^<]+)</p>", text)
    assert said == [(str(i), f"{hit['score']:.3f}", hit["image"]) for i, hit in enumerate(hits, start=1)]
    assert "<h1>a fox &amp; &lt;i&gt;</h1>" in text and "does not know fox" in text
    assert "http" not in text and "src=" not in re.sub(r'src="data:', "", text), "self-contained"
    assert f"5 of 21 images of {images.name}, by {model.parent.name}/{model.name}" in text and str(images) not in text
    search_command(str(images), "a b", top=2, model=str(model), page=page)
    assert "note" not in capsys.readouterr().err and "does not know" not in page.read_text(encoding="utf-8")
    with pytest.raises(OutputError, match="cannot be written"):
        ashnets.search(images, "fox", model=model, page=images / "a" / "01.png" / "fox.html", progress=False)


@pytest.mark.parametrize("name", ["ImageQuestions", "ImageSearch", "ask", "index", "search"])
def test_the_public_face_offers_them(name):
    assert name in dir(ashnets)
    assert getattr(ashnets, name).__module__.startswith("ashnets.image_search.")
