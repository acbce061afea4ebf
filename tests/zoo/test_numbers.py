"""The numbers of the zoo and the tables of the paper; contradictions of the paper are flagged."""

from __future__ import annotations

import csv
import json
import re
import statistics
import subprocess
import sys

import pytest
import yaml

from ashnets import zoo
from ashnets.cli import main
from ashnets.errors import ConfigurationError, UnknownModelError
from ashnets.files import read_csv
from ashnets.zoo import numbers as zoo_numbers
from ashnets.zoo.counting import count_sizes
from ashnets.zoo.names import split
from ashnets.zoo.numbers import choose, numbers, paper_flags, paper_rows, table
from ashnets.zoo.registry import ROOT, read_weights
from ashnets.zoo.sizes import counted

PAPER = ROOT / "paper"


def rows(number: int) -> dict[str, dict[str, str]]:
    """First cell → row, of a table of the paper."""
    found = read_csv(next(PAPER.glob(f"table-{number:02d}-*.csv")))
    return {next(iter(row.values())): row for row in found}


OURS = "ASH-Nets (Ours)"


def test_every_table_is_there_and_every_cell_is_a_number_or_a_dash():
    files = sorted(PAPER.glob("table-*.csv"))
    assert [int(file.name[6:8]) for file in files] == list(range(1, 15))
    for file in files[1:]:
        for row in read_csv(file):
            assert None not in row and None not in row.values(), f"{file.name}: a row of another length"
            for column, cell in list(row.items())[1:]:
                if column not in ("backbone", "transformer", "parameter SR"):
                    assert re.fullmatch(r"\d+(\.\d+)?|–", cell), f"{file.name}: {cell!r}"


def test_differences_that_the_papers_text_states():
    """Sections V-A and V-B also state these numbers, so they reveal errors of our copy."""
    vqa, nlvr, ve = rows(2), rows(7), rows(8)

    def by(table, column, other):
        return round(float(table[OURS][column]) - float(table[other][column]), 2)

    assert by(vqa, "test-dev Overall", "TRAR [47]") == 2.47
    assert by(vqa, "test-dev Overall", "UNITER [14]") == 2.7 and by(vqa, "test-std Overall", "UNITER [14]") == 2.66
    assert by(nlvr, "test-P", "ALBEF [30]") == 5.59 and by(nlvr, "test-P", "X-VLM [51]") == 1.88
    assert by(nlvr, "dev", "ALBEF [30]") == 5.71 and by(nlvr, "dev", "X-VLM [51]") == 1.76
    assert (ve[OURS]["val"], ve[OURS]["test"]) == ("89.51", "89.05")


def test_tables_that_repeat_each_other():
    phi, steps, models, backbones, collector = (rows(n) for n in (9, 10, 11, 13, 14))
    ours = list(models["ASH-Nets"].values())[2:]
    assert list(phi["16"].values())[1:3] == ours[:2] and list(phi["16"].values())[4:] == ours[3:]
    assert list(collector["w"].values())[1:] == list(backbones["ResNet101"].values())[3:]
    assert models["ASH-Nets"]["VQA v2 test-std"] == steps["10"]["test-std Overall"]
    r152 = backbones["ResNet152"]
    assert r152["MSCOCO 1K TR"] == rows(5)[OURS]["1K TR R@1"] and r152["MSCOCO 1K IR"] == rows(5)[OURS]["1K IR R@1"]
    assert r152["VQA v2 test-dev"] == rows(2)[OURS]["test-dev Overall"] and r152["NLVR2 dev"] == rows(7)[OURS]["dev"]


