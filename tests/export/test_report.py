"""The energy report: its numbers are those of the parts, its files are read back, its page needs nothing else."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from ashnets.cli.energy import energy as energy_command
from ashnets.configuration import AshNetsConfig
from ashnets.errors import ConfigurationError, DataError, InputError, WeightsError
from ashnets.export.counting import count
from ashnets.export.energy.estimating import estimate
from ashnets.export.energy.html import TEMPLATE, page, verdict
from ashnets.export.energy.images import Images, read_images
from ashnets.export.energy.profiles import FOLDER, load_profile, profile_names
from ashnets.export.energy.report import (
    _similar,
    artificial_layers,
    count_and_estimate,
    energy_report,
    energy_rows,
    layer_rows,
    write_report,
)
from ashnets.export.energy.text import print_report
from ashnets.export.graph import from_model
from ashnets.export.models import compare, energy
from ashnets.export.placement.chips import FOLDER as CHIPS
from ashnets.export.placement.chips import load_chip
from ashnets.export.placement.placing import place
from ashnets.files import JsonObject
from ashnets.model import AshNetsForRetrieval
from ashnets.model.sampling import image_key, probabilistic_sampling
from ashnets.model.tdbn import calibrate
from ashnets.processor import AshNetsImageProcessor

PROFILES = ["45nm-fp32", "a100-bf16", "loihi1-sanafe-with-a100"]
SCHEMA = TEMPLATE.with_name("energy-report.schema.json")


@pytest.fixture(scope="module")
def images() -> Images:
    pixels = torch.rand(5, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    return Images(pixels, [3, 1, 4, 15, 9], "five images of noise")


@pytest.fixture(scope="module")
def model(config: AshNetsConfig, images: Images) -> AshNetsForRetrieval:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AshNetsForRetrieval(AshNetsConfig(**{**config.to_dict(), "group_size": 2})).eval()
    encoder = model.ashnets.vision.abstract_encoder
    spikes = probabilistic_sampling(images.pixels, images.image_keys, config.time_steps, config.sampling_seed)
    calibrate(encoder, [spikes], run=encoder.run)
    return model


@pytest.fixture(scope="module")
def report(model: AshNetsForRetrieval, images: Images) -> JsonObject:
    profiles = [load_profile(name) for name in PROFILES]
    return energy_report(model, images, profiles, name="small", weights="random, for a test", progress=False)


def complaints(value: Any, schema: JsonObject, root: JsonObject, place: str = "") -> Iterator[str]:
    """Where ``value`` breaks ``schema``: the part of JSON Schema that ours uses, and no keyword is passed over."""
    known = {
        "$ref",
        "type",
        "const",
        "enum",
        "properties",
        "required",
        "additionalProperties",
        "items",
        "minItems",
        "minLength",
        "minimum",
        "maximum",
        "anyOf",
        "$schema",
        "$defs",
        "title",
        "description",
    }
    assert set(schema) <= known, set(schema) - known
    if "$ref" in schema:
        yield from complaints(value, root["$defs"][schema["$ref"].removeprefix("#/$defs/")], root, place)
    if "anyOf" in schema and all(list(complaints(value, one, root, place)) for one in schema["anyOf"]):
        yield f"{place} fits none of its forms"
    if "const" in schema and value != schema["const"]:
        yield f"{place} is {value!r}"
    if "enum" in schema and value not in schema["enum"]:
        yield f"{place} is {value!r}"
    kinds = {
        "boolean": bool,
        "object": dict,
        "array": list,
        "string": str,
        "integer": int,
        "number": (int, float),
        "null": type(None),
    }
    if "type" in schema:
        names = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
        if (isinstance(value, bool) and "boolean" not in names) or not any(isinstance(value, kinds[n]) for n in names):
            yield f"{place} is {type(value).__name__}"
            return
    if isinstance(value, dict):
        properties, more = schema.get("properties", {}), schema.get("additionalProperties", {})
        yield from (f"{place} lacks {key}" for key in schema.get("required", []) if key not in value)
        for key, item in value.items():
            if key not in properties and more is False:
                yield f"{place} has {key}"
            else:
                yield from complaints(item, properties.get(key, more or {}), root, f"{place}/{key}")
    if isinstance(value, list):
        if len(value) < schema.get("minItems", 0):
            yield f"{place} is too short"
        for i, item in enumerate(value):
            yield from complaints(item, schema.get("items", {}), root, f"{place}/{i}")
    if isinstance(value, str) and len(value) < schema.get("minLength", 0):
        yield f"{place} is empty"
    if isinstance(value, int | float) and not schema.get("minimum", value) <= value <= schema.get("maximum", value):
        yield f"{place} is {value}"


def test_the_report_is_what_its_schema_says(report: JsonObject) -> None:
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    told = json.loads(json.dumps(report))
    assert list(complaints(told, schema, schema)) == []
    for change in (
        lambda r: r.pop("group"),
        lambda r: r.update(kind="measurement"),
        lambda r: r["estimates"][0].pop("assumptions"),
        lambda r: r["estimates"][0].update(assumptions=[]),
        lambda r: r["estimates"][0].update(unit="J"),
        lambda r: r["estimates"][0]["constants"]["mac"].update(source=""),
        lambda r: r["counts"]["layers"][0].update(spikes=1.5),
        lambda r: r["counts"].update(surprise=1),
        lambda r: r["placement"]["traffic"]["layers"][0].pop("messages"),
        lambda r: r["placement"].update(fits="yes"),
        lambda r: r["estimates"][2].update(routing="guessed"),
    ):
        broken = json.loads(json.dumps(report))
        change(broken)
        assert list(complaints(broken, schema, schema))


def test_counts_and_estimates_are_those_of_the_parts(
    report: JsonObject, model: AshNetsForRetrieval, images: Images
) -> None:
    graph = from_model(model, "small")
    spikes = probabilistic_sampling(images.pixels, images.image_keys, 2 * graph.time_steps, graph.encoding.seed)
    fired = [x.sum((0, 1)).numpy() for x in (spikes[:6], *list(graph.run(spikes[:6])[0].values())[:-1])]
    placement = place(graph, load_chip("loihi1"), "best", fired)
    counts = count(graph, spikes[: graph.time_steps], placement=placement)
    assert report["counts"] == counts.to_dict()
    assert counts.spikes > 0
    # Each image by the model's own forward, from a reset state.
    with torch.no_grad():
        forward = model.ashnets.vision(images.pixels, image_keys=images.image_keys)
    own = {name: int(n.sum()) for name, n in forward.layer_spikes.items()}
    for layer in counts.layers:
        assert layer.spikes == pytest.approx(own[layer.name], rel=0.02), "folding rounds, and flips a few"
    for name, found in zip(PROFILES, report["estimates"], strict=True):
        one = estimate(counts, load_profile(name), artificial_layers(model), found["data"])
        assert found == one.to_dict()
        assert "five images of noise" in found["data"]

    longer = count(graph, spikes, placement=placement)
    for curves, one in zip(report["curves"], report["estimates"], strict=True):
        assert [point["steps"] for point in curves["over_steps"]] == list(range(1, 13))
        assert curves["over_steps"][5]["spiking"] == pytest.approx(one["spiking"]["total"])
        profile = load_profile(curves["profile"])
        assert curves["over_steps"][11]["spiking"] == pytest.approx(estimate(longer, profile).spiking)


def test_the_placement_gives_the_routing(report: JsonObject, model: AshNetsForRetrieval, images: Images) -> None:
    placed = report["placement"]
    assert (placed["fits"], placed["chip"], placed["mapping"]) == (True, "loihi1", "best")
    total, traffic = placed["traffic"]["total"], report["counts"]["layers"]
    for here, there in (("messages", "messages"), ("hops_east_west", "east_west"), ("hops_north_south", "north_south")):
        assert total[here] == pytest.approx(sum(layer["traffic"][there] for layer in traffic) / 5)
    energy = total["messages"] * 111 + total["hops_east_west"] * 3 + total["hops_north_south"] * 4.2
    assert total["picojoules"] == pytest.approx(energy)
    for one in report["estimates"]:
        assert one["routing"] == ("placed" if one["profile"].startswith("loihi1") else "assumed")
    loihi = report["estimates"][2]
    assert loihi["spiking"]["routing"] == pytest.approx(energy)
    assert not any("one message" in sentence for sentence in loihi["assumptions"])
    assert sum(one["cores"] for one in placed["populations"]) == placed["cores"]
    assert sum(held is not None for held in placed["mesh"]) == placed["cores"] <= len(placed["mesh"]) == 128
    assert placed["latency"]["steps"] == 6 + 4
    assert placed["latency"]["image"] == pytest.approx(sum(placed["latency"]["by_step"]))
    words = " ".join(Page(page(report)).words)
    assert f"{placed['cores']} of 128 cores" in words
    assert len(re.findall(r"<title>core \d+: concepts", page(report))) == placed["populations"][-1]["cores"]

    small = replace(load_chip("loihi1"), columns=1, rows=1, cores_per_tile=2, neurons=300)
    profiles = [load_profile(PROFILES[2])]
    options = {"name": "small", "weights": "random", "chip": small, "progress": False}
    unplaced = energy_report(model, images, profiles, **options)
    assert unplaced["placement"]["fits"] is False
    assert "which has 2" in unplaced["placement"]["reason"]
    one = unplaced["estimates"][0]
    assert one["routing"] == "assumed"
    assert any("one message" in sentence for sentence in one["assumptions"])
    assert "is assumed, not counted" in page(unplaced)
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    assert list(complaints(json.loads(json.dumps(unplaced)), schema, schema)) == []
    console = Console(width=80, record=True, file=io.StringIO())
    print_report(unplaced, console)
    assert "The routing of the profiles below is assumed" in " ".join(console.export_text().split())
    with pytest.raises(ConfigurationError, match="which has 2"):
        energy_report(model, images, profiles, must_fit=True, **options)
    with pytest.raises(ConfigurationError, match="mapping='spatail' must be one of best, spatial, linear"):
        energy_report(model, images, profiles, mapping="spatail", **options)


def test_groups_of_similar_images(report: JsonObject, model: AshNetsForRetrieval, images: Images) -> None:
    group = report["group"]
    assert (group["group_size"], group["images"], group["how"]) == (2, 4, "by similarity of ITC embeddings")
    assert group["carried"]["group_size"] == 2
    assert group["reset"]["group_size"] == 1
    assert group["carried"]["membrane_updates"] == group["reset"]["membrane_updates"]
    assert group["carried"]["spikes"] != group["reset"]["spikes"]
    alone = energy_report(
        model,
        Images(images.pixels[:1], [3], "one"),
        [load_profile(PROFILES[0])],
        name="small",
        weights="random",
        progress=False,
    )
    assert alone["group"] is None
    assert "no group to count" in page(alone)
    assert {row["way"] for row in layer_rows(alone)} == {"single, reset"}


def test_inputs_follow_the_model_to_its_device(
    model: AshNetsForRetrieval, images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The meta device plays the GPU: its tensors have no values, and shapes are all that MACs need."""
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)  # or the model looks at values
    elsewhere: Any = deepcopy(model).to("meta")
    assert artificial_layers(elsewhere) == artificial_layers(model)
    shown = []

    def encode_image(pixels: torch.Tensor, image_keys: list[int]) -> tuple[torch.Tensor]:
        shown.append((pixels.device.type, image_keys))
        return (torch.eye(5)[: len(pixels)],)

    elsewhere.encode_image = encode_image
    order, _ = _similar(elsewhere, from_model(model), images, 5)
    assert sorted(order) == [0, 1, 2, 3, 4] and shown == [("meta", images.image_keys)]


