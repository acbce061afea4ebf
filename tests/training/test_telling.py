"""The messages of a run: a case computed by hand, and the recipes for drawings and photographs."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image, ImageDraw

from ashnets.data.framing import filling_frame, fills_frame
from ashnets.data.pairs import Pairs
from ashnets.data.sources.opening import open_source
from ashnets.training.reading import load_recipe
from ashnets.training.telling import advice, end_told, interrupted, next_commands, plan_told
from ashnets.zoo.registry import recipe_path


def photograph(seed: int) -> Image.Image:
    """Smooth colors up to the border."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((50, 40), Image.Resampling.BICUBIC)


def drawing(seed: int, ground: tuple[int, ...] = (250, 240, 200, 255)) -> Image.Image:
    """A disk on plain ground."""
    image = Image.new("RGBA", (50, 40), ground)
    ImageDraw.Draw(image).ellipse((10 + seed, 5, 40, 35), fill=(200, 30 * seed, 0, 255))
    return image


@pytest.fixture
def write(tmp_path):
    """Write images as a folder with captions."""

    def folder(name: str, images: list[Image.Image]):
        (tmp_path / name).mkdir()
        for number, image in enumerate(images):
            image.save(tmp_path / name / f"{number}.png")
            (tmp_path / name / f"{number}.txt").write_text(f"image {number}")
        return tmp_path / name

    return folder


def test_photographs_fill_their_frame_and_drawings_do_not():
    assert all(fills_frame(photograph(seed)) for seed in range(5))
    assert not any(fills_frame(drawing(seed)) for seed in range(5))
    assert not fills_frame(drawing(1, ground=(0, 0, 0, 0))), "transparent"


def test_the_recipe_that_fits_is_named(write, monkeypatch):
    mixed = write("mixed", [photograph(0), photograph(1), photograph(2), drawing(1)])
    (mixed / "3.png").write_bytes(b"damaged")
    source = open_source(mixed)
    pairs = Pairs(source, source.splits, 32)
    assert filling_frame(pairs) == (3, 3)
    own = load_recipe(recipe_path("own-pairs"))
    monkeypatch.setenv("PATH", "")
    told = " ".join(advice(own, pairs, mixed, "runs/mine"))
    assert told.startswith("3 of 3 images looked at fill their frame") and "photographs fit own-photographs" in told
    assert f"`ashnets train own-photographs --corpus {mixed} --output runs/mine --dry-run`" in told
    assert "npm is not on PATH" in told and "Few images to learn from: 4." in told
    source = open_source(write("drawn", [drawing(seed) for seed in range(5)]))
    told = advice(own, Pairs(source, source.splits, 32), "drawn", "runs/mine")
    assert "drawings and cut-outs fit own-pairs" in told[0] and len(told) == 2


def test_the_plan_by_hand():
    phase = {"seconds_run": 600.0, "bytes_total": 10**9, "parameters": 12_340_000}
    plan = {
        "recipe": "own-pairs",
        "model": "ashnets-tiny",
        "device": "cpu",
        "images": 1200,
        "held_out": 60,
        "epochs": 30,
        "steps_per_epoch": 19,
        "initialized": ["all tensors: trained weights of ashnets-tiny"],
        "phases": {"one": phase, "two": {**phase, "bytes_total": 10**18}},
    }
    assert plan_told({**plan, "steps_per_epoch": 1})[2].startswith("30 epochs of 1 step take about")
    first, start, cost, free, end = plan_told(plan)
    assert first == (
        "own-pairs trains ashnets-tiny (12.3 million parameters) on 1,200 images; held out to measure it: 60."
    )
    assert start == "All tensors: trained weights of ashnets-tiny."
    assert cost.startswith("30 epochs of 19 steps take about 20 min and 1000000000.0 GB of memory on cpu")
    assert "GB of memory are free: set a smaller batch_size" in free and "Without --dry-run, the run begins" in end


def test_the_end_by_hand():
    recalls = {"R@1": 0.5, "R@5": 0.75, "R@10": 1.0}
    chance = {"R@1": 0.1, "R@5": 0.5, "R@10": 1.0}
    ways = {"text_to_image": recalls, "image_to_text": recalls}
    blind = {"text_to_image": {**recalls, "R@1": 0.0}, "image_to_text": {**recalls, "R@1": 0.125}}
    validation = {"images": 10, "texts": 8, **ways, "chance": dict.fromkeys(ways, chance), "blank image": blind}
    told = end_told(validation, "runs/a b", ["ashnets one", "ashnets two"])
    assert told == [
        "On 10 held-out images and their 8 texts:",
        "  text to image: R@1 0.500 (chance 0.100; with a blank image 0.000)",
        "  R@5, R@10 would say nothing: among so few, chance alone reaches half or more.",
        "  image to text: R@1 0.500 (chance 0.100; with a blank image 0.125)",
        "  R@5, R@10 would say nothing: among so few, chance alone reaches half or more.",
        "The model is in runs/a b/model.",
        "Examples, right and wrong: runs/a b/validation/examples.html",
        "Next:",
        "  ashnets one",
        "  ashnets two",
    ]
    answered = {"items": 40, "accuracy": 0.625, "baselines": {"chance": 0.25, "bag of words": 0.5}}
    assert end_told(answered, "r", [])[0] == (
        "On 40 held-out items: accuracy 0.625. Without the image: chance 0.250, bag of words 0.500."
    )


def test_commands_can_be_copied_into_a_shell(tmp_path):
    own = (tmp_path / "my images", "a b.png", "it's a car")
    _, search, shown = next_commands("runs/x", ["retrieval", "my images"], own)
    assert search.startswith("ashnets search '") and "'it'\"'\"'s a car'" in search and "runs/x/model" in search
    assert f"'{tmp_path}/my images/a b.png'" in shown
    again = ["train", "own-pairs", "--corpus", "my images", "--output", tmp_path]
    assert interrupted(tmp_path, again).endswith(
        f"start again with `ashnets train own-pairs --corpus 'my images' --output {tmp_path}`"
    )
    (tmp_path / "recipe.yaml").touch()
    assert "up to step 0 is kept (finished epochs: 0)" in interrupted(tmp_path, again)
    folder = tmp_path / "checkpoints" / "step-00000040"
    folder.mkdir(parents=True)
    (folder / "state.json").write_text(json.dumps({"epoch": 2, "step": 40, "ranks": 1}))
    told = interrupted(tmp_path, again)
    assert "up to step 40 is kept (finished epochs: 2)" in told and told.endswith(f"--output {tmp_path} --resume`")
