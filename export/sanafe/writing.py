r"""The placed graph as files for SANA-FE 2.2.9: the chip as YAML, the network as arrays, a script that builds it.

    chip.yaml       tiles, cores, energies and latencies, for ``sanafe.load_arch``
    network.npz     for each layer: weights, biases, threshold, leak, geometry, and the core of each neuron
    run_sanafe.py   builds the network from both, runs the sample and writes spikes, packets, hops, energy and time

A network of SANA-FE has an object for each synapse, so the network itself would be gigabytes of YAML. The script makes
the objects from the arrays; it needs numpy and sanafe alone, and nothing of ours imports sanafe. The simulator's
``leaky_integrate_fire`` computes the integer graph exactly: it leaks, truncates to 1/64, fires strictly above and
resets hard. A float graph is multiplied by 2¹⁸, so that the truncation hardly matters.
"""

from __future__ import annotations

import io
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from ashnets.export.energy.profiles import Profile, load_profile
from ashnets.export.graph import SpikingGraph
from ashnets.export.placement.placed import Placement
from ashnets.files import JsonObject, write_atomically
from ashnets.model.integer import DECAY_ONE

SCALE = 2.0**18  # of a float graph
PROFILE = "loihi1-sanafe-with-a100"  # gives the energy of synapse, neuron and spike
# SANA-FE divides an update: each neuron is accessed in every step and updated where something happens to it. Its
# arch/loihi.yaml has 51.2 and 21.6 pJ, 6.0 and 3.7 ns.
ACCESS_ENERGY, ACCESS_TIME = 51.2 / 72.8, 6.0 / 9.7
# Direction, the chip's energy, and the seconds of its arch/loihi.yaml, which the detailed timing needs.
HOPS = (
    ("north", "hop_north_south", 6.5e-9),
    ("south", "hop_north_south", 6.5e-9),
    ("east", "hop_east_west", 4.1e-9),
    ("west", "hop_east_west", 4.1e-9),
)
LINK_BUFFER = 16  # messages, as in SANA-FE's arch/loihi.yaml
FILES = ("chip.yaml", "network.npz", "run_sanafe.py")


def write_sanafe(graph: SpikingGraph, placement: Placement, folder: Path) -> None:
    """Write :data:`FILES` of a placed graph; ``run_sanafe.py`` also reads ``sample.npz``."""
    chip = yaml.safe_dump(chip_description(placement, load_profile(PROFILE)), sort_keys=False, width=110)
    write_atomically(folder / "chip.yaml", chip.encode())
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **network_arrays(graph, placement))  # type: ignore[arg-type]
    write_atomically(folder / "network.npz", buffer.getvalue())
    script = resources.files("ashnets.export.sanafe").joinpath("run_sanafe.txt").read_text(encoding="utf-8")
    write_atomically(folder / "run_sanafe.py", script.encode())


def network_arrays(graph: SpikingGraph, placement: Placement) -> dict[str, np.ndarray]:
    """The arrays of ``network.npz``."""
    found: dict[str, np.ndarray] = {
        "layers": np.array([layer.name for layer in graph.layers]),
        "steps": np.array(graph.time_steps),
        "input_cores": placement.populations[0].on_chip.astype(np.int32),
    }
    for i, layer in enumerate(graph.layers):
        c = layer.integer
        if c is None:
            weight, bias = layer.weight.double().numpy() * SCALE, layer.bias.double().numpy() * SCALE
            lif = (layer.theta * SCALE, layer.beta)
        else:
            weight, bias = c.weight.numpy(), c.bias.numpy()
            lif = (c.threshold, (DECAY_ONE - c.decay) / DECAY_ONE)
        found |= {
            f"{i}_weight": weight,
            f"{i}_bias": bias.astype(float),
            f"{i}_geometry": np.array([layer.stride, layer.padding, layer.dilation]),
            f"{i}_groups": np.array(layer.groups),
            f"{i}_lif": np.array(lif, dtype=float),
            f"{i}_cores": placement.populations[i + 1].on_chip.astype(np.int32),
        }
    return found


def chip_description(placement: Placement, profile: Profile) -> JsonObject:
    """The dictionary of ``chip.yaml``: input units only in the cores that hold inputs."""
    chip = placement.chip
    joule = {key: one.picojoules * 1e-12 for key, one in chip.energy.items()}
    second = {key: one.nanoseconds * 1e-9 for key, one in chip.latency.items()}
    inputs = np.bincount(placement.populations[0].on_chip.ravel(), minlength=chip.cores).tolist()
    tile = {}
    for direction, key, time in HOPS:
        tile[f"energy_{direction}_hop"] = joule[key]
        tile[f"latency_{direction}_hop"] = time
    update = profile.neuron_update.picojoules * 1e-12
    spike = (profile.spike.picojoules if profile.spike else 0.0) * 1e-12
    lif = {
        "model": "leaky_integrate_fire",
        "energy_access_neuron": update * ACCESS_ENERGY,
        "latency_access_neuron": second["neuron"] * ACCESS_TIME,
        "energy_update_neuron": update * (1 - ACCESS_ENERGY),
        "latency_update_neuron": second["neuron"] * (1 - ACCESS_TIME),
        "energy_spike_out": spike,
        "latency_spike_out": second["spike"],
    }
    free = dict.fromkeys([key for key in lif if key != "model"], 0.0)
    synapse = {
        "model": "current_based",
        "energy_process_spike": profile.synaptic_operation.picojoules * 1e-12,
        "latency_process_spike": second["synapse"],
    }

    def unit(name: str, **attributes: Any) -> JsonObject:
        return {"name": name, "attributes": attributes}

    def core(number: int) -> JsonObject:
        somas = [unit("lif", **lif)]
        if inputs[number]:
            somas.append(unit(f"input[0..{inputs[number] - 1}]", model="input", **free))
        return {
            **unit(
                f"core{number}",
                buffer_position="soma",
                buffer_inside_unit=False,
                max_neurons_supported=max(chip.neurons, inputs[number]),
            ),
            "axon_in": [unit("axon_in", energy_message_in=0.0, latency_message_in=second["message_in"])],
            "soma": somas,
            "dendrite": [unit("dendrite", model="accumulator", energy_update=0.0, latency_update=0.0)],
            "synapse": [unit("synapse", **synapse)],
            "axon_out": [
                unit("axon_out", energy_message_out=joule["message"], latency_message_out=second["message_out"])
            ],
        }

    tiles = [
        {**unit(f"tile{i}", **tile), "core": [core(i * chip.cores_per_tile + k) for k in range(chip.cores_per_tile)]}
        for i in range(chip.columns * chip.rows)
    ]
    mesh = {
        "topology": "mesh",
        "width": chip.columns,
        "height": chip.rows,
        "link_buffer_size": LINK_BUFFER,
        "sync_model": "table",
        "latency_sync": {tiles: time * 1e-9 for tiles, time in chip.barrier},
    }
    return {"architecture": {"name": chip.name, "attributes": mesh, "tile": tiles}}
