"""The index on disk: vectors against single images, changes, killed processes, ranks, refused input."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import ashnets
from ashnets.data import similar
from ashnets.errors import ConfigurationError, DataError, MissingExtraError, WeightsError
from ashnets.image_search import collection, indexing, store
from ashnets.image_search.store import StoredIndex, index_folder

# batches of 4, a note in the journal after 6: in a process that says when it begins, and slow enough to be killed;
# what a first model imports takes seconds and changes nothing, so it comes before
PROGRAM = (
    "import sys, time\n"
    "import faiss\n"
    "from ashnets.image_search import indexing, journal\n"
    "plain = journal.Journal.write\n"
    "def slow(*arguments):\n"
    "    plain(*arguments)\n"
    "    print('noted', flush=True)\n"
    "    time.sleep(float(sys.argv[4]))\n"
    "journal.Journal.write = slow\n"
    "indexing.Embedder(sys.argv[3], 4, 'cpu')\n"
    "print('begun', flush=True)\n"
    "indexing.index(sys.argv[1], sys.argv[2], sys.argv[3], batch=4, shard=6, progress=False)\n"
    "print('ended', flush=True)\n"
)
SIZES = {"batch": 4, "shard": 6, "progress": False}


def update(images: Path, model: Path, name: str = "mine", **options) -> dict:
    return indexing.index(images, name, model, **{**SIZES, **options})


def assert_same(one: StoredIndex, other: StoredIndex) -> None:
    assert one.contents.rows == other.contents.rows
    assert np.array_equal(one.vectors(), other.vectors())
    assert one.contents.unreadable == other.contents.unreadable


def files_of(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@torch.inference_mode()
def alone(model: Path, image: Path) -> np.ndarray:
    """The model's vector of a single image, through the public processor."""
    loaded = ashnets.from_pretrained(model, task="retrieval")
    inputs = ashnets.AshNetsProcessor.from_pretrained(model)(images=image)
    return loaded(**inputs).image_embeds[0].numpy()


def test_each_vector_is_that_of_its_image(images, model):
    result = update(images, model)
    found = StoredIndex(index_folder("mine"))
    assert [row.path for row in found.contents.rows] == sorted(
        path.relative_to(images).as_posix() for path in images.rglob("[0-9][0-9].png")
    )
    assert (result["images"], result["embedded"], result["removed"]) == (21, 21, 0)
    assert set(result["unreadable"]) == {"a/broken.jpg", "empty.png"}
    assert "cannot be decoded" in result["unreadable"]["a/broken.jpg"]
    assert "0 bytes" in result["unreadable"]["empty.png"]
    for row, vector in list(zip(found.contents.rows, found.vectors(), strict=True))[::5]:
        np.testing.assert_allclose(vector, alone(model, images / row.path), atol=1e-5)
    assert len({tuple(vector) for vector in found.vectors()}) == 21
    assert files_of(index_folder("mine")) == {"index.json", "lock", "images-1.jsonl", "vectors-1.faiss"}


def test_only_what_changed_is_embedded(images, model, draw, monkeypatch):
    update(images, model)
    before = {row.path: row for row in StoredIndex(index_folder("mine")).contents.rows}
    (images / "a" / "broken.jpg").unlink()  # broken images would be tried again
    (images / "empty.png").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(indexing, "read_image", None)
        patch.setattr(indexing, "Embedder", None)
        assert update(images, model)["embedded"] == 0, "nothing is read, no model loaded"

    draw(images / "a" / "new.png", seed=50)
    draw(images / "a" / "01.png", seed=51)
    (images / "a" / "02.png").unlink()
    (images / "a" / "04.png").rename(images / "moved.png")
    os.utime(images / "a" / "05.png", ns=(1, 1))
    embedded: list[int] = []
    plain = indexing.Embedder._embed
    monkeypatch.setattr(indexing.Embedder, "_embed", lambda self, read: embedded.append(len(read)) or plain(self, read))
    result = update(images, model)
    assert sum(embedded) == result["embedded"] == 2, "a new and a changed one; a moved and a touched one are known"
    assert (result["images"], result["removed"]) == (21, 2)

    changed = StoredIndex(index_folder("mine"))
    fresh = update(images, model, "fresh")
    assert fresh["embedded"] == 21
    other = StoredIndex(index_folder("fresh"))
    assert changed.contents.rows == other.contents.rows
    np.testing.assert_allclose(changed.vectors(), other.vectors(), atol=1e-5)
    after = {row.path: row for row in changed.contents.rows}
    assert after["a/01.png"].sha256 != before["a/01.png"].sha256
    assert after["moved.png"].sha256 == before["a/04.png"].sha256
    assert after["a/05.png"].stamp.changed == 1


