"""Retrieval between images and texts: every text ranks all images, every image all texts.

ITC ranks by embeddings. On request, ITM, alone and together with ITC, re-ranks the best candidates of each query or
all pairs (:mod:`ashnets.evaluation.two_stage`). The same code evaluates benchmarks and captioned images:

    benchmark         at most the first five captions of an image, as in published recalls; equal captions are
                      different texts
    captioned images  one text, the bare name of an image or its first caption; images with equal names share it
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import save
from transformers import PreTrainedTokenizerBase

from ashnets.data.benchmarks.records import Captioned
from ashnets.data.pairs import Pairs
from ashnets.evaluation.embedding import ImageSet, embed_images, embed_texts
from ashnets.evaluation.options import ABLATED, DEFAULT, RESET, EvaluationOptions, Variant, variants_of
from ashnets.evaluation.page import Example, chosen_examples, examples_page
from ashnets.evaluation.record import TRAINED_ON
from ashnets.evaluation.two_stage import (
    BOTH_ON_ALL,
    ITM_ON_ALL,
    WAYS,
    Cost,
    Ranking,
    matching_score,
    rank_every_way,
    rank_exhaustively,
)
from ashnets.files import JsonObject, Row, write_atomically, write_csv
from ashnets.metrics.retrieval import chance_at, ranks, recall_in_folds
from ashnets.metrics.scoring import CAPTIONS
from ashnets.model.heads import AshNetsForRetrieval
from ashnets.ties import best

Recalls = dict[str, dict[str, float]]  # way → {"R@1": …, "R@5": …, "R@10": …}
_FOLD = 1000
_BRANCHES = [one.name for one in ABLATED]


def captioned(pairs: Pairs, indices: Sequence[int] | None = None) -> list[Captioned]:
    """Records of captioned images, each with only its bare name or its first caption."""
    chosen = range(len(pairs)) if indices is None else indices
    return [Captioned(pairs.image_ids[i], pairs.image_ids[i], (pairs.names[i],), ()) for i in chosen]


@dataclass(frozen=True)
class RetrievalSet:
    """G images and C texts that are ranked against each other.

    Attributes:
        images: contain the G images, and possibly others.
        indices: the indices of the G images in ``images``.
        images_of, texts_of: the correct images of each text, and the correct texts of each image.
    """

    images: ImageSet
    indices: Sequence[int]
    texts: list[str]
    images_of: list[set[int]]
    texts_of: list[set[int]]

    @classmethod
    def of_records(
        cls, records: Sequence[Captioned], images: ImageSet, indices: Sequence[int] | None = None, share: bool = False
    ) -> RetrievalSet:
        """The images of records with their captions; with ``share``, equal captions are one text."""
        texts: list[str] = []
        images_of: list[set[int]] = []
        texts_of: list[set[int]] = [set() for _ in records]
        place: dict[str, int] = {}
        for image, record in enumerate(records):
            for caption in record.captions[:CAPTIONS]:
                if not share or caption not in place:
                    place[caption] = len(texts)
                    texts.append(caption)
                    images_of.append(set())
                images_of[place[caption]].add(image)
                texts_of[image].add(place[caption])
        return cls(images, range(len(records)) if indices is None else indices, texts, images_of, texts_of)

    @classmethod
    def of_pairs(cls, pairs: Pairs, indices: Sequence[int] | None = None) -> RetrievalSet:
        """Captioned images; all by default."""
        return cls.of_records(captioned(pairs, indices), pairs, indices, share=True)

    @property
    def chance(self) -> Recalls:
        """R@K of a random order."""
        golds = ((self.images_of, len(self.texts_of)), (self.texts_of, len(self.texts)))
        return {way: chance_at(gold, items) for way, (gold, items) in zip(WAYS, golds, strict=True)}

    def recalls(self, ranking: Ranking) -> Recalls:
        """R@K of a ranking in both directions."""
        return ranking.recalls(self.images_of, self.texts_of)

    def folds(self, ranking: Ranking) -> Recalls:
        """The mean of R@K over folds of 1,000 images ("1K"); empty if the images do not fill several folds."""
        images = len(self.texts_of)
        if images <= _FOLD or images % _FOLD or any(len(gold) > 1 for gold in self.images_of):
            return {}
        owners = torch.tensor([image for gold in self.images_of for image in gold])  # (C,)
        return recall_in_folds(ranking.text_to_image.T, owners, _FOLD, scale=ranking.scale)


@dataclass
class Entry:
    """One ranking: recalls, cost, and, if all pairs are ranked too, the R@1 lost in both directions."""

    recalls: Recalls
    cost: Cost
    lost: dict[str, float] = field(default_factory=dict)


@dataclass
class Ranked:
    """All rankings of one variant.

    Attributes:
        entries: by the name of the ranking; the first one is by embeddings, if the model has them.
        embeds: (G, D), embeddings of the images.
        places: (C,), the rank of the best correct image of each text in the first ranking.
        first: (C,), the best image of each text in the first ranking.
        folds: mean recalls over folds of 1,000 images, if the images fill several folds; else empty.
        seconds: time for the embeddings.
    """

    measured: RetrievalSet
    entries: dict[str, Entry]
    embeds: torch.Tensor
    places: torch.Tensor
    first: torch.Tensor
    folds: Recalls
    seconds: float

    @property
    def main(self) -> Entry:
        """The first ranking."""
        return next(iter(self.entries.values()))

    def to_list(self) -> list[JsonObject]:
        """An entry for each ranking, in JSON's types."""
        return [
            {
                "images": len(self.measured.indices),
                "texts": len(self.measured.texts),
                "ranking": name,
                **entry.recalls,
                "chance": self.measured.chance,
                "cost": {**asdict(entry.cost), "seconds_embedding": self.seconds},
                **({"lost": entry.lost} if entry.lost else {}),
            }
            for name, entry in self.entries.items()
        ]


