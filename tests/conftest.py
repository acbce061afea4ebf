"""Fixtures of all tests."""

from __future__ import annotations

import atexit
import ctypes
import hashlib
import json
import os
import shutil
import signal
import struct
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.internal.conjecture import providers

# Before any library reads them: no network, no telemetry, no window, and nothing that the user has set or downloaded.
for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "ASHNETS_DEBUG", "ASHNETS_KERNELS", "ASHNETS_NAMESPACE"):
    os.environ.pop(name, None)
os.environ |= {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "MPLBACKEND": "Agg",
}
if "PYTEST_XDIST_WORKER" not in os.environ:  # the workers inherit it
    os.environ["HF_HOME"] = tempfile.mkdtemp(prefix="ashnets-tests-")
    atexit.register(shutil.rmtree, os.environ["HF_HOME"], ignore_errors=True)
if "PYTEST_XDIST_WORKER" in os.environ:  # a core for each of several workers; tests of threads set their own numbers
    os.environ.setdefault("OMP_NUM_THREADS", "1")
# A shell starts what it puts in the background with SIGINT ignored, nohup with SIGHUP, and all further processes
# inherit that.
for name, usual in (("SIGINT", signal.default_int_handler), ("SIGHUP", signal.SIG_DFL)):
    if hasattr(signal, name) and signal.getsignal(getattr(signal, name)) is signal.SIG_IGN:
        signal.signal(getattr(signal, name), usual)

# A busy machine is no failure, and every run draws the same examples. Hypothesis would mix in the constants of all
# local modules that are loaded: any change of the code, and any choice of tests, would bring other examples.
settings.register_profile("ashnets", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("ashnets")
providers._get_local_constants = providers.Constants


@pytest.fixture(scope="session", autouse=True)
def cache_of_this_run(tmp_path_factory) -> None:
    """Files that tests unpack from parquet files are removed with their folders."""
    os.environ["ASHNETS_CACHE"] = str(tmp_path_factory.mktemp("cache"))


CAPABILITY_VERSION, OVER_FILES = 0x20080522, 0b1110  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER


@contextmanager
def _no_power_over_files() -> Iterator[None]:
    if os.geteuid() != 0:
        yield
        return
    libc = ctypes.CDLL(None)
    header = ctypes.create_string_buffer(struct.pack("=Ii", CAPABILITY_VERSION, 0))
    held = ctypes.create_string_buffer(24)  # effective, permitted and inheritable, twice 32 bits
    assert libc.capget(header, held) == 0
    effective, *others = struct.unpack("=6I", held.raw[:24])
    assert libc.capset(header, struct.pack("=6I", effective & ~OVER_FILES, *others)) == 0
    try:
        yield
    finally:
        libc.capset(header, held)


@pytest.fixture
def no_power_over_files() -> Callable[[], AbstractContextManager[None]]:
    """A context in which file permissions apply to this thread, even for root."""
    return _no_power_over_files


@pytest.fixture
def ordinary_rights() -> Iterator[None]:
    """File permissions apply to this thread and the threads that it starts, even for root."""
    with _no_power_over_files():
        yield


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
    """A function that writes split → rows as a corpus."""
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
    """Drawings of the bundled gallery: 27 for training (not a multiple of φ = 4), six for validation."""
    from ashnets.data.corpus import open_gallery

    rows = []
    for row in list(open_gallery(repository / "zoo" / "gallery"))[:33]:
        image = (repository / "zoo" / "gallery" / row["file_name"]).read_bytes()
        rows.append({**{k: row[k] for k in ("image_id", "concept", "name", "group", "captions")}, "image": image})
    return write_corpus(tmp_path_factory.mktemp("small") / "corpus", {"train": rows[:27], "valid": rows[27:]})