def test_what_is_flagged_is_so():
    phi, steps, models, backbones = (rows(n) for n in (9, 10, 11, 13))
    assert phi["16"]["VQA v2 test-std"] == steps["10"]["test-dev Overall"] != steps["10"]["test-std Overall"]
    assert models["ANNs"]["VQA v2 test-std"] == steps["1"]["test-std Overall"]
    assert models["ANNs+SNNs"]["VQA v2 test-std"] == steps["5"]["test-std Overall"]
    assert backbones["ResNet152"]["SNLI-VE test"] == rows(8)[OURS]["val"] != rows(8)[OURS]["test"]
    assert rows(12)["ASH-Nets (w)"]["training epochs"] == "30" and "Other" in rows(3)[OURS]
    for flag in read_csv(PAPER / "flags.csv"):
        found = rows(int(flag["table"]))
        assert not flag["row"] or flag["row"] in found or int(flag["table"]) == 1
        assert not flag["column"] or flag["column"] in next(iter(found.values())) or int(flag["table"]) == 1
    assert "VinVL" in paper_flags(2)[0] and paper_flags(2, OURS)[0] == paper_flags(2)[0]
    assert paper_flags(11, "SNNs") == () and len(paper_flags(11)) == 2


def test_rows_of_the_paper_by_model():
    data = yaml.safe_load((PAPER / "models.yaml").read_text(encoding="utf-8"))
    assert set(data) <= set(zoo.list_models())
    for name in data:
        assert len(paper_rows(name)) == len(data[name]), name
    (ann,) = paper_rows("ashnets-r101-l3-ann")
    assert ann.table == 11 and ann.cells["NLVR2 dev"] == "80.59" and "T = 1" in ann.flags[0]
    assert paper_rows("ashnets-tiny") == []


def test_the_papers_parameters_are_those_of_the_published_backbones():
    for name, row in (("ashnets-r18", "ResNet18"), ("ashnets-r101", "ResNet101"), ("ashnets-r152", "ResNet152")):
        assert round(counted()[name].backbone_with_classifier / 1e6, 2) == float(rows(13)[row]["parameters (M)"])


def test_sizes_on_file_are_those_that_are_counted():
    assert set(counted()) == set(zoo.list_models()), "run: python -m ashnets.zoo.numbers --count"
    for name in ("ashnets-tiny", "ashnets-tiny-ann", "ashnets-r18-l3-t20"):
        config = zoo.config_of(name)
        fresh, size = count_sizes(config), numbers(name)
        assert counted()[name] == fresh, "run: python -m ashnets.zoo.numbers --count"
        assert size["parameters"] == zoo.describe(name).totals["parameters"] == fresh.total
        macs = dict(fresh.macs)
        macs.pop("transformer, text alone")
        step = macs.pop("abstract encoder, a step", 0)
        assert size["gmac"] == pytest.approx((sum(macs.values()) + step * config.time_steps) / 1e9, abs=1e-4)


def test_measured_numbers_and_none_where_nothing_was_measured(tmp_path, monkeypatch):
    with open(zoo.entry("ashnets-tiny").weights.results, newline="", encoding="utf-8") as stream:
        expected = [row for row in csv.DictReader(stream) if row["model"] == "ashnets-tiny"]
    assert [row for row in numbers("ashnets-tiny")["metrics"] if row in expected] == expected
    big = numbers("ashnets-r152")
    score = zoo_numbers.best(expected, "R@1")["R@1"]
    assert float(score) == max(float(row["R@1"]) for row in expected if row["branch"] == "both"), "no ablation"
    of_seeds = {"ashnets-tiny-ann": (0.4488, 0.4529, 0.4661), "ashnets-tiny-snn": (0.2098, 0.2271, 0.2140)}
    for model, seeds in of_seeds.items():
        value = f"{statistics.mean(seeds):.3f} ± {statistics.stdev(seeds):.3f}"
        line = table([model]).splitlines()[-1]
        assert line.endswith(f"| R@1 {value} (test-twitter-seen, text to image) |"), "text to image, of every seed"
    assert (big["trained"], big["spikes"], big["energy"], big["metrics"]) == (False, None, {}, [])
    line = next(line for line in table(["ashnets-r152"]).splitlines() if "r152" in line)
    assert line.count("–") == 2 and "| none |" in line and "75.4" not in line, "spikes and results"


