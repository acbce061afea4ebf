"""Model cards, made from the registry, the files of a run and the results files; nothing in them is written by hand.

``card.md`` is the form, ``card-data.yaml`` its words. What was measured, what the paper reports and what is estimated
have separate sections.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

import yaml

from ashnets.digests import WEIGHTS_SHA256
from ashnets.files import JsonObject, read_csv
from ashnets.hub.benchmarks import FILE as BENCHMARK_FILE
from ashnets.hub.benchmarks import Benchmark
from ashnets.hub.card_parts import drawing, energy_table, measured_tables, paper_tables
from ashnets.hub.emissions import Emissions
from ashnets.hub.licenses import license_fields
from ashnets.zoo.describing import Description, describe_config, number
from ashnets.zoo.numbers import CIRCUMSTANCES, EnergyRow, is_as_it_is, measured_energy, paper_rows
from ashnets.zoo.registry import Weights

if TYPE_CHECKING:
    from huggingface_hub import EvalResult, ModelCardData

    from ashnets.configuration import AshNetsConfig


@dataclass(frozen=True)
class Subject:
    """The model that a card describes.

    Attributes:
        title: the repository's name, or the model's.
        source: what ``from_pretrained`` takes.
        config: of the model.
        architecture: its name in the registry; None for an architecture that is not in it.
        license: of the weights, as their owner writes it.
        training_data: a sentence.
        record: the content of ``training.json``; None if there is none.
        trained: None for a bare configuration.
        results: rows of results files of these weights.
        energy: energy estimates of these weights.
        emissions: of the training, as codecarbon measured them.
        dataset: the Hub's id of the corpus of training and results, if it has one.
        benchmark: of the Hub, on which results were measured.
        files: of the repository, without the card.
    """

    title: str
    source: str
    config: AshNetsConfig
    architecture: str | None
    license: str
    training_data: str | None = None
    record: JsonObject | None = None
    trained: bool = True
    results: Sequence[dict[str, str]] = ()
    energy: Sequence[EnergyRow] = ()
    emissions: Emissions | None = None
    dataset: str | None = None
    benchmark: Benchmark | None = None
    files: Sequence[str] = ()
    words: JsonObject = field(default_factory=lambda: card_words())


def card_words() -> JsonObject:
    """The data file of the cards."""
    return yaml.safe_load((resources.files("ashnets.hub") / "card-data.yaml").read_text(encoding="utf-8"))


def bundled_results(weights: Weights) -> list[dict[str, str]]:
    """The rows of the registry's results that belong to these weights."""
    return [row for row in read_csv(weights.results) if row.get(WEIGHTS_SHA256) == weights.digest]


def bundled_energy(name: str, weights: Weights) -> list[EnergyRow]:
    """The registry's energy estimates that belong to these weights."""
    return [row for row in measured_energy(name) if row.weights_sha256 == weights.digest]


def read_record(folder: Path) -> JsonObject | None:
    """``training.json`` of a model folder; None if there is none."""
    file = folder / "training.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None


def card(subject: Subject) -> str:
    """The whole card, metadata first.

    Raises:
        ValueError: metadata that huggingface_hub refuses.
    """
    config, words = subject.config, subject.words
    description = describe_config(config, subject.architecture)
    form = (resources.files("ashnets.hub") / "card.md").read_text(encoding="utf-8")
    paper = paper_rows(subject.architecture) if subject.architecture else []
    notice = _notice(subject)
    return Template(form).substitute(
        metadata=f"---\n{metadata(subject).to_yaml()}\n---",
        title=subject.title,
        notice=f"{notice}\n\n" if notice else "",
        summary=f"ASH-Nets: {description.summary} {description.variant}.",
        usage=words["usage"]["trained" if subject.trained else "untrained"].format(source=subject.source).strip(),
        drawing=drawing(description, config),
        architecture=_sizes(description),
        parameters="\n".join(f"| {part} | {value:,} |" for part, value in description.parameters.items())
        + f"\n| **all** | **{description.totals['parameters']:,}** |",
        macs="\n".join(f"| {part} | {number(value)} |" for part, value in description.macs.items()),
        training=_training(subject),
        measured=_measured(subject),
        paper=paper_tables(paper) or words["nothing"]["paper"],
        energy=energy_table(subject.energy) or words["nothing"]["energy"],
        limits=_limits(subject, bool(paper)),
        citation=_citation(words["citation"]),
    )


