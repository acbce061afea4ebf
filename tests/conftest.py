"""What every test shares."""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.internal.conjecture import providers

# Before any library reads them: no network, no telemetry, no window.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("MPLBACKEND", "Agg")

# A busy machine is no failure, and every run draws the same examples. Hypothesis would mix in the constants of all
# local modules that are loaded: any change of the code, and any choice of tests, would bring other examples.
settings.register_profile("ashnets", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("ashnets")
providers._get_local_constants = providers.Constants


@pytest.fixture(scope="session", autouse=True)
def cache_of_this_run(tmp_path_factory) -> None:
    """What is unpacked from the tests' parquet files goes when their folders go."""
    os.environ.setdefault("ASHNETS_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def ordinary_rights() -> Iterator[None]:
    """Permission bits hold for this thread and those it starts, though root runs it: two capabilities rest (Linux)."""
    if not hasattr(os, "geteuid") or os.geteuid():
        yield
        return
    libc = ctypes.CDLL(None, use_errno=True)
    head = (ctypes.c_uint32 * 2)(0x20080522, 0)  # version 3, this thread
    data = (ctypes.c_uint32 * 6)()  # twice effective, permitted, inheritable
    assert libc.capget(head, data) == 0
    effective = data[0]
    data[0] &= ~(1 << 1 | 1 << 2)  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
    assert libc.capset(head, data) == 0
    yield
    data[0] = effective
    assert libc.capset(head, data) == 0


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the repository."""
    return Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def repository_files(repository: Path) -> list[Path]:
    """Every file and link that git tracks or would track, relative to the root."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listing = subprocess.run(command, cwd=repository, check=True, capture_output=True).stdout
    paths = {Path(os.fsdecode(name)) for name in listing.split(b"\0") if name}
    return sorted(path for path in paths if (repository / path).is_symlink() or (repository / path).is_file())


@pytest.fixture(scope="session")
def write_corpus() -> Callable[[Path, dict[str, list[dict]]], Path]:
    """A function that writes split → rows as a corpus of the published form."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from ashnets.data.corpus import SCHEMA_VERSION

    def write(folder: Path, rows: dict[str, list[dict]]) -> Path:
        folder.mkdir()
        splits = {}
        for name, items in rows.items():
            path = folder / f"{name}.parquet"
            pq.write_table(pa.Table.from_pylist(items), path)
            pin = hashlib.sha256(path.read_bytes()).hexdigest()
            splits[name] = {"file": path.name, "rows": len(items), "sha256": pin}
        (folder / "manifest.json").write_text(json.dumps({"schema_version": SCHEMA_VERSION, "splits": splits}))
        return folder

    return write


@pytest.fixture(scope="session")
def corpus(tmp_path_factory, repository, write_corpus) -> Path:
    """Real drawings of the bundled gallery: 27 to train on (no multiple of φ = 4), six to validate."""
    from ashnets.data.corpus import open_gallery

    rows = []
    for row in list(open_gallery(repository / "zoo" / "gallery"))[:33]:
        image = (repository / "zoo" / "gallery" / row["file_name"]).read_bytes()
        rows.append({**{k: row[k] for k in ("image_id", "concept", "name", "group", "captions")}, "image": image})
    return write_corpus(tmp_path_factory.mktemp("small") / "corpus", {"train": rows[:27], "valid": rows[27:]})
