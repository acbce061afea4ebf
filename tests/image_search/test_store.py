"""The folder of an index: other files are kept, and a full disk keeps the old generation."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ashnets import ImageSearch
from ashnets.errors import ConfigurationError, DataError
from ashnets.image_search import indexing, store
from ashnets.image_search.collection import Stamp
from ashnets.image_search.identity import ModelIdentity
from ashnets.image_search.journal import Journal
from ashnets.image_search.store import StoredIndex, is_index

NOTE = f"{'0123456789ab' * 2}.safetensors"
# names that resemble those of an index
STRANGE = [
    "a.png",
    "images-2019.png",
    "vectors-art.png",
    "images-2019",
    "images-a.jsonl",
    "images-1.jsonl.txt",
    "vectors-.faiss",
    "my-vectors-1.faiss",
    "vectors-1.safetensors.bak",
    ".art.part",
    ".index.json.part",
    ".index.json.draft.part",
    ".images-1.png.7.part",
    "finished/b.png",
    "finished/model.safetensors",
    "finished/folder/" + NOTE,
    "finished/.art.7.part",
    "images-3.jsonl/a.png",
    ".vectors-3.faiss.7.part/a.png",
]
HALF = [".images-2.jsonl.7.part", ".vectors-2.faiss.7.part", ".vectors-2.safetensors.7.part", ".index.json.7.part"]
LEFT = [*HALF, "images-7.jsonl", "vectors-7.faiss", "vectors-7.safetensors", f"finished/.{NOTE}.7.part"]


def put(folder: Path, names: list[str], text: str = "mine") -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def all_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def one_image(tmp_path, draw) -> Path:
    return draw(tmp_path / "images" / "a.png", seed=0).parent


def update(images: Path, folder: Path, model: Path, **options) -> dict:
    return indexing.index(images, str(folder), model, progress=False, **options)


@pytest.mark.parametrize("rebuild", [False, True])
def test_the_images_own_folder_is_refused_as_that_of_the_index(tmp_path, model, draw, rebuild):
    photos = tmp_path / "photos"
    for seed, name in enumerate(["a.png", "finished/b.png", "images-2019.png", "vectors-art.png"]):
        draw(photos / name, seed=seed)
    before = all_of(photos)
    with pytest.raises(ConfigurationError, match=r"photos is not an index and contains 'a\.png'.*give another --name"):
        update(photos, photos, model, rebuild=rebuild)
    assert all_of(photos) == before
    assert update(photos, photos / "index", model)["images"] == 4
    assert {name: data for name, data in all_of(photos).items() if not name.startswith("index/")} == before


@pytest.mark.parametrize("name", STRANGE)
def test_a_folder_with_a_file_that_is_not_of_an_index_is_refused(tmp_path, one_image, model, name):
    """Alone, and with the files of an interrupted indexing."""
    for beside in ([], ["lock", *LEFT]):
        folder = tmp_path / f"beside-{len(beside)}"
        put(folder, [name, *beside])
        before = all_of(folder)
        for rebuild in (False, True):
            with pytest.raises(ConfigurationError) as caught:
                update(one_image, folder, model, rebuild=rebuild)
            assert repr(name) in str(caught.value) or repr(name.rpartition("/")[0]) in str(caught.value)
        assert all_of(folder) == before


@pytest.mark.parametrize("text", ["5", "null", '"generation"', "[]", "{}", '{"generation": 5}', "no JSON"])
def test_an_index_json_of_another_program_stays(one_image, model, text):
    put(one_image, ["index.json"], text)
    assert not is_index(one_image)
    before = all_of(one_image)
    for rebuild in (False, True):
        with pytest.raises(ConfigurationError, match="is not an index and contains"):
            update(one_image, one_image, model, rebuild=rebuild)
    assert all_of(one_image) == before
    assert len(ImageSearch(one_image, model, progress=False)) == 1, "it is a folder of images"


def test_links_are_not_followed(tmp_path, one_image, model):
    put(tmp_path / "elsewhere", [NOTE, "images-7.jsonl"])
    for name, target in (("finished", "elsewhere"), ("images-7.jsonl", "elsewhere/images-7.jsonl")):
        (tmp_path / f"with-{name}").mkdir()
        (tmp_path / f"with-{name}" / name).symlink_to(tmp_path / target)
        with pytest.raises(ConfigurationError, match=f"contains '{name}'"):
            update(one_image, tmp_path / f"with-{name}", model)
    assert set(all_of(tmp_path / "elsewhere")) == {NOTE, "images-7.jsonl"}


def test_what_others_put_into_an_index_stays(tmp_path, one_image, model, draw):
    """In updates and rebuilds; only the index's own files are removed."""
    folder = tmp_path / "index"
    update(one_image, folder, model)
    put(folder, [*STRANGE, *LEFT])
    draw(one_image / "b.png", seed=1)
    update(one_image, folder, model)
    own = {"index.json", "lock", "images-2.jsonl", "vectors-2.faiss"}
    assert set(all_of(folder)) == own | set(STRANGE)
    put(folder, LEFT)
    update(one_image, folder, model, rebuild=True)
    own = {"index.json", "lock", "images-1.jsonl", "vectors-1.faiss"}
    assert set(all_of(folder)) == own | set(STRANGE)
    assert all((folder / name).read_text() == "mine" for name in STRANGE)