def test_the_short_form_agrees(report: JsonObject, model: AshNetsForRetrieval, images: Images) -> None:
    short = count_and_estimate(model, images, [load_profile(PROFILES[0])], name="small")
    one = report["estimates"][0]
    assert short["spikes"] == report["counts"]["spikes"] / 5
    energy = short["energy"][PROFILES[0]]
    assert energy["spiking"] == pytest.approx(one["spiking"]["total"])
    assert energy["artificial"] == pytest.approx(sum(one["artificial"].values()))
    high = one["spiking"]["total_with_memory"]["high"]
    assert energy["high"] == pytest.approx(high + sum(part["high"] for part in one["artificial_with_memory"].values()))


class Page(HTMLParser):
    """Tags in order, with what they refer to; complains of a tag that is closed out of turn."""

    VOID = ("meta",)

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)


def test_the_page_stands_alone_and_says_estimate(report: JsonObject) -> None:
    text = page(report)
    found = Page(text)
    assert found.open == []
    names = {tag for tag, _ in found.tags}
    assert not names & {"script", "link", "img", "iframe", "object", "base", "form"}
    assert not any({"src", "href", "xlink:href", "action"} & set(attributes) for _, attributes in found.tags)
    assert not re.search(r"@import|url\(|https?:", text)
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in found.tags
    for style in ("prefers-color-scheme: dark", "@media print"):
        assert style in text
    words = " ".join(found.words)
    assert "$" not in words
    assert "nan" not in words.lower().split()
    assert words.count("estimate") > 3 * len(PROFILES)
    for one in report["estimates"]:
        assert verdict(one) in words
        for sentence in one["assumptions"]:
            assert sentence in words
        for constant in one["constants"].values():
            assert constant["source"] in words
    assert f"{report['counts']['layers'][0]['synaptic_operations'] / 5:,.0f}" in words
    charts = [attributes["viewbox"] for tag, attributes in found.tags if tag == "svg"]
    assert len(charts) >= 1 + 4 * len(PROFILES)
    assert all(box.startswith("0 0 360 ") for box in charts if box)


