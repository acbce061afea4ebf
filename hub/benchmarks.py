"""``.eval_results/``: results on a benchmark of the Hub.

The Hub shows these results on the model's page and on the benchmark's leaderboard. It accepts only results on *its*
benchmarks: data sets with an ``eval.yaml``, each of whose tasks names a split; ``dataset.id`` and ``task_id`` are
required (https://huggingface.co/docs/hub/eval-results). So the file is written when a benchmark is named, for the
splits that are its tasks. Results on other images go into ``model-index``, in the card.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from ashnets.errors import ConfigurationError

FILE = ".eval_results/ashnets.yaml"
_ELSE = "leave --benchmark out: the card's model-index contains the results in any case"


@dataclass(frozen=True)
class Benchmark:
    """A benchmark of the Hub.

    Attributes:
        dataset: its id, ``org/name``.
        tasks: split → id of the task that ``eval.yaml`` defines for it.
    """

    dataset: str
    tasks: dict[str, str]


def read_benchmark(dataset: str, token: str | bool | None = None) -> Benchmark:
    """Read the ``eval.yaml`` of a data set on the Hub.

    Raises:
        ConfigurationError: no such data set, or it is not a benchmark.
    """
    from huggingface_hub import errors, hf_hub_download

    try:
        file = hf_hub_download(dataset, "eval.yaml", repo_type="dataset", token=token)
    except errors.RemoteEntryNotFoundError:
        raise ConfigurationError(f"{dataset} is not a benchmark of the Hub: it has no eval.yaml; {_ELSE}") from None
    except errors.RepositoryNotFoundError:
        raise ConfigurationError(f"the Hub has no data set {dataset}, or you have no access to it; {_ELSE}") from None
    except (errors.HfHubHTTPError, errors.HFValidationError, OSError) as error:
        raise ConfigurationError(f"{dataset}: eval.yaml cannot be fetched ({_line(error)}); {_ELSE}") from None
    try:
        with open(file, encoding="utf-8") as stream:
            found = yaml.safe_load(stream)
        tasks = {str(one.get("split", "test")): str(one["id"]) for one in found["tasks"]}
    except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
        raise ConfigurationError(f"{dataset}: eval.yaml names no tasks ({_line(error)}); {_ELSE}") from None
    return Benchmark(dataset, tasks)


def benchmark_results(benchmark: Benchmark, results: Sequence[Any]) -> str:
    """The file's content.

    Args:
        results: ``EvalResult`` of huggingface_hub, the chief metric of each measurement.

    Raises:
        ConfigurationError: nothing was measured on a split that is a task of the benchmark.
    """
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

    entries = [
        EvalResultEntry(
            dataset_id=benchmark.dataset,
            task_id=benchmark.tasks[result.dataset_split],
            value=result.metric_value,
            notes=", ".join(filter(None, (result.metric_name, result.dataset_config))),
        )
        for result in results
        if result.dataset_split in benchmark.tasks
    ]
    if not entries:
        measured = ", ".join(sorted({str(result.dataset_split) for result in results})) or "none"
        has = ", ".join(benchmark.tasks)
        raise ConfigurationError(f"{benchmark.dataset} has tasks on {has}, but the results are on {measured}; {_ELSE}")
    return yaml.safe_dump(eval_result_entries_to_yaml(entries), sort_keys=False)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