def test_what_an_interrupted_first_indexing_left_is_taken_up(tmp_path, one_image, model):
    put(tmp_path / "index", ["lock", *LEFT, "images-1.jsonl", "vectors-1.faiss", f"finished/{NOTE}"])
    assert update(one_image, tmp_path / "index", model)["images"] == 1
    assert set(all_of(tmp_path / "index")) == {"index.json", "lock", "images-1.jsonl", "vectors-1.faiss"}
    assert not (tmp_path / "index" / "finished").exists()


@pytest.mark.parametrize("text", ["", "5", json.dumps({"schema_version": 99, "generation": 1})])
def test_a_head_that_cannot_be_used_is_made_again_by_rebuild(tmp_path, one_image, model, text):
    folder = tmp_path / "index"
    update(one_image, folder, model)
    put(folder, ["index.json"], text)
    with pytest.raises(DataError, match=r"index\.json .*--rebuild"):
        update(one_image, folder, model)
    assert update(one_image, folder, model, rebuild=True)["embedded"] == 1
    assert len(StoredIndex(folder)) == 1


@pytest.fixture(params=["faiss", "safetensors"])
def small(tmp_path, request, monkeypatch) -> Path:
    """An index of three images."""
    monkeypatch.setattr(store, "has_faiss", lambda: request.param == "faiss")
    rows = [store.Row(f"{i}.png", Stamp(1, 1), str(i) * 64) for i in range(3)]
    contents = store.Contents("/p", ModelIdentity("m", {"config.json": "0" * 64}), rows, {"x.png": "cut"}, 1)
    store.write_generation(tmp_path / "index", contents, np.eye(3, 8, dtype=np.float32))
    return tmp_path / "index"


def older(folder: Path) -> dict:
    """The head of an index, made one of format 2: without digests."""
    head = json.loads((folder / "index.json").read_text())
    for part in (head, head["images"], head["vectors"]):
        del part["sha256"]
    head["schema_version"] = 2
    (folder / "index.json").write_text(json.dumps(head))
    return head


def test_one_damaged_byte_is_found_wherever_it_is(small):
    assert len(StoredIndex(small)) == 3
    files = sorted(path for path in small.iterdir())
    assert [path.name for path in files][:2] == ["images-1.jsonl", "index.json"] and len(files) == 3
    for path in files:
        data = path.read_bytes()
        places = range(len(data)) if path.name == "index.json" else range(0, len(data), 7)
        for place in places:
            path.write_bytes(data[:place] + bytes([data[place] ^ 1 << place % 8]) + data[place + 1 :])
            with pytest.raises(DataError, match="--rebuild"):
                StoredIndex(small)
        path.write_bytes(data)
    head = small / "index.json"
    head.write_bytes(head.read_bytes().replace(b'"schema_version": 3', b'"schema_version": 2'))
    with pytest.raises(DataError, match="its own SHA-256"):
        StoredIndex(small)
    head.write_bytes(head.read_bytes().replace(b'"schema_version": 2', b'"schema_version": 3'))
    assert len(StoredIndex(small)) == 3


def test_an_index_without_digests_is_read_and_gets_them(small, tmp_path, one_image, model, draw):
    before = StoredIndex(small)
    older(small)
    now = StoredIndex(small)
    assert now.contents == before.contents and np.array_equal(now.vectors(), before.vectors())
    update(one_image, tmp_path / "own", model)
    older(tmp_path / "own")
    draw(one_image / "b.png", seed=1)
    assert update(one_image, tmp_path / "own", model)["embedded"] == 1
    assert json.loads((tmp_path / "own" / "index.json").read_text())["schema_version"] == 3


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda head: head.pop("vectors"), "vectors is missing"),
        (lambda head: head.update(images=None), "images is None"),
        (lambda head: head["images"].pop("bytes"), r"images\.bytes is missing"),
        (lambda head: head.update(root=5), "root is 5"),
        (lambda head: head.update(unreadable=[]), r"unreadable is \[\]"),
        (lambda head: head["model"].update(files="x"), r"model\.files is 'x'"),
        (lambda head: head.update(count=True), "count is True"),
        (lambda head: head.update(dimensions=9), "3 vectors of 8 numbers"),
    ],
)
def test_damage_without_digests_is_found_as_far_as_it_shows(small, change, told):
    head = older(small)
    change(head)
    (small / "index.json").write_text(json.dumps(head))
    with pytest.raises(DataError, match=rf"{told}.*--rebuild"):
        StoredIndex(small)


