"""The trained parts of a run: model, averages, queues and optimizers; and one optimizer step."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from contextlib import nullcontext
from typing import Any, cast

import torch
from accelerate import Accelerator
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm
from torch.optim.swa_utils import AveragedModel

from ashnets.errors import ConfigurationError
from ashnets.model.collector import SemanticCollector
from ashnets.model.concrete_encoder import ConcreteEncoder
from ashnets.model.heads import AshNetsForPreTraining
from ashnets.model.recompute import recompute_activations
from ashnets.model.tdbn import calibrating
from ashnets.objectives import EmbeddingQueue
from ashnets.training.distributed import gather, mean_over_ranks, synchronize_norms
from ashnets.training.features import FeatureMemory
from ashnets.training.gauges import Start, gradient_norms
from ashnets.training.means import Means
from ashnets.training.optim import build_optimizers
from ashnets.training.pretrain import Keys, PreTrainingStep, momentum_keys
from ashnets.training.recipe import Phase, Recipe
from ashnets.training.setup import average_of, freeze, resting, save_memory
from ashnets.training.watching import step_ended


class NotFinite(FloatingPointError):
    """A loss, a gradient or a weight is infinite or NaN; ``names`` lists which."""

    def __init__(self, names: list[str]) -> None:
        super().__init__(", ".join(names))
        self.names = names


class Learner:
    """Model, averages, queues and optimizers of a run on one rank.

    Args:
        model: with its starting weights; it is moved to the accelerator's device.

    Attributes:
        modules: name → module, all that a checkpoint must contain, ``model`` first.
    """

    def __init__(self, recipe: Recipe, model: Any, mask_id: int, accelerator: Accelerator) -> None:
        self.recipe, self.model, self.mask_id, self.accelerator = recipe, model, mask_id, accelerator
        self.device: torch.device = accelerator.device
        self.ranks, self.rank = accelerator.num_processes, accelerator.process_index
        _check_heads(recipe, model)
        model.to(self.device)
        if self.device.type == "cpu":
            # On CPU the fused attention's backward pass takes most of a step; plain matrix products do not.
            model.ashnets.transformer.bert.set_attn_implementation("eager")
            if hasattr(model.ashnets.vision, "concrete_encoder"):
                model.ashnets.vision.concrete_encoder.register_forward_pre_hook(_channels_last)
        if self.ranks > 1:
            synchronize_norms(model)
        self.optimizers = build_optimizers(model, recipe)
        self.modules: dict[str, nn.Module] = {"model": model}
        self.encoders: AveragedModel | None = None
        self.queue: EmbeddingQueue | None = None
        self.average: AveragedModel | None = None
        if recipe.queue:
            self.encoders = average_of(model, recipe.momentum)
            self.queue = EmbeddingQueue(recipe.queue, model.config.projection_size).to(self.device)
            self.modules |= {"momentum": self.encoders, "queue": self.queue}
        if recipe.ema:
            self.average = average_of(model, recipe.ema, warm_up=True)
            self.modules["ema"] = self.average
        if recipe.memory_saving:
            save_memory(model)
        if recipe.activation_checkpointing:
            recompute_activations(model)
        self.gradients: dict[str, float] = {}  # of the last measured step
        self.start: Start | None = None
        if hasattr(model, "ashnets") and isinstance(
            getattr(model.ashnets.vision, "collector", None), SemanticCollector
        ):
            self.start = Start(model.ashnets.vision.collector)
            self.modules["start"] = self.start
        self._prepared: Any = None  # the phase, and its step as a module

    @property
    def published(self) -> Any:
        """The model that is validated and published: the average if there is one."""
        return self.model if self.average is None else self.average.module

    @property
    def copies(self) -> list[nn.Module]:
        """The averaged copies of the model."""
        return [copy.module for copy in (self.encoders, self.average) if copy is not None]

    def autocast(self) -> torch.autocast:
        """The recipe's precision."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.recipe.precision == "bf16")

    def prepare(self, phase: Phase) -> None:
        """Prepare for training in a phase; on several ranks DistributedDataParallel needs to know what is frozen."""
        freeze(self.model, phase)
        if self._prepared is None or self._prepared[0] is not phase:
            step = self.step_of(phase)
            if self.ranks > 1:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", FutureWarning)  # accelerate's own words for broadcast_buffers
                    step = self.accelerator.prepare_model(step)
            self._prepared = (phase, step)
        self._prepared[1].train()
        for part in resting(self.model, phase):
            part.eval()
        if self.encoders is not None:
            self.encoders.train()
            for part in resting(cast(AshNetsForPreTraining, self.encoders.module), phase):
                part.eval()

    def begin(self, concepts: torch.Tensor | None = None) -> None:
        """Start a phase: the average of the weights restarts, since a part that was frozen has no average yet.

        Args:
            concepts: C (M1, M2) to start from; as it is if not given.
        """
        if self.average is not None:
            self.average.n_averaged.zero_()
        with torch.no_grad():
            for model in (self.model, *self.copies) if concepts is not None else ():
                model.ashnets.vision.collector.concepts.copy_(concepts)
            if self.start is not None:
                self.start.concepts.copy_(self.model.ashnets.vision.collector.concepts)

    @torch.no_grad()
    def concrete_concepts(self, batches: Iterable[Any]) -> torch.Tensor:
        """Columns for C (M1, M2) homologous to the concrete features: tokens of F_CNN, drawn by the seed.

        The columns are divided by √M2, as at a random start. Every rank gets the same.

        Args:
            batches: this rank's shares of the micro-batches; as many are read as M2 columns need.
        """
        vision, count = self.published.eval().ashnets.vision, self.model.config.num_concepts
        tokens: list[torch.Tensor] = []
        for batch in batches:
            pixels = batch.to(self.device).shown()[0]
            tokens.append(gather(vision.concrete_encoder(pixels).flatten(0, 1)))
            if sum(map(len, tokens)) >= 8 * count:  # enough that neighbors in an image seldom meet
                break
        everything = torch.cat(tokens).float()  # (n, M1)
        generator = torch.Generator().manual_seed(self.recipe.seed)
        drawn = torch.randperm(len(everything), generator=generator)[:count]
        drawn = drawn.repeat(-(-count // len(drawn)))[:count].to(self.device)
        return everything[drawn].T / count**0.5

    def calibrate(self, phase: Phase, batches: Iterable[Any]) -> None:
        """Set the running statistics of the published weights from training batches, over all ranks.

        Parts that the phase does not train keep their statistics. So does a spiking encoder that computes in integers:
        the integers are made from its fixed statistics.

        Args:
            batches: this rank's shares of the micro-batches.
        """
        model = self.published.eval()
        still = resting(model, phase)
        if model.config.has_spiking_branch and model.config.precision != "float":
            still.append(model.ashnets.vision.abstract_encoder)
        kept = {id(module) for part in still for module in part.modules()}
        norms = [m for m in model.modules() if isinstance(m, BatchNorm) and id(m) not in kept]
        if not norms:
            return
        with calibrating(nn.ModuleList(norms)), self.autocast():
            for batch in batches:
                pixels, keys, group_size = batch.to(self.device).shown()
                model.ashnets.vision(pixels, image_keys=keys, group_size=group_size, concrete_only=not phase.spiking)

    def step_of(self, phase: Phase) -> nn.Module:
        """The losses of a phase as one module."""
        recipe = self.recipe
        return PreTrainingStep(
            self.model,
            list(phase.objectives),
            concrete_only=phase.concrete_only,
            beside=phase.beside,
            fused_share=recipe.fused_pairs / recipe.batch_size,
            mask_id=self.mask_id,
            negative_temperature=phase.negative_temperature,
            distillation=recipe.distillation,
        )

    def forward(self, batch: Any, gradients: bool = False) -> tuple[torch.Tensor, dict[str, torch.Tensor], Keys | None]:
        """The weighted loss of the phase, values for the log, and the keys to put into the queue.

        Args:
            gradients: also measure the gradient of each objective in each part, into :attr:`gradients`.
        """
        phase, step = self._prepared
        batch = batch.to(self.device)  # pixel_values (B, 3, H, W)
        with self.autocast():
            spikes = keys = None
            if phase.spiking and self.model.config.has_spiking_branch:
                spikes = self.model.ashnets.vision.sample(batch.pixel_values, batch.image_keys)  # (T, B, 3, H, W)
            if self.encoders is not None and self.queue is not None:
                encoders = cast(AshNetsForPreTraining, self.encoders.module)
                keys = momentum_keys(encoders, self.queue, batch, spikes, phase.concrete_only)
            losses, figures = step(batch, spikes, keys)
            if gradients:
                self.measure_gradients(losses, phase)
            loss = torch.stack([weight * losses[name] for name, weight in phase.objectives.items()]).sum()
        return loss, {"loss": loss.detach(), **{k: v.detach() for k, v in losses.items()}, **figures}, keys

    def measure_gradients(self, losses: dict[str, torch.Tensor], phase: Phase) -> None:
        """Set :attr:`gradients`; all ranks take part."""
        norms = gradient_norms(self.model, losses, phase.objectives)
        self.gradients = {name: float(norm) for name, norm in norms.items()}

    def optimize(self, batches: list[Any], number: int, means: Means) -> None:
        """Optimizer step ``number`` (from 0), with gradients accumulated over one or more micro-batches.

        Raises:
            NotFinite: on every rank, and before a weight has changed.
        """
        recipe = self.recipe
        for optimizer in self.optimizers.values():
            optimizer.zero_grad(set_to_none=True)
        finite, logged = torch.ones((), device=self.device), []
        for i, batch in enumerate(batches):
            torch.manual_seed(recipe.seed * 1_000_003 + (number * recipe.accumulate + i) * 1009 + self.rank)
            # gradients are reduced over ranks once per step, in its last micro-batch
            reduce = i + 1 == len(batches) or self.ranks == 1
            with nullcontext() if reduce else self._prepared[1].no_sync():
                due = bool(recipe.gauge_every) and number % recipe.gauge_every == 0 and i == 0
                loss, values, keys = self.forward(batch, due)
                (loss / len(batches)).backward()
            if keys is not None and self.queue is not None:
                new = slice(keys.new)
                self.queue.enqueue(keys.image[new], keys.text[new], keys.samples[new])
            finite = finite * torch.isfinite(loss.detach())
            logged.append(values)
            means.add(values)
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), recipe.clip)
        if mean_over_ranks(finite * torch.isfinite(norm)) < 1:
            found = [name for values in logged for name, value in values.items() if not torch.isfinite(value)]
            raise NotFinite(list(dict.fromkeys(found)) or ["the gradient"])
        for optimizer in self.optimizers.values():
            optimizer.step()
        for copy in (self.encoders, self.average):
            if copy is not None:
                copy.update_parameters(self.model)
        step_ended()

    def check_weights(self) -> None:
        """Raises NotFinite if a weight is not finite."""
        non_finite = [name for name, p in self.model.named_parameters() if not torch.isfinite(p).all()]
        if non_finite:
            raise NotFinite(non_finite[:4])

    def remember_features(self) -> None:
        """Keep the features of the frozen backbone on disk, for the model and its averages."""
        encoders = [
            m for model in (self.model, *self.copies) for m in model.modules() if isinstance(m, ConcreteEncoder)
        ]
        memory = FeatureMemory(encoders[0].backbone, self.recipe.precision)
        for encoder in encoders:
            encoder.memory = memory

    def renew_copies(self) -> None:
        """Copy changes that were made to the model outside of a step into the averaged copies."""
        for copy in self.copies:
            copy.load_state_dict(self.model.state_dict())


