"""Run an exported network in SANA-FE, in a process of its own, and compare what it counts with what we count."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from ashnets.errors import AshNetsError, MissingExtraError
from ashnets.export.counting import Counter
from ashnets.export.energy.profiles import load_profile
from ashnets.export.graph import SpikingGraph
from ashnets.export.placement.placed import Placement
from ashnets.export.sanafe.writing import PROFILE
from ashnets.files import JsonObject

INSTALL = (
    "SANA-FE is under the GPL and gets a Python of its own: `python -m venv sanafe`, then "
    "`sanafe/bin/pip install sanafe==2.2.9 numpy`, then give --python sanafe/bin/python"
)


def python_of(given: str | os.PathLike | None) -> str:
    """The Python that has sanafe: the given one, or this one.

    Raises:
        MissingExtraError: none was given, and this one does not have it.
    """
    if given is not None:
        return os.fspath(given)
    if find_spec("sanafe") is None:
        raise MissingExtraError(f"sanafe is not installed in this Python: {INSTALL}")
    return sys.executable


def simulate(
    folder: Path, python: str, images: int | None = None, timing: str = "simple", timeout: float = 600.0
) -> tuple[dict[str, np.ndarray], JsonObject]:
    """Run ``run_sanafe.py`` of an exported folder.

    Args:
        python: see :func:`python_of`.
        images: how many of the sample's images; all by default.
        timing: SANA-FE's timing model: ``simple``, ``detailed`` or ``cycle``.
        timeout: seconds after which the simulation is ended.

    Returns:
        Spikes of each layer by name, (N, T, C, h, w), and the results of each image, as ``results.json`` has them.

    Raises:
        MissingExtraError: that Python has no sanafe.
        AshNetsError: the simulation failed, with its own error, or took too long.
    """
    with tempfile.TemporaryDirectory(prefix="ashnets-sanafe-") as output:
        command = [python, str(folder / "run_sanafe.py"), "--timing", timing, "--output", output]
        command += [] if images is None else ["--images", str(images)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=timeout)
        except subprocess.TimeoutExpired:
            raise AshNetsError(
                f"SANA-FE did not end within {timeout:g} s and was stopped: give it more time (--simulate SECONDS); it "
                "makes an object for each synapse, some million a minute"
            ) from None
        except OSError as error:
            raise AshNetsError(f"{python} cannot be started ({error.strerror}): give the path of a Python") from None
        if done.returncode:
            if "No module named 'sanafe'" in done.stderr:
                raise MissingExtraError(f"{python} has no sanafe: {INSTALL}")
            raise AshNetsError(f"SANA-FE failed (status {done.returncode}):\n{done.stderr.strip()[-2000:]}")
        result = json.loads((Path(output) / "results.json").read_text(encoding="utf-8"))
        with np.load(Path(output) / "results.npz", allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}, result


def compare_sanafe(
    folder: Path,
    graph: SpikingGraph,
    placement: Placement,
    spikes: torch.Tensor,
    python: str,
    images: int | None = None,
    timing: str = "simple",
    timeout: float = 600.0,
) -> JsonObject:
    """Spikes, packets, hops, energy and latency of SANA-FE beside ours, means of an image.

    Args:
        spikes: (T, N, C, H, W), those of the folder's sample.

    Returns:
        ``differ`` and ``compared`` spikes, and ``sanafe`` and ``ashnets``, each with ``packets``, ``hops``,
        ``network_pj``, ``synapse_pj``, ``soma_pj`` and ``latency_ns``.
    """
    fired, result = simulate(folder, python, images, timing, timeout)
    shown = spikes[:, : result["images"]]
    expected, _ = graph.run(shown)
    n = result["images"]
    counter = Counter(graph, placement)
    counter.add(shown, carry="image")
    counts, latency = counter.counts(), counter.latency()
    profile = load_profile(PROFILE)
    traffic = counts.traffic
    assert traffic is not None and latency is not None
    sums = {key: sum(one[key] for one in result["each"]) / n for key in result["each"][0]}
    fires = profile.spike.picojoules if profile.spike else 0.0
    return {
        "timing": timing,
        "images": n,
        "differ": sum(int((fired[name] != x.swapaxes(0, 1).numpy()).sum()) for name, x in expected.items()),
        "compared": sum(x.numel() for x in expected.values()),
        "sanafe": {
            "packets": sums["packets"],
            "hops": sums["hops"],
            **{f"{key}_pj": sums[key] * 1e12 for key in ("network", "synapse", "soma")},
            "latency_ns": sums["latency"] * 1e9,
        },
        "ashnets": {
            "packets": traffic.messages / n,
            "hops": traffic.hops / n,
            "network_pj": traffic.picojoules(placement.chip) / n,
            "synapse_pj": counts.synaptic_operations / n * profile.synaptic_operation.picojoules,
            "soma_pj": (counts.membrane_updates * profile.neuron_update.picojoules + counts.spikes * fires) / n,
            "latency_ns": latency.image,
        },
    }