@torch.inference_mode()
def rank(
    model: AshNetsForRetrieval,
    tokenizer: PreTrainedTokenizerBase,
    measured: RetrievalSet,
    variant: Variant = RESET,
    options: EvaluationOptions = DEFAULT,
    text_embeds: torch.Tensor | None = None,
) -> Ranked:
    """Rank by ITC and, depending on the options, by ITM; without embeddings, as for ViLT, by ITM on all pairs.

    Args:
        model: in evaluation mode.
        text_embeds: (C, D) by ITC; computed if not given.
    """
    start, embeds = time.perf_counter(), hasattr(model, "encode_text")
    matched = bool(options.candidates) or options.exhaustive or not embeds
    images, tokens = embed_images(model, measured.images, measured.indices, variant, options, matched)
    if embeds and (text_embeds is None or variant.spikes == "alone"):
        text_embeds = embed_texts(model, tokenizer, measured.texts, for_spikes=variant.spikes == "alone")
    seconds = time.perf_counter() - start
    match = matching_score(model, tokenizer, measured.texts, tokens) if matched else None
    if text_embeds is not None:
        tau = float(model.temperature().detach()) if matched else 1.0
        found = rank_every_way(
            text_embeds, images, match, tau, options.candidates or 0, options.exhaustive, options.progress
        )
    else:
        assert match is not None
        found = {ITM_ON_ALL: rank_exhaustively(len(measured.texts), len(images), match, options.progress)}
    entries = {name: Entry(measured.recalls(ranking), ranking.cost) for name, ranking in found.items()}
    for name, entry in entries.items():
        # ITM on candidates is compared with ITM on all pairs, everything else with ITC + ITM on all pairs
        whole = entries.get(ITM_ON_ALL if name.startswith("ITC, then ITM") else BOTH_ON_ALL)
        if whole is not None and name not in (ITM_ON_ALL, BOTH_ON_ALL):
            entry.lost = {way: whole.recalls[way]["R@1"] - entry.recalls[way]["R@1"] for way in WAYS}
    ranking = next(iter(found.values()))
    places = ranks(ranking.text_to_image, measured.images_of, ranking.scale)
    first = best(ranking.text_to_image, 1).squeeze(1)
    return Ranked(measured, entries, images, places, first, measured.folds(ranking), seconds)