def metadata(subject: Subject) -> ModelCardData:
    """The card's YAML, as huggingface_hub's ``ModelCardData``, which checks it.

    Raises:
        ValueError: metadata that huggingface_hub refuses.
    """
    from huggingface_hub import ModelCardData

    words, record = subject.words, subject.record or {}
    started = " ".join(record.get("initialized", ()))
    bases = [hub for part, hub in words["base_models"].items() if part in started]
    results = eval_results(subject) if _pipeline(subject) else []  # model-index has no results without a task
    data: JsonObject = {
        "language": ["en"],
        **license_fields(subject.license),
        "library_name": "ashnets",
        "tags": [*words["tags"], *([] if subject.trained else ["untrained"])],
        "datasets": [subject.dataset] if subject.dataset else None,
        "base_model": bases or None,
        "metrics": sorted({result.metric_type for result in results}) or None,
        "pipeline_tag": _pipeline(subject),
        "model_name": subject.title,
        "eval_results": results or None,
    }
    if subject.emissions is not None:
        data["co2_eq_emissions"] = {
            "emissions": float(f"{subject.emissions.grams:.4g}"),
            "source": f"codecarbon {subject.emissions.version}".strip(),
            "training_type": "fine-tuning" if record.get("task") else "pre-training",
        }
        for key, found in (("geographical_location", "places"), ("hardware_used", "hardware")):
            if said := ", ".join(getattr(subject.emissions, found)):
                data["co2_eq_emissions"][key] = said
    if not results:
        del data["model_name"], data["eval_results"]
    return ModelCardData(**data)


def eval_results(subject: Subject, chief: bool = False) -> list[EvalResult]:
    """The results as ``EvalResult`` of huggingface_hub, one for each row and metric; they make up ``model-index``.

    Their task is that of the model, which is empty if the Hub has no such task.
    Rows of chance, of baselines that do not see the images, and of the blank-image ablation are not results of the
    model: they appear only in the card's tables.

    Args:
        chief: only the first metric of each row, and only rows of the model as it is.
    """
    from huggingface_hub import EvalResult

    words, found = subject.words, []
    for row in subject.results:
        if row.get("variant") in words["baselines"] or (chief and not is_as_it_is(row)):
            continue
        split = row.get("split", "")
        keys = ("direction", "branch", "ranking", "variant")
        which = ", ".join(row[key].replace("_", " ") for key in keys if row.get(key))
        for column in [column for column in words["metrics"] if row.get(column)][: 1 if chief else None]:
            known = words["metrics"][column]
            name = " ".join(filter(None, (row.get("data", ""), split))) or "unnamed"
            found.append(
                EvalResult(
                    task_type=_pipeline(subject) or "",
                    dataset_type=subject.dataset or row.get("data") or "ashnets-corpus",
                    dataset_name=f"{name} ({which})" if which else name,
                    dataset_config=which or None,  # without it the Hub would merge all directions into one result
                    dataset_split=split or None,
                    metric_type=known["metric"],
                    metric_name=known["name"],
                    metric_value=float(row[column]),
                )
            )
    return found


def _pipeline(subject: Subject) -> str | None:
    """The model's task on the Hub; None if the Hub has no such task."""
    return subject.words["pipelines"].get((subject.config.architectures or ["AshNetsModel"])[0])


def _notice(subject: Subject) -> str:
    notices = subject.words["notices"]
    if not subject.trained:
        return notices["untrained"]
    return notices["unrecorded"] if subject.record is None else ""


