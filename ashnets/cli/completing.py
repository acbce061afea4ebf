"""Shell completion: the names that an argument can take. Loads no models and no torch."""

from __future__ import annotations

from pathlib import Path

# Importing that package would load torch.
PROFILES = Path(__file__).resolve().parents[1] / "export" / "energy" / "profiles"
# Copies of names in modules that load torch; a test compares them.
TASKS = ("vqa", "retrieval", "nlvr2", "ve")
FORMATS = ("lava", "onnx", "onnx-sequence", "onnx-unrolled", "onnx-model", "nir", "sana-fe")
BENCHMARKS = (
    "coco-captions",
    "flickr30k",
    "visual-genome",
    "vqa-v2",
    "vqa-cp-v2",
    "coco-qa",
    "nlvr2",
    "snli-ve",
    "easy-vqa",
)
PICTOGRAM_TASKS = ("pictogram-questions", "pictogram-pairs", "pictogram-entailment", "pictogram-retrieval")


def models(incomplete: str) -> list[str]:
    """Names of the registry."""
    from ashnets.zoo.registry import list_models

    return _beginning(list_models(), incomplete)


def recipes(incomplete: str) -> list[str]:
    """Names of the bundled recipes."""
    from ashnets.zoo.registry import ROOT

    return _beginning(sorted(path.stem for path in (ROOT / "recipes").glob("*.yaml")), incomplete)


def experiments(incomplete: str) -> list[str]:
    """Names of the experiments."""
    from ashnets.zoo.experiment_files import experiment_names

    return _beginning(experiment_names(), incomplete)


def tasks(incomplete: str) -> list[str]:
    """Names of the tasks."""
    return _beginning(TASKS, incomplete)


def models_then_tasks(incomplete: str) -> list[str]:
    """What can follow a model's name: another model, or the task."""
    return [*models(incomplete), *tasks(incomplete)]


def formats(incomplete: str) -> list[str]:
    """Names of the export formats."""
    return _beginning(FORMATS, incomplete)


def benchmarks(incomplete: str) -> list[str]:
    """Names of the published benchmarks."""
    return _beginning(BENCHMARKS, incomplete)


def datasets(incomplete: str) -> list[str]:
    """Names of all datasets of the tasks."""
    return _beginning(("images", *BENCHMARKS, *PICTOGRAM_TASKS), incomplete)


def profiles(incomplete: str) -> list[str]:
    """Names of the bundled energy profiles."""
    return _beginning(sorted(path.stem for path in PROFILES.glob("*.yaml")), incomplete)


def indexes(incomplete: str) -> list[str]:
    """Names of the indexes in the cache of ashnets."""
    from ashnets.files import cache_folder

    return _beginning(sorted(path.parent.name for path in cache_folder("indexes").glob("*/index.json")), incomplete)


def _beginning(names: list[str] | tuple[str, ...], incomplete: str) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]
