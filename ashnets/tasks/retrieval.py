"""Retrieval on captioned images: every caption ranks all images, every image all captions.

ITC ranks by embeddings; then ITM, alone and with ITC, orders the best candidates of each query anew, or, on request,
all pairs (:mod:`ashnets.retrieval.two_stage`). An image has the first five captions at most, as published recalls
have; where all images fill folds of 1,000, ITC's mean over folds ("1K") stands beside the whole ("5K").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save

from ashnets.data.benchmarks.records import Captioned
from ashnets.files import write_atomically, write_csv
from ashnets.metrics.retrieval import chance_at, ranks, recall_both_ways, recall_in_folds
from ashnets.metrics.scoring import CAPTIONS
from ashnets.processor import AshNetsProcessor
from ashnets.retrieval.embedding import embed_texts
from ashnets.retrieval.two_stage import CANDIDATES, WAYS, matching_score, note_losses, rank_every_way
from ashnets.tasks.data import TaskData, require_images, require_kind
from ashnets.tasks.items import GRAY, ImageBatches
from ashnets.tasks.page import Example, examples_page
from ashnets.tasks.predicting import shares_of, shown
from ashnets.ties import COSINES, best, products

KS = (1, 5, 10)
_FOLD = 1000
_EXAMPLES = 24


def evaluate_captions(
    model: Any,
    data: TaskData,
    records: Sequence[Any],
    processor: AshNetsProcessor,
    folder: Path | None,
    title: str,
    subject: str,
    *,
    variants: bool = True,
    ablate: bool = False,
    candidates: int | None = None,
    exhaustive: bool = False,
    batch: int = 64,
    seed: int = 0,
    workers: int = 0,
    progress: bool = True,
) -> dict[str, Any]:
    """What `ashnets.tasks.evaluating.evaluate_task` gives and writes for retrieval.

    ``variants`` are rankings by ITC; ``changed`` is the share of captions whose best image is another than in
    ``reset``. Where ITM ranks too, ``rankings`` holds, by name, the recalls of each ranking of
    `ashnets.retrieval.two_stage.rank_every_way` on the images of ``reset``, with ``cost`` (``pairs`` scored, ``of``
    all, ``seconds``) and, beside exhaustive ones, ``lost``: the R@1 both ways that they are ahead. The files are
    ``predictions.safetensors`` (``images`` and ``texts``, as `ashnets.metrics.scoring` takes them), ``items.csv`` (a
    row a caption: ITC's rank of its image and the best one) and ``examples.html``.

    Args:
        candidates: of each query, that ITM orders anew; by default as many as the tests of a benchmark take, else 0,
            which leaves ITM out.
        exhaustive: also let ITM rank all pairs.
    """
    require_kind(data, records, Captioned, "retrieval")
    require_images(data, records)
    texts = [caption for record in records for caption in record.captions[:CAPTIONS]]
    counts = torch.tensor([len(record.captions[:CAPTIONS]) for record in records])
    owners = torch.arange(len(records)).repeat_interleave(counts)  # (C,)
    text_embeds = embed_texts(model, processor.tokenizer, texts).cpu()

    candidates = CANDIDATES.get(data.name, 0) if candidates is None else candidates
    group = model.config.group_size if model.config.has_spiking_branch else 1
    shown: dict[str, dict[str, Any]] = {"reset": {"keep_tokens": bool(candidates) or exhaustive}}
    if variants and group > 1:
        shuffled = np.random.default_rng(seed).permutation(len(records))
        shown["carry"] = {"group_size": group}
        shown["carry, shuffled"] = {"group_size": group, "order": shuffled}
    if variants:
        shown["constant image"] = {"constant": True}
    if ablate and model.config.has_spiking_branch:
        shown["concrete alone"] = {"concrete_only": True}
    both = {
        name: _embed(
            model, data, records, processor, batch=batch, workers=workers, progress=progress, title=name, **options
        )
        for name, options in shown.items()
    }
    embeds = {name: images for name, (images, _) in both.items()}
    found: dict[str, dict[str, Any]] = {}
    firsts: dict[str, torch.Tensor] = {}  # variant → the best image of each caption, (C,)
    for name, images in embeds.items():
        similarity = products(images, text_embeds)  # (I, C)
        firsts[name] = best(similarity.T, 1).squeeze(1)
        recalls = recall_both_ways(similarity, owners, KS, COSINES)
        found[name] = {"images": len(records), "captions": len(texts), **recalls}
        if len(records) > _FOLD and len(records) % _FOLD == 0:
            found[name]["folds of 1000"] = recall_in_folds(similarity, owners, _FOLD, KS, COSINES)
        if name == "reset":
            places = ranks(similarity.T, owners, COSINES).tolist()
        else:
            found[name]["changed"] = float((firsts[name] != firsts["reset"]).double().mean())
    owned = [set((owners == image).nonzero().flatten().tolist()) for image in range(len(records))]
    chance = {
        "text_to_image": chance_at(owners, len(records), KS),
        "image_to_text": chance_at(owned, len(texts), KS),
    }
    ranked: dict[str, dict[str, Any]] = {}
    if candidates or exhaustive:
        match = matching_score(model, processor.tokenizer, texts, both["reset"][1])
        tau = float(model.temperature().detach())
        rankings = rank_every_way(text_embeds, embeds["reset"], match, tau, candidates, exhaustive, progress)
        ranked = {
            name: {**ranking.recalls(owners, owned, KS), "cost": asdict(ranking.cost)}
            for name, ranking in rankings.items()
        }
        note_losses(ranked)
    if folder is not None:
        write_atomically(folder / "predictions.safetensors", save({"images": embeds["reset"], "texts": text_embeds}))
        _write(folder, data, records, texts, owners, places, firsts["reset"], found, title, subject, seed)
    return {"variants": found, **({"rankings": ranked} if ranked else {}), "baselines": {"chance": chance}}


@torch.inference_mode()
def _embed(
    model: Any,
    data: TaskData,
    records: Sequence[Any],
    processor: AshNetsProcessor,
    *,
    order: np.ndarray | None = None,
    group_size: int = 1,
    constant: bool = False,
    keep_tokens: bool = False,
    batch: int,
    workers: int,
    progress: bool,
    title: str,
    **options: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Embeddings (I, D) and, where kept, visual tokens (I, N, M1), on the CPU and in the order of ``records``."""
    order = np.arange(len(records)) if order is None else order
    found, tokens = torch.empty(len(records), model.config.projection_size), torch.empty(0)
    if constant:  # one embedding for all, to the bit: ties then count as what they are
        side = processor.image_processor.image_size
        gray = torch.full((1, 3, side, side), GRAY, device=model.device)
        embed = model.encode_image(gray, image_keys=[0])[0].float().cpu()
        return embed.expand(len(records), -1).contiguous(), tokens
    shares = shares_of(order, group_size, batch)
    batches = ImageBatches(data, [record.image for record in records], shares, processor)
    for share, (pixels, keys) in shown(batches, workers, title, progress):
        embed, visual = model.encode_image(
            pixels.to(model.device), image_keys=keys, group_size=share.group_size, **options
        )
        places = torch.as_tensor(share.indices)
        found[places] = embed.float().cpu()
        if keep_tokens:
            if not len(tokens):
                tokens = torch.empty(len(records), *visual.output.shape[1:], dtype=visual.output.dtype)
            tokens[places] = visual.output.cpu()
    return found, tokens


def _write(
    folder: Path,
    data: TaskData,
    records: Sequence[Any],
    texts: list[str],
    owners: torch.Tensor,
    places: list[int],
    first: torch.Tensor,
    found: dict[str, dict[str, Any]],
    title: str,
    subject: str,
    seed: int,
) -> None:
    rows = [
        {"image": records[int(own)].image, "caption": text, "rank": rank, "best": records[int(top)].image}
        for text, own, rank, top in zip(texts, owners, places, first, strict=True)
    ]
    write_csv(folder / "items.csv", rows)
    draw = np.random.default_rng(seed).permutation(len(texts)).tolist()
    wrong, right = [i for i in draw if places[i] > 1], [i for i in draw if places[i] == 1]
    examples = []
    for i in sorted([*wrong[:_EXAMPLES], *right[:_EXAMPLES]]):
        own, top = rows[i]["image"], rows[i]["best"]
        pair = [data.open_image(name) for name in dict.fromkeys((top, own))]
        said = f"found first: {top}" if places[i] == 1 else f"first: {top}; the right one at rank {places[i]}"
        examples.append(Example(pair, texts[i], own, said, float(places[i] == 1)))
    table = [
        {
            "": name,
            **{f"{way} {key}": metrics[way][key] for way in WAYS for key in metrics[way]},
            "changed": metrics.get("changed", ""),
        }
        for name, metrics in found.items()
    ]
    write_atomically(folder / "examples.html", examples_page(title, subject, table, examples).encode())
