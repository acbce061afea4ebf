"""Energy estimates by hand, the constants against what was written down apart from the files, and what is refused."""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from ashnets.errors import ConfigurationError
from ashnets.export.counting import Counts, LayerCounts, Steps
from ashnets.export.energy.estimating import estimate, over_rate, over_steps
from ashnets.export.energy.memory import value_energy
from ashnets.export.energy.profiles import FOLDER, SPIKING, load_profile, load_profiles, profile_names
from ashnets.export.placement.chips import load_chip
from ashnets.export.placement.traffic import Traffic
from ashnets.zoo.macs import DenseLayer


@pytest.fixture
def counts() -> Counts:
    """Two images of five steps, two layers."""
    return Counts(
        model="small",
        images=2,
        steps=5,
        layers=(
            LayerCounts(
                "a",
                10,
                40,
                30,
                1000,
                100,
                90,
                120,
                input_neurons=8,
                weights=50,
                by_step=Steps((8,) * 5, (6,) * 5, (100, 150, 200, 250, 300)),
            ),
            LayerCounts(
                "b",
                20,
                30,
                8,
                600,
                200,
                60,
                60,
                input_neurons=10,
                weights=3000,
                by_step=Steps((6,) * 5, (0, 2, 2, 2, 2), (120,) * 5),
            ),
        ),
    )


def test_arithmetic_by_hand(counts: Counts) -> None:
    found = estimate(counts, load_profile("45nm-fp32"), {"concrete_encoder": 1000})
    assert found.synapse == pytest.approx(1600 / 2 * 0.9)
    assert found.neuron == pytest.approx(300 / 2 * 4.6)
    assert found.routing == 0
    assert found.spiking == pytest.approx(720 + 690)
    assert found.dense_twin == pytest.approx(150 * 4.6)
    assert found.int8_twin == pytest.approx(150 * 0.23)
    assert found.artificial == {"concrete_encoder": pytest.approx(4600)}
    assert found.break_even == pytest.approx(5.11, abs=0.005)
    assert found.counted == pytest.approx(800 / 150)


def test_routing_and_spikes_by_hand(counts: Counts) -> None:
    """Loihi 1, both readings: 38 spikes fired and 40 of the sampler's, for two images."""
    first = estimate(counts, load_profile("loihi1-with-a100"))
    assert (first.synapse, first.neuron) == (pytest.approx(800 * 23.6), pytest.approx(150 * 81))
    assert first.routing == pytest.approx(800 * 3.5)
    second = estimate(counts, load_profile("loihi1-sanafe-with-a100"))
    assert second.synapse == pytest.approx(800 * 24)
    assert second.neuron == pytest.approx(150 * 72.8 + 19 * 69.3)
    assert second.routing == pytest.approx((19 + 20) * (111 + 3.6))
    assert second.total.low == second.total.high == pytest.approx(second.spiking)
    assert first.break_even == pytest.approx(2.56 / (23.6 + 3.5))
    assert second.break_even == pytest.approx(2.56 / (24 + 39 * 114.6 / 800)) == pytest.approx(0.0865, abs=5e-5)
    silent = Counts("small", 2, 5, tuple(replace(one, synaptic_operations=0, spikes=0) for one in counts.layers))
    assert estimate(silent, load_profile("loihi1-with-a100")).break_even == pytest.approx(2.56 / (23.6 + 3.5))


def test_a_placement_is_charged_with_the_constants_of_the_profiles_own_chip(counts: Counts) -> None:
    chip, profile = load_chip("loihi1"), load_profile("loihi1-with-a100")
    layers = tuple(replace(layer, traffic=Traffic(100, 10, 5)) for layer in counts.layers)
    found = estimate(replace(counts, layers=layers, chip=replace(chip, name="wide", columns=20)), profile)
    assert found.placed and found.routing == pytest.approx((200 * 111 + 20 * 3 + 10 * 4.2) / 2)
    assert found.break_even == pytest.approx(2.56 / (23.6 + found.routing / 800))
    dear = {key: replace(one, value=1000 * one.value) for key, one in chip.energy.items()}
    found = estimate(replace(counts, layers=layers, chip=replace(chip, name="mine", energy=dear)), profile)
    assert not found.placed and found.routing == pytest.approx(800 * 3.5)
    assert any("every synaptic operation is one hop" in sentence for sentence in found.assumptions)
    assert not estimate(replace(counts, layers=layers, chip=chip), load_profile("45nm-int8")).placed