def test_the_table_with_energy_by_two_profiles(tmp_path, monkeypatch):
    def estimate(profile, joules):
        totals = {"total": joules, "total_with_memory": {"low": joules, "high": joules}}
        words = {"profile": profile, "title": profile, "data": "d", "assumptions": []}
        return {**words, "spiking": totals, "dense_twin": 1.0, "artificial": {}}

    counts = {"images": 2, "spikes": 2401, "synaptic_operations": 10}
    report = {"counts": counts, "estimates": [estimate("a", 2.5e6), estimate("b", 5e5)]}
    (tmp_path / "results" / "energy").mkdir(parents=True)
    (tmp_path / "results" / "energy" / "ashnets-tiny.json").write_text(json.dumps(report))
    monkeypatch.setattr(zoo_numbers, "ROOT", tmp_path)
    head, _, line = table(["ashnets-tiny"]).splitlines()
    assert "| spikes an image | µJ, a | µJ, b |" in head
    assert "| 1,200 | 2.5 | 0.5 |" in line


def test_speeds_are_ratios_beside_their_baselines_and_nothing_else():
    rows = {row["model"]: row for row in read_csv(ROOT / "results" / "throughput.csv")}
    # ours, added after the measurement; it stands between ResNet-18 and ResNet-101
    architectures = {zoo.entry(name).architecture for name in zoo.list_models()} - {"ashnets-r50"}
    assert architectures <= set(rows) and {f"{name}-ann" for name in architectures} <= set(rows)
    for name, row in rows.items():
        for baseline in ("resnet18", "ann"):
            low, middle, high = (float(row[f"{part}_{baseline}"]) for part in ("low", "ratio", "high"))
            assert 0 < low <= high and 0.9 * low <= middle <= 1.1 * high
        assert float(row["ratio_ann"]) == 1 if name.endswith("-ann") else 0 < float(row["ratio_ann"]) < 1
        assert all(row[key] for key in ("batch", "rounds", "seed", "device", "threads", "torch")), name
        assert not {"seconds", "images_per_second"} & set(row), "an absolute figure of a processor says nothing"
        # two ways to the same number: a model over ResNet-18 is its -ann over ResNet-18 times itself over its -ann
        twin = rows[
            next(
                one
                for one in (f"{zoo.entry(name).architecture}{form}-ann" for form in ("", "-l3"))
                if zoo.config_of(one).num_hidden_layers == zoo.config_of(name).num_hidden_layers
            )
        ]
        expected = float(twin["ratio_resnet18"]) * float(row["ratio_ann"])
        assert float(row["ratio_resnet18"]) == pytest.approx(expected, rel=2e-2), f"{name}: not of one run"
    found = numbers("ashnets-r101")["throughput"]
    assert found == {baseline: float(rows["ashnets-r101"][f"ratio_{baseline}"]) for baseline in ("resnet18", "ann")}
    line = next(line for line in table(["ashnets-r101"]).splitlines() if "`ashnets-r101`" in line)
    assert line.split("|")[-4:-2] == [f" {found['resnet18']:.2g} ", f" {found['ann']:.2g} "]
    assert numbers("ashnets-r101-l3-snn")["throughput"] == {}


def test_results_of_tasks_stand_beside_their_chance(tmp_path, monkeypatch):
    (tmp_path / "results").mkdir()
    lines = ["model,data,split,variant,accuracy", "ashnets-tiny,easy-vqa,test,reset,0.61"]
    lines += ["ashnets-tiny,easy-vqa,test,chance,0.25", "ashnets-tiny,easy-vqa,test,bag of words,0.97"]
    (tmp_path / "results" / "easy.csv").write_text("\n".join(lines))
    monkeypatch.setattr(zoo_numbers, "ROOT", tmp_path)
    line = table(["ashnets-tiny"]).splitlines()[-1]
    assert line.endswith("| accuracy 0.610 (easy-vqa test, chance 0.250) |"), "a baseline is no result"


def test_halves_are_rounded_upwards_as_they_are_written():
    assert [zoo_numbers.share(value) for value in ("0.6685", "0.8725", "0.9985", "0.0005", "1.0", "")] == [
        "0.669",
        "0.873",
        "0.999",
        "0.001",
        "1.000",
        "–",
    ]


def test_results_of_bundled_weights_carry_their_digest():
    for name in zoo.list_models(pretrained=True):
        weights = zoo.entry(name).weights
        assert weights.digest == weights.sha256["model.safetensors"]
        rows = [row for row in read_csv(weights.results) if row["model"] == name]
        assert {row["seed"] for row in rows if row["weights_sha256"] == weights.digest} == {"0"}, "others: more seeds"
        assert {row.weights_sha256 for row in zoo_numbers.measured_energy(name)} <= {weights.digest}


