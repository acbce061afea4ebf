"""The time and memory that the spiking branch adds to a training step of the whole model.

The step samples spikes and runs the forward and backward pass of pre-training with all objectives; MVM and STUA exist
only with the branch. The optimizer is left out, because its cost is nearly the same for both. Memory is the sum of
weights, buffers and the peak of the step.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from images import images
from measuring import interleaved
from operator_profile import of_torch
from reporting import Report, Settings
from resident import apart, peak_of

from ashnets.data.draws import draw
from ashnets.model.heads import AshNetsForPreTraining
from ashnets.training.estimate import bytes_of
from ashnets.training.pretrain import Batch, PreTrainingStep
from ashnets.zoo import config_of

SECTION = "whole model"
PAIRS = {"ashnets-tiny": 16, "ashnets-r101-l3": 4}
FUSED = {"ashnets-tiny": 1 / 8, "ashnets-r101-l3": 1.0}  # share of the pairs in ITM, MLM and MVM, as in their recipes
QUICK = ["ashnets-tiny"]
AIMED_AT, MOST = "ashnets-r101-l3", 1.15
BASE, SPIKING = ["itc", "itm", "mlm"], ["mvm", "stua"]
PAPER = "paper: time 1.22, memory 1.20"


def run(settings: Settings, report: Report) -> None:
    report.note("whole_model_paper", PAPER)
    for name in QUICK if settings.quick else PAIRS:
        pairs = settings.pairs or PAIRS[name]
        report.progress(f"{SECTION}: {name}, {pairs} pairs")
        steps = {suffix: parts(name + suffix, FUSED[name], pairs, settings.seed)[1] for suffix in ("", "-ann")}
        seconds = interleaved(steps, settings.rounds)
        case = f"{name}, {pairs} pairs"
        found = report.add_ratio(SECTION, case, "time, with / without SNN", seconds[""], seconds["-ann"])
        report.progress(f"{SECTION}: {name}, memory")
        held = apart(memory, name, pairs, settings.seed)
        report.add_ratio(SECTION, case, "memory, with / without SNN", held[:1], held[1:], "B")
        if name == AIMED_AT:
            report.aim(f"{case}: training step with / without SNN ({PAPER})", found, at_most=MOST)
            report.profile(f"added by the SNN, {case}", added(of_torch(steps[""], 1), of_torch(steps["-ann"], 1)))


def added(over: dict[str, float], under: dict[str, float]) -> dict[str, float]:
    """Milliseconds by operator that the first run takes more than the second."""
    more = {kind: time - under.get(kind, 0.0) for kind, time in over.items()}
    return {kind: time for kind, time in more.items() if time > 0}


def memory(name: str, pairs: int, seed: int) -> list[int]:
    """Bytes of weights, buffers and the peak of a step, with and without the SNN; call it by `apart`."""
    parts("ashnets-tiny", 1.0, 2, seed)[1]()
    found = []
    for suffix in ("", "-ann"):
        model, step = parts(name + suffix, FUSED[name], pairs, seed)
        found.append(bytes_of(model) + peak_of(step))
    return found


def parts(name: str, fused: float, pairs: int, seed: int) -> tuple[AshNetsForPreTraining, Callable[[], torch.Tensor]]:
    """A model; and a function for sampling, forward and backward pass of one group of ``pairs`` images with texts."""
    torch.manual_seed(seed)
    config = config_of(name)
    model = AshNetsForPreTraining(config).train()
    model.ashnets.transformer.bert.set_attn_implementation("eager")  # as in training on a CPU
    objectives = BASE + (SPIKING if config.has_spiking_branch else [])
    step = PreTrainingStep(model, objectives, concrete_only=False, fused_share=fused, mask_id=4)
    batch = batch_of(config.vocab_size, config.max_text_length, config.image_size, pairs, seed)

    def run() -> torch.Tensor:
        model.zero_grad(set_to_none=True)
        spikes = None
        if config.has_spiking_branch:
            spikes = model.ashnets.vision.sample(batch.pixel_values, batch.image_keys)
        losses, _ = step(batch, spikes)
        loss = torch.stack(list(losses.values())).sum()
        loss.backward()
        return loss.detach()

    return model, run


def batch_of(vocabulary: int, length: int, side: int, pairs: int, seed: int) -> Batch:
    """Images with random texts of maximum length."""
    ids = torch.randint(5, vocabulary, (pairs, length), generator=torch.Generator().manual_seed(seed))
    return Batch(
        pixel_values=images(pairs, side),
        image_keys=torch.arange(pairs),
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        special=torch.zeros_like(ids, dtype=torch.bool),
        samples=torch.arange(pairs),
        draws=draw(seed, 0, range(pairs), length),
        group_size=pairs,
        image_ids=[str(i) for i in range(pairs)],
        skipped={},
    )
