"""Retrieval on a split, text → image and image → text: by ITC, in two stages, and exhaustively, each with its cost."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ashnets.data.learned import images_learned, read_sketch
from ashnets.data.pairs import Pairs
from ashnets.data.sources.opening import open_source
from ashnets.device import own_device
from ashnets.digests import WEIGHTS_SHA256
from ashnets.environment import environment
from ashnets.hub.loading import from_pretrained
from ashnets.hub.resolving import resolve, weights_sha256
from ashnets.metrics.retrieval import chance_at
from ashnets.model.firing import MEASURED, layer_rates, rates_warnings
from ashnets.model.heads import AshNetsForRetrieval
from ashnets.processor import AshNetsProcessor
from ashnets.retrieval.embedding import embed_images, embed_texts, images_at_rest
from ashnets.retrieval.two_stage import WAYS, matching_score, note_losses, rank_every_way

KS = (1, 5, 10)
TRAINING_RECORD = "training.json"
TRAINED_ON = "trained on"  # in a result where the model learned from what it is measured on


def retrieval(
    model: AshNetsForRetrieval,
    tokenizer: Any,
    pairs: Pairs,
    progress: bool = True,
    indices: Sequence[int] | None = None,
    **options: Any,
) -> dict[str, Any]:
    """R@K both ways by ITC alone: the first entry of :func:`rankings`."""
    return rankings(model, tokenizer, pairs, progress=progress, indices=indices, **options)[0]


@torch.inference_mode()
def rankings(
    model: AshNetsForRetrieval,
    tokenizer: Any,
    pairs: Pairs,
    candidates: int = 0,
    exhaustive: bool = False,
    progress: bool = True,
    indices: Sequence[int] | None = None,
    **options: Any,
) -> list[dict[str, Any]]:
    """R@K both ways over the images of a split; a text is the bare name of a concept, or a first caption.

    Args:
        candidates: of each query, that ITM ranks again; 0 leaves that out.
        exhaustive: rank all pairs by ITM too.
        indices: which of ``pairs``; all by default.

    Returns:
        An entry a ranking of `ashnets.retrieval.two_stage.rank_every_way`: ``{"images", "texts", "ranking",
        "text_to_image": {"R@1", ...}, "image_to_text", "chance", "cost": {"pairs", "of", "seconds",
        "seconds_embedding"}}``, recalls in [0, 1]; beside exhaustive rankings, the others
        also have ``lost``: the R@1 both ways that those are ahead.
    """
    names = pairs.names if indices is None else [pairs.names[i] for i in indices]
    texts = list(dict.fromkeys(names))
    place = {text: i for i, text in enumerate(texts)}
    gold_text = [{place[name]} for name in names]
    gold_image: list[set[int]] = [set() for _ in texts]
    for i, name in enumerate(names):
        gold_image[place[name]].add(i)
    start = time.perf_counter()
    matched = bool(candidates) or exhaustive
    image_embeds, tokens = embed_images(model, pairs, indices, progress=progress, keep_tokens=matched, **options)
    text_embeds = embed_texts(model, tokenizer, texts)
    embedding = time.perf_counter() - start
    match = matching_score(model, tokenizer, texts, tokens) if matched else None
    tau = float(model.temperature().detach())
    found = rank_every_way(text_embeds, image_embeds, match, tau, candidates, exhaustive, progress)
    chance = {
        "text_to_image": chance_at(gold_image, len(names), KS),
        "image_to_text": chance_at(gold_text, len(texts), KS),
    }
    entries: dict[str, dict[str, Any]] = {
        name: {
            "images": len(names),
            "texts": len(texts),
            "ranking": name,
            **ranking.recalls(gold_image, gold_text, KS),
            "chance": chance,
            "cost": {**asdict(ranking.cost), "seconds_embedding": embedding},
        }
        for name, ranking in found.items()
    }
    note_losses(entries)
    return list(entries.values())


def evaluate_retrieval(
    names: Sequence[str | Path],
    corpus: Path,
    splits: Sequence[str],
    candidates: int = 0,
    ablate: bool = False,
    progress: bool = True,
    exhaustive: bool = False,
    sample: int = 0,
) -> dict[str, Any]:
    """Evaluate models, by name or folder, on splits of a corpus, on the GPU if there is one.

    Args:
        candidates: also rank with ITM on that many candidates of each query; 0 leaves it at ITC.
        exhaustive: also rank with ITM on all pairs.
        sample: images of each split, the same draw for every model; 0 takes all.
        ablate: also rank by the concrete branch alone, the same weights with the spiking branch switched off.

    Returns:
        ``{"models": {name: {"training": ..., "images_on_record": ..., "weights_sha256": ..., "splits": {split: [entry,
        ...]}}}, "environment": ...}``. An entry is what :func:`rankings` gives, the ``branch`` that it used, and, where
        the model learned from some of these very images, ``trained on``: how many ``images``, ``of`` how many; an
        estimate where it learned from thousands. ``images_on_record`` is false where a model does not say what it
        learned from. A model with silent or saturated spiking layers also has ``warnings``, which name
        them.

    Raises:
        DataError: before anything is loaded, if the corpus or a split is missing or damaged.
        UnknownModelError, WeightsError: as ``from_pretrained``.
    """
    first = open_source(corpus)
    for split in splits:
        first.split(split)
    models: dict[str, Any] = {}
    for name in names:
        model = from_pretrained(name, task="retrieval").to(own_device())
        tokenizer = AshNetsProcessor.from_pretrained(name).tokenizer
        record = training_record(name)
        known = read_sketch(Path(resolve(name)))
        opened = first
        if record is not None and "hold_out" in record:
            opened = open_source(corpus, record["hold_out"])  # the validation images of that training, and no others
        entry: dict[str, Any] = {
            "training": record,
            "images_on_record": known is not None,
            WEIGHTS_SHA256: weights_sha256(name),
            "splits": {},
        }
        shown = Pairs(opened, splits[:1], model.config.image_size)
        if found := rates_warnings(layer_rates(model, images_at_rest(shown, range(len(shown))[:MEASURED]))):
            entry["warnings"] = found
        spiking = model.config.has_spiking_branch
        branches: list[tuple[str, dict[str, bool]]] = [("both" if spiking else "concrete", {})]
        if ablate and spiking:
            branches.append(("concrete alone", {"concrete_only": True}))
        for split in splits:
            pairs = Pairs(opened, [split], model.config.image_size)
            drawn = None
            if 0 < sample < len(pairs):
                drawn = sorted(np.random.default_rng(0).permutation(len(pairs))[:sample].tolist())
            seen = images_learned(known or [], pairs, drawn)
            learned = {TRAINED_ON: {"images": seen, "of": len(pairs) if drawn is None else sample}} if seen else {}
            entry["splits"][split] = [
                {"branch": branch, **learned, **ranked}
                for branch, options in branches
                for ranked in rankings(model, tokenizer, pairs, candidates, exhaustive, progress, drawn, **options)
            ]
        models[str(name)] = entry
    return {"models": models, "environment": environment()}


def as_rows(results: dict[str, Any]) -> list[dict[str, Any]]:
    """What :func:`evaluate_retrieval` gives as flat rows, one a direction, for a CSV file.

    Where ITM ranked, columns for its cost follow the recalls: pairs scored and seconds (of both directions together),
    and the R@1 that the exhaustive ranking is ahead, empty without one. ``model`` is what a training started from,
    where that is known; of several models ``measured`` is the name that was given. ``trained on`` stands where one of
    them learned from the images that it is measured on.
    """
    rows = []
    entries = [entry for model in results["models"].values() for split in model["splits"].values() for entry in split]
    learned = any(TRAINED_ON in entry for entry in entries)
    with_costs = any(entry["cost"]["pairs"] for entry in entries)
    for name, model in results["models"].items():
        training = model["training"] or {}
        for split, entries in model["splits"].items():
            for entry in entries:
                for direction in WAYS:
                    costs = {
                        "pairs scored": entry["cost"]["pairs"],
                        "pairs": entry["cost"]["of"],
                        "seconds": round(entry["cost"]["seconds"], 2),
                        "R@1 lost": round(entry["lost"][direction], 4) if "lost" in entry else "",
                    }
                    rows.append(
                        {
                            "model": training.get("model", name),
                            **({"measured": name} if len(results["models"]) > 1 else {}),
                            "recipe": training.get("recipe", ""),
                            "seed": training.get("seed", ""),
                            "split": split,
                            **({TRAINED_ON: _share_learned(entry)} if learned else {}),
                            "direction": direction,
                            "branch": entry["branch"],
                            "ranking": entry["ranking"],
                            "images": entry["images"],
                            "texts": entry["texts"],
                            **{key: round(share, 4) for key, share in entry[direction].items()},
                            **{f"chance {key}": round(share, 5) for key, share in entry["chance"][direction].items()},
                            **(costs if with_costs else {}),
                            "pairs_seen": training.get("pairs_seen", ""),
                            "training_seconds": training.get("seconds", ""),
                            WEIGHTS_SHA256: model[WEIGHTS_SHA256],
                            "device": results["environment"]["device"],
                            "torch": results["environment"]["torch"],
                        }
                    )
    return rows


def _share_learned(entry: dict[str, Any]) -> str:
    found = entry.get(TRAINED_ON, {"images": 0, "of": entry["images"]})
    return f"{found['images']} of {found['of']} images"


def training_record(name: str | os.PathLike) -> dict[str, Any] | None:
    """What a model by name or folder says of its training; None if nothing."""
    path = Path(resolve(name)) / TRAINING_RECORD
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
