"""One pre-training step: from a rank's share of a batch to the losses of the phase."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn

from ashnets import objectives as obj
from ashnets.data.draws import Draws
from ashnets.model.collector import SemanticCollector
from ashnets.model.heads import AshNetsForPreTraining
from ashnets.model.outputs import VisualOutput
from ashnets.objectives.mlm import IGNORED
from ashnets.objectives.mvm import SILENT
from ashnets.training.distributed import gather, pad_to_longest, shares

TOGETHER = 32  # texts of similar length that a CPU encodes in one pass


@dataclass
class Batch:
    """B pairs, groups of φ consecutive images.

    Attributes:
        pixel_values: (B, 3, H, W) in [0, 1].
        image_keys: (B,), ids for the sampler.
        input_ids, attention_mask: (B, L).
        special: (B, L), True on [CLS], [SEP] and [PAD].
        samples: (B,), equal if two pairs belong to the same sample.
        draws: the uniform numbers of each pair.
        group_size: φ of this batch.
        image_ids: names of the images.
        skipped: name → reason, of images that could not be read; a neighbor replaces each.
    """

    pixel_values: torch.Tensor
    image_keys: torch.Tensor
    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    special: torch.Tensor
    samples: torch.Tensor
    draws: Draws
    group_size: int
    image_ids: list[str]
    skipped: dict[str, str]

    def shown(self) -> tuple[torch.Tensor, torch.Tensor, int]:
        """Images (B, 3, H, W), their keys (B,), and the number of images on one time axis."""
        return self.pixel_values, self.image_keys, self.group_size

    def to(self, device: torch.device) -> Batch:
        """The same batch with its tensors on ``device``; image_keys stay on the CPU, where the sampler reads them."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        """The same batch in pinned memory: a DataLoader calls this for a batch that is not a tensor."""
        return self._each(lambda tensor: tensor.pin_memory())

    def _each(self, move: Callable[[torch.Tensor], torch.Tensor]) -> Batch:
        draws = {field.name: move(getattr(self.draws, field.name)) for field in dataclasses.fields(Draws)}
        return dataclasses.replace(
            self,
            pixel_values=move(self.pixel_values),
            input_ids=move(self.input_ids),
            attention_mask=move(self.attention_mask),
            special=move(self.special),
            samples=move(self.samples),
            draws=Draws(**draws),
        )


@dataclass
class Keys:
    """The keys of ITC: embeddings by the momentum encoders of all ranks' pairs, then the queue.

    Attributes:
        image, text: (K, D), of length 1.
        samples: (K,).
        own_image, own_text: (B, D), those of this rank's own pairs.
        new: the first ``new`` of the K keys are of this step; they enter the queue after it.
    """

    image: torch.Tensor
    text: torch.Tensor
    samples: torch.Tensor
    own_image: torch.Tensor
    own_text: torch.Tensor
    new: int


def spiking_figures(visual: Any) -> dict[str, torch.Tensor]:
    """Values of the spiking branch for the log: firing rates in training mode, and the summary ratio."""
    if visual.layer_rates is None:
        return {}
    rates = {f"training_rate_{name}": rate.mean() for name, rate in visual.layer_rates.items()}
    return {**rates, "summary_ratio": visual.summary_ratio.detach().float().mean()}


@torch.no_grad()
def momentum_keys(
    encoders: AshNetsForPreTraining,
    queue: obj.EmbeddingQueue,
    batch: Batch,
    spikes: torch.Tensor | None,
    concrete_only: bool,
) -> Keys:
    """Encode a batch with the momentum encoders and append the queue."""
    own_image, _ = encoders.encode_image(
        batch.pixel_values, spikes=spikes, group_size=batch.group_size, concrete_only=concrete_only
    )
    own_text = encoders.encode_text(batch.input_ids, batch.attention_mask)
    new = [gather(own_image), gather(own_text), gather(batch.samples)]
    image, text, samples = (torch.cat(pair) for pair in zip(new, queue.entries(), strict=True))
    return Keys(image, text, samples, own_image, own_text, len(new[2]))


class PreTrainingStep(nn.Module):
    """The losses of a phase as one module, so that DistributedDataParallel can wrap it.

    For each fused pair ITM uses the positive, a hard negative text and a hard negative image, drawn from all ranks; MLM
    and MVM mask the same pairs in one forward pass. The other pairs are used by ITC and STUA only.

    Args:
        names: objectives to compute.
        concrete_only, beside: see :class:`ashnets.training.recipe.Phase`.
        fused_share: share of the pairs of each group that ITM, MLM and MVM use; at least one per group.
        negative_temperature: τ of the draw of ITM's negatives; ITC's by default.
        distillation: α of ITC's soft targets.
    """

    def __init__(
        self,
        model: AshNetsForPreTraining,
        names: list[str],
        *,
        concrete_only: bool,
        beside: bool = False,
        fused_share: float,
        mask_id: int,
        negative_temperature: float | None = None,
        distillation: float = 0.0,
    ) -> None:
        super().__init__()
        self.model = model
        self.names = names
        self.concrete_only = concrete_only
        self.beside = beside
        self.fused_share = fused_share
        self.mask_id = mask_id
        self.negative_temperature = negative_temperature
        self.distillation = distillation

    def forward(
        self, batch: Batch, spikes: torch.Tensor | None = None, keys: Keys | None = None
    ) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        """Losses by name, weighted so that their mean over ranks is that of the whole batch; and values for the log."""
        model, names = self.model, self.names
        visual = model.ashnets.vision(
            batch.pixel_values,
            spikes=spikes,
            group_size=batch.group_size,
            concrete_only=self.concrete_only and not self.beside,
            tokens="concrete" if self.beside else "output",
        )
        text = first_states(model.ashnets.transformer, batch.input_ids, batch.attention_mask)  # (B, 1, M1)
        tau = model.temperature()
        image_embeds, text_embeds = model.project_image(visual.output), model.project_text(text)  # (B, D) each
        all_samples = gather(batch.samples)  # (ΣB_r,)
        positive = obj.same_sample(batch.samples, all_samples)  # (B, ΣB_r)
        pairs = len(batch.samples)
        losses: dict[str, torch.Tensor] = {}
        counts: dict[str, torch.Tensor | int] = {}
        figures: dict[str, torch.Tensor] = {"tau": tau.detach()}
        if "itc" in names:
            losses["itc"], counts["itc"] = self._itc(batch, image_embeds, text_embeds, tau, positive, keys), pairs
        if "stua" in names:
            spiking, described = model.project_spiking(visual), gather(model.project_text_for_spikes(text))
            with full_precision(tau.device):
                losses["stua"] = obj.stua_loss(spiking, described, model.stua.temperature(), positive)
            counts["stua"] = pairs
        if "distill" in names:
            losses["distill"], counts["distill"] = obj.distillation_loss(visual.abstract, visual.concrete), pairs
        fused = fused_pairs(batch.draws.fused, batch.group_size, self.fused_share)  # (F,)
        if "itm" in names:
            losses["itm"], counts["itm"], figures["itm_accuracy"] = self._itm(
                batch, visual.output, image_embeds, text_embeds, positive, fused, tau
            )
        if "mlm" in names or "mvm" in names:
            self._masked(batch, visual, fused, losses, counts, figures)
        weights = shares(torch.tensor([float(counts[name]) for name in losses], device=tau.device))
        losses = {name: loss * weight for (name, loss), weight in zip(losses.items(), weights, strict=True)}
        return losses, {**figures, **spiking_figures(visual)}

    def _itc(
        self,
        batch: Batch,
        image: torch.Tensor,
        text: torch.Tensor,
        tau: torch.Tensor,
        positive: torch.Tensor,
        keys: Keys | None,
    ) -> torch.Tensor:
        """ℒ_ITC of embeddings (B, D) against those of all ranks, or against the keys of the queue."""
        with full_precision(tau.device):
            if keys is None:
                everyone = gather(image), gather(text)  # (ΣB_r, D) each
                return obj.itc_loss(image, text, tau, positive, everyone)
            return obj.itc_loss(
                image,
                text,
                tau,
                obj.same_sample(batch.samples, keys.samples),  # (B, K)
                (keys.image, keys.text),
                (keys.own_image, keys.own_text),
                self.distillation,
            )

    def _itm(
        self,
        batch: Batch,
        tokens: torch.Tensor,
        image: torch.Tensor,
        text: torch.Tensor,
        positive: torch.Tensor,
        fused: torch.Tensor,
        tau: torch.Tensor,
    ) -> tuple[torch.Tensor, int, torch.Tensor]:
        """ℒ_ITM of the fused pairs, each with a hard negative text and image; the number of matches; and accuracy.

        Args:
            tokens: visual tokens (B, N, M1); ``image`` and ``text`` are embeddings (B, D).
            positive: (B, ΣB_r), True for pairs of the same sample.
            fused: indices (F,) of the pairs.
        """
        ids, mask = pad_to_longest(batch.input_ids), pad_to_longest(batch.attention_mask)  # (B, L) each
        with torch.no_grad(), full_precision(tau.device):
            temperature = self.negative_temperature or tau
            to_text, to_image = image[fused] @ gather(text).T, text[fused] @ gather(image).T  # (F, ΣB_r) each
            draws = batch.draws
            negative_text = obj.hard_negatives(to_text, positive[fused], temperature, draws.negative_text[fused])
            negative_image = obj.hard_negatives(to_image, positive[fused], temperature, draws.negative_image[fused])
        has_text, has_image = negative_text >= 0, negative_image >= 0  # (F,) each; not every pair has a negative
        negative_text, negative_image = negative_text[has_text], negative_image[has_image]
        images = torch.cat([tokens[fused], tokens[fused][has_text], gather(tokens)[negative_image]])  # (F', N, M1)
        ids = torch.cat([ids[fused], gather(ids)[negative_text], ids[fused][has_image]])  # (F', L)
        mask = torch.cat([mask[fused], gather(mask)[negative_text], mask[fused][has_image]])
        matching = torch.zeros(len(ids), dtype=torch.long, device=ids.device)  # (F',)
        matching[: len(fused)] = 1
        logits = self.model.match(images, *trimmed(ids, mask))  # (F', 2)
        accuracy = (logits.detach().argmax(1) == matching).float().mean()
        return obj.itm_loss(logits, matching), len(matching), accuracy

    def _masked(
        self,
        batch: Batch,
        visual: VisualOutput,
        fused: torch.Tensor,
        losses: dict[str, torch.Tensor],
        counts: dict[str, torch.Tensor | int],
        figures: dict[str, torch.Tensor],
    ) -> None:
        """Put ℒ_MLM and ℒ_MVM of the fused pairs (F,) into ``losses``; both share one pass of the transformer."""
        model, names = self.model, self.names
        ids, mask = trimmed(batch.input_ids[fused], batch.attention_mask[fused])  # (F, L) each
        length, tokens = ids.shape[1], cast(torch.Tensor, visual.output)[fused]  # tokens (F, N, M1)
        if "mlm" in names:
            words, special = batch.draws.words[fused], batch.special[fused][:, :length]
            ids, labels = obj.mask_tokens(ids, special, self.mask_id, model.config.vocab_size, words)  # (F, L) each
        if "mvm" in names:
            spikes = cast(torch.Tensor, visual.concept_counts)[fused]  # (F, N, M2)
            drawn = batch.draws.concept[fused]  # (F,)
            collector = cast(SemanticCollector, model.ashnets.vision.collector)
            z = collector.standing_out(spikes, model.config.time_steps)  # (F, N, M2)
            concepts, tied = obj.spike_labels(z, spikes, drawn)  # (F, N) each
            masked = obj.mask_one_label(concepts, drawn)  # (F, N)
            figures["mvm_silent"] = (concepts == SILENT).float().mean()
            figures["mvm_tied"] = tied.float().mean()
            tokens = model.mask_visual(tokens, masked)
        hidden, _ = model.ashnets.transformer(ids, mask, tokens)  # (F, L + N, M1)
        if "mlm" in names:
            losses["mlm"] = obj.mlm_loss(model.mlm(hidden[:, :length]), labels)
            counts["mlm"] = (labels != IGNORED).sum()
        if "mvm" in names:
            logits = model.mvm(hidden[:, length:][masked], model.ashnets.vision.collector.concepts)  # (masked, M2)
            losses["mvm"] = obj.mvm_loss(logits, concepts[masked])
            counts["mvm"] = masked.sum()


def fused_pairs(draws: torch.Tensor, group_size: int, share: float) -> torch.Tensor:
    """Indices of the pairs with the smallest draws in each group of φ, independent of the rest of the batch."""
    each = min(group_size, max(1, round(group_size * share)))
    places = draws.unflatten(0, (-1, group_size)).argsort(1)[:, :each].sort(1).values  # (G, each)
    starts = torch.arange(len(places), device=draws.device).unsqueeze(1) * group_size
    return (places + starts).flatten()


def trimmed(ids: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and mask (B, L) without the columns that pad every text: few pairs of a batch are its longest."""
    length = int(mask.sum(1).max())
    return ids[:, :length], mask[:, :length]


def first_states(transformer: nn.Module, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The hidden states of [CLS], (B, 1, M1), of texts alone (B, L).

    On a CPU, texts of similar length share a pass, so that half as many tokens are padding. A GPU takes all at once.
    """
    if ids.device.type != "cpu" or len(ids) <= TOGETHER:
        return transformer(ids, mask, None)[0][:, :1]
    order = mask.sum(1).argsort(stable=True)  # (B,)
    passes = [transformer(*trimmed(ids[some], mask[some]), None)[0][:, :1] for some in order.split(TOGETHER)]
    return torch.cat(passes)[order.argsort()]


def full_precision(device: torch.device) -> torch.autocast:
    """Similarities over τ: in bf16 a cosine's last bit, divided by 0.07, is 0.06 of a logit."""
    return torch.autocast(device.type, enabled=False)