def test_an_update_without_changes_writes_nothing(images, model):
    update(images, model)
    head = index_folder("mine") / "index.json"
    before = head.stat().st_mtime_ns, head.read_bytes()
    result = update(images, model)
    assert (head.stat().st_mtime_ns, head.read_bytes()) == before
    assert (result["images"], result["embedded"]) == (21, 0)
    assert set(result["unreadable"]) == {"a/broken.jpg", "empty.png"}, "they are named each time"
    assert not (index_folder("mine") / "finished").exists()


def test_a_repaired_image_comes_in(images, model, draw):
    update(images, model)
    shutil.copy(images / "a" / "01.png", images / "empty.png")
    result = update(images, model)
    assert (result["images"], list(result["unreadable"])) == (22, ["a/broken.jpg"])
    found = StoredIndex(index_folder("mine"))
    vectors = dict(zip([row.path for row in found.contents.rows], found.vectors(), strict=True))
    assert np.array_equal(vectors["empty.png"], vectors["a/01.png"])


def start(images: Path, name: str, model: Path, environment: dict[str, str], pause: float) -> subprocess.Popen:
    command = [sys.executable, "-c", PROGRAM, str(images), name, str(model), str(pause)]
    cache = {"ASHNETS_CACHE": os.environ["ASHNETS_CACHE"]}
    return subprocess.Popen(command, stdout=subprocess.PIPE, env={**environment, **cache})


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, fill, model, one_thread) -> tuple[Path, Path]:
    """A folder of images, and its index by one process without interruption."""
    folder = tmp_path_factory.mktemp("undisturbed")
    process = start(fill(folder / "images"), str(folder / "index"), model, one_thread, 0)
    assert process.communicate()[0].count(b"noted") == 4
    return folder / "images", folder / "index"


def test_killed_it_goes_on_after_the_last_note(undisturbed, model, one_thread):
    """SIGKILL after the first journal entry; the next process makes the index that an uninterrupted one makes."""
    images, whole = undisturbed
    folder = index_folder("killed")
    process = start(images, "killed", model, one_thread, 60)
    assert [process.stdout.readline() for _ in range(2)] == [b"begun\n", b"noted\n"]
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert len(list((folder / "finished").glob("*.safetensors"))) == 1
    assert not (folder / "index.json").exists()
    (folder / "finished" / f".{'0' * 24}.safetensors.1.part").write_bytes(b"half a shard")
    last = start(images, "killed", model, one_thread, 0)
    assert last.communicate()[0].count(b"noted") == 3, "a shard of four was kept"
    assert last.returncode == 0
    assert_same(StoredIndex(folder), StoredIndex(whole))
    assert files_of(folder) == {"index.json", "lock", "images-1.jsonl", "vectors-1.faiss"}