def test_memory_by_hand(counts: Counts) -> None:
    """Layer b's 3,000 weights (12,000 bytes in fp32) lie in the 32 KiB memory, all else in the 8 KiB one."""
    small, middle = 10 / 2, 20 / 2  # pJ for 32 of 64 bits
    found = estimate(counts, load_profile("45nm-fp32"), {"transformer": [DenseLayer("linear", 5000, 3000, 40, 60)]})
    events = (20 + 15) * small + (15 + 4) * small
    always = 2 * (50 + 100) * small + events
    assert found.memory.high == pytest.approx(500 * (small + 2 * small) + 300 * (middle + 2 * small) + always)
    assert found.memory.low == pytest.approx(50 * small + 300 * middle + always), "300 of b's weights can be in use"
    assert found.total.high == pytest.approx(found.spiking + found.memory.high)
    assert found.dense_twin_memory.low == pytest.approx((50 + 8 + 10 + 10 + 20) * small + 3000 * middle)
    assert found.dense_twin_memory.high == pytest.approx(90 * 2 * small + 60 * (middle + small) + (10 + 20) * small)
    tiny = 10 / 8
    assert found.int8_twin_memory.high == pytest.approx(150 * 2 * tiny + 30 * tiny), "3,000 bytes fit the smallest"
    ordinary = found.artificial_memory["transformer"]
    assert ordinary.low == pytest.approx(3000 * middle + 100 * small)
    assert ordinary.high == pytest.approx(5000 * (middle + small) + 60 * small)
    assert any("memory is an interval" in sentence for sentence in found.assumptions)


def test_a_tensor_lies_in_the_smallest_memory_that_holds_it() -> None:
    levels = load_profile("45nm-int8").memory
    assert [value_energy(levels, 8, values) for values in (1, 8192, 8193, 32768, 32769, 1 << 20, (1 << 20) + 1)] == [
        1.25,
        1.25,
        2.5,
        2.5,
        12.5,
        12.5,
        162.5,
    ]


def test_hardware_that_computes_every_tap_pays_t_dense_passes(counts: Counts) -> None:
    found = estimate(counts, load_profile("a100-bf16"))
    assert found.synapse == pytest.approx(5 * 150 * 2.56)
    assert found.break_even is None
    assert found.break_even_rate.verdict == found.break_even_with_memory.verdict == "never"
    assert {point["spiking"] for point in over_rate(counts, load_profile("a100-bf16"))} == {found.spiking}


def test_break_even_rate_is_where_the_two_meet(counts: Counts) -> None:
    rate = (40 + 30) / ((8 + 10) * 5 * 2)
    fp32 = estimate(counts, load_profile("45nm-fp32"))
    assert fp32.input_rate == pytest.approx(rate)
    # 150 updates cost 690 pJ, as much as the 150 MACs of the ANN.
    assert fp32.break_even_rate.verdict == "never"
    int8 = load_profile("45nm-int8")
    bigger = Counts("small", 2, 5, (counts.layers[0], _with_macs(counts.layers[1], 90)))
    found = estimate(bigger, int8)
    assert found.break_even_rate.verdict == "below"
    assert found.break_even_rate.rate == pytest.approx(rate * (180 * 0.23 - 150 * 0.23) / (800 * 0.03))
    large = Counts("small", 2, 5, (_with_macs(counts.layers[1], 10**6),))
    assert estimate(large, int8).break_even_rate.verdict == "always"


def _with_macs(layer: LayerCounts, macs: int) -> LayerCounts:
    return LayerCounts(**{**vars(layer), "dense_macs": macs})


def test_curves_pass_through_what_was_counted(counts: Counts) -> None:
    profile = load_profile("45nm-fp32")
    found = estimate(counts, profile)
    steps = over_steps(counts, profile)
    assert [point["steps"] for point in steps] == [1, 2, 3, 4, 5]
    assert steps[0]["spiking"] == pytest.approx((100 + 120) / 2 * 0.9 + 30 * 4.6)
    assert steps[1]["spiking"] == pytest.approx((250 + 240) / 2 * 0.9 + 60 * 4.6)
    assert steps[-1]["spiking"] == pytest.approx(found.spiking)
    assert (steps[-1]["low"], steps[-1]["high"]) == (pytest.approx(found.total.low), pytest.approx(found.total.high))
    rates = over_rate(counts, profile)
    assert rates[0]["spiking"] == pytest.approx(690), "silence still updates every membrane"
    assert rates[10]["rate"] == pytest.approx(found.input_rate)
    assert rates[10]["spiking"] == pytest.approx(found.spiking)
    assert rates[-1]["spiking"] == pytest.approx(690 + 2 * 720)


