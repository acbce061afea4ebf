"""Fine-tune the bundled model on questions of your own, and ask.

    python examples/finetune_for_questions.py --output runs/shapes

The script draws shapes and writes them in the form of easy-VQA: a list of [question, answer, number of the image] for
each split, and the images. Replace `write_shapes` by your own images and questions in the same form.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw

import ashnets

COLORS, SHAPES = ("red", "green", "blue", "yellow"), ("circle", "square")


def write_shapes(folder: Path, split: str, number: int, seed: int) -> None:
    """Images of one shape each, and two questions on each image."""
    draw, questions = random.Random(seed), []
    (folder / split / "images").mkdir(parents=True, exist_ok=True)
    for i in range(number):
        color, shape = draw.choice(COLORS), draw.choice(SHAPES)
        image = Image.new("RGB", (64, 64), "white")
        left, top, side = draw.randint(4, 20), draw.randint(4, 20), draw.randint(24, 36)
        paint = ImageDraw.Draw(image).ellipse if shape == "circle" else ImageDraw.Draw(image).rectangle
        paint((left, top, left + side, top + side), fill=color)
        image.save(folder / split / "images" / f"{i}.png")
        questions += [["what color is the shape?", color, i], ["what shape is it?", shape, i]]
    (folder / split / "questions.json").write_text(json.dumps(questions), encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder for the data and the run")
    parser.add_argument("--images", type=int, default=1000, help="images to draw for training")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a key of the recipe")
    given = parser.parse_args(arguments)

    data, run = given.output / "data", given.output / "run"
    write_shapes(data, "train", given.images, seed=0)
    write_shapes(data, "test", max(2, given.images // 20), seed=1)
    ashnets.finetune("vqa", "finetune-easy-vqa", data=data, output=run, overrides=given.set)

    questions = ashnets.ImageQuestions(run / "model")
    asked = json.loads((data / "test" / "questions.json").read_text(encoding="utf-8"))
    right = 0
    for question, answer, number in asked:
        (best,) = questions(data / "test" / "images" / f"{number}.png", question, top=1)
        right += best["answer"] == answer
    print(f"{right} of {len(asked)} questions on new images are answered right; chance is 1 in {len(COLORS)} or 2")


if __name__ == "__main__":
    main()
