"""A pre-training run: recipe and corpus in, a folder with model, log and results out."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from safetensors.torch import load_file, save_file
from tqdm import tqdm

import ashnets
from ashnets.configuration import AshNetsConfig
from ashnets.data.augment import augment
from ashnets.data.corpus import open_corpus
from ashnets.data.pairs import Pairs
from ashnets.data.similar import batches_of, mean_similarity, random_groups, similar_groups
from ashnets.data.vocabulary import prune_vocabulary, row_indices
from ashnets.errors import ConfigurationError, TrainingError
from ashnets.files import write_atomically, write_json
from ashnets.model.heads import AshNetsForPreTraining
from ashnets.model.initialisation import load_backbone, load_transformer
from ashnets.model.sampling import image_key
from ashnets.processor import AshNetsProcessor
from ashnets.training.checkpoint import find_checkpoint, load_checkpoint, load_weights, save_checkpoint
from ashnets.training.evaluate import TRAINING_RECORD, embed_pictures, environment, retrieval, tokenize
from ashnets.training.optim import build_optimisers, factor, set_learning_rates
from ashnets.training.pretrain import Batch, pretraining_losses
from ashnets.training.recipe import Phase, Recipe, load_recipe


def train(
    recipe: Path | str,
    *,
    corpus: Path,
    output: Path,
    overrides: list[str] | None = None,
    resume: bool = False,
    dry_run: bool = False,
    progress: bool = True,
) -> dict[str, Any]:
    """Pre-train by a recipe file.

    The folder ``output`` receives ``recipe.yaml``, ``log.jsonl``, ``checkpoint/`` after every epoch,
    ``phase-NAME/`` after every phase, and at the end ``model/``: safetensors in float16, configuration, processor,
    recipe, log and ``training.json``, the record of the run.

    Args:
        resume: go on from the last finished epoch of ``output``.
        dry_run: check recipe, corpus and initial weights, return the plan, write nothing.

    Raises:
        ConfigurationError, DataError, TrainingError: with file, key, value and remedy.
    """
    settings = load_recipe(Path(recipe), overrides)
    opened = open_corpus(corpus)
    run = Run(settings, opened, Path(output), progress)
    plan = run.plan()
    if dry_run:
        return plan
    run.open_folder(resume)
    with _deterministic(run.device):
        return run.train()


@dataclass
class Run:
    """One run. Every random draw comes from (seed, epoch), so that a resumed run repeats an undisturbed one."""

    recipe: Recipe
    corpus: Any
    output: Path
    progress: bool = True

    def __post_init__(self) -> None:
        recipe = self.recipe
        torch.manual_seed(recipe.seed)
        base: AshNetsConfig = ashnets.config_of(recipe.model)
        captions = [c for split in recipe.train for row in self.corpus.split(split).column("captions") for c in row]
        bert = _weights_folder(recipe.transformer_weights)
        pieces = prune_vocabulary(bert / "vocab.txt", captions)
        changes = {**base.to_dict(), **recipe.changes, "vocab_size": len(pieces)}
        self.config = AshNetsConfig(**changes)
        if recipe.pairs % self.config.group_size:
            raise ConfigurationError(f"pairs={recipe.pairs} must be a multiple of φ = {self.config.group_size}")
        self.processor = AshNetsProcessor.from_config(self.config, pieces)
        self.model = AshNetsForPreTraining(self.config)
        self.origins = [
            load_transformer(self.model, bert, rows=row_indices(bert / "vocab.txt", pieces)),
            load_backbone(self.model, recipe.backbone_weights),
        ]
        # the record travels with the weights: it names the source as the recipe does, not a folder of this machine
        self.origins = [origin.replace(str(bert), recipe.transformer_weights) for origin in self.origins]
        self.first_epoch = 0
        if recipe.start:
            self._start_from(Path(recipe.start))
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model.to(self.device)
        if self.device.type == "cpu":
            # On CPU the fused attention's backward pass takes most of a step; plain matrix products do not.
            self.model.ashnets.transformer.bert.set_attn_implementation("eager")
        self.optimisers = build_optimisers(self.model, recipe)
        self.step = 0
        self.pairs_seen = 0
        self.seconds = 0.0  # of earlier parts of a resumed run

    def plan(self) -> dict[str, Any]:
        """What the run will do, before it does anything."""
        pictures = sum(len(self.corpus.split(split)) for split in self.recipe.train)
        return {
            "recipe": self.recipe.name,
            "model": self.recipe.model,
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "pictures": pictures,
            "steps_per_epoch": -(-pictures // self.recipe.pairs),
            "epochs": self.recipe.epochs,
            "first_epoch": self.first_epoch,
            "initialised": self.origins,
        }

    def _start_from(self, folder: Path) -> None:
        """Take over an earlier run's phase checkpoint and leave out what it has done."""
        try:
            state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        except (OSError, json.JSONDecodeError) as error:
            raise TrainingError(f"start={folder}: no phase checkpoint there ({error})") from error
        load_weights(folder / "model.safetensors", self.model, partly=True)
        self.first_epoch = state["epoch"]
        self.origins.append(f"all tensors from the end of phase {state['phase']!r} of {state['recipe']!r}")

    def open_folder(self, resume: bool) -> None:
        """Make the run's folder, or take up the run in it."""
        found = find_checkpoint(self.output / "checkpoint")
        if resume:
            if found is None:
                raise TrainingError(f"{self.output} holds no checkpoint to resume from; leave --resume out")
            saved = yaml.safe_load((self.output / "recipe.yaml").read_text(encoding="utf-8"))
            different = [k for k, v in self.recipe.to_dict().items() if saved.get(k) != v]
            if different:
                shown = "; ".join(f"{k}: was {saved.get(k)!r}, is {self.recipe.to_dict()[k]!r}" for k in different)
                raise TrainingError(f"{self.output} was made by another recipe: {shown}")
            state = load_checkpoint(found, self.model, self.optimisers)
            self.first_epoch, self.step, self.pairs_seen = state["epoch"], state["step"], state["pairs_seen"]
            self._cut_log()
            return
        if found is not None or (self.output / "recipe.yaml").exists():
            raise TrainingError(f"{self.output} already holds a run: resume it with --resume, or choose another folder")
        self.output.mkdir(parents=True, exist_ok=True)
        (self.output / "recipe.yaml").write_text(
            yaml.safe_dump(self.recipe.to_dict(), sort_keys=False, allow_unicode=True), encoding="utf-8"
        )
        write_json(self.output / "environment.json", {**environment(), "initialised": self.origins})

    def _cut_log(self) -> None:
        """Take back what was logged of an epoch whose checkpoint was not finished; go on with the clock."""
        path = self.output / "log.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        kept = [line for line in lines if line.endswith("}") and json.loads(line)["epoch"] <= self.first_epoch]
        write_atomically(path, "".join(line + "\n" for line in kept).encode())
        self.seconds = json.loads(kept[-1])["seconds"] if kept else 0.0

    def train(self) -> dict[str, Any]:
        """All remaining epochs, then the published form of the model and its results."""
        recipe = self.recipe
        pairs = Pairs(self.corpus, recipe.train, self.config.image_size, self.progress)
        valid = Pairs(self.corpus, [recipe.valid], self.config.image_size, self.progress)
        before, began = self.seconds, time.monotonic()
        total = recipe.epochs * -(-len(pairs) // recipe.pairs)
        if self.step == 0:
            self.step = self.first_epoch * -(-len(pairs) // recipe.pairs)
        for epoch in range(self.first_epoch, recipe.epochs):
            phase = recipe.phase_of(epoch)
            record = self._epoch(epoch, phase, pairs, total)
            record.update(self._validate(valid, phase))
            record["seconds"] = round(before + time.monotonic() - began, 1)
            self.seconds = record["seconds"]
            with open(self.output / "log.jsonl", "a", encoding="utf-8") as log:
                log.write(json.dumps(record) + "\n")
            state = {"recipe": recipe.name, "phase": phase.name, "epoch": epoch + 1, "step": self.step,
                     "pairs_seen": self.pairs_seen}  # fmt: skip
            save_checkpoint(self.output / "checkpoint", self.model, self.optimisers, state)
            if epoch + 1 == recipe.epochs or recipe.phase_of(epoch + 1) is not phase:
                save_checkpoint(self.output / f"phase-{phase.name}", self.model, {}, state)
        return self._finish()

    def _epoch(self, epoch: int, phase: Phase, pairs: Pairs, total: int) -> dict[str, Any]:
        recipe, model = self.recipe, self.model
        seed = recipe.seed * 1_000_003 + epoch
        torch.manual_seed(seed)
        rng = np.random.default_rng(seed)
        # pictures are augmented on the CPU, all else is drawn where the model is
        augmenting = torch.Generator().manual_seed(seed)
        generator = augmenting if self.device.type == "cpu" else torch.Generator(self.device).manual_seed(seed)
        groups, figures = self._groups(phase, pairs, seed)
        batches = [b for b in batches_of(groups, recipe.pairs) if len(b[0]) > 1]
        model.train()
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(not (phase.concrete_only and _is_spiking(name)))
        sums: dict[str, float] = {}
        bar = tqdm(batches, desc=f"epoch {epoch + 1}/{recipe.epochs} {phase.name}", unit="step",
                   disable=not self.progress or None)  # fmt: skip
        for indices, group_size in bar:
            set_learning_rates(self.optimisers, recipe, factor(recipe.schedule, self.step, epoch, total))
            batch = self._batch(pairs, indices, group_size, rng, augmenting)
            try:
                with self._autocast():
                    losses, logged = pretraining_losses(
                        model, batch, list(phase.objectives), concrete_only=phase.concrete_only,
                        fused_pairs=recipe.fused_pairs, mask_id=self.processor.tokenizer.mask_token_id,
                        negative_temperature=phase.negative_temperature, generator=generator,
                    )  # fmt: skip
            except FloatingPointError as error:
                names = [pairs.image_ids[i] for i in indices]
                found = self.output / "bad_batch.json"
                write_json(found, {"epoch": epoch + 1, "step": self.step, "image_ids": names})
                raise TrainingError(
                    f"{error} at step {self.step}; the pictures of the batch are named in {found}; "
                    "lower the learning rates or use precision=fp32"
                ) from error
            loss = sum(weight * losses[name] for name, weight in phase.objectives.items())
            for optimiser in self.optimisers.values():
                optimiser.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
            for optimiser in self.optimisers.values():
                optimiser.step()
            self.step += 1
            self.pairs_seen += len(indices)
            logged = {"loss": loss.item(), **{name: value.item() for name, value in losses.items()}, **logged}
            for key, value in logged.items():
                sums[key] = sums.get(key, 0.0) + value
            bar.set_postfix(loss=f"{logged['loss']:.3f}")
        means = {key: round(value / len(batches), 5) for key, value in sums.items()}
        return {"epoch": epoch + 1, "phase": phase.name, "step": self.step, "pairs_seen": self.pairs_seen,
                **figures, **means}  # fmt: skip

    def _groups(self, phase: Phase, pairs: Pairs, seed: int) -> tuple[list[np.ndarray], dict[str, float]]:
        size = self.config.group_size
        if phase.grouping == "random":
            return random_groups(len(pairs), size, seed), {}
        self.model.eval()
        with self._autocast():
            embeds = embed_pictures(self.model, pairs, progress=self.progress, concrete_only=phase.concrete_only)[0]
        embeddings = embeds.float().cpu().numpy()
        groups = similar_groups(embeddings, size, seed)
        figures = {
            "group_similarity": round(mean_similarity(embeddings, groups), 4),
            "random_group_similarity": round(mean_similarity(embeddings, random_groups(len(pairs), size, seed)), 4),
        }
        return groups, figures

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.recipe.precision == "bf16")

    def _batch(
        self, pairs: Pairs, indices: np.ndarray, group_size: int, rng: np.random.Generator, generator: torch.Generator
    ) -> Batch:
        captions = pairs.draw_captions(indices, rng, self.recipe.bare_name)
        tokens = tokenize(self.processor.tokenizer, captions, self.config.max_text_length)
        return Batch(
            pixel_values=augment(pairs.rgba(indices), generator).to(self.device),
            image_keys=[image_key(pairs.image_ids[i]) for i in indices],
            input_ids=tokens["input_ids"].to(self.device),
            attention_mask=tokens["attention_mask"].to(self.device),
            special=tokens["special_tokens_mask"].bool().to(self.device),
            samples=pairs.samples[torch.as_tensor(indices)].to(self.device),
            group_size=group_size,
        )

    def _validate(self, valid: Pairs, phase: Phase) -> dict[str, float]:
        self.model.eval()
        result = retrieval(
            self.model, self.processor.tokenizer, valid, progress=self.progress, concrete_only=phase.concrete_only
        )
        return {
            f"valid_{way}_{k}": round(share, 4)
            for way in ("text_to_image", "image_to_text")
            for k, share in result[way].items()
        }

    def _finish(self) -> dict[str, Any]:
        """Write the published form: float16, as it will be loaded, with processor and the record of the training."""
        folder = self.output / "model"
        self.model.eval()
        self.model.save_pretrained(folder)
        weights = folder / "model.safetensors"
        halved = {k: v.half() if v.is_floating_point() else v for k, v in load_file(weights).items()}
        aside = weights.with_name(weights.name + ".partial")
        save_file(halved, aside, metadata={"format": "pt"})
        aside.replace(weights)
        self.processor.save_pretrained(folder)
        record = {
            "recipe": self.recipe.name,
            "model": self.recipe.model,
            "seed": self.recipe.seed,
            "epochs": self.recipe.epochs,
            "pairs_seen": self.pairs_seen,
            "seconds": self.seconds,
            "initialised": self.origins,
            "environment": environment(),
        }
        write_json(folder / TRAINING_RECORD, record)
        for name in ("recipe.yaml", "log.jsonl"):
            write_atomically(folder / name, (self.output / name).read_bytes())
        return record


@contextmanager
def _deterministic(device: torch.device) -> Iterator[None]:
    """On CPU, sums in a fixed order: a resumed run then ends with the same bits as an undisturbed one."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(before or device.type == "cpu")
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def _is_spiking(name: str) -> bool:
    parts = (".abstract_encoder.", ".collector.", ".summary_ratio.")
    return any(part in name for part in parts) or name.startswith(("mvm.", "stua.", "visual_mask"))


def _weights_folder(source: str) -> Path:
    """A folder, or ``package:NAME`` for the folder ``model`` inside an installed package."""
    if not source.startswith("package:"):
        return Path(source)
    name = source.removeprefix("package:")
    spec = find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise ConfigurationError(f"transformer_weights={source!r}: package {name} is not installed (ashnets[train])")
    return Path(next(iter(spec.submodule_search_locations))) / "model"