def test_every_mark_of_a_chart_lies_in_it(report: JsonObject) -> None:
    for tag, attributes in Page(page(report)).tags:
        for key in ("x", "x1", "x2", "cx"):
            if tag in ("rect", "line", "circle", "text") and attributes.get(key):
                assert 0 <= float(attributes[key]) <= 360  # type: ignore[arg-type]
        if tag == "polyline":
            points = [point.split(",") for point in (attributes["points"] or "").split()]
            assert len(points) > 1
            assert all(0 <= float(x) <= 360 and 0 <= float(y) <= 180 for x, y in points)


def test_names_cannot_break_the_page(report: JsonObject) -> None:
    odd = json.loads(json.dumps(report))
    odd["model"]["name"] = "<script>alert('$model')</script>"
    odd["data"]["source"] = "folder <b>&$data"
    found = Page(page(odd))
    assert found.open == []
    assert not any(tag in ("script", "b") for tag, _ in found.tags)


def test_files_are_read_back(report: JsonObject, tmp_path: Path) -> None:
    written = write_report(report, tmp_path / "out")
    assert [path.name for path in written] == ["energy.json", "energy.csv", "layers.csv", "energy.html"]
    assert json.loads(written[0].read_text(encoding="utf-8")) == json.loads(json.dumps(report))
    assert written[3].read_text(encoding="utf-8") == page(report)
    rows = list(csv.DictReader(io.StringIO(written[1].read_text(encoding="utf-8"))))
    assert len(rows) == len(PROFILES) * (3 + len(report["artificial"]))
    assert {row["kind"] for row in rows} == {"estimate"}
    branch = {row["profile"]: row for row in rows if row["part"] == "spiking branch"}
    for one in report["estimates"]:
        row = branch[one["profile"]]
        assert float(row["without_memory"]) == one["spiking"]["total"]
        parts = [float(row[key]) for key in ("synapse", "neuron", "routing")]
        assert sum(parts) == pytest.approx(one["spiking"]["total"])
        assert row["assumptions"] == "; ".join(one["assumptions"])
        assert bool(row["with_memory_low"]) == (one["profile"] == "45nm-fp32")
    layers = list(csv.DictReader(io.StringIO(written[2].read_text(encoding="utf-8"))))
    assert len(layers) == 3 * 4
    single = [row for row in layers if row["way"] == "single, reset"]
    assert sum(int(row["synaptic_operations"]) for row in single) == report["counts"]["synaptic_operations"]


