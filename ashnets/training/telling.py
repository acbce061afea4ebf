"""What a run tells people in sentences: its plan, its end, and how to go on after an interruption."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import psutil

from ashnets.data.framing import filling_frame
from ashnets.data.pairs import Pairs
from ashnets.files import JsonObject, cache_folder
from ashnets.training.checkpoint import checkpoints, read_state
from ashnets.training.closing import BLANK, EXAMPLES, PAGES
from ashnets.training.folder import MODEL
from ashnets.training.recipe import Recipe
from ashnets.words import command, counted

OWN = {  # recipes for images of one's own → what they fit
    "own-pairs": "drawings and cut-outs fit own-pairs, which starts from weights that were trained on drawings",
    "own-photographs": "photographs fit own-photographs, a frozen ResNet-50 (ImageNet) with a small model behind it",
}
FEW = 300  # images
_WAYS = {"text_to_image": "text to image", "image_to_text": "image to text"}


def costs_of(plan: JsonObject) -> JsonObject:
    """Seconds of a run, bytes of its largest phase, and parameters of its model, from a dry run."""
    phases = plan["phases"].values()
    return {
        "seconds": sum(phase["seconds_run"] for phase in phases),
        "bytes": max(phase["bytes_total"] for phase in phases),
        "parameters": max(phase["parameters"] for phase in phases),
    }


def plan_told(plan: JsonObject) -> list[str]:
    """Sentences on what a run will do and need."""
    costs, kind = costs_of(plan), "image" if "images" in plan else "item"
    cuda = str(plan["device"]).startswith("cuda")
    memory = f"{costs['bytes'] / 1e9:.1f} GB of {'GPU memory' if cuda else 'memory'}"
    free = psutil.virtual_memory().available
    told = [
        f"{plan['recipe' if 'recipe' in plan else 'data']} trains {plan['model']} ({costs['parameters'] / 1e6:.1f} "
        f"million parameters) on {counted(plan[f'{kind}s'], kind)}; held out to measure it: {plan['held_out']:,}.",
        *(f"{origin[:1].upper()}{origin[1:]}." for origin in plan["initialized"]),
        f"{plan['epochs']} epochs of {counted(plan['steps_per_epoch'], 'step')} take about {_time(costs['seconds'])} "
        f"and {memory} on {plan['device']}, beside what reading the images takes.",
    ]
    if not cuda and costs["bytes"] > free:
        told.append(f"Only {free / 1e9:.1f} GB of memory are free: set a smaller batch_size, or memory_saving=true.")
    return [*told, "Nothing was written. Without --dry-run, the run begins."]


def advice(recipe: Recipe, images: Pairs, corpus: str | os.PathLike, output: str | os.PathLike) -> list[str]:
    """Which of the recipes `OWN` fits these images, one of which is ``recipe``."""
    filled, looked = filling_frame(images, recipe.seed)
    best = "own-photographs" if 2 * filled > looked else "own-pairs"
    told = [f"{filled} of {looked} images looked at fill their frame, as photographs do: {OWN[best]}."]
    if best == "own-photographs":
        disk = 65536 * max(recipe.views, 3) * len(images) / 1e9
        told.append(f"Its features take {disk:.1f} GB of the cache; {_free_disk():.0f} GB are free.")
        if shutil.which("npm") is None:
            told.append("npm is not on PATH, so that ResNet-50 (95 MB) can be read only if it was fetched before.")
    if best != recipe.name:
        other = command("train", best, "--corpus", corpus, "--output", output, "--dry-run")
        told.append(f"What it takes on this machine: `{other}`.")
    if len(images) < FEW:
        before = command("evaluate", "ashnets-tiny", "retrieval", corpus, "--split", "all")
        told.append(f"Few images to learn from: {len(images)}. To see what ashnets-tiny finds already: `{before}`.")
    return told


def end_told(validation: JsonObject, output: str | os.PathLike, further: Sequence[str]) -> list[str]:
    """Sentences on what a run has reached and where it lies, and the commands that come next."""
    folder = Path(output)
    return [
        *_measured(validation),
        f"The model is in {folder / MODEL}.",
        f"Examples, right and wrong: {folder / PAGES / EXAMPLES}",
        "Next:",
        *(f"  {one}" for one in further),
    ]


def next_commands(
    output: str | os.PathLike, evaluated: Sequence[str | os.PathLike], own: tuple[Path, str, str] | None
) -> list[str]:
    """The next three commands.

    Args:
        evaluated: task and data for ``ashnets evaluate``.
        own: of own images, their folder, the file of one in it and its text; None for other data.
    """
    model = Path(output) / MODEL
    evaluate = command("evaluate", model, *evaluated, "--output", Path(output) / "evaluation")
    if own is None:
        exported = command("export", model, "--to", "onnx", "--output", Path(output) / "onnx")
        return [evaluate, exported, command("energy", model, "--output", Path(output) / "energy")]
    folder, image, text = own
    return [
        evaluate,
        command("search", folder, text, "--model", model, "--page", "search.html"),
        command("show", folder / image, "--model", model, "--texts", folder, "--page", "show.html"),
    ]


def interrupted(output: str | os.PathLike, again: Sequence[str | os.PathLike]) -> str:
    """A sentence on how to go on.

    Args:
        again: the words of the run's command, without ``--resume``.
    """
    folder = Path(output)
    several = "torchrun … -m " if int(os.environ.get("WORLD_SIZE", "1")) > 1 else ""
    if not (folder / "recipe.yaml").is_file():
        return f"interrupted before anything was written; start again with `{several}{command(*again)}`"
    found = checkpoints(folder / "checkpoints")
    state = read_state(found[-1]) if found else {"epoch": 0, "step": 0}
    return (
        f"interrupted; everything up to step {state['step']} is kept (finished epochs: {state['epoch']}). To go on: "
        f"`{several}{command(*again, '--resume')}`"
    )


def _measured(validation: JsonObject) -> list[str]:
    if "accuracy" in validation:
        others = ", ".join(f"{name} {value:.3f}" for name, value in validation["baselines"].items())
        return [
            f"On {validation['items']:,} held-out items: accuracy {validation['accuracy']:.3f}. Without the image: "
            f"{others}."
        ]
    if "matching_accuracy" in validation:
        return [f"On {validation['images']:,} held-out images: matching accuracy {validation['matching_accuracy']:.3f}"]
    told = [f"On {validation['images']:,} held-out images and their {validation['texts']:,} texts:"]
    for way, name in _WAYS.items():
        chance, blind = validation["chance"][way], validation[BLANK][way]
        keys = [key for key, share in chance.items() if share < 0.5]
        said = ", ".join(f"{key} {validation[way][key]:.3f}" for key in keys)
        by_chance = ", ".join(f"{chance[key]:.3f}" for key in keys)
        unseen = ", ".join(f"{blind[key]:.3f}" for key in keys)
        told.append(f"  {name}: {said} (chance {by_chance}; with a blank image {unseen})")
        if left := [key for key in chance if key not in keys]:
            told.append(f"  {', '.join(left)} would say nothing: among so few, chance alone reaches half or more.")
    return told


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _free_disk() -> float:
    """Free GB where features are kept."""
    place = cache_folder("features")
    existing = next(folder for folder in (place, *place.parents) if folder.exists())
    return shutil.disk_usage(existing).free / 1e9
