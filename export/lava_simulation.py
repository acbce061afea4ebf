"""Run a netx file in lava's own CPU simulation, in a separate process, to test :mod:`ashnets.export.lava`.

lava-nc and lava-dl were written for Python 3.10 and NumPy 1. :func:`prepare_lava` adapts them, only in the process of
the simulation. lava runs a simulation in further processes and does not report their errors; a thread looks for these
errors and reports them. All processes end with the simulation, also if it fails.

Each layer adds a delay of one step. Step t of sample n has the index n·T + t + i in layer i (the first layer is 1).
Each layer resets its membranes at its own first step of a sample: ``Network(file, reset_interval=T, reset_offset=1)``.
The simulation takes seconds for small images and few channels, and hours for the larger models.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ashnets import version
from ashnets.errors import AshNetsError, MissingExtraError
from ashnets.export.graph import check_spikes
from ashnets.export.lava import read_lava
from ashnets.words import install

INSTALL = f"{install('lava')}, then `pip install --no-deps --ignore-requires-python -r requirements-lava.lock`"
_IMPORT_FAILED = 7
_STEP = "ashnets-step"


def simulate(
    path: str | os.PathLike, spikes: torch.Tensor, timeout: float = 600.0, progress: bool = False
) -> dict[str, torch.Tensor]:
    """Run a netx file in lava's CPU simulation, with Loihi's fixed-point arithmetic.

    Args:
        path: a file of :func:`ashnets.export.lava.write_lava`.
        spikes: (T', B, C, H, W), 0 and 1: B samples, streamed one after another, each from reset membranes.
        timeout: seconds after which the simulation is ended.
        progress: show a bar.

    Returns:
        Spikes of each layer by name, (T', B, C, h, w).

    Raises:
        MissingExtraError: lava is not installed.
        WeightsError: the file is missing, damaged, or not of our format.
        InputError: the spikes do not fit.
        AshNetsError: lava failed, with its own error, or took too long.
    """
    graph = read_lava(path)
    check_spikes(spikes, graph.input_shape)
    steps, samples = spikes.shape[:2]
    with tempfile.TemporaryDirectory(prefix="ashnets-lava-") as folder:
        # (T', B, C, H, W) to lava's (W, H, C, time), sample after sample
        stream = spikes.permute(4, 3, 2, 1, 0).flatten(3).numpy().astype(np.int8)
        np.savez(Path(folder) / "input.npz", stream=stream, steps=steps, layers=len(graph.layers))
        _run_child(Path(path).resolve(), Path(folder), timeout, progress)
        with np.load(Path(folder) / "output.npz", allow_pickle=False) as found:
            fired = {layer.name: found[f"layer{i}"] for i, layer in enumerate(graph.layers)}
    return {
        name: torch.from_numpy(value).float().unflatten(3, (samples, steps)).permute(4, 3, 2, 1, 0).contiguous()
        for name, value in fired.items()
    }


def _run_child(network: Path, folder: Path, timeout: float, progress: bool) -> None:
    from tqdm import tqdm

    command = [sys.executable, "-m", "ashnets.export.lava_simulation", str(network), str(folder)]
    paths = [str(Path(version.__file__).parents[1]), *sys.path]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    with (folder / "errors.txt").open("w+b") as errors:
        child = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment, start_new_session=True
        )
        late = threading.Event()

        def end() -> None:
            late.set()
            _end_group(child.pid)

        timer = threading.Timer(timeout, end)
        timer.start()
        try:
            assert child.stdout is not None
            with tqdm(desc="lava", unit="step", disable=not progress) as bar:
                for line in child.stdout:
                    if line.startswith(_STEP):
                        done, bar.total = (int(word) for word in line.split()[1:])
                        bar.update(done - bar.n)
            code = child.wait()
        finally:
            timer.cancel()
            _end_group(child.pid)
            child.wait()
        errors.seek(0)
        said = errors.read().decode(errors="replace").strip()
    if code == 0:
        return
    if late.is_set():
        raise AshNetsError(
            f"lava's simulation of {network} did not end within {timeout:g} s and was stopped: give it more time "
            "(timeout=), fewer samples, or a smaller image (ashnets.export.graph.cropped)"
        )
    if code == _IMPORT_FAILED:
        raise MissingExtraError(f"the simulation needs lava-nc and lava-dl ({said.splitlines()[-1]}): {INSTALL}")
    raise AshNetsError(f"lava's simulation of {network} failed (status {code}):\n{said[-2000:]}")


def _end_group(leader: int) -> None:
    """End the remaining processes of the child.

    Terminated first: python's resource tracker ignores that, outlives the others and frees their shared memory.
    """
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGTERM)
        for _ in range(50):
            time.sleep(0.1)
            os.killpg(leader, 0)
        os.killpg(leader, signal.SIGKILL)


def prepare_lava() -> None:
    """Import lava in this process, adapted to Python 3.11 and NumPy 2.

    Raises:
        ImportError: lava is not installed.
    """
    import dataclasses
    import types

    original = dataclasses.dataclass

    def dataclass(cls: Any = None, /, **options: Any) -> Any:
        # Lava's ByteEncoder is the default of other classes' fields; since 3.11 a default must be hashable.
        def wrap(c: Any) -> Any:
            if c.__name__ == "ByteEncoder":
                options["unsafe_hash"] = True
            return original(c, **options)

        return wrap if cls is None else wrap(cls)

    dataclasses.dataclass = dataclass
    # It needs torchvision and serves only training on images with boxes.
    name = "lava.lib.dl.slayer.object_detection"
    sys.modules[name] = types.ModuleType(name)

    from lava.lib.dl.netx import hdf5  # noqa: F401 - while the patch is on
    from lava.proc.conv import utils

    dataclasses.dataclass = original
    convolve = utils.conv_scipy

    def conv_scipy(input_: Any, weight: Any, *geometry: Any) -> Any:
        # Lava holds these in 8 bits, and NumPy 2 no longer widens them for 128 or more channels or pixels.
        wide = [tuple(int(n) for n in item) if np.ndim(item) else int(item) for item in geometry]
        return convolve(input_, weight, *wide)

    utils.conv_scipy = conv_scipy


def _child(network: str, folder: Path) -> int:
    try:
        prepare_lava()
        from lava.lib.dl.netx.hdf5 import Network
        from lava.magma.core.run_conditions import RunSteps
        from lava.magma.core.run_configs import Loihi2SimCfg
        from lava.proc.io.sink import RingBuffer as Sink
        from lava.proc.io.source import RingBuffer as Source
    except ImportError as error:
        print(error, file=sys.stderr)
        return _IMPORT_FAILED
    with np.load(folder / "input.npz", allow_pickle=False) as given:
        stream, steps, layers = given["stream"], int(given["steps"]), int(given["layers"])
    length = stream.shape[-1]
    total = length + layers
    network_process = Network(network, reset_interval=steps, reset_offset=1)
    source = Source(data=np.concatenate([stream, np.zeros((*stream.shape[:-1], layers), np.int8)], -1))
    source.s_out.connect(network_process.inp)
    sinks = []
    for block in network_process.layers:
        sink = Sink(shape=block.out.shape, buffer=total)
        block.out.connect(sink.a_in)
        sinks.append(sink)
    configuration = Loihi2SimCfg(select_tag="fixed_pt")
    done = 0
    while done < total:
        now = min(steps, total - done)
        if done == 0:
            network_process.create_runtime(run_cfg=configuration)
            _watch(network_process.runtime)
        network_process.run(condition=RunSteps(num_steps=now), run_cfg=configuration)
        done += now
        print(_STEP, done, total, flush=True)
    fired = {f"layer{i}": sink.data.get()[..., i + 1 : i + 1 + length] for i, sink in enumerate(sinks)}
    network_process.stop()
    np.savez(folder / "output.npz", **{name: value.astype(np.int8) for name, value in fired.items()})
    return 0


def _watch(runtime: Any) -> None:
    """Print an error of one of lava's processes and end all of them; lava itself would wait forever."""

    def look() -> None:
        while True:
            for actor in list(runtime._messaging_infrastructure.actors):
                try:
                    found = actor.exception
                except (OSError, ValueError, EOFError):  # closed: the run is over
                    return
                if found is not None:
                    print(found[1] if isinstance(found, tuple) else found, file=sys.stderr, flush=True)
                    os.killpg(0, signal.SIGTERM)
            time.sleep(0.2)

    threading.Thread(target=look, daemon=True).start()


if __name__ == "__main__":  # lava imports modules in the folder of its own ones; none may start twice
    sys.exit(_child(sys.argv[1], Path(sys.argv[2])))