def test_the_terminal_shows_every_profile(report: JsonObject) -> None:
    console = Console(width=150, record=True, file=io.StringIO())
    print_report(report, console)
    text = console.export_text()
    assert all(name in text for name in (*PROFILES, "small", "five images of noise", "concepts"))
    assert "is an estimate" in text
    assert "…" not in text, "a column is cut off"
    narrow = Console(width=80, record=True, file=io.StringIO())
    print_report(report, narrow)
    shown = narrow.export_text()
    assert max(map(len, shown.splitlines())) <= 80
    numbers = {word for word in text.split() if re.fullmatch(r"[\d,.]+%?", word)}
    assert len(numbers) > 30 and numbers <= set(shown.split()), "each number stands whole"


def test_the_page_has_a_word_for_each_rate(report: JsonObject) -> None:
    """Spikes a neuron and step are a firing rate, spikes an input and step an input rate; nothing else is a rate."""
    text = re.sub(r"<style>.*?</style>|<[^>]+>", " ", page(report), flags=re.DOTALL)
    before = re.findall(r"(\w+) rates?\b", text, re.IGNORECASE)
    assert {word.lower() for word in before} == {"firing", "input"}
    assert (
        "Firing rate: spikes for each neuron and step." in text and "input rate: spikes for each input and step" in text
    )
    assert re.search(r"Break-even of synapses and their routing alone: [\d.]+ spikes for each input and image", text)