def _measured(subject: Subject) -> str:
    words = subject.words
    tables = measured_tables(subject.results, CIRCUMSTANCES, words["baselines"])
    if not tables:
        return words["nothing"]["measured"]
    index = words["where"]["index" if _pipeline(subject) else "no task"]
    benchmark = words["where"]["benchmark" if subject.benchmark else "no benchmark"]
    dataset = subject.benchmark.dataset if subject.benchmark else ""
    return f"{tables}\n\n{index} {benchmark.format(file=BENCHMARK_FILE, dataset=dataset)}"


def _sizes(description: Description) -> str:
    s = description.symbols
    lines = [
        f"Images of {s['image_size']} × {s['image_size']} px become N = {s['N']} tokens of width M1 = {s['M1']}; "
        f"texts have up to {s['max_text_length']} tokens; the alignment transformer has {s['layers']} layers."
    ]
    if description.spiking_channels:
        concepts = f"M2 = {s['M2']} concepts" if s["M2"] else "no collector"
        lines.append(f"The spiking branch runs T = {s['T']} steps an image, groups of φ = {s['φ']}, {concepts}.")
    return " ".join(lines)


def _training(subject: Subject) -> str:
    if not subject.trained:
        return "Not trained."
    record = subject.record or {}
    lines = [f"Data: {subject.training_data or 'not stated by the publisher of these weights'}."]
    if learned := record.get("learned_from"):
        amount = f"{learned['images']:,} images" if "images" in learned else f"{learned['items']:,} items"
        items = f"{amount} of `{learned['name']}`, {', '.join(learned['splits'])}"
        lines = [*([lines[0]] if subject.training_data else []), f"Training items: {items}."]
    if record:
        facts = [
            f"recipe `{record['recipe']}`" if record.get("recipe") else "",
            f"seed {record['seed']}" if "seed" in record else "",
            f"{record['pairs_seen']:,} pairs seen" if record.get("pairs_seen") else "",
            f"{record['seconds'] / 60:.0f} minutes on {record['environment']['device']}" if "seconds" in record else "",
        ]
        kept = [f"`{name}`" for name in ("recipe.yaml", "log.jsonl") if name in subject.files]
        there = f"; {' and '.join(kept)} {'are' if len(kept) > 1 else 'is'} in this repository" if kept else ""
        lines.append(f"Run: {', '.join(filter(None, facts))}{there}.")
        lines += [f"Initialized from: {one}." for one in record.get("initialized", ())]
    if subject.emissions is None:
        lines.append(subject.words["nothing"]["emissions"])
    else:
        known = subject.emissions
        energy = "" if known.kilowatt_hours is None else f"{known.kilowatt_hours:.3g} kWh"
        about = ", ".join(filter(None, (energy, *known.places)))
        lines.append(f"CO2 equivalents, estimated by codecarbon: {known.grams:.3g} g{f' ({about})' if about else ''}.")
    lines.append(f"License of the weights: {subject.license}.")
    return "\n".join(f"- {line}" for line in lines)


def _limits(subject: Subject, in_paper: bool) -> str:
    words = subject.words["limits"]
    chosen = ["always"]
    if not subject.trained:
        chosen.append("untrained")
    elif subject.results:
        chosen.append("seed")
    else:
        chosen.append("unmeasured")
    if subject.config.has_spiking_branch:
        chosen.append("spiking")
    if subject.energy:
        chosen.append("energy")
    if in_paper:
        chosen.append("paper")
    return "\n".join(f"- {words[key]}" for key in chosen)


def _citation(words: JsonObject) -> str:
    fields = {
        "title": words["title"],
        "author": words["authors"].replace(", ", " and "),
        "year": words["year"],
        "eprint": words["arxiv"],
        "archivePrefix": "arXiv",
        "url": words["url"],
    }
    lines = ",\n".join(f"  {key} = {{{value}}}" for key, value in fields.items())
    return (
        "The architecture is from the paper below; this is an independent implementation, not by its authors.\n\n"
        f"```bibtex\n@misc{{ashnets{words['year']},\n{lines}\n}}\n```"
    )
