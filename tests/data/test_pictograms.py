"""The pictogram corpus, built offline from tiny packages, against plain loops and known answers."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import textwrap
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ashnets.data.corpus import open_corpus, open_gallery
from ashnets.data.images import load_image, load_rgba
from ashnets.data.pictograms.building import build, build_gallery
from ashnets.data.pictograms.captions import sentences, spoken, with_article
from ashnets.data.pictograms.drawing import draw
from ashnets.data.pictograms.npm_packages import fetch, read_members
from ashnets.data.pictograms.sources import normal_code
from ashnets.data.pictograms.splits import choose_new, choose_valid
from ashnets.data.pictograms.suitable import suitable
from ashnets.data.pictograms.vendors import SOURCES
from ashnets.errors import DataError, InputError, OutputError

sys.path.insert(0, str(Path(__file__).parent))
import tiny_packages

ROOT = Path(__file__).parents[2]
FUNCTION_WORDS = set("a an and at by for from in into not of off on or over the to under with without".split())


def build_tiny(folder: Path, name: str = "corpus", **options) -> dict:
    sources = tiny_packages.make(folder / "cache")
    settings = {"new_concepts": 4, "valid_share": 0.1, "size": 48, "progress": False, **options}
    return build(folder / name, cache=folder / "cache", sources=sources, **settings)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    manifest = build_tiny(folder)
    corpus = open_corpus(folder / "corpus", verify=True)
    return manifest, corpus, {name: list(corpus.split(name)) for name in corpus.splits}


def shared_words(first: str, second: str) -> set[str]:
    """Content words that two names share, plural s apart: a plain reading of the rule."""
    sets = []
    for name in (first, second):
        words = [w for w in re.split(r"[^a-z0-9]+", name.lower()) if w and w not in FUNCTION_WORDS]
        sets.append({w[:-1] if w.endswith("s") and not w.endswith("ss") else w for w in words})
    return sets[0] & sets[1]


def test_rows_are_whole_and_vendors_stay_apart(tiny):
    _, corpus, splits = tiny
    tests = {f"test-{vendor}-{kind}" for vendor in ("west", "east") for kind in ("seen", "new")}
    assert set(corpus.splits) == {"train", "valid"} | tests
    every = [row for rows in splits.values() for row in rows]
    ids = [row["image_id"] for row in every]
    assert len(ids) == len(set(ids))
    names = {normal_code(tiny_packages.code(c)): (name, group) for c, name, group in tiny_packages.CONCEPTS}
    for row in every:
        assert row["image_id"] == f"{row['vendor']}/{row['concept']}"
        assert (row["name"], row["group"]) == names[row["concept"]] and row["subgroup"] == "some-thing"
        assert row["captions"][0] == row["name"].lower() and len(row["captions"]) >= 5
    assert {row["vendor"] for row in splits["train"] + splits["valid"]} == {"alpha", "beta", "gamma", "delta"}
    for vendor in ("west", "east"):
        assert {row["vendor"] for kind in ("seen", "new") for row in splits[f"test-{vendor}-{kind}"]} == {vendor}


def test_new_concepts_share_no_word_with_any_other(tiny):
    _, _, splits = tiny
    new = {row["name"] for row in splits["test-west-new"]}
    others = {name for _, name, _ in tiny_packages.CONCEPTS} - new
    assert len(new) == 4
    assert new == {row["name"] for row in splits["test-east-new"]}
    assert not new & {row["name"] for row in splits["train"] + splits["valid"] + splits["test-west-seen"]}
    for name in new:
        for other in others:
            assert not shared_words(name, other)


def test_seen_concepts_keep_training_drawings(tiny):
    _, _, splits = tiny
    in_train = [row["concept"] for row in splits["train"]]
    for name in ("test-west-seen", "test-east-seen"):
        assert splits[name] and all(row["concept"] in in_train for row in splits[name])
    assert splits["valid"]
    assert len({row["concept"] for row in splits["valid"]}) == len(splits["valid"])
    assert all(in_train.count(row["concept"]) >= 2 for row in splits["valid"])


def test_images_are_the_vendors_own(tiny):
    _, _, splits = tiny
    images = {row["image_id"]: load_rgba(row["image"]) for rows in splits.values() for row in rows}
    for image_id, image in images.items():
        assert image.mode == "RGBA" and max(image.size) == 48, image_id
    west = {row["image_id"]: row["image"] for kind in ("seen", "new") for row in splits[f"test-west-{kind}"]}
    for position, (character, _, _) in enumerate(tiny_packages.CONCEPTS):
        image = load_image(west[f"west/{normal_code(tiny_packages.code(character))}"])
        assert image.getpixel((20, 20)) == (0, 0, 20 * position)
    for code, color in {"1f34e": (0, 0, 255), "1f34f": (0, 255, 0)}.items():  # beta: by name, and by alias
        if f"beta/{code}" in images:
            assert images[f"beta/{code}"].convert("RGB").getpixel((24, 24)) == color
    assert images["gamma/1f34e"].convert("RGB").getpixel((24, 24)) == (0x10, 0x20, 0x30)
    assert images["delta/1f34e"].convert("RGB").getpixel((24, 24)) == (0, 99, 0)


def test_manifest_counts_and_losses(tiny, tmp_path):
    manifest, corpus, splits = tiny
    assert manifest == json.loads((corpus.path / "manifest.json").read_text())
    for name, rows in splits.items():
        entry = manifest["splits"][name]
        assert entry["rows"] == len(rows) == sum(entry["vendors"].values())
        assert entry["sha256"] == hashlib.sha256((corpus.path / entry["file"]).read_bytes()).hexdigest()
        images = [row["image"] for row in rows]
        assert entry["repeated drawings"] == sum(image in images[:i] for i, image in enumerate(images))
        for vendor, count in entry["vendors"].items():
            assert count == sum(row["vendor"] == vendor for row in rows)
    assert {p["name"] for p in manifest["packages"]} == {
        "names",
        "@tiny/keywords",
        "alpha",
        "@tiny/beta",
        "gamma",
        "delta",
        "west",
        "east",
    }
    assert all(len(p["sha256"]) == 64 and p["license"] and p["attribution"] for p in manifest["packages"])
    vendors = manifest["vendors"]
    assert {name: entry["concepts"] for name, entry in vendors.items()} == {
        "alpha": 12,
        "beta": 3,
        "gamma": 12,
        "delta": 9,
        "west": 12,
        "east": 12,
    }
    assert vendors["alpha"]["losses"]["skin-tone variants"] == 1
    assert vendors["alpha"]["losses"]["other files outside the concept list"] == 1
    assert vendors["beta"]["losses"] == {
        "skin-tone variants": 1,
        "flags": 1,
        "second drawings of a concept": 1,
        "names without a concept": ["unheard-of"],
    }
    assert manifest["rules"]["left out"]["country and subdivision flags"] == 2
    assert "http" not in json.dumps(manifest)


def test_keywords_are_cleaned(tiny):
    _, _, splits = tiny
    rows = {row["name"]: row for name in splits if "west" in name for row in splits[name]}
    assert rows["red apple"]["keywords"] == ["fruit", "apple pie"]  # its own name, foreign signs and a vendor are out
    assert rows["fish"]["keywords"] == ["sea", "animal"]  # no unsuitable word
    assert rows["oak"]["keywords"] == []


def test_same_seed_same_bytes_other_seed_other_choice(tiny, tmp_path):
    manifest, _, _ = tiny
    again = build_tiny(tmp_path, "again")
    assert again == manifest
    other = [build_tiny(tmp_path, f"seed{seed}", seed=seed)["concepts"]["new"] for seed in (1, 2, 3)]
    assert any(new != manifest["concepts"]["new"] for new in other)


def test_a_complete_corpus_is_not_overwritten_unless_asked(tmp_path):
    first = build_tiny(tmp_path)
    with pytest.raises(OutputError, match="force=True"):
        build_tiny(tmp_path, size=32)
    assert open_corpus(tmp_path / "corpus", verify=True).manifest == first
    second = build_tiny(tmp_path, size=32, force=True)
    assert open_corpus(tmp_path / "corpus", verify=True).manifest == second != first
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cache", "corpus"]


def test_a_foreign_folder_is_left_alone(tmp_path):
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "letters.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"letters\.txt.* no manifest\.json"):
        build_tiny(tmp_path, force=True)
    assert (tmp_path / "corpus" / "letters.txt").read_text() == "mine"
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match="is a file"):
        build_tiny(tmp_path, "file")


@pytest.mark.parametrize("options", [{"size": 4}, {"size": 5000}, {"new_concepts": -1}, {"valid_share": 0.9}])
def test_impossible_settings(tmp_path, options):
    with pytest.raises(InputError, match=next(iter(options))):
        build_tiny(tmp_path, **options)
    assert not (tmp_path / "corpus").exists()


@pytest.mark.parametrize("moment", ["_row", "_manifest"])
def test_a_killed_build_leaves_no_corpus_and_restarts(tmp_path, moment):
    script = textwrap.dedent(
        f"""
        import os, signal, sys
        from pathlib import Path
        sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / "tests" / "data")!r}]
        import test_pictograms
        from ashnets.data.pictograms import building as pictograms
        work, calls = pictograms.{moment}, []

        def die(*args):
            calls.append(1)
            if len(calls) == (5 if {moment!r} == "_row" else 1):
                os.kill(os.getpid(), signal.SIGKILL)
            return work(*args)

        pictograms.{moment} = die
        test_pictograms.build_tiny(Path({str(tmp_path)!r}))
        """
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert run.returncode == -signal.SIGKILL, run.stderr
    assert list(tmp_path.glob(".corpus.*.part")) and not (tmp_path / "corpus").exists()
    with pytest.raises(DataError, match=r"no manifest\.json"):
        open_corpus(tmp_path / "corpus")
    build_tiny(tmp_path)
    open_corpus(tmp_path / "corpus", verify=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cache", "corpus"]


# --- packages -------------------------------------------------------------------------------------------------------


def stub_npm(folder: Path, body: str, monkeypatch) -> None:
    """A program named npm that does ``body``; the machine may have no npm and tests use no network."""
    folder.mkdir()
    (folder / "npm").write_text(f"#!/bin/sh\n{body}\n")
    (folder / "npm").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}/usr/bin{os.pathsep}/bin")


def test_npm_is_not_asked_when_the_cache_is_right(tmp_path, monkeypatch):
    stub_npm(tmp_path / "bin", "exit 9", monkeypatch)
    build_tiny(tmp_path)


def test_npm_replaces_a_damaged_tarball(tmp_path, monkeypatch):
    package = tiny_packages.make(tmp_path / "registry").vendors[1].package
    tiny_packages.make(tmp_path / "cache")
    (tmp_path / "cache" / package.tarball).write_bytes(b"half a fi")
    asked = '[ "$1 $2 $3" = "pack @tiny/beta@1.0.0 --pack-destination" ]'
    copy = f'{asked} && cp "{tmp_path}/registry/{package.tarball}" "$4"'
    stub_npm(tmp_path / "bin", copy, monkeypatch)
    path = fetch(package, tmp_path / "cache")
    assert path == tmp_path / "cache" / "tiny-beta-1.0.0.tgz"
    assert hashlib.sha256(path.read_bytes()).hexdigest() == package.sha256


def test_a_tarball_with_another_sha256_is_refused(tmp_path, monkeypatch):
    package = tiny_packages.make(tmp_path / "registry").vendors[0].package
    stub_npm(tmp_path / "bin", f'cp "{tmp_path}/registry/gamma-1.0.0.tgz" "$4/{package.tarball}"', monkeypatch)
    with pytest.raises(DataError, match=f"pinned is {package.sha256}"):
        fetch(package, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_missing_npm_and_unreachable_registry(tmp_path, monkeypatch):
    package = SOURCES.names
    stub_npm(tmp_path / "bin", "echo 'npm error code ENOTFOUND' >&2; exit 1", monkeypatch)
    with pytest.raises(DataError, match=r"could not fetch unicode-emoji-json@0\.9\.0: npm error code ENOTFOUND"):
        build(tmp_path / "corpus", cache=tmp_path / "cache", progress=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DataError, match="npm was not found"):
        fetch(package, tmp_path / "cache")
    assert not (tmp_path / "corpus").exists()


def test_archives_cannot_reach_outside_and_damage_is_named(tmp_path):
    evil = tmp_path / "evil.tgz"
    tiny_packages.write_tarball(evil, {"good.txt": b"1", "../../evil.txt": b"2"})
    with pytest.raises(DataError, match="points outside"):
        read_members(evil, lambda name: True)
    with tarfile.open(tmp_path / "link.tgz", "w:gz") as archive:
        link = tarfile.TarInfo("package/passwd")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    assert read_members(tmp_path / "link.tgz", lambda name: True) == {}
    whole = tmp_path / "whole.tgz"
    tiny_packages.write_tarball(whole, {"noise": np.random.default_rng(0).bytes(200_000)})
    whole.write_bytes(whole.read_bytes()[:100_000])
    with pytest.raises(DataError, match="damaged"):
        read_members(whole, lambda name: True)
    (tmp_path / "text.tgz").write_text("no archive")
    with pytest.raises(DataError, match="damaged"):
        read_members(tmp_path / "text.tgz", lambda name: True)
    assert not (tmp_path.parent / "evil.txt").exists()


def test_a_package_without_its_content_is_named(tmp_path):
    sources = tiny_packages.make(tmp_path / "cache")
    empty = replace(sources.vendors[2], folder="elsewhere")
    with pytest.raises(DataError, match=r"gamma@1\.0\.0: no drawing"):
        build(tmp_path / "c", cache=tmp_path / "cache", progress=False, sources=replace(sources, vendors=(empty,)))
    nameless = replace(sources, names=sources.keywords)
    with pytest.raises(DataError, match=r"lacks data-by-emoji\.json"):
        build(tmp_path / "c", cache=tmp_path / "cache", progress=False, sources=nameless)
    assert not (tmp_path / "c").exists()


def test_drawings():
    wide = tiny_packages.svg("red").replace(b"0 0 32 32", b"0 0 20 10").replace(b'height="32"', b'height="10"')
    image = load_rgba(draw(wide, 40))
    assert image.size == (40, 40)
    assert image.getpixel((20, 20)) == (255, 0, 0, 255) and image.getpixel((20, 2))[3] == 0
    small = tiny_packages.png((1, 2, 3), 64)
    assert draw(small, 128) == small  # as published
    assert load_rgba(draw(small, 32)).size == (32, 32)
    assert load_rgba(draw(tiny_packages.png((9, 9, 9), 64, "P"), 128)).size == (64, 64)
    for broken in (b"<svg ", b"<svg >&&&</svg>", b"\x89PNG\r\n\x1a\n", b"", small[:90]):
        with pytest.raises(DataError, match="cannot be rendered"):
            draw(broken, 32)


def test_the_table_of_vendors():
    assert {v.name for v in SOURCES.vendors if v.test} == {"twitter", "openmoji"}
    assert {v.name for v in SOURCES.vendors if not v.test} == {
        "google",
        "fluent-3d",
        "fluent-flat",
        "emojione",
        "noto-v1",
        "fxemoji",
    }
    for package in SOURCES.packages():
        assert re.fullmatch(r"[0-9a-f]{64}", package.sha256) and re.fullmatch(r"\d+\.\d+\.\d+", package.version)
        assert package.license in {"MIT", "Apache-2.0", "CC-BY-4.0", "CC-BY-SA-4.0"} and package.attribution
    for vendor in SOURCES.vendors:
        assert len({name for name, _ in vendor.spellings}) == len(vendor.spellings)


# --- splits ---------------------------------------------------------------------------------------------------------

NAMES = st.lists(st.lists(st.sampled_from("ash oak elms elm fig of the red reds sea".split()), min_size=1, max_size=3))


@given(names=NAMES, count=st.integers(0, 8), seed=st.integers(0, 5))
def test_isolation_by_word_holds_for_any_names(names, count, seed):
    table = {f"{i:04x}": " ".join(words) for i, words in enumerate(names)}
    chosen = choose_new(table, set(table), count=count, seed=seed)
    assert len(chosen) <= count and chosen <= set(table)
    for code in chosen:
        for other in set(table) - chosen:
            assert not shared_words(table[code], table[other])


@given(
    st.sets(st.tuples(st.sampled_from("abcde"), st.sampled_from([f"1f60{i}" for i in range(9)])), max_size=40),
    st.floats(0, 0.5),
)
def test_validation_takes_one_of_a_concept_and_leaves_two(pairs, share):
    drawings = sorted(pairs)
    valid = choose_valid(drawings, share=share, seed=0)
    assert valid <= pairs and len(valid) <= round(share * len(pairs))
    left = [code for _, code in pairs - valid]
    assert all(left.count(code) >= 2 for _, code in valid)
    assert len({code for _, code in valid}) == len(valid)


# --- sentences ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("phrase", "expected"),
    [
        ("red apple", "a red apple"),
        ("eye", "an eye"),
        ("grapes", "grapes"),
        ("unicorn", "a unicorn"),
        ("umbrella", "an umbrella"),
        ("hourglass done", "an hourglass done"),
        ("house", "a house"),
        ("one-piece swimsuit", "a one-piece swimsuit"),
        ("onion", "an onion"),
        ("ewe", "a ewe"),
        ("euro banknote", "a euro banknote"),
        ("x-ray", "an x-ray"),
        ("sos button", "an sos button"),
        ("b button (blood type)", "b button (blood type)"),
        ("a button (blood type)", "a button (blood type)"),
        ("ab button (blood type)", "an ab button (blood type)"),
        ("twelve o'clock", "twelve o'clock"),
        ("six-thirty", "six-thirty"),
        ("keycap 10", "keycap 10"),
        ("1st place medal", "a 1st place medal"),
        ("star-struck", "star-struck"),
        ("the scream", "the scream"),
        ("herb", "an herb"),
        ("kaaba", "the kaaba"),
        ("bus", "a bus"),
        ("compass", "a compass"),
        ("octopus", "an octopus"),
        ("face with rolling eyes", "a face with rolling eyes"),
        ("woman lifting weights", "a woman lifting weights"),
        ("people hugging", "people hugging"),
        ("money with wings", "money with wings"),
        ("cooked rice", "cooked rice"),
        ("sun", "the sun"),
        ("american football", "an american football"),
        ("office building", "an office building"),
        ("ring", "a ring"),
    ],
)
def test_articles(phrase, expected):
    assert with_article(phrase) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("woman red hair", "woman with red hair"),
        ("person bald", "bald person"),
        ("man beard", "man with a beard"),
        ("family man, woman, boy", "family of man, woman and boy"),
        ("couple with heart woman, man", "couple with heart, woman and man"),
        ("Japanese “vacancy” button", "japanese vacancy button"),
        ("men’s room", "men's room"),
        ("OK hand", "ok hand"),
    ],
)
def test_spoken_names(name, expected):
    assert spoken(name) == expected


@given(
    st.text("abc xyz-", min_size=1).filter(str.strip),
    st.lists(st.sampled_from(["sea", "animal", "swim", "blue"]), unique=True),
    st.integers(0, 99),
)
def test_sentences(name, keywords, seed):
    made = sentences(name, keywords, "Food & Drink", "food-fruit", key=f"{seed} v/1")
    assert made == sentences(name, list(keywords), "Food & Drink", "food-fruit", key=f"{seed} v/1")
    assert made[0] == spoken(name) and len(made) == len(set(made)) >= 4
    assert all(text == text.lower() and "&" not in text for text in made)
    if len(keywords) == 1:
        assert keywords[0] in " ".join(made)


@pytest.mark.parametrize("text", ["molester", "a sexy cat", "Turds", "self-suicide", "kills"])
def test_unsuitable_words(text):
    assert not suitable(text)


@pytest.mark.parametrize("text", ["essex", "cockpit", "gay pride", "button", "shitake", "analysis"])
def test_suitable_words(text):
    assert suitable(text)


# --- gallery --------------------------------------------------------------------------------------------------------


def test_gallery_from_a_corpus(tiny, tmp_path):
    _, corpus, splits = tiny
    assert build_gallery(corpus, tmp_path / "g", vendor="west", seen=5, new=3) == 8
    gallery = open_gallery(tmp_path / "g")
    held_out = {row["image_id"]: row for kind in ("seen", "new") for row in splits[f"test-west-{kind}"]}
    for row in gallery.rows:
        assert row["path"].read_bytes() == held_out[row["image_id"]]["image"]
        assert row["captions"] == held_out[row["image_id"]]["captions"]
    assert len(gallery.of("seen")) == 5 and len(gallery.of("new")) == 3
    groups = [row["group"] for row in gallery.of("seen")]
    available = [row["group"] for row in splits["test-west-seen"]]
    assert len(set(groups)) == min(5, len(set(available)))  # as many groups as there are, before any second of one
    assert "The painters of west" in (tmp_path / "g" / "ATTRIBUTION.md").read_text()
    build_gallery(corpus, tmp_path / "h", vendor="west", seen=5, new=3)
    for path in (tmp_path / "g").rglob("*.*"):
        assert path.read_bytes() == (tmp_path / "h" / path.relative_to(tmp_path / "g")).read_bytes()
    with pytest.raises(OutputError, match="force=True"):
        build_gallery(corpus, tmp_path / "g", vendor="west", seen=1, new=1)
    with pytest.raises(DataError, match="the split has"):
        build_gallery(corpus, tmp_path / "i", vendor="west", seen=500)
    with pytest.raises(DataError, match="no vendor 'north'"):
        build_gallery(corpus, tmp_path / "i", vendor="north")


def test_the_bundled_gallery():
    folder = ROOT / "zoo" / "gallery"
    gallery = open_gallery(folder)
    assert len(gallery) == 300 and len(gallery.of("seen")) == 240 and len(gallery.of("new")) == 60
    assert len({row["image_id"] for row in gallery.rows}) == 300
    assert sum(path.stat().st_size for path in folder.rglob("*")) < 3_000_000
    assert {path.name for path in (folder / "images").iterdir()} == {row["path"].name for row in gallery.rows}
    for row in gallery.rows:
        assert row["image_id"] == f"twitter/{row['concept']}" and load_image(row["path"]).size == (64, 64)
        assert not any(vendor in text for text in row["captions"] for vendor in ("twitter", "google", "emojione"))
    for new in gallery.of("new"):
        for seen in gallery.of("seen"):
            assert not shared_words(new["name"], seen["name"])
    text = (folder / "ATTRIBUTION.md").read_text()
    assert "CC-BY-4.0" in text and "© Twitter, Inc and other contributors" in text


def test_the_bundled_gallery_is_an_imagefolder(tmp_path):
    from datasets import load_dataset

    folder = ROOT / "zoo" / "gallery"
    rows = load_dataset("imagefolder", data_dir=str(folder), split="train", cache_dir=str(tmp_path))
    assert len(rows) == 300
    found = {row["image_id"]: row for row in rows}
    for row in open_gallery(folder).rows[::50]:
        theirs = found[row["image_id"]]
        assert theirs["name"] == row["name"] and list(theirs["captions"]) == row["captions"]
        np.testing.assert_array_equal(np.asarray(theirs["image"].convert("RGBA")), np.asarray(load_rgba(row["path"])))