@pytest.mark.slow
def test_killed_at_any_moment(undisturbed, model, one_thread):
    """Ten kills at random times between planning and the end of the merge."""
    images, whole = undisturbed
    with start(images, "timed", model, one_thread, 0.2) as process:
        assert process.stdout.readline() == b"begun\n"
        begun = time.monotonic()
        times = {line: time.monotonic() - begun for line in process.stdout}
    draw, kills, notes, folder = random.Random(0), 0, 0, index_folder("killed")
    for _ in range(10):
        with start(images, "killed", model, one_thread, 0.2) as process:
            assert process.stdout.readline() == b"begun\n", "it died before it began"
            time.sleep(draw.uniform(0, times[b"ended\n"]))
            process.send_signal(signal.SIGKILL)
            kills += process.wait() == -signal.SIGKILL
            notes += process.stdout.read().count(b"noted")
        if (folder / "index.json").exists():
            assert_same(StoredIndex(folder), StoredIndex(whole))
            shutil.rmtree(folder)
    assert kills >= 3
    assert notes, "they came as far as the journal"
    start(images, "killed", model, one_thread, 0).communicate()
    assert_same(StoredIndex(folder), StoredIndex(whole))


@pytest.mark.parametrize("point", ["_write_vectors", "write_atomically", "tidy"])
def test_interrupted_anywhere_in_the_merge(images, model, draw, monkeypatch, point):
    """Before, between and after the files of a generation: the old one works, and the next update completes."""
    update(images, model)
    old = StoredIndex(index_folder("mine"))
    draw(images / "new.png", seed=60)

    def stop(*_):
        raise KeyboardInterrupt

    plain, calls = getattr(store, point), []
    with monkeypatch.context() as patch:
        if point == "write_atomically":  # the listing is written, index.json is not
            patch.setattr(store, point, lambda *a: plain(*a) if calls.append(a) or len(calls) == 1 else stop())
        else:
            patch.setattr(store, point, stop)
        with pytest.raises(KeyboardInterrupt):
            update(images, model)
    now = StoredIndex(index_folder("mine"))
    if point == "tidy":
        assert len(now) == 22
    else:
        assert_same(now, old)
        assert (index_folder("mine") / "finished").exists()
    update(images, model)
    assert len(StoredIndex(index_folder("mine"))) == 22
    assert files_of(index_folder("mine")) == {"index.json", "lock", "images-2.jsonl", "vectors-2.faiss"}


def test_a_journal_note_of_a_image_that_changed_since_is_not_used(images, model, draw, monkeypatch):
    """Twice: two journal entries then describe the same image, and only the last one is true."""

    def stop(*_):
        raise KeyboardInterrupt

    for seed in (70, 71, 72):
        draw(images / "a" / "01.png", seed=seed)
        with monkeypatch.context() as patch:
            patch.setattr(indexing, "_merge", stop)
            with pytest.raises(KeyboardInterrupt):
                update(images, model)
    result = update(images, model)
    assert result["images"] == 21
    found = StoredIndex(index_folder("mine"))
    vectors = dict(zip([row.path for row in found.contents.rows], found.vectors(), strict=True))
    np.testing.assert_allclose(vectors["a/01.png"], alone(model, images / "a" / "01.png"), atol=1e-5)


def test_a_journal_of_another_model_is_not_used(images, model, other_model, monkeypatch):
    """The first indexing was stopped before an index existed that names its model."""

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(indexing, "_merge", stop)
        with pytest.raises(KeyboardInterrupt):
            update(images, model)
    assert update(images, other_model)["embedded"] == 21
    np.testing.assert_allclose(
        StoredIndex(index_folder("mine")).vectors()[0], alone(other_model, images / "a" / "01.png"), atol=1e-5
    )