def test_the_page_is_what_the_files_say():
    assert (ROOT / "README.md").read_text(encoding="utf-8") == zoo_numbers.page(), "run: python -m ashnets.zoo.numbers"
    assert zoo_numbers.main(["--counts"]) == 2


def test_the_page_names_the_machine_of_each_speed():
    lines = zoo_numbers.page().splitlines()
    for row in read_csv(ROOT / "results" / "throughput.csv"):
        (line,) = [one for one in lines if one.startswith(f"- {row['device']}: ")]
        assert f"`{row['model']}`" in line


def test_choosing():
    assert "ashnets-tiny" in choose(pretrained=True) and "ashnets-r152" not in choose(pretrained=True)
    small = choose(millions=20)
    assert small and all(name.startswith("ashnets-tiny") for name in small)
    assert choose("*-ann", millions=20) == ["ashnets-tiny-ann"]
    assert choose(millions=0.1) == []


def test_list_with_numbers(capsys):
    assert main(["list", "ashnets-tiny*", "--numbers", "--json", "--max-parameters", "20"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found[0]["name"] == "ashnets-tiny" and 5e6 < found[0]["parameters"] < 20e6 and found[0]["metrics"]
    assert main(["list", "ashnets-r18", "-n"]) == 0
    assert "| `ashnets-r18` | none |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["zzz"], "no model matches 'zzz'; `ashnets list` shows all names"),
        (["zzz", "--json"], "no model matches 'zzz'"),
        (["*-r18", "--pretrained", "--numbers"], "no model matches all these options"),
        (["--max-parameters", "0.1"], "no model matches all these options"),
    ],
)
def test_a_list_without_a_model_is_an_error(words, told, capsys):
    assert main(["list", *words]) == UnknownModelError.exit_code
    out, err = capsys.readouterr()
    assert out == "" and told in err


def test_listing_with_numbers_loads_no_framework():
    code = "import sys; from ashnets.cli import main; main(['list', '-n']); print({'torch', 'numpy'} & {*sys.modules})"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "set()"


# Names and pins -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("ashnets-r18", ("ashnets-r18", None, None)),
        ("ashnets-r18.coco", ("ashnets-r18", "coco", None)),
        ("ashnets-r18@v1.0", ("ashnets-r18", None, "v1.0")),
        ("ashnets-r18.coco@refs/pr/1", ("ashnets-r18", "coco", "refs/pr/1")),
        ("ashnets-r18.@", ("ashnets-r18", "", "")),
    ],
)
def test_names_split(name, parts):
    assert split(name) == parts


def test_a_configuration_has_no_revision():
    for call in (zoo.entry, zoo.describe, zoo.create, zoo.config_of):
        with pytest.raises(UnknownModelError, match="@v1 names weights on the Hub"):
            call("ashnets-r18@v1")
    assert zoo.is_name("ashnets-r18.coco@v1") and not zoo.is_name("resnet@v1")


GOOD = {
    "repository": "a/b",
    "commit": "0" * 40,
    "sha256": {"config.json": "f" * 64},
    "license": "mit",
    "training_data": "x",
    "recipe": "r.yaml",
    "results": "r.csv",
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"repository": None}, "neither folder nor repository"),
        ({"commit": "main"}, "commit='main' must be the 40 hexadecimal digits"),
        ({"commit": None}, "must be the 40 hexadecimal digits"),
        ({"sha256": {}}, "64 hexadecimal digits for every file"),
        ({"sha256": {"config.json": "abc"}}, "64 hexadecimal digits for every file"),
    ],
)
def test_weights_without_pins_are_refused(tmp_path, change, message):
    path = tmp_path / "weights.yaml"
    path.write_text(yaml.safe_dump({"m": {"t": GOOD}}))
    found = read_weights(path)["m"]["t"]
    assert (found.repository, found.commit, found.folder) == ("a/b", "0" * 40, None)
    path.write_text(yaml.safe_dump({"m": {"t": {**GOOD, **change}}}))
    with pytest.raises(ConfigurationError, match=message):
        read_weights(path)
