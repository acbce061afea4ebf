"""Copy the model of a finished run into the package: ``python -m ashnets.zoo.bundling RUN NAME TAG``.

The model, its processor, the recipe, the log and the record of the run go into the folder ``checkpoints/NAME.TAG``. The
SHA-256 of every file goes into ``weights.yaml``. Both are written aside and renamed.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

import yaml

from ashnets.digests import sha256_of
from ashnets.errors import AshNetsError, TrainingError
from ashnets.files import JsonObject, write_atomically
from ashnets.result_folder import MODEL_MARK, result_folder
from ashnets.zoo.registry import ROOT, entry

RECORDS = ("recipe.yaml", "log.jsonl", "training.json")
LIMIT = 20_000_000  # bytes of weights in the repository, at most


def bundle(run: Path, name: str, tag: str, license: str, training_data: str, root: Path = ROOT) -> dict[str, str]:
    """Copy the model of ``run`` into ``root`` and pin its files.

    Args:
        run: the folder of a finished run.
        name, tag: the weights get the name ``name.tag`` in the registry.
        license, training_data: of these weights, in words.
        root: the registry's folder.

    Returns:
        File name → SHA-256.

    Raises:
        TrainingError: the run is not finished, or its weights are larger than 20 MB.
        UnknownModelError: no such name.
    """
    entry(name)
    model = run / "model"
    missing = [name for name in ("config.json", "model.safetensors", *RECORDS) if not (model / name).is_file()]
    if missing:
        raise TrainingError(f"{run} is not a finished run: {model} lacks {', '.join(missing)}")
    files = sorted(model.iterdir())
    size = sum(path.stat().st_size for path in files if path.suffix == ".safetensors")
    if size > LIMIT:
        raise TrainingError(f"{run}: {size:,} bytes of weights are more than the limit of {LIMIT:,}")
    folder = root / "checkpoints" / f"{name}.{tag}"
    with result_folder(folder, MODEL_MARK) as aside:
        for path in files:
            shutil.copyfile(path, aside / path.name)
    pins = {path.name: sha256_of(path) for path in sorted(folder.iterdir())}
    _pin(
        root / "weights.yaml",
        name,
        tag,
        {
            "folder": f"checkpoints/{folder.name}",
            "license": license,
            "training_data": training_data,
            "recipe": f"checkpoints/{folder.name}/recipe.yaml",
            "results": "results/pictograms.csv",
            "sha256": pins,
        },
    )
    return pins


def _pin(path: Path, name: str, tag: str, data: JsonObject) -> None:
    text = path.read_text(encoding="utf-8")
    header = "".join(line for line in text.splitlines(keepends=True) if line.startswith("#"))
    weights = yaml.safe_load(text) or {}
    weights[name] = {tag: data, **{t: d for t, d in weights.get(name, {}).items() if t != tag}}
    write_atomically(path, (header + yaml.safe_dump(weights, sort_keys=False, allow_unicode=True, width=120)).encode())


def main() -> int:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a finished run")
    parser.add_argument("name", help="registry name, such as ashnets-tiny")
    parser.add_argument("tag", help="name of these weights, such as pictograms")
    parser.add_argument("--license", required=True, help="of the weights")
    parser.add_argument("--training-data", required=True, help="a sentence about the training data")
    options = parser.parse_args()
    try:
        pins = bundle(options.run, options.name, options.tag, options.license, options.training_data)
    except AshNetsError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    for name, pin in pins.items():
        print(f"{pin}  {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