def test_two_processes_make_the_index_of_one(undisturbed, model, one_thread, own_cache, tmp_path):
    """torchrun with gloo: bit-identical, because the batches are the same."""
    images, whole = undisturbed
    program = tmp_path / "on_two_ranks.py"
    program.write_text(
        "import json, os, sys\nfrom pathlib import Path\nfrom ashnets.image_search.indexing import index\n"
        "found = index(sys.argv[1], sys.argv[2], sys.argv[3], batch=4, shard=6, progress=False)\n"
        "counts = [found['images'], found['embedded'], len(found['unreadable'])]\n"
        "Path(sys.argv[4], f'rank-{os.environ[\"RANK\"]}.json').write_text(json.dumps(counts))\n"
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(program)]
    paths = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "ASHNETS_CACHE": str(own_cache)}
    done = subprocess.run(
        [*command, str(images), "two", str(model), str(tmp_path)],
        env={**one_thread, **paths},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    told = [json.loads((tmp_path / f"rank-{rank}.json").read_text()) for rank in range(2)]
    assert told == [[21, 21, 2]] * 2, "both ranks know the whole"
    assert_same(StoredIndex(index_folder("two")), StoredIndex(whole))


def test_an_index_of_other_weights_is_refused(images, model, other_model, tmp_path):
    update(images, model)
    with pytest.raises(
        WeightsError, match=r"made by .*small, not by .*other \(SHA-256 of model\.safetensors: .*--rebuild"
    ):
        update(images, other_model)
    copy = shutil.copytree(model, tmp_path / "small")
    assert update(images, copy)["embedded"] == 0, "the same weights under another path are the same model"
    weights = load_file(copy / "model.safetensors")
    weights["image_projection.bias"] += 1
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(WeightsError, match="cannot be compared"):
        ashnets.ImageSearch("mine", copy)
    result = update(images, other_model, rebuild=True)
    assert result["embedded"] == 21
    np.testing.assert_allclose(
        StoredIndex(index_folder("mine")).vectors()[0], alone(other_model, images / "a" / "01.png"), atol=1e-5
    )


def test_a_rebuilding_that_was_killed_goes_on(images, model, other_model, monkeypatch):
    update(images, model)
    plain, notes = indexing.Journal.write, []

    def write(*arguments):
        plain(*arguments)
        notes.append(arguments)
        if len(notes) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(indexing.Journal, "write", write)
    with pytest.raises(KeyboardInterrupt):
        update(images, other_model, rebuild=True)
    update(images, other_model, rebuild=True)
    assert len(notes) == 4, "four shards, none twice"
    assert StoredIndex(index_folder("mine")).contents.model.name == str(other_model.resolve())


def test_another_folder_is_refused_and_a_moved_one_is_not(images, model, tmp_path):
    update(images, model)
    other = shutil.copytree(images, tmp_path / "other")
    with pytest.raises(ConfigurationError, match=r"contains the images of .*images, not of .*other"):
        update(other, model)
    moved = images.rename(tmp_path / "moved")
    assert update(moved, model)["embedded"] == 0
    assert StoredIndex(index_folder("mine")).contents.root == str(moved)


def test_two_at_once_are_refused(images, model):
    index_folder("mine").mkdir(parents=True)
    with open(index_folder("mine") / "lock", "ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(DataError, match="another process is using the index"):
            update(images, model)
    assert update(images, model)["images"] == 21


@pytest.mark.parametrize("file", ["vectors-1.faiss", "images-1.jsonl", "index.json"])
@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_damage_is_named(images, model, file, damage):
    update(images, model)
    path = index_folder("mine") / file
    path.write_bytes(path.read_bytes()[:-9]) if damage == "cut" else path.unlink()
    expected = "contains no index" if (file, damage) == ("index.json", "gone") else path.name
    with pytest.raises(DataError, match=expected):
        StoredIndex(index_folder("mine"))


def test_without_faiss_the_index_is_safetensors_and_finds_the_same(images, model, monkeypatch):
    update(images, model)
    queries = np.random.default_rng(0).standard_normal((3, 16)).astype(np.float32)
    by_faiss = StoredIndex(index_folder("mine"))
    for module in (similar, store):
        monkeypatch.setattr(module, "has_faiss", lambda: False)
    with pytest.raises(MissingExtraError, match=r'pip install -e "\.\[cpu\]"'):
        StoredIndex(index_folder("mine"))
    update(images, model, "plain")
    plain = StoredIndex(index_folder("plain"))
    assert "vectors-1.safetensors" in files_of(index_folder("plain"))
    assert np.array_equal(plain.vectors(), by_faiss.vectors())
    exact = queries.astype(np.float64) @ plain.vectors().astype(np.float64).T
    order = np.argsort(-exact, axis=1)
    for found in (plain, by_faiss):
        scores, rows = found.search(queries, 5)
        assert np.array_equal(rows, order[:, :5])
        np.testing.assert_allclose(scores, np.take_along_axis(exact, order[:, :5], 1), atol=1e-5)
        assert found.search(queries, 1000)[1].shape == (3, 21), "no more than there are"


def test_names_and_folders(images, model, tmp_path, own_cache):
    assert index_folder("mine") == own_cache / "indexes" / "mine"
    assert index_folder("somewhere/else") == Path("somewhere/else")
    for wrong in ("", ".."):
        with pytest.raises(ConfigurationError, match="not a valid name for an index"):
            index_folder(wrong)
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "it-is").symlink_to("a-volume/index")  # which is not there yet
    result = indexing.index(images, str(tmp_path / "here" / "it-is"), model, **SIZES)
    assert result["folder"] == str(tmp_path / "here" / "it-is")
    assert (tmp_path / "here" / "it-is").is_symlink() and (tmp_path / "here" / "a-volume" / "index").is_dir()
    default = indexing.index(images, None, model, **SIZES)["name"]
    assert default.startswith("images-")


@pytest.mark.parametrize("faiss", [True, False])
def test_folders_whose_names_are_no_text(tmp_path, model, draw, monkeypatch, own_cache, faiss):
    """The folder of the images, which names the index, and the folder of the index."""
    if not faiss:
        for module in (similar, store):
            monkeypatch.setattr(module, "has_faiss", lambda: False)
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    draw(folder / "a.png", seed=0)
    result = indexing.index(folder, None, model, **SIZES)
    assert result["name"].encode().startswith("caf\N{REPLACEMENT CHARACTER}-".encode()), "the name is text"
    assert files_of(own_cache / "indexes") == {result["name"]}
    chosen = indexing.index(folder, str(folder / "index"), model, **SIZES)
    assert os.fsencode(chosen["folder"]).endswith(b"/caf\xe9/index")
    for one in (result, chosen):
        found = StoredIndex(one["folder"])
        assert os.fsencode(found.contents.root).endswith(b"/caf\xe9")
        np.testing.assert_allclose(found.search(alone(model, folder / "a.png")[None], 1)[0], 1, atol=1e-5)
    assert indexing.index(folder, None, model, **SIZES)["embedded"] == 0


def test_names_that_are_no_text(tmp_path, model, draw):
    """File names are bytes; names in Latin-1 are not UTF-8."""
    draw(tmp_path / "p" / "a.png", seed=0)
    os.rename(tmp_path / "p" / "a.png", os.fsencode(tmp_path / "p") + b"/caf\xe9.png")
    (tmp_path / "p" / "b.png").touch()
    os.rename(tmp_path / "p" / "b.png", os.fsencode(tmp_path / "p") + b"/\xff.png")
    result = update(tmp_path / "p", model)
    assert result["images"] == 1
    assert os.fsencode(StoredIndex(index_folder("mine")).contents.rows[0].path) == b"caf\xe9.png"
    assert [why.encode() for why in result["unreadable"].values()], "the reason is text"
    assert update(tmp_path / "p", model)["embedded"] == 0


@pytest.mark.parametrize("kind", ["missing", "file", "empty", "all broken"])
def test_folders_without_images(tmp_path, model, kind):
    folder = tmp_path / "p"
    if kind == "file":
        folder.write_text("text")
    elif kind != "missing":
        folder.mkdir()
    if kind == "all broken":
        (folder / "a.png").write_bytes(b"not an image")
    if kind == "empty":
        (folder / "a.heic").touch()
    says = {"empty": r"contains no image.*1 \.heic", "all broken": "a.png"}.get(kind, "is not a folder")
    with pytest.raises(DataError, match=says):
        update(folder, model)
    assert not index_folder("mine").exists() or kind in ("empty", "all broken")


@pytest.mark.parametrize("indexed", [False, True])
def test_where_no_image_could_be_read_all_are_tried_again(tmp_path, model, draw, indexed):
    """`chmod` or a mount can repair the fault without a change of the file's size or time."""
    image = draw(tmp_path / "p" / "a.png", seed=0)
    if indexed:
        update(tmp_path / "p", model)
        draw(image, seed=1)
    whole, stat = image.read_bytes(), image.stat()
    image.write_bytes(bytes(len(whole)))
    os.utime(image, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    with pytest.raises(DataError, match="none of the 1 images"):
        update(tmp_path / "p", model)
    assert files_of(index_folder("mine")) == {"lock"} | (
        {"index.json", "images-1.jsonl", "vectors-1.faiss"} if indexed else set()
    )
    assert not indexed or len(StoredIndex(index_folder("mine"))) == 1, "the old index stays"
    image.write_bytes(whole)
    os.utime(image, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert update(tmp_path / "p", model)["embedded"] == 1
    np.testing.assert_allclose(StoredIndex(index_folder("mine")).vectors()[0], alone(model, image), atol=1e-5)


def test_hidden_files_and_links_are_left_out(tmp_path, draw):
    draw(tmp_path / "p" / "a.png", seed=0)
    draw(tmp_path / "p" / ".b.png", seed=0)
    draw(tmp_path / "p" / ".c" / "d.png", seed=0)
    (tmp_path / "p" / "loop").symlink_to(tmp_path / "p")
    (tmp_path / "p" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    assert list(collection.scan(tmp_path / "p").images) == ["a.png"]


def test_images_of_a_folder_that_cannot_be_read_stay_in_the_index(images, model, draw, ordinary_rights):
    """A subfolder without permissions, one that can be listed but not entered, and a named pipe."""
    update(images, model)
    rows = StoredIndex(index_folder("mine")).contents.rows
    draw(images / "new.heic.png", seed=50)
    (images / "photo.heic").touch()
    os.mkfifo(images / "pipe.png")
    (images / "b").chmod(0)
    (images / "a").chmod(0o600)
    try:
        result = update(images, model)
        ours = set(os.listdir(images / "a"))
    finally:
        (images / "b").chmod(0o700)
        (images / "a").chmod(0o700)
    assert (result["images"], result["embedded"], result["removed"]) == (22, 1, 0)
    assert result["kept unseen"] == 21 and result["passed over"] == {".txt": 1, ".heic": 1}
    assert result["unreadable"]["b"] == f"{images}/b cannot be read (Permission denied)"
    assert result["unreadable"]["a/01.png"].endswith("a/01.png cannot be read (Permission denied)")
    assert result["unreadable"]["pipe.png"].endswith("pipe.png is a named pipe, not a file")
    assert len(result["unreadable"]) == 2 + len(ours) + 1, "pipe, b, each file of a, empty.png"
    after = StoredIndex(index_folder("mine")).contents.rows
    assert [row for row in after if row.path != "new.heic.png"] == rows
    again = update(images, model)
    assert (again["images"], again["embedded"], again["removed"], again["kept unseen"]) == (22, 0, 0, 0)


def test_where_all_that_is_left_cannot_be_read_the_index_stays(tmp_path, model, draw, ordinary_rights):
    draw(tmp_path / "p" / "locked" / "a.png", seed=0)
    update(tmp_path / "p", model)
    (tmp_path / "p" / "locked").chmod(0)
    try:
        with pytest.raises(DataError, match=r"none of the images .* locked cannot be read|locked cannot be read"):
            update(tmp_path / "p", model)
    finally:
        (tmp_path / "p" / "locked").chmod(0o700)
    assert len(StoredIndex(index_folder("mine"))) == 1


def test_the_head_says_which_model(images, model):
    update(images, model)
    head = json.loads((index_folder("mine") / "index.json").read_text())
    assert (
        head["model"]["files"]["model.safetensors"]
        == hashlib.sha256((model / "model.safetensors").read_bytes()).hexdigest()
    )
    assert head["model"]["name"] == str(model.resolve())
    row = StoredIndex(index_folder("mine")).contents.rows[0]
    assert row.stamp.changed == (images / row.path).stat().st_mtime_ns