@pytest.mark.parametrize("weights", ["trained", "random"])
def test_a_model_without_a_spiking_branch_is_refused(weights: str) -> None:
    with pytest.raises(
        ConfigurationError, match=r"ashnets-tiny-ann has no spiking branch: give a model that has one.*compare"
    ):
        energy("ashnets-tiny-ann", weights=weights)


def test_no_word_of_the_report_is_coined(report: JsonObject) -> None:
    console = Console(width=150, record=True, file=io.StringIO())
    print_report(report, console)
    text = re.sub(r"<style>.*?</style>|<[^>]+>", " ", page(report), flags=re.DOTALL) + console.export_text()
    assert "ANN of the same shape" in text and "twin" not in text
    assert not any("twin" in str(row["part"]) for row in energy_rows(report))


@pytest.mark.parametrize(
    ("spiking", "twin", "said"),
    [
        (
            (10, 20, 30),
            (40, 50, 60),
            "4 times cheaper than the ANN of the same shape; with memory it is always cheaper.",
        ),
        (
            (10, 200, 300),
            (40, 50, 60),
            "4 times cheaper than the ANN of the same shape; with memory it is always more expensive.",
        ),
        (
            (10, 20, 300),
            (5, 40, 60),
            "2 times more expensive than the ANN of the same shape; with memory it is 2 times cheaper "
            "at the low end of both, 5 times more expensive at the high end.",
        ),
    ],
)
def test_verdicts(spiking: tuple[int, ...], twin: tuple[int, ...], said: str) -> None:
    one = {
        "spiking": {
            "total": spiking[0],
            "memory": {"low": 1, "high": 1},
            "total_with_memory": {"low": spiking[1], "high": spiking[2]},
        },
        "dense_twin": twin[0],
        "dense_twin_with_memory": {"low": twin[1], "high": twin[2]},
    }
    assert verdict(one) == f"The spiking branch is {said}"