def _channels_last(_: nn.Module, given: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """Convolutions, pooling and norms keep the layout of the images; on a CPU this one takes a quarter less time."""
    return (given[0].contiguous(memory_format=torch.channels_last), *given[1:])


def _check_heads(recipe: Recipe, model: Any) -> None:
    """Reject at the start what would fail hours later."""
    for phase in recipe.phases:
        if phase.concrete_only and not getattr(model.config, "has_concrete_branch", True):
            raise ConfigurationError(
                f"phases.{phase.name} is concrete_only, but {recipe.model} with changes={recipe.changes} has no "
                "concrete branch: remove the phase, or set concrete_only to false"
            )
        both = all(getattr(model.config, f"has_{branch}_branch", False) for branch in ("spiking", "concrete"))
        able = {"mvm": hasattr(model, "mvm"), "stua": hasattr(model, "stua"), "distill": both}
        lacking = [name for name in phase.objectives if not able.get(name, True)]
        if lacking:
            raise ConfigurationError(
                f"phases.{phase.name}.objectives: {', '.join(lacking)} need the spiking branch, mvm also the collector "
                f"and distill the concrete branch, but {recipe.model} with changes={recipe.changes} does not have all "
                "of these: remove the objectives"
            )
    if recipe.remember_features and not getattr(model.config, "has_concrete_branch", True):
        raise ConfigurationError(
            f"remember_features: {recipe.model} with changes={recipe.changes} has no concrete branch whose features "
            "could be kept: set it to false"
        )
    if recipe.stdp is not None and not model.config.has_spiking_branch:
        raise ConfigurationError(f"stdp: {recipe.model} with changes={recipe.changes} has no spiking layers to train")
    if recipe.stdp is not None and model.config.precision != "float":
        raise ConfigurationError(
            f"stdp: {recipe.model} with precision={model.config.precision!r} computes in integers, where small "
            "weight changes are lost; run this stage with precision=float and quantize afterwards"
        )