# Written down from the sources, apart from the files: pJ for a synaptic operation, a neuron update, a MAC, an int8 MAC.
CONSTANTS = {
    "45nm-fp32": (0.9, 4.6, 4.6, 0.23),
    "45nm-fp16": (0.4, 1.5, 1.5, 0.23),
    "45nm-int8": (0.03, 0.23, 0.23, 0.23),
    "loihi1-with-a100": (23.6, 81, 2.56, 1.28),
    "loihi1-sanafe-with-a100": (24.0, 51.2 + 21.6, 2.56, 1.28),
    "spinnaker-with-a100": (13300, 26000, 2.56, 1.28),
    "spinnaker2-with-a100": (450, 2190, 2.56, 1.28),
    "a100-bf16": (2 * 1.28, 2 * 1.28, 2.56, 1.28),
    "a100-fp32": (41, 41, 41, 1.28),
}


def test_every_bundled_profile_is_checked() -> None:
    assert set(profile_names(every=True)) == set(CONSTANTS)
    assert profile_names() == ["45nm-fp32", "45nm-int8", "loihi1-with-a100"]


@pytest.mark.parametrize("name", CONSTANTS)
def test_constants_and_labels(counts: Counts, name: str) -> None:
    profile = load_profile(name)
    found = (profile.synaptic_operation, profile.neuron_update, profile.mac, profile.mac_int8)
    assert [one.picojoules for one in found] == pytest.approx(list(CONSTANTS[name]))
    if name.startswith("45nm"):
        sizes = [(level.bytes, level.access_bits, level.access.picojoules) for level in profile.memory]
        assert sizes == [(8192, 64, 10), (32768, 64, 20), (1 << 20, 64, 100), (None, 64, 1300)]
    else:
        assert profile.memory == ()
    told = json.loads(json.dumps(estimate(counts, profile, {"transformer": 7}).to_dict()))
    assert (told["kind"], told["unit"], told["model"]) == ("estimate", "pJ an image", "small")
    assert (told["data"], told["profile"]) == ("2 images of 5 steps", name)
    assert len(told["assumptions"]) > 3
    assert {*SPIKING, "mac", "mac_int8"} <= set(told["constants"])
    for constant in told["constants"].values():
        assert len(constant["source"]) > 20
        assert 2010 <= constant["year"] <= 2026
    spiking = told["spiking"]
    assert spiking["total"] == pytest.approx(spiking["synapse"] + spiking["neuron"] + spiking["routing"])


def test_the_conclusion_turns_with_the_profile(counts: Counts) -> None:
    """Break-even spikes for each input: 5.11 in 45 nm logic, 0.095 for Loihi 1 against an A100 at its peak."""
    assert estimate(counts, load_profile("45nm-fp32")).break_even == pytest.approx(5.11, abs=0.005)
    assert estimate(counts, load_profile("loihi1-with-a100")).break_even == pytest.approx(0.0945, abs=0.0005)


def valid() -> dict:
    constant = {"value": 1.5, "unit": "nJ", "source": "measured on our board", "year": 2026}
    return {
        "title": "our chip",
        "bits": {"weight": 8, "state": 24, "activation": 16, "event": 32},
        "spiking": {"execution": "events", "synaptic_operation": dict(constant), "neuron_update": dict(constant)},
        "dense": {"profile": "a100-bf16"},
        "memory": [
            {"name": "SRAM", "bytes": 1024, "access_bits": 32, "access": dict(constant)},
            {"name": "DRAM", "bytes": None, "access_bits": 64, "access": dict(constant)},
        ],
        "assumptions": [],
    }


def write(profile: dict, folder: Path) -> Path:
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(profile))
    return path


def test_a_profile_of_ones_own(counts: Counts, tmp_path: Path) -> None:
    found = estimate(counts, load_profile(write(valid(), tmp_path)), data="our images")
    assert (found.profile.name, found.data) == ("mine", "our images")
    assert found.synapse == pytest.approx(800 * 1500), "nJ become pJ"
    assert found.dense_twin == pytest.approx(150 * 2.56)
    assert found.profile.dense_title == "A100 at its peak, bf16"


