"""One step of pre-training: a batch of groups to the losses of the phase."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ashnets import objectives as obj
from ashnets.model.heads import AshNetsForPreTraining


@dataclass
class Batch:
    """B pairs, groups of φ consecutive pictures.

    Attributes:
        pixel_values: (B, 3, H, W) in [0, 1].
        image_keys: ids for the sampler.
        input_ids, attention_mask: (B, L).
        special: (B, L), True on [CLS], [SEP] and [PAD].
        samples: (B,), equal where two pairs are of the same sample.
        group_size: φ of this batch.
    """

    pixel_values: torch.Tensor
    image_keys: list[int]
    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    special: torch.Tensor
    samples: torch.Tensor
    group_size: int


def pretraining_losses(
    model: AshNetsForPreTraining,
    batch: Batch,
    names: list[str],
    *,
    concrete_only: bool,
    fused_pairs: int,
    mask_id: int,
    negative_temperature: float | None = None,
    generator: torch.Generator | None = None,
) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    """The losses ``names`` on a batch, and figures for the log.

    ITM takes a positive, a hard negative text and a hard negative picture for each of ``fused_pairs`` pairs, drawn at
    ``negative_temperature`` (τ of ITC by default); MLM and MVM mask the positives of the same pairs in one pass.

    Raises:
        FloatingPointError: a loss, or what ITM draws its negatives from, is not finite.
    """
    transformer = model.ashnets.transformer
    visual = model.ashnets.vision(
        batch.pixel_values, batch.image_keys, group_size=batch.group_size, concrete_only=concrete_only
    )
    tokens = visual.output
    text, _ = transformer(batch.input_ids, batch.attention_mask, None)
    positive = obj.same_sample(batch.samples)
    image_embeds, text_embeds = model.project_image(tokens), model.project_text(text)
    losses: dict[str, torch.Tensor] = {}
    figures: dict[str, float] = {"tau": float(model.temperature().detach())}
    if "itc" in names:
        losses["itc"] = obj.itc_loss(image_embeds, text_embeds, model.temperature(), positive)
    if "stua" in names:
        losses["stua"] = obj.stua_loss(
            model.stua.project_spiking(visual), model.stua.project_text(text), model.stua.temperature(), positive
        )
    fused = torch.randperm(len(batch.samples), generator=generator, device=batch.samples.device)[:fused_pairs]
    if "itm" in names:
        similarity = (image_embeds @ text_embeds.T).detach()
        _refuse_non_finite("the similarity of pictures and texts", similarity)
        losses["itm"], figures["itm_accuracy"] = _itm(
            model, batch, tokens, similarity, positive, fused, negative_temperature, generator
        )
    if "mlm" in names or "mvm" in names:
        losses.update(_masked(model, batch, visual, fused, names, mask_id, generator))
    for name, loss in losses.items():
        _refuse_non_finite(f"the {name} loss", loss)
    if visual.layer_rates is not None:
        figures.update({f"rate_{name}": float(rate.mean()) for name, rate in visual.layer_rates.items()})
        figures["summary_ratio"] = float(visual.summary_ratio.detach().float().mean())
    return losses, figures


def _refuse_non_finite(what: str, value: torch.Tensor) -> None:
    if not torch.isfinite(value).all():
        raise FloatingPointError(f"{what} became infinite or no number")


def _itm(model, batch, tokens, similarity, positive, fused, tau, generator):
    tau = tau or float(model.temperature().detach())
    negative_text = obj.hard_negatives(similarity[fused], positive[fused], tau, generator)
    negative_image = obj.hard_negatives(similarity.T[fused], positive[fused], tau, generator)
    has_text, has_image = negative_text >= 0, negative_image >= 0
    images = torch.cat([fused, fused[has_text], negative_image[has_image]])
    texts = torch.cat([fused, negative_text[has_text], fused[has_image]])
    matching = torch.zeros(len(images), dtype=torch.long, device=tokens.device)
    matching[: len(fused)] = 1
    logits = model.match(tokens[images], batch.input_ids[texts], batch.attention_mask[texts])
    accuracy = float((logits.argmax(1) == matching).float().mean())
    return obj.itm_loss(logits, matching), accuracy


def _masked(model, batch, visual, fused, names, mask_id, generator):
    ids, labels = batch.input_ids[fused], None
    tokens = visual.output[fused]
    if "mlm" in names:
        ids, labels = obj.mask_tokens(ids, batch.special[fused], mask_id, model.config.vocab_size, generator=generator)
    if "mvm" in names:
        concepts = obj.spike_labels(visual.concept_counts[fused])
        masked = obj.mask_one_label(concepts, generator)
        tokens = model.mask_visual(tokens, masked)
    hidden, _ = model.ashnets.transformer(ids, batch.attention_mask[fused], tokens)
    length = ids.shape[1]
    losses = {}
    if labels is not None:
        losses["mlm"] = obj.mlm_loss(model.mlm(hidden[:, :length]), labels)
    if "mvm" in names:
        logits = model.mvm(hidden[:, length:], model.ashnets.vision.collector)
        losses["mvm"] = obj.mvm_loss(logits, concepts, masked)
    return losses
