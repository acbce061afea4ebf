"""The benchmark of own images: a part of a folder, scaled rates, and one way from end to end."""

from __future__ import annotations

import json
from pathlib import Path

import own_images
import pytest

from ashnets.data.corpus import open_gallery
from ashnets.data.sources.opening import open_source
from ashnets.files import read_csv
from ashnets.training.reading import load_recipe
from ashnets.zoo.registry import recipe_path


@pytest.fixture
def folder(repository, tmp_path) -> Path:
    """Twelve drawings for training and eight for testing."""
    made = tmp_path / "stamps-drawings"
    (made / "drawings").mkdir(parents=True)
    rows = []
    for number, row in enumerate(list(open_gallery(repository / "zoo" / "gallery"))[:20]):
        file = f"drawings/{number}.png"
        (made / file).write_bytes(row["path"].read_bytes())
        split = "train" if number < 12 else "test"
        rows.append({"file_name": file, "captions": [row["name"]], "concept": row["name"], "split": split})
    (made / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
    return made


def test_a_part_has_fewer_training_images_and_the_same_test_images(folder, tmp_path):
    whole = open_source(folder, hold_out=0)
    part = open_source(own_images.part_of(folder, 5, tmp_path / "part"), hold_out=0)
    assert part.split("train").num_rows == 5
    assert set(part.split("train")["file"].to_pylist()) < set(whole.split("train")["file"].to_pylist())
    assert part.split("test").equals(whole.split("test"))


def test_all_rates_are_scaled():
    recipe = recipe_path("own-pairs")
    before, after = load_recipe(recipe), load_recipe(recipe, own_images.scaled("own-pairs", 0.5))
    assert {part: 2 * one.lr for part, one in after.optimizers.items()} == {
        part: pytest.approx(one.lr) for part, one in before.optimizers.items()
    }


def test_a_finished_way_is_not_repeated(folder, tmp_path, monkeypatch, capsys):
    arguments = [str(folder), "--ways", "as it is", "--output", str(tmp_path / "out")]
    assert own_images.main(arguments) == 0
    first, second = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert (first["direction"], second["direction"]) == ("text_to_image", "image_to_text")
    assert (first["n"], first["chance R@1"], first["trained on"]) == (8, 0.125, 0)
    assert first["R@1"] > first["blank R@1"], "drawings of a vendor that it knows by others"
    monkeypatch.setattr(own_images, "measure", None)
    table = tmp_path / "own-images.csv"
    monkeypatch.setattr(own_images, "RESULTS", table)
    for number in (100, 50):
        rows = [{**one, "way": "own-pairs", "trained on": number} for one in (first, second)]
        (tmp_path / "out" / f"a-{number}.json").write_text(json.dumps(rows))
    assert own_images.main([*arguments, "--table"]) == 0
    found = [(row["way"], row["trained on"], row["direction"]) for row in read_csv(table)]
    ways = ("text_to_image", "image_to_text")
    runs = (("as it is", "0"), ("own-pairs", "50"), ("own-pairs", "100"))
    assert found == [(*one, way) for one in runs for way in ways], "by size, not by the names of files"