@pytest.mark.parametrize("line", ['["0.png", 1, 1]', '["0.png", 1, null, "0"]', "\0\0\0", "5", '"four"'])
def test_a_listing_without_digest_that_cannot_be_read_is_named(small, line):
    head = older(small)
    data = f"{line}\n{line}\n{line}\n".encode()
    (small / "images-1.jsonl").write_bytes(data)
    head["images"]["bytes"] = len(data)
    (small / "index.json").write_text(json.dumps(head))
    with pytest.raises(DataError, match=r"images-1\.jsonl is damaged.*--rebuild"):
        StoredIndex(small)


def test_vectors_without_digest_that_cannot_be_read_are_named(small):
    older(small)
    (path,) = small.glob("vectors-1.*")
    path.write_bytes(b"x" * path.stat().st_size)
    with pytest.raises(DataError, match=rf"{path.name} is damaged.*--rebuild"):
        StoredIndex(small)


@pytest.mark.parametrize("rows", ["", "[[1]]", "5"])
def test_a_damaged_note_of_the_journal_is_passed_over(tmp_path, rows):
    from safetensors.numpy import save

    journal = Journal(tmp_path, "m 0")
    journal.write([store.Row("0.png", Stamp(1, 1), "0")], np.eye(1, 8, dtype=np.float32), {}, 1)
    notes = {"basis": "m 0", "rows": rows, "faults": "[]", "embedded": "1"}
    (tmp_path / "finished" / NOTE).write_bytes(save({"vectors": np.eye(1, 8, dtype=np.float32)}, notes))
    assert [shard.rows[0].path for shard in journal] == ["0.png"]


def test_an_index_with_a_damaged_head_is_no_folder_of_images(tmp_path, one_image, model):
    update(one_image, tmp_path / "index", model)
    put(tmp_path / "index", ["index.json"], "{")
    with pytest.raises(DataError, match=r"index\.json cannot be read.*--rebuild"):
        ImageSearch(tmp_path / "index", model, progress=False)


@pytest.mark.parametrize("faiss", [True, False])
def test_a_full_disk_leaves_the_old_generation(tmp_path, faiss):
    """A limit of 20 kB for each file acts like a full disk; the vectors have 160 kB."""
    code = (
        "import resource, sys\nfrom pathlib import Path\nimport numpy as np\nfrom ashnets.image_search import store\n"
        f"store.has_faiss = lambda: {faiss}\n"
        "from ashnets.image_search.collection import Stamp\nfrom ashnets.image_search.identity import ModelIdentity\n"
        "rows = [store.Row(f'{i}.png', Stamp(1, 1), '0' * 64) for i in range(10)]\n"
        "for generation in (1, 2):\n"
        "    contents = store.Contents('/p', ModelIdentity('m', {}), rows, {}, generation)\n"
        "    vectors = np.full((10, 4096), generation, np.float32)\n"
        "    try:\n        store.write_generation(Path(sys.argv[1]), contents, vectors)\n"
        "    except OSError as error:\n        print((error.__cause__ or error).strerror)\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "store.StoredIndex(sys.argv[1])"
    )
    ran = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
    assert (ran.returncode, ran.stdout) == (0, "File too large\n"), ran.stderr
    vectors = "vectors-1.faiss" if faiss else "vectors-1.safetensors"
    assert set(all_of(tmp_path)) == {"index.json", "images-1.jsonl", vectors, "images-2.jsonl"}
    head = json.loads((tmp_path / "index.json").read_bytes())
    assert (head["generation"], head["vectors"]["file"]) == (1, vectors)
    if faiss:
        assert np.array_equal(StoredIndex(tmp_path).vectors(), np.ones((10, 4096)))


def test_the_file_is_what_faiss_itself_reads_and_writes(tmp_path, one_image, model):
    import faiss

    update(one_image, tmp_path / "index", model)
    file, vectors = tmp_path / "index" / "vectors-1.faiss", StoredIndex(tmp_path / "index").vectors()
    assert np.array_equal(faiss.read_index(str(file)).reconstruct_n(0, 1), vectors)
    flat = faiss.IndexFlatIP(vectors.shape[1])
    flat.add(vectors)
    faiss.write_index(flat, str(tmp_path / "other.faiss"))
    assert (tmp_path / "other.faiss").read_bytes() == file.read_bytes()
