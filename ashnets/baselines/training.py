"""Baselines in the training loop of ASH-Nets: the same pairs, draws, optimizers, schedule, checkpoints and resume.

ViLT uses the objectives of its paper (section 3.3). For ITM, the image of each pair is replaced by another image of the
batch with probability 0.5; for MLM, words of the true pair are masked. Each pair needs two joint forward passes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from ashnets import objectives as obj
from ashnets.baselines.starting import build_baseline, continue_baseline
from ashnets.data.sources.opening import Source
from ashnets.errors import ConfigurationError
from ashnets.evaluation.embedding import embed_images
from ashnets.evaluation.retrieval import RetrievalSet
from ashnets.evaluation.two_stage import matching_score
from ashnets.files import JsonObject
from ashnets.model.pretrained import AshNetsPreTrainedModel
from ashnets.tasks.finetuning import TaskRun
from ashnets.training.distributed import gather, shares
from ashnets.training.learner import Learner
from ashnets.training.pretrain import Batch, Keys, PreTrainingStep
from ashnets.training.recipe import Phase
from ashnets.training.run import Run
from ashnets.training.setup import Started

OBJECTIVES = {"vilt": {"itm", "mlm"}, "frozen": {"itc"}}


class ViltStep(PreTrainingStep):
    """ITM and MLM of ViLT on all pairs."""

    def forward(
        self, batch: Batch, spikes: torch.Tensor | None = None, keys: Keys | None = None
    ) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        """See `PreTrainingStep.forward`."""
        model, pairs = self.model, len(batch.samples)
        visual = model.ashnets.vision(batch.pixel_values)
        losses: dict[str, torch.Tensor] = {}
        counts: dict[str, torch.Tensor | int] = {}
        figures: dict[str, torch.Tensor] = {}
        if "itm" in self.names:
            others, matching = self.replaced(batch)
            tokens = torch.where(matching.bool().view(-1, 1, 1), visual.output, gather(visual.output)[others])
            logits = model.match(tokens, batch.input_ids, batch.attention_mask)
            losses["itm"], counts["itm"] = obj.itm_loss(logits, matching), pairs
            figures["itm_accuracy"] = (logits.detach().argmax(1) == matching).float().mean()
        if "mlm" in self.names:
            everyone = torch.arange(pairs, device=batch.input_ids.device)
            self._masked(batch, visual, everyone, losses, counts, figures)
        weights = shares(torch.tensor([float(counts[name]) for name in losses], device=batch.input_ids.device))
        return {name: loss * weight for (name, loss), weight in zip(losses.items(), weights, strict=True)}, figures

    @staticmethod
    def replaced(batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Indices (B,) of other samples' images, uniformly drawn; and whether each pair keeps its own image, (B,)."""
        positive = obj.same_sample(batch.samples, gather(batch.samples))
        others = obj.hard_negatives(
            torch.zeros(positive.shape, device=positive.device), positive, 1.0, batch.draws.negative_image
        )
        return others.clamp_min(0), ((batch.draws.fused < 0.5) | (others < 0)).long()


class BaselineLearner(Learner):
    """The learner of pre-training with the objectives of a baseline."""

    def step_of(self, phase: Phase) -> nn.Module:
        """See `Learner.step_of`."""
        if self.recipe.baseline != "vilt":
            return super().step_of(phase)
        return ViltStep(self.model, list(phase.objectives), concrete_only=True, fused_share=1.0, mask_id=self.mask_id)


class BaselineRun(Run):
    """Pre-training of a baseline."""

    def _model(self, source: Source) -> Started:
        recipe, baseline = self.recipe, str(self.recipe.baseline)
        for phase in recipe.phases:
            strange = sorted(set(phase.objectives) - OBJECTIVES[baseline])
            if strange or not phase.concrete_only or phase.grouping != "random":
                raise ConfigurationError(
                    f"phases.{phase.name}: {baseline} uses {', '.join(sorted(OBJECTIVES[baseline]))}, "
                    f"random groups and concrete_only; found {', '.join(phase.objectives)}, {phase.grouping}"
                )
        captions = (c for split in recipe.train for row in source.split(split)["captions"].to_pylist() for c in row)
        return build_baseline(recipe, captions)

    def _learner(self, model: AshNetsPreTrainedModel) -> Learner:
        return BaselineLearner(self.recipe, model, self.processor.tokenizer.mask_token_id, self.accelerator)

    def _validate(self, readable: list[int], phase: Phase) -> dict[str, float]:
        if self.recipe.baseline != "vilt":
            return super()._validate(readable, phase)
        return {"valid_matching_accuracy": round(self._matching(readable), 4)}

    def _close(self, readable: list[int], heading: tuple[str, str]) -> JsonObject:
        if self.recipe.baseline != "vilt":
            return super()._close(readable, heading)
        return {"images": len(readable), "matching_accuracy": self._matching(readable), "chance": 0.5}

    def _matching(self, readable: list[int]) -> float:
        measured = RetrievalSet.of_pairs(self.images.valid, readable)
        model, tokenizer = self.learner.published.eval(), self.processor.tokenizer
        return matching_accuracy(model, tokenizer, measured, self.recipe.seed)


class BaselineTaskRun(TaskRun):
    """Fine-tuning of a baseline on questions."""

    def _starting(self, texts: Iterable[str], keys: JsonObject) -> Started:
        return continue_baseline(self.recipe, texts, keys)


@torch.inference_mode()
def matching_accuracy(model: Any, tokenizer: PreTrainedTokenizerBase, measured: RetrievalSet, seed: int) -> float:
    """Accuracy of ITM on each image with its own text and with the text of another image; chance is 0.5."""
    count = len(measured.indices)
    order = np.random.default_rng(seed).permutation(count)
    texts = torch.tensor([next(iter(own)) for own in measured.texts_of])  # (G,)
    own = torch.arange(count)
    other = torch.empty_like(own)
    other[torch.as_tensor(order)] = torch.as_tensor(np.roll(order, 1))
    differs = texts != texts[other]
    _, tokens = embed_images(model, measured.images, measured.indices, keep_tokens=True)
    score = matching_score(model, tokenizer, [measured.texts[int(i)] for i in texts], tokens)
    right = torch.cat([score(own, own) > 0, score(other, own)[differs] <= 0])
    return float(right.float().mean())