@dataclass
class Retrieved:
    """The retrieval results of a model on a split.

    Attributes:
        branch: ``both`` or ``concrete``, the branches of the model.
        measured: the images and texts.
        ranked: rankings by variant.
        own: captioned images instead of a benchmark; the result is then a list of all rankings.
        learned: the number of ``images`` that the model was trained on, ``of`` all these images.
    """

    branch: str
    measured: RetrievalSet
    ranked: dict[str, Ranked]
    own: bool = False
    learned: dict[str, int] = field(default_factory=dict)

    def changed(self, name: str) -> float | None:
        """The share of texts whose best image differs from ``reset``; None for captioned images and for ``reset``."""
        if self.own or name == "reset":
            return None
        return float((self.ranked[name].first != self.ranked["reset"].first).double().mean())

    def to_dict(self) -> JsonObject | list[JsonObject]:
        """The result in JSON's types; for captioned images a list with an entry for each branch and ranking."""
        if self.own:
            return [
                {
                    "branch": self.branch if variant == "reset" else variant,
                    **({TRAINED_ON: self.learned} if self.learned else {}),
                    **entry,
                }
                for variant, one in self.ranked.items()
                for entry in one.to_list()
            ]
        variants = {
            name: {
                "images": len(self.measured.indices),
                "captions": len(self.measured.texts),
                **one.main.recalls,
                **({"folds of 1000": one.folds} if one.folds else {}),
                **({"changed": self.changed(name)} if name != "reset" else {}),
            }
            for name, one in self.ranked.items()
        }
        rankings = {
            name: {**entry.recalls, "cost": asdict(entry.cost), **({"lost": entry.lost} if entry.lost else {})}
            for name, entry in self.ranked["reset"].entries.items()
        }
        return {
            "variants": variants,
            **({"rankings": rankings} if len(rankings) > 1 else {}),
            "baselines": {"chance": self.measured.chance},
        }

    def rows(self) -> list[Row]:
        """Flat rows, one for each ranking and direction."""
        found: dict[tuple[str, str], tuple[Entry, float | None]] = {}
        for variant, one in self.ranked.items():
            for name, entry in one.entries.items():
                plain = variant == "reset" or variant in _BRANCHES
                branch = variant if variant in _BRANCHES else self.branch
                found[branch, name if plain else f"{name}, {variant}"] = (entry, self.changed(variant))
        if not self.own:  # the variants first, by ITC, and then what ITM ranks
            found = dict(sorted(found.items(), key=lambda item: "ITM" in item[0][1]))
        chance = self.measured.chance
        costs = any(entry.cost.pairs for entry, _ in found.values())
        return [
            {
                "direction": way,
                "branch": branch,
                "ranking": name,
                "images": len(self.measured.indices),
                "texts": len(self.measured.texts),
                **{key: round(share, 4) for key, share in entry.recalls[way].items()},
                **{f"chance {key}": round(share, 5) for key, share in chance[way].items()},
                **({"changed": round(changed, 4)} if changed is not None else {}),
                **(self._cost_cells(entry, way) if costs and (self.own or changed is None) else {}),
            }
            for (branch, name), (entry, changed) in found.items()
            for way in WAYS
        ]

    def _cost_cells(self, entry: Entry, way: str) -> Row:
        cost, lost = entry.cost, entry.lost
        cells = {"pairs scored": cost.pairs, "pairs": cost.of, "seconds": round(cost.seconds, 2)}
        return {**cells, **({"R@1 lost": round(lost[way], 4) if lost else ""} if lost or self.own else {})}


def evaluate_retrieval(
    model: AshNetsForRetrieval,
    tokenizer: PreTrainedTokenizerBase,
    measured: RetrievalSet,
    options: EvaluationOptions,
    own: bool = False,
) -> Retrieved:
    """All variants of a model by ITC; ITM ranks only ``reset`` and, for captioned images, the ablated branches.

    Args:
        own: captioned images instead of a benchmark.
    """
    config = model.config
    wanted = variants_of(config, len(measured.indices), replace(options, variants=options.variants and not own))
    itc = replace(options, candidates=0, exhaustive=False)
    embeds = hasattr(model, "encode_text")  # ViLT has no embeddings
    text_embeds = embed_texts(model, tokenizer, measured.texts) if embeds else None
    ranked = {
        one.name: rank(model, tokenizer, measured, one, options if own or one is RESET else itc, text_embeds)
        for one in wanted
    }
    branch = "both" if config.has_spiking_branch else "concrete"
    if text_embeds is not None and options.output is not None:
        tensors = {"images": ranked["reset"].embeds, "texts": text_embeds}
        write_atomically(options.output / "predictions.safetensors", save(tensors))
    return Retrieved(branch, measured, ranked, own)


def write_examples(
    folder: Path, open_image: Callable[[str], Image.Image], found: Retrieved, heading: tuple[str, str], seed: int
) -> None:
    """Write ``examples.html``, and ``items.csv``: the rank of the correct image and the best image of each caption.

    Args:
        open_image: an image in RGB by its name.
        heading: title and subject of the page.
    """
    measured, reset = found.measured, found.ranked["reset"]
    names = measured.images.image_ids
    places = reset.places.tolist()
    rows = [
        {
            "image": names[measured.indices[next(iter(own))]],
            "caption": text,
            "rank": rank,
            "best": names[measured.indices[int(top)]],
        }
        for text, own, rank, top in zip(measured.texts, measured.images_of, places, reset.first, strict=True)
    ]
    write_csv(folder / "items.csv", rows)
    examples = []
    for i in chosen_examples([float(place == 1) for place in places], seed):
        own, top = str(rows[i]["image"]), str(rows[i]["best"])
        pair = [open_image(name) for name in dict.fromkeys((top, own))]
        said = f"found first: {top}" if places[i] == 1 else f"first: {top}; the right one at rank {places[i]}"
        examples.append(Example(pair, measured.texts[i], own, said, float(places[i] == 1)))
    table: list[Row] = [
        {
            "": name,
            **{f"{way} {key}": share for way in WAYS for key, share in one.main.recalls[way].items()},
            "changed": "" if (changed := found.changed(name)) is None else changed,
        }
        for name, one in found.ranked.items()
    ]
    write_atomically(folder / "examples.html", examples_page(*heading, table, examples).encode())
