"""Energy estimates by hand, and what every profile must state."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ashnets.errors import ConfigurationError
from ashnets.export.count import Counts, LayerCounts
from ashnets.export.energy import CONSTANTS, estimate, load_profile, profile_names


@pytest.fixture
def counts() -> Counts:
    """Two pictures of five steps, two layers."""
    return Counts(
        model="small", pictures=2, steps=5,
        layers=(
            LayerCounts("a", 10, 40, 30, 1000, 100, 90, 120),
            LayerCounts("b", 20, 30, 8, 600, 200, 60, 60),
        ),
    )  # fmt: skip


def test_by_hand(counts: Counts) -> None:
    found = estimate(counts, load_profile("45nm-fp32"), {"concrete_encoder": 1000})
    assert found.synapse == pytest.approx(1600 / 2 * 0.9)
    assert found.neuron == pytest.approx(300 / 2 * 4.6)
    assert found.spiking == pytest.approx(720 + 690)
    assert found.dense_twin == pytest.approx(150 * 4.6)
    assert found.artificial == {"concrete_encoder": pytest.approx(4600)}
    assert found.break_even == pytest.approx(5.11, abs=0.005)


def test_the_conclusion_depends_on_the_profile(counts: Counts) -> None:
    """Break-even spikes for each input: 5.11 in 45 nm logic, 0.095 for Loihi 1 against an A100 at its peak."""
    assert load_profile("45nm-int8").mac.value == pytest.approx(0.23)
    assert estimate(counts, load_profile("loihi1-vs-a100")).break_even == pytest.approx(0.0945, abs=0.0005)


@pytest.mark.parametrize("name", profile_names())
def test_every_figure_is_labelled(counts: Counts, name: str) -> None:
    found = json.loads(json.dumps(estimate(counts, load_profile(name), {"transformer": 7}).to_dict()))
    assert found["kind"] == "estimate"
    assert found["unit"] == "pJ a picture"
    assert found["model"] == "small"
    assert found["data"] == "2 pictures of 5 steps"
    assert found["profile"] == name
    assert len(found["assumptions"]) > 3
    for key in CONSTANTS:
        constant = found["constants"][key]
        assert constant["unit"] == "pJ"
        assert len(constant["source"]) > 20
        assert 2010 <= constant["year"] <= 2026
    assert found["spiking"]["total"] == pytest.approx(found["spiking"]["synapse"] + found["spiking"]["neuron"])


def test_three_profiles_are_bundled() -> None:
    assert profile_names() == ["45nm-fp32", "45nm-int8", "loihi1-vs-a100"]


def valid() -> dict:
    constant = {"value": 1.5, "unit": "pJ", "source": "measured on our board", "year": 2026}
    return {"title": "our chip", "assumptions": [], **{key: dict(constant) for key in CONSTANTS}}


def test_a_profile_of_ones_own(counts: Counts, tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(valid()))
    found = estimate(counts, load_profile(path), data="our pictures")
    assert found.profile.name == "mine"
    assert found.data == "our pictures"
    assert found.synapse == pytest.approx(1200)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p.pop("mac"), "must hold exactly"),
        (lambda p: p.update(extra=1), "must hold exactly"),
        (lambda p: p.update(assumptions="none"), "list"),
        (lambda p: p["mac"].pop("source"), "mac"),
        (lambda p: p["mac"].update(source=" "), "source"),
        (lambda p: p["mac"].update(unit="nJ"), "'pJ'"),
        (lambda p: p["mac"].update(year="2014"), "year"),
        (lambda p: p["neuron_update"].update(value=-1), "neuron_update.value=-1"),
        (lambda p: p["neuron_update"].update(value=float("nan")), "neuron_update.value=nan"),
        (lambda p: p["neuron_update"].update(value="81"), "neuron_update.value='81'"),
    ],
)
def test_a_profile_without_its_sources_is_refused(change, message: str, tmp_path: Path) -> None:
    profile = valid()
    change(profile)
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(profile))
    with pytest.raises(ConfigurationError, match=message) as caught:
        load_profile(path)
    assert "mine.json" in str(caught.value)


def test_a_missing_or_damaged_profile_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="45nm-fp32"):
        load_profile("45nm-fp16")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_profile(tmp_path / "absent.json")
    (tmp_path / "cut.json").write_text('{"title": ')
    with pytest.raises(ConfigurationError, match="not valid JSON"):
        load_profile(tmp_path / "cut.json")
