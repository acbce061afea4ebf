"""A training recipe: one YAML file that says everything a run depends on."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ashnets.errors import ConfigurationError
from ashnets.objectives import NAMES

GROUPINGS = ("random", "similar")
PARTS = ("transformer", "concrete", "spiking")
_PLAIN = ("bool", "float", "int", "str")


@dataclass
class Phase:
    """A run of epochs with the same objectives (paper, section IV-A).

    Attributes:
        concrete_only: the spiking branch, collector and summary ratio are frozen and switched off.
        grouping: ``random``, or ``similar``: regrouped by ITC similarity before each epoch.
        objectives: name → weight in the loss.
        negative_temperature: τ of the draw of ITM's negatives; ITC's own τ by default. A matching head that starts
            from nothing stays at "never matching" when all its negatives are hard: a τ near 1 draws easy ones too.
    """

    name: str
    epochs: int
    concrete_only: bool
    grouping: str
    objectives: dict[str, float]
    negative_temperature: float | None = None


@dataclass
class Optimiser:
    """``adamw`` or ``sgd`` (momentum 0.9) for one part of the model."""

    kind: str
    lr: float
    weight_decay: float = 0.0


@dataclass
class Schedule:
    """Linear warm-up over steps, then ×``gamma`` from each milestone epoch on, or a cosine to zero."""

    kind: str = "milestones"
    warmup_steps: int = 1000
    milestones: list[int] = field(default_factory=lambda: [25, 35])
    gamma: float = 0.1


@dataclass
class Recipe:
    """What a pre-training run depends on.

    Attributes:
        model: registry name of the architecture, trained from its configuration with ``changes``.
        corpus: name of the kind of corpus, for the record.
        train, valid: splits.
        pairs: pairs a step; a multiple of φ.
        fused_pairs: pairs of a step that ITM, MLM and MVM see; the others only meet in ITC and STUA. The joint
            passes cost several times the unimodal ones.
        bare_name: probability that a picture's caption is its bare name.
        transformer_weights: folder or ``package:NAME`` of a BERT-type checkpoint in safetensors;
            its ``vocab.txt``, pruned to the captions, makes the tokenizer.
        backbone_weights: ``imagenet``, a folder, or ``random``.
        precision: ``bf16`` (autocast) or ``fp32``.
        start: folder of an earlier run's phase checkpoint, whose tensors the model starts from; the phases up to
            and with that checkpoint's are left out. This is how two variants share one concrete phase.
    """

    name: str
    model: str
    phases: list[Phase]
    optimisers: dict[str, Optimiser]
    schedule: Schedule
    transformer_weights: str
    corpus: str = "pictograms"
    changes: dict[str, Any] = field(default_factory=dict)
    train: list[str] = field(default_factory=lambda: ["train"])
    valid: str = "valid"
    seed: int = 0
    pairs: int = 128
    fused_pairs: int = 32
    bare_name: float = 0.4
    backbone_weights: str = "random"
    precision: str = "bf16"
    clip: float = 5.0
    start: str | None = None

    @property
    def epochs(self) -> int:
        return sum(phase.epochs for phase in self.phases)

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def phase_of(self, epoch: int) -> Phase:
        """The phase of an epoch, counted from 0."""
        for phase in self.phases:
            if epoch < phase.epochs:
                return phase
            epoch -= phase.epochs
        raise IndexError(f"the recipe ends after {self.epochs} epochs")


def load_recipe(path: Path, overrides: list[str] | None = None) -> Recipe:
    """Read and check a recipe file; ``overrides`` are ``key=value`` or ``key.sub=value``.

    Raises:
        ConfigurationError: naming the file, the key and the value.
    """
    try:
        data = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{path}: no such recipe ({error.strerror})") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: not valid YAML ({' '.join(str(error).split())})") from error
    if not isinstance(data, dict):
        raise ConfigurationError(f"{path}: a recipe is a mapping of keys, found {type(data).__name__}")
    for override in overrides or []:
        _override(data, override)
    recipe = _build(Recipe, data, str(path))
    _check(recipe, str(path))
    return recipe


def _override(data: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals:
        raise ConfigurationError(f"override {override!r}: write it as key=value or key.sub=value")
    place: Any = data
    *parents, last = key.split(".")
    for parent in parents:
        entries = dict(enumerate(place)) if isinstance(place, list) else place
        place = entries.get(int(parent) if parent.isdigit() else parent)
        if not isinstance(place, dict | list):
            raise ConfigurationError(f"override {override!r}: the recipe has no {parent!r} with keys of its own")
    try:
        parsed = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ConfigurationError(f"override {override!r}: the value is not valid YAML") from error
    if isinstance(place, list):
        raise ConfigurationError(f"override {override!r}: name a key of one entry, such as {key}.0.epochs")
    place[last] = parsed


def _build(kind: type, data: Any, where: str) -> Any:
    if not isinstance(data, dict):
        raise ConfigurationError(f"{where}: expected keys of {kind.__name__}, found {data!r}")
    fields = {f.name: f for f in dataclasses.fields(kind)}
    unknown = sorted(set(data) - set(fields))
    if unknown:
        raise ConfigurationError(f"{where}: unknown key {', '.join(unknown)}; known: {', '.join(fields)}")
    required = {
        n for n, f in fields.items() if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    }
    missing = sorted(required - set(data))
    if missing:
        raise ConfigurationError(f"{where}: missing key {', '.join(missing)}")
    values = {key: _typed(value, str(fields[key].type), f"{where}: {key}") for key, value in data.items()}
    if kind is Recipe:
        values["phases"] = [_build(Phase, p, f"{where}: phases[{i}]") for i, p in enumerate(data["phases"] or [])]
        values["optimisers"] = {
            k: _build(Optimiser, v, f"{where}: optimisers.{k}") for k, v in (data["optimisers"] or {}).items()
        }
        values["schedule"] = _build(Schedule, data["schedule"] or {}, f"{where}: schedule")
    return kind(**values)


def _typed(value: Any, kind: str, where: str) -> Any:
    """Check a plain value; YAML 1.1 reads ``1e-4`` (no point) as a text, which is taken as the number it means."""
    if kind == "float" and not isinstance(value, bool):
        try:
            return float(value)
        except (TypeError, ValueError):
            pass
    elif kind not in _PLAIN or type(value).__name__ == kind:
        return value
    raise ConfigurationError(f"{where}={value!r} is not of type {kind}")


def _check(recipe: Recipe, where: str) -> None:
    def need(holds: bool, message: str) -> None:
        if not holds:
            raise ConfigurationError(f"{where}: {message}")

    need(bool(recipe.phases), "phases is empty; a run needs one at least")
    for i, phase in enumerate(recipe.phases):
        need(phase.grouping in GROUPINGS, f"phases[{i}].grouping={phase.grouping!r} is not one of {GROUPINGS}")
        need(phase.epochs > 0, f"phases[{i}].epochs={phase.epochs!r} must be positive")
        tau = phase.negative_temperature
        need(tau is None or tau > 0, f"phases[{i}].negative_temperature={tau!r} must be positive")
        unknown = sorted(set(phase.objectives) - set(NAMES))
        need(not unknown, f"phases[{i}].objectives has {', '.join(unknown)}; the objectives are {', '.join(NAMES)}")
        need(bool(phase.objectives), f"phases[{i}].objectives is empty")
        spiking = sorted({"mvm", "stua"} & set(phase.objectives))
        need(
            not (phase.concrete_only and spiking),
            f"phases[{i}] is concrete_only but trains {', '.join(spiking)}, which need spikes",
        )
    need(set(recipe.optimisers) == set(PARTS), f"optimisers must hold exactly {', '.join(PARTS)}")
    for name, optimiser in recipe.optimisers.items():
        need(optimiser.kind in ("adamw", "sgd"), f"optimisers.{name}.kind={optimiser.kind!r} is not adamw or sgd")
        need(optimiser.lr > 0, f"optimisers.{name}.lr={optimiser.lr!r} must be positive")
    need(recipe.schedule.kind in ("milestones", "cosine"), f"schedule.kind={recipe.schedule.kind!r}")
    need(recipe.precision in ("bf16", "fp32"), f"precision={recipe.precision!r} is not bf16 or fp32")
    fits = 0 < recipe.fused_pairs <= recipe.pairs
    need(fits, f"fused_pairs={recipe.fused_pairs} must lie in 1..pairs={recipe.pairs}")
