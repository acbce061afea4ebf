"""The tools of the benchmarks against cases computed by hand and against torch's own count of memory."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from measuring import exponent, interleaved, quartiles, ratios
from networks import BaselineEncoder, LoopLIF, check_against_float64, input_of, training_step
from neurons import PASSES, exact_spikes
from reporting import Report, amount
from resident import apart, peak_of
from spiking_lif import check, inputs
from torch.profiler import ProfilerActivity, profile

from ashnets.configuration import AshNetsConfig
from ashnets.model.abstract_encoder import AbstractEncoder
from ashnets.model.tdbn import calibrate

MIB = 2**20


class Clock:
    """A clock that advances only by the calls of ``spending``."""

    def __init__(self) -> None:
        self.now = 0.0
        self.log: list[str] = []

    def __call__(self) -> float:
        return self.now

    def spending(self, name: str, seconds: list[float]) -> Callable[[], None]:
        """A candidate whose calls take these seconds in turn; all later calls take the last number."""

        def call() -> None:
            self.log.append(name)
            self.now += seconds.pop(0) if len(seconds) > 1 else seconds[0]

        return call


def test_candidates_are_interleaved_after_a_warm_up():
    clock = Clock()
    slow, fast = clock.spending("a", [9, 1, 2, 3]), clock.spending("b", [9, 5])
    found = interleaved({"a": slow, "b": fast}, 3, least=0.5, clock=clock)
    assert clock.log == ["a", "b", *"ababab"]
    assert found == {"a": [1, 2, 3], "b": [5, 5, 5]}


def test_a_short_call_is_repeated_and_one_call_is_counted():
    clock = Clock()
    found = interleaved({"a": clock.spending("a", [8, 0.25])}, 2, least=1.0, clock=clock)
    assert found == {"a": [0.25, 0.25]}
    assert len(clock.log) == 2 + 2 * 4


def test_median_and_quartiles_are_of_the_same_ratios():
    """In this case the ratio of the medians, 2 / 6, is outside the quartiles of the ratios."""
    each = ratios([2.0, 1.0, 100.0], [1.0, 6.0, 40.0])
    assert each == [2.0, 1 / 6, 2.5] and quartiles(each) == (2.0, pytest.approx((2 + 1 / 6) / 2), 2.25)
    assert quartiles(ratios([3.0], [2.0])) == (1.5, 1.5, 1.5)
    report = Report()
    assert report.add_ratio("a", "b", "c", [2.0, 1.0, 100.0], [1.0, 6.0, 40.0]) == 2.0
    (row,) = report.rows
    assert (row.ratio, row.low, row.high, row.ratios, row.over) == (2.0, each[1] / 2 + 1, 2.25, each, 2.0)


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_exponent_of_a_power(power: float):
    amounts = [1, 3, 10]
    assert math.isclose(exponent(amounts, [7 * a**power for a in amounts]), power)


def test_targets_and_files(tmp_path: Path):
    report = Report()
    report.add_ratio("s", "c", "a / b", [2.0, 2.0], [1.0, 1.0])
    report.aim("at least", 2.0, at_least=2)
    report.aim("at most", 2.0, at_most=1.5)
    assert [target.reached for target in report.targets] == [True, False]
    report.write(tmp_path, "x", {"seed": 0})
    assert (tmp_path / "x.csv").read_text().splitlines()[1] == "s,c,a / b,2.0,2.0,2.0,2.0,1.0,s,2"
    assert sorted(os.listdir(tmp_path)) == ["x.csv", "x.json"]
    assert [amount(v, "s") for v in (2, 0.0345, 2e-7)] == ["2 s", "34.5 ms", "0.2 µs"]
    assert [amount(2.5e7, "B"), amount(1.02, "")] == ["25 MB", "1.02"]


def known_peaks() -> dict[str, float]:
    """Peaks of known size, in MiB."""

    def torch_blocks() -> torch.Tensor:
        first = torch.ones(40 * MIB // 4)
        second = torch.ones(20 * MIB // 4)
        del first
        return torch.ones(30 * MIB // 4) + second[0]  # 50 and 30 of the sum itself

    def many_blocks() -> list[torch.Tensor]:
        return [torch.ones(MIB // 8) for _ in range(40)]  # half a MiB each

    def numpy_block() -> int:
        return int(np.ones(25 * MIB, dtype=np.uint8).sum(dtype=np.uint8))

    for call in (torch_blocks, many_blocks, numpy_block):
        call()
    calls = {"torch": torch_blocks, "many": many_blocks, "numpy": numpy_block, "nothing": lambda: None}
    return {name: peak_of(call) / MIB for name, call in calls.items()}


def step_peaks() -> tuple[int, int]:
    """A training step of a layer of neurons: resident memory, and the running sum of torch's allocations.

    Without convolutions, whose libraries take buffers that differ between processors and that torch does not count.
    """
    config = small_config()
    neurons = LoopLIF(config)
    spikes = torch.ones(config.time_steps, 2000, 64)
    weight = torch.full((64, 512), 0.01, requires_grad=True)

    def step() -> object:
        return torch.autograd.grad(neurons(spikes @ weight).sum(), weight)

    step()
    resident = peak_of(step)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        step()
    held = peak = 0
    for event in found.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return resident, peak


def small_config(**changes) -> AshNetsConfig:
    return AshNetsConfig(
        backbone="resnet-tiny",
        backbone_widths=[8, 16],
        image_size=64,
        spiking_channels=[8, 16, 24],
        num_concepts=32,
        hidden_size=24,
        num_attention_heads=2,
        time_steps=5,
        group_size=8,
        **changes,
    )


def some_spikes(config: AshNetsConfig, images: int) -> torch.Tensor:
    shape = (config.time_steps, images, 3, config.image_size, config.image_size)
    return (torch.rand(shape, generator=torch.Generator().manual_seed(0)) < 0.5).float()


def all_peaks() -> dict:
    return {"known": known_peaks(), "step": step_peaks()}


@pytest.fixture(scope="module")
def measured() -> dict:
    """Measurements of a separate process."""
    return apart(all_peaks)


def test_peak_of_known_allocations(measured: dict):
    found = measured["known"]
    assert found["torch"] == pytest.approx(80, abs=1)
    assert found["many"] == pytest.approx(20, abs=1)
    assert found["numpy"] == pytest.approx(25, abs=1)
    assert found["nothing"] == pytest.approx(0, abs=0.5)


def test_peak_of_a_step_agrees_with_torchs_count(measured: dict):
    resident, counted = measured["step"]
    assert counted > 80 * MIB
    assert resident == pytest.approx(counted, rel=0.05)


def test_lif_candidates_agree():
    check(*inputs(30, 500, 1))
    x, grad = inputs(6, 40, 0)
    fired = PASSES["ashnets"](x, grad)[0].mean()
    assert 0.15 < fired < 0.4


def test_exact_spikes_by_hand():
    currents = torch.tensor([[1.5, 0.9, 0.5], [0.875, 0.625, 0.25]])
    spikes, closest = exact_spikes(currents)  # h: 1.5, 0.875 after the reset; 0.9, 1.075; 0.5, 0.5
    assert spikes.tolist() == [[True, False, False], [False, True, False]]
    assert closest.tolist() == pytest.approx([0.125, 0.075, 0.5], abs=1e-6)


@pytest.mark.parametrize("readout", ["shared", "per_image"])
@pytest.mark.parametrize("train", [True, False])
def test_baseline_networks_compute_what_ours_does(readout: str, train: bool):
    torch.manual_seed(0)
    config = small_config(readout=readout)
    ours = AbstractEncoder(config)
    spikes = some_spikes(config, 16)
    calibrate(ours, [spikes], lambda x: ours(x, 8))  # with these running statistics, deep layers fire
    baselines = [
        BaselineEncoder(ours),
        BaselineEncoder(ours, channels_last=True),
        BaselineEncoder(ours, neuron=LoopLIF),
    ]
    for encoder in (ours, *baselines):
        encoder.train(train)
    shares = check_against_float64(ours, baselines[0], spikes, 8)
    assert shares["share_near_threshold"] < 0.02
    grad = torch.randn(16, config.num_visual_tokens, config.response_size)
    expected, gradients = training_step(ours, spikes, 8, grad)
    assert expected.mean() > 0.2
    for baseline in baselines:
        response, found = training_step(baseline, input_of(baseline, spikes, 8), 8, grad)
        assert (response != expected).float().mean() < 0.01
        for a, b in zip(found, gradients, strict=True):
            assert (a - b).norm() < 0.05 * b.norm()


def test_a_baseline_with_another_weight_is_noticed():
    torch.manual_seed(0)
    config = small_config()
    ours = AbstractEncoder(config).train()
    baseline = BaselineEncoder(ours).train()
    with torch.no_grad():
        baseline.layers["conv2"].conv.weight[0, 0, 0, 0] += 0.1
    with pytest.raises(AssertionError, match="layer conv2, ashnets"):
        check_against_float64(ours, baseline, some_spikes(config, 8), 8)