def test_images_of_a_folder_and_of_a_corpus(corpus: Path, repository: Path, tmp_path: Path) -> None:
    gallery = repository / "zoo" / "gallery" / "images"
    found = read_images(32, images=gallery, limit=3, seed=1)
    assert found.source == "folder images: 3 of 300 images, drawn by seed 1"
    assert (found.pixels.shape, len(set(found.image_keys))) == ((3, 3, 32, 32), 3)
    again, other = (read_images(32, images=gallery, limit=3, seed=seed).image_keys for seed in (1, 2))
    assert again == found.image_keys != other

    held = read_images(32, corpus=corpus, splits=["valid"], limit=64)
    assert held.source == "corpus, valid: all 6 images"
    row = json.loads((repository / "zoo" / "gallery" / "metadata.jsonl").read_text(encoding="utf-8").splitlines()[27])
    assert held.image_keys[0] == image_key(row["image_id"])
    as_processed = AshNetsImageProcessor(32)(gallery.parent / row["file_name"])["pixel_values"][0]
    assert float((held.pixels[0] - as_processed).abs().mean()) < 0.02, "transparent edges are blended in another order"

    for options, kind, message in (
        ({}, ConfigurationError, "--images"),
        ({"images": gallery, "corpus": corpus}, ConfigurationError, "not both"),
        ({"images": gallery, "splits": ["valid"]}, ConfigurationError, "--split valid"),
        ({"images": tmp_path}, DataError, "no images"),
        ({"images": tmp_path / "absent"}, DataError, "absent is not a folder"),
        ({"corpus": corpus, "splits": ["absent"]}, DataError, "no split 'absent'"),
    ):
        with pytest.raises(kind, match=message):
            read_images(32, **options)  # type: ignore[arg-type]
    (tmp_path / "broken.png").write_bytes((gallery / "00a9.png").read_bytes()[:200])
    with pytest.raises(InputError, match=r"broken\.png"):
        read_images(32, images=tmp_path)


def test_the_command_on_the_bundled_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    energy_command("ashnets-tiny", sample=2, profile=["45nm-int8"], output=tmp_path, as_json_=True)
    told = json.loads(capsys.readouterr().out)
    assert told == json.loads((tmp_path / "energy.json").read_text(encoding="utf-8"))
    assert (told["model"]["name"], told["model"]["weights"]) == ("ashnets-tiny", "trained: pictograms")
    assert told["data"]["source"] == "folder images: 2 of 300 images, drawn by seed 0"
    assert all(0 < layer["rate"] < 0.9 for layer in told["counts"]["layers"])
    with pytest.raises(WeightsError, match="no trained weights"):
        energy_command("ashnets-tiny-t1", sample=1)
    energy_command("ashnets-tiny-t1", sample=1, profile=["45nm-int8"], weights="random", seed=3, as_json_=True)
    told = json.loads(capsys.readouterr().out)
    assert told["model"]["weights"].startswith("RANDOM weights (seed 3), never trained")
    assert all(0 < layer["rate"] < 0.9 for layer in told["counts"]["layers"])
    with pytest.raises(ConfigurationError, match=", ".join(profile_names(every=True))):
        energy_command("ashnets-tiny", profile=["h100"])
    absent = tmp_path / "absent"  # these are found before the images are
    with pytest.raises(ConfigurationError, match="mapping='spatail' must be one of best, spatial, linear"):
        energy_command("ashnets-tiny", images=absent, mapping="spatail")
    with pytest.raises(ConfigurationError, match="have the same name, '45nm-int8'"):
        energy_command("ashnets-tiny", images=absent, profile=["45nm-int8", str(FOLDER / "45nm-int8.yaml")])


def test_profiles_of_two_chips_are_compared_on_a_chosen_one(tmp_path: Path) -> None:
    shutil.copy(CHIPS / "loihi1.yaml", tmp_path / "chip.yaml")
    text = (FOLDER / "loihi1-with-a100.yaml").read_text(encoding="utf-8")
    mine = tmp_path / "mine.yaml"
    mine.write_text(text.replace("chip: loihi1 ", "chip: chip.yaml "), encoding="utf-8")
    profiles = [mine, "loihi1-with-a100"]
    with pytest.raises(ConfigurationError, match=r"name different chips .*choose one by --chip"):
        compare(["ashnets-tiny"], images=tmp_path / "absent", profiles=profiles)
    with pytest.raises(ConfigurationError, match="have the same name, 'mine'"):
        compare(["ashnets-tiny"], images=tmp_path / "absent", profiles=[mine, mine])
    (found,) = compare(["ashnets-tiny"], sample=1, profiles=profiles, chip="loihi1", mapping="spatial")
    assert found.measured is not None
    energies = found.measured["energy"]
    assert energies["mine"] == energies["loihi1-with-a100"]