def test_two_profiles_of_one_name_are_refused(tmp_path: Path) -> None:
    """One of them would replace the other in the table of a comparison."""
    (tmp_path / "a").mkdir()
    one, other = write(valid(), tmp_path), write(valid(), tmp_path / "a")
    with pytest.raises(ConfigurationError, match=f"{one} and {other} have the same name, 'mine'"):
        load_profiles([one, "45nm-int8", other])
    assert [profile.name for profile in load_profiles([one, "45nm-int8"])] == ["mine", "45nm-int8"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p.pop("dense"), "the file lacks dense"),
        (lambda p: p.update(extra=1), "no key extra"),
        (lambda p: p.update(title=None), "title=None"),
        (lambda p: p.update(assumptions="none"), "assumptions='none' must be a list"),
        (lambda p: p["bits"].update(state=0), "bits.state=0"),
        (lambda p: p["bits"].pop("event"), "bits lacks event"),
        (lambda p: p["spiking"].update(execution="magic"), "spiking.execution='magic' must be events or dense"),
        (lambda p: p["spiking"].pop("neuron_update"), "spiking lacks neuron_update"),
        (lambda p: p["spiking"].update(hops=3), "or neither"),
        (lambda p: p["spiking"]["neuron_update"].pop("source"), "spiking.neuron_update lacks source"),
        (lambda p: p["spiking"]["neuron_update"].update(source=" "), "spiking.neuron_update.source=' '"),
        (lambda p: p["spiking"]["neuron_update"].update(unit="J"), "spiking.neuron_update.unit='J' must be one of"),
        (lambda p: p["spiking"]["neuron_update"].update(year="2014"), "spiking.neuron_update.year='2014'"),
        (lambda p: p["spiking"]["neuron_update"].update(value=-1), "spiking.neuron_update.value=-1"),
        (lambda p: p["spiking"]["neuron_update"].update(value=float("nan")), "spiking.neuron_update.value=nan"),
        (lambda p: p["spiking"]["neuron_update"].update(value=float("inf")), "spiking.neuron_update.value=inf"),
        (lambda p: p["spiking"]["neuron_update"].update(value=True), "spiking.neuron_update.value=True"),
        (lambda p: p["spiking"]["neuron_update"].update(value="1e-3"), "write 1.0e-3"),
        (lambda p: p.update(dense={"profile": "h100"}), "dense.profile='h100' must be a bundled profile"),
        (lambda p: p.update(dense={"mac": valid()["memory"][0]["access"]}), "dense lacks mac_int8"),
        (lambda p: p.update(memory={}), "memory={} must be a list"),
        (lambda p: p["memory"][0].update(bytes=None), "only the last level"),
        (lambda p: p["memory"][1].update(bytes=512), "memory.1..bytes=512 must be larger than the 1024"),
        (lambda p: p["memory"][1].update(bytes=2048), "memory.1..bytes must be null"),
        (lambda p: p["memory"][0]["access"].pop("year"), "memory.0..access lacks year"),
    ],
)
def test_a_profile_that_does_not_say_everything_is_refused(change, message: str, tmp_path: Path) -> None:
    profile = deepcopy(valid())
    change(profile)
    with pytest.raises(ConfigurationError, match=message) as caught:
        load_profile(write(profile, tmp_path))
    assert "mine.yaml" in str(caught.value)


def test_a_missing_or_damaged_profile_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"'45nm-fp8'.*45nm-fp32"):
        load_profile("45nm-fp8")
    with pytest.raises(ConfigurationError, match=r"absent\.yaml cannot be read"):
        load_profile(tmp_path / "absent.yaml")
    for text, message in (("title: [", "not valid YAML"), ("- a\n", "contains list"), ("", "contains NoneType")):
        (tmp_path / "cut.yaml").write_text(text)
        with pytest.raises(ConfigurationError, match=message):
            load_profile(tmp_path / "cut.yaml")
    (tmp_path / "cut.yaml").write_bytes(b"title: \xff")
    with pytest.raises(ConfigurationError, match="UTF-8"):
        load_profile(tmp_path / "cut.yaml")


def test_the_template_is_to_be_filled_in(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"cp .*template\.yaml my-chip\.yaml"):
        load_profile("template")
    with pytest.raises(ConfigurationError, match="title=None"):
        load_profile(FOLDER / "template.yaml")
    # Filled in, it is a profile: no key of it is unknown.
    text = (FOLDER / "template.yaml").read_text(encoding="utf-8")
    assert "Loihi 2" in text
    filled = yaml.safe_load(text)
    filled["title"], filled["assumptions"], filled["spiking"]["hops"] = "Loihi 2, our board", ["measured"], 2
    for entry in (*filled["spiking"].values(), *(level["access"] for level in filled["memory"])):
        if isinstance(entry, dict):
            entry.update(value=2.0, year=2026, source="our own measurement")
    filled["memory"][0]["bytes"] = 131072
    profile = load_profile(write(filled, tmp_path))
    assert (profile.hops, profile.memory[1].bytes, profile.message.picojoules) == (2, None, 2.0)
