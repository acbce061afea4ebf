"""One step of pre-training against recomputations from the model's public parts, loops, and torch's own losses."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from ashnets import objectives as obj
from ashnets.data.draws import draw
from ashnets.model.heads import AshNetsForPreTraining
from ashnets.training.pretrain import Batch, Keys, PreTrainingStep, fused_pairs, momentum_keys, trimmed
from ashnets.training.setup import average_of

MASK, LENGTH, VOCABULARY = 4, 9, 60
ALL = ["itc", "itm", "mlm", "mvm", "stua"]
BASE = ["itm", "mlm", "mvm"]  # of Fig. 5


@pytest.fixture
def model_of(small_pretraining_config):
    """A function that makes the small model, narrower, in training; there is no dropout."""

    def make(seed: int = 0, **changes) -> AshNetsForPreTraining:
        narrow = {"hidden_size": 24, "num_attention_heads": 2, "intermediate_size": 48, "projection_size": 16}
        narrow["stua_projections"] = "own"
        config = type(small_pretraining_config)(**{**small_pretraining_config.to_dict(), **narrow, **changes})
        assert config.hidden_dropout_prob == config.attention_probs_dropout_prob == 0
        torch.manual_seed(seed)
        model = AshNetsForPreTraining(config).train()
        with torch.no_grad():  # so that no draw and no answer is nearly certain or nearly even
            model.temperature.log_tau.fill_(math.log(0.3))
            model.itm.weight.mul_(20)
        return model

    return make


@pytest.fixture
def batch() -> Batch:
    """Eight pairs in two groups of φ = 4; the first two are one sample, and the fifth and sixth are another."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(5, VOCABULARY, (8, LENGTH), generator=generator)
    lengths = torch.tensor([9, 4, 6, 3, 8, 5, 7, 9])
    places = torch.arange(LENGTH)
    ids[:, 0] = 2
    ids[torch.arange(8), lengths - 1] = 3
    mask = (places < lengths.unsqueeze(1)).long()
    return Batch(
        pixel_values=torch.rand(8, 3, 64, 64, generator=generator),
        image_keys=torch.arange(8),
        input_ids=ids * mask,
        attention_mask=mask,
        special=(ids <= 3) | (mask == 0),
        samples=torch.tensor([0, 0, 1, 2, 3, 3, 4, 5]),
        draws=draw(0, 0, range(8), LENGTH),
        group_size=4,
        image_ids=[str(i) for i in range(8)],
        skipped={},
    )


def step_of(model: AshNetsForPreTraining, names: list[str], **changes) -> PreTrainingStep:
    settings = {"concrete_only": False, "fused_share": 0.5, "mask_id": MASK}
    return PreTrainingStep(model, names, **{**settings, **changes})


def spikes_of(model: AshNetsForPreTraining, batch: Batch) -> torch.Tensor:
    return model.ashnets.vision.sample(batch.pixel_values, batch.image_keys)


def parts(model: AshNetsForPreTraining, batch: Batch) -> tuple:
    """The visual module's output, hidden states of the texts, and both embeddings."""
    visual = model.ashnets.vision(batch.pixel_values, spikes=spikes_of(model, batch), group_size=batch.group_size)
    text, _ = model.ashnets.transformer(batch.input_ids, batch.attention_mask, None)
    return visual, text, model.project_image(visual.output), model.project_text(text)


def chosen_pairs(batch: Batch, each: int) -> list[int]:
    """The pairs of smallest draw in each group, by sorting."""
    size, draws = batch.group_size, batch.draws.fused.tolist()
    groups = [range(start, start + size) for start in range(0, len(draws), size)]
    return sorted(i for group in groups for i in sorted(group, key=draws.__getitem__)[:each])


def even_targets(samples: list[int], others: list[int]) -> torch.Tensor:
    same = torch.tensor([[float(a == b) for b in others] for a in samples])
    return same / same.sum(1, keepdim=True)


def test_fused_pairs_by_hand():
    draws = torch.tensor([0.5, 0.1, 0.9, 0.2, 0.3, 0.8, 0.05, 0.6])
    assert fused_pairs(draws, 4, 0.5).tolist() == [1, 3, 4, 6]
    assert fused_pairs(draws, 4, 0.01).tolist() == [1, 6], "one of a group at least"
    assert fused_pairs(draws, 4, 0.75).tolist() == [0, 1, 3, 4, 6, 7]
    assert fused_pairs(draws, 4, 1.0).tolist() == list(range(8))
    assert fused_pairs(draws, 8, 0.25).tolist() == [1, 6]
    assert fused_pairs(draws, 1, 0.25).tolist() == list(range(8)), "alone in its group, each is seen"
    assert fused_pairs(draws[:7], 7, 0.25).tolist() == [1, 6], "7/4 of a longer last group is two"


@given(st.data())
def test_fused_pairs_of_a_group_do_not_depend_on_the_others(data):
    size, count = data.draw(st.integers(1, 8), "φ"), data.draw(st.integers(1, 5), "groups")
    share = data.draw(st.floats(0.01, 1.0), "share")
    numbers = st.lists(st.integers(0, 2**24 - 1), min_size=size * count, max_size=size * count, unique=True)
    draws = torch.tensor(data.draw(numbers, "draws")) / 2**24
    found = fused_pairs(draws, size, share).unflatten(0, (count, -1)).tolist()
    assert found == sorted(found)
    for group, places in enumerate(found):
        own = draws[group * size : (group + 1) * size]
        assert len(places) == min(size, max(1, round(size * share)))
        lowest = sorted(range(size), key=own.tolist().__getitem__)[: len(places)]
        assert [place - group * size for place in places] == sorted(lowest)
        assert fused_pairs(own, size, share).tolist() == sorted(lowest), "as if the group were alone"


def test_padding_changes_no_loss_and_no_gradient(model_of, batch, monkeypatch):
    """The longest texts are not among the fused pairs; the whole batch padded to twice its length is the oracle."""
    model = model_of()
    batch.draws.fused[[1, 2, 5, 6]] = torch.tensor([0.01, 0.02, 0.03, 0.04])
    spikes = spikes_of(model, batch)
    widths: list[int] = []
    transformer = model.ashnets.transformer
    transformer.register_forward_pre_hook(lambda _, given: widths.append(given[0].shape[1]))

    def learn(padding: int) -> tuple[dict[str, torch.Tensor], list[torch.Tensor]]:
        pad = (0, padding)
        draws = dataclasses.replace(batch.draws, words=draw(0, 0, range(8), 2 * LENGTH).words)
        wide = dataclasses.replace(
            batch,
            input_ids=F.pad(batch.input_ids, pad),
            attention_mask=F.pad(batch.attention_mask, pad),
            special=F.pad(batch.special, pad, value=True),
            draws=draws,
        )
        model.zero_grad()
        losses, _ = step_of(model, ALL)(wide, spikes)
        sum(losses.values()).backward()
        return losses, [p.grad.clone() for p in model.parameters() if p.grad is not None]

    monkeypatch.setattr("ashnets.training.pretrain.TOGETHER", 3)
    losses, gradients = learn(0)
    fused = max(batch.attention_mask[chosen_pairs(batch, 2)].sum(1)).item()
    assert widths[:3] == [5, 8, 9], "passes of 3, 3 and 2 texts in the order of their lengths"
    assert len(widths) == 5 and widths[-1] == fused == 7, "ITM's pass, and that of the masked pairs"
    monkeypatch.setattr("ashnets.training.pretrain.trimmed", lambda *texts: texts)
    monkeypatch.setattr("ashnets.training.pretrain.TOGETHER", 8)
    padded, padded_gradients = learn(LENGTH)
    assert widths[5:] == [2 * LENGTH] * 3
    for name in ALL:
        torch.testing.assert_close(losses[name], padded[name], rtol=2e-5, atol=2e-6)
    torch.testing.assert_close(gradients, padded_gradients, rtol=1e-3, atol=1e-4)


def test_trimmed_keeps_what_the_longest_text_needs(batch):
    ids, mask = trimmed(batch.input_ids[1:4], batch.attention_mask[1:4])
    assert ids.shape == mask.shape == (3, 6) and mask[:, -1].any()
    assert torch.equal(F.pad(ids, (0, 3)), batch.input_ids[1:4])


def test_each_objective_alone_has_the_value_it_has_among_all(model_of, batch):
    """But MLM and MVM, which share one pass: a word is also guessed from the masked image, and the other way round.

    Each of these two equals itself among all but the other.
    """

    def losses(*names: str) -> dict[str, torch.Tensor]:
        model = model_of()  # anew: a step changes the running statistics by which MVM's labels stand out
        found, figures = step_of(model, list(names))(batch, spikes_of(model, batch))
        assert found.keys() == set(names)
        assert ("itm_accuracy" in figures) == ("itm" in names)
        return found

    everything = losses(*ALL)
    without_mvm, without_mlm = losses("itc", "itm", "mlm", "stua"), losses("itc", "itm", "mvm", "stua")
    for name in ALL:
        among = {"mlm": without_mvm, "mvm": without_mlm}.get(name, everything)
        assert torch.equal(losses(name)[name], among[name]), name
        assert among[name] > 0
    assert all(everything[name] != among[name] for name, among in (("mlm", without_mvm), ("mvm", without_mlm)))


@pytest.mark.parametrize("names", [BASE, [*BASE, "itc"], [*BASE, "itc", "stua"]])
def test_the_sets_of_figure_5(model_of, batch, names):
    """Base, Base + ITC, Base + ITC + STUA: a part that is off does not exist and is not trained."""
    model = model_of()
    losses, _ = step_of(model, names)(batch, spikes_of(model, batch))
    assert losses.keys() == set(names)
    sum(losses.values()).backward()
    heads = {"itc": model.image_projection, "itm": model.itm, "mlm": model.mlm, "mvm": model.mvm, "stua": model.stua}
    for name, head in heads.items():
        trained = [p.grad is not None and bool(p.grad.any()) for p in head.parameters()]
        assert all(trained) if name in names else not any(trained), name


@pytest.mark.parametrize(
    ("names", "passes"),
    [(["itc"], 1), (["stua", "itc"], 1), (["itm"], 2), (["mlm"], 2), (["mlm", "mvm"], 2), (ALL, 3)],
)
def test_passes_of_the_transformer(model_of, batch, names, passes):
    """One for texts alone, one for ITM, one for MLM and MVM together: what is off costs nothing."""
    model, seen = model_of(), []
    model.ashnets.transformer.register_forward_hook(lambda *_: seen.append(1))
    step_of(model, names)(batch, spikes_of(model, batch))
    assert len(seen) == passes


def test_itc_and_stua_from_the_public_parts(model_of, batch):
    """torch's own cross-entropy with soft targets: even over the pairs of one sample."""
    model = model_of()
    losses, figures = step_of(model, ["itc", "stua"])(batch, spikes_of(model, batch))
    visual, text, image, words = parts(model, batch)
    targets, tau = even_targets(batch.samples.tolist(), batch.samples.tolist()), model.temperature()
    assert targets[0].tolist() == [0.5, 0.5, 0, 0, 0, 0, 0, 0]
    both_ways = F.cross_entropy(image @ words.T / tau, targets) + F.cross_entropy(words @ image.T / tau, targets)
    assert losses["itc"].item() == pytest.approx(both_ways.item() / 2, rel=1e-5)
    scores = model.project_spiking(visual) @ model.project_text_for_spikes(text).T / model.stua.temperature()
    assert losses["stua"].item() == pytest.approx(F.cross_entropy(scores, targets).item() / 2, rel=1e-5)
    assert figures["tau"].item() == pytest.approx(0.3)
    assert figures["summary_ratio"].item() == pytest.approx(visual.summary_ratio.mean().item())
    for name, rate in visual.layer_rates.items():
        assert figures[f"training_rate_{name}"].item() == pytest.approx(rate.mean().item()), name


def negative(scores: list[float], same: list[bool], tau: float, uniform: float) -> int:
    """The first entry of another sample at which Σ exp(s/τ) passes the draw's share of the whole."""
    weights = [0.0 if own else math.exp(score / tau) for score, own in zip(scores, same, strict=True)]
    reach = 0.0
    for place, weight in enumerate(weights):
        reach += weight
        if weight and reach > uniform * sum(weights):
            return place
    raise AssertionError("no other sample")


@pytest.mark.parametrize("tau", [None, 0.05])
def test_itm_from_the_public_parts_one_pair_at_a_time(model_of, batch, tau):
    """For each fused pair itself, a negative text and a negative image out of the whole batch."""
    model = model_of()
    losses, figures = step_of(model, ["itm"], negative_temperature=tau)(batch, spikes_of(model, batch))
    visual, _, image, words = parts(model, batch)
    to_text, samples = (image.double() @ words.double().T).tolist(), batch.samples.tolist()
    total = right = 0.0
    drawn, fused = set(), chosen_pairs(batch, each=2)
    for i in fused:
        same = [other == samples[i] for other in samples]
        text = negative(to_text[i], same, tau or 0.3, batch.draws.negative_text[i].item())
        other = negative([row[i] for row in to_text], same, tau or 0.3, batch.draws.negative_image[i].item())
        drawn |= {text, other}
        for shown, said, answer in ((i, i, 1), (i, text, 0), (other, i, 0)):
            logits = model.match(visual.output[[shown]], batch.input_ids[[said]], batch.attention_mask[[said]])[
                0
            ].tolist()
            total += math.log(math.exp(logits[0]) + math.exp(logits[1])) - logits[answer]
            right += (logits[1] > logits[0]) == bool(answer)
    assert len(fused) == 4 and drawn - set(fused), "negatives come from pairs that are not fused, too"
    assert losses["itm"].item() == pytest.approx(total / 12, rel=1e-5)
    assert figures["itm_accuracy"].item() == pytest.approx(right / 12)


def test_a_batch_of_one_sample_has_no_negatives(model_of, batch):
    model = model_of()
    batch.samples.zero_()
    losses, _ = step_of(model, ["itm", "itc"])(batch, spikes_of(model, batch))
    visual, *_ = parts(model, batch)
    fused = chosen_pairs(batch, each=2)
    logits = model.match(visual.output[fused], batch.input_ids[fused], batch.attention_mask[fused])
    expected = F.cross_entropy(logits, torch.ones(4, dtype=torch.long))
    assert losses["itm"].item() == pytest.approx(expected.item(), rel=1e-5)
    assert losses["itc"].isfinite()


def test_mlm_and_mvm_from_the_public_parts_one_pair_at_a_time(model_of, batch):
    """Masks by the objectives' functions; means over all masked tokens of all fused pairs."""
    model = model_of()
    losses, _ = step_of(model, ["mlm", "mvm"])(batch, spikes_of(model, batch))
    visual, *_ = parts(model, batch)
    words = batch.draws.words
    ids, labels = obj.mask_tokens(batch.input_ids, batch.special, MASK, VOCABULARY, words)
    collector, steps = model.ashnets.vision.collector, model.config.time_steps
    z = collector.standing_out(visual.concept_counts, steps)
    concepts, _ = obj.spike_labels(z, visual.concept_counts, batch.draws.concept)
    masked = obj.mask_one_label(concepts, batch.draws.concept)
    terms: dict[str, list[float]] = {"mlm": [], "mvm": []}
    for i in chosen_pairs(batch, each=2):
        tokens = model.mask_visual(visual.output[[i]], masked[[i]])
        length = int(batch.attention_mask[i].sum())  # without padding
        hidden, _ = model.ashnets.transformer(ids[[i], :length], None, tokens)
        said = model.mlm(hidden[0, :length])
        seen = model.mvm(hidden[0, length:], model.ashnets.vision.collector.concepts)
        for kind, logits, wanted in (
            ("mlm", said, {j: int(labels[i, j]) for j in range(length) if labels[i, j] >= 0}),
            ("mvm", seen, {j: int(concepts[i, j]) for j in range(16) if masked[i, j]}),
        ):
            assert wanted, kind
            terms[kind] += [-logits[j].double().log_softmax(0)[label].item() for j, label in wanted.items()]
    for kind, found in terms.items():
        assert losses[kind].item() == pytest.approx(sum(found) / len(found), rel=1e-5), kind


def test_only_fused_pairs_are_masked(model_of, batch):
    """Other pairs' words change nothing for MLM and MVM, and no gradient reaches their visual tokens."""
    model, outputs = model_of(), []
    fused = chosen_pairs(batch, each=2)
    others = [i for i in range(8) if i not in fused]

    def keep(_module, _inputs, visual) -> None:
        visual.output.retain_grad()
        outputs.append(visual.output)

    model.ashnets.vision.register_forward_hook(keep)
    losses, _ = step_of(model, ALL)(batch, spikes_of(model, batch))
    reached = {}
    for name in ALL:
        outputs[0].grad = None
        losses[name].backward(retain_graph=True)
        grad = outputs[0].grad
        reached[name] = [] if grad is None else [i for i in range(8) if grad[i].any()]
    assert reached["mlm"] == reached["mvm"] == fused
    assert set(fused) < set(reached["itm"]), "its negatives are of all"
    assert reached["itc"] == list(range(8)) and reached["stua"] == [], "STUA reads SR·F_SNN, not Output"
    batch.input_ids[others] = torch.where(batch.special[others], batch.input_ids[others], 7)
    again, _ = step_of(model, ALL)(batch, spikes_of(model, batch))
    assert torch.equal(again["mlm"], losses["mlm"]) and torch.equal(again["mvm"], losses["mvm"])
    assert again["itc"] != losses["itc"]


def group_of(name: str) -> str:
    """A part of the model that an objective reaches as a whole or not at all."""
    names = {
        "concrete_encoder": "backbone",
        "abstract_encoder": "spiking",
        "collector": "C",
        "summary_ratio": "SR",
        "bert": "transformer",
        "visual_positions": "joint",
        "visual_norm": "joint",
        "visual_mask": "mask",
        "image_projection": "itc",
        "text_projection": "itc",
        "temperature": "itc",
    }
    head, *_ = name.split(".")
    if head in ("itm", "mlm", "mvm", "stua"):
        return head
    return next(group for key, group in names.items() if key in name.split("."))


@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("itc", {"backbone", "SR", "itc"}),
        ("itm", {"backbone", "SR", "joint", "itm"}),  # its negatives are drawn without a gradient
        ("mlm", {"backbone", "SR", "joint", "mlm"}),
        ("mvm", {"backbone", "SR", "joint", "mvm", "mask"}),
        ("stua", {"stua"}),  # SR is a constant in it, so that nothing reaches SR and the backbone
        ("distill", set()),  # nor here, where F_CNN is the teacher
    ],
)
def test_where_gradients_go(model_of, batch, name, own):
    """Every objective trains the spiking encoder and C, all but one the transformer, and of the rest its own."""
    model = model_of()
    losses, _ = step_of(model, [name])(batch, spikes_of(model, batch))
    losses[name].backward()
    reached = {group_of(n) for n, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    text = set() if name == "distill" else {"transformer"}
    assert reached == {"spiking", "C"} | text | own


@pytest.mark.parametrize("beside", [False, True])
def test_distillation_equals_a_loop(model_of, batch, beside):
    model = model_of()
    losses, _ = step_of(model, ["distill"], concrete_only=beside, beside=beside)(batch, spikes_of(model, batch))
    visual, *_ = parts(model, batch)
    pairs = zip(visual.abstract.flatten(0, 1).tolist(), visual.concrete.flatten(0, 1).tolist(), strict=True)
    cosines = [math.fsum(a * b for a, b in zip(s, c, strict=True)) / math.hypot(*s) / math.hypot(*c) for s, c in pairs]
    assert losses["distill"].item() == pytest.approx(1 - math.fsum(cosines) / len(cosines), abs=1e-5)


def test_stua_beside_the_concrete_branch(model_of, batch):
    """Tokens of F_CNN alone: ITC trains no spikes, STUA nothing but spikes, C, its projections and the text side."""
    model = model_of()
    losses, figures = step_of(model, ["itc", "stua"], concrete_only=True, beside=True)(batch, spikes_of(model, batch))
    alone, _ = step_of(model_of(), ["itc"], concrete_only=True)(batch)
    gated, _ = step_of(model_of(), ["stua"])(batch, spikes_of(model, batch))
    assert losses["itc"].item() == pytest.approx(alone["itc"].item(), rel=1e-6)
    assert losses["stua"].item() == pytest.approx(gated["stua"].item(), rel=1e-6), (
        "the gate changes no reading of F_SNN"
    )
    assert "training_rate_concepts" in figures
    for name, expected in (
        ("itc", {"backbone", "itc", "transformer"}),
        ("stua", {"spiking", "C", "stua", "transformer"}),
    ):
        model.zero_grad()
        losses[name].backward(retain_graph=True)
        reached = {group_of(n) for n, p in model.named_parameters() if p.grad is not None and p.grad.any()}
        assert reached == expected


def test_stua_by_the_projections_of_itc(model_of, batch):
    """h_v and h_w are then those of ITC, and STUA has only its own τ."""
    model = model_of(stua_projections="itc")
    assert [name for name, _ in model.stua.named_parameters()] == ["temperature.log_tau"]
    visual, text, *_ = parts(model, batch)
    v = visual.summary_ratio * visual.abstract
    torch.testing.assert_close(model.project_spiking(visual), model.project_image(v))
    torch.testing.assert_close(model.project_text_for_spikes(text), model.project_text(text))


def test_concrete_only_leaves_the_spiking_parts_without_gradients(model_of, batch):
    model = model_of()
    names = ["itc", "itm", "mlm"]
    losses, figures = step_of(model, names, concrete_only=True)(batch)
    assert losses.keys() == set(names) and figures.keys() == {"tau", "itm_accuracy"}
    sum(losses.values()).backward()
    idle = {group_of(n) for n, p in model.named_parameters() if p.grad is None or not p.grad.any()}
    assert {"spiking", "C", "SR", "mvm", "stua", "mask"} <= idle
    assert not any(p.grad is not None for p in model.ashnets.vision.abstract_encoder.parameters())
    visual = model.ashnets.vision(batch.pixel_values, concrete_only=True)
    image = model.project_image(visual.concrete)
    words = model.encode_text(batch.input_ids, batch.attention_mask)
    targets, tau = even_targets(batch.samples.tolist(), batch.samples.tolist()), 0.3
    both_ways = F.cross_entropy(image @ words.T / tau, targets) + F.cross_entropy(words @ image.T / tau, targets)
    assert losses["itc"].item() == pytest.approx(both_ways.item() / 2, rel=1e-5)


def unit_rows(count: int, seed: int) -> torch.Tensor:
    return F.normalize(torch.randn(count, 16, generator=torch.Generator().manual_seed(seed)), dim=1)


@pytest.mark.parametrize("alpha", [0.0, 0.4])
def test_itc_with_keys_equals_a_loop(model_of, batch, alpha):
    """Eight keys of this batch and five of a queue, two of which are samples of the batch; float64."""
    model = model_of()
    samples = [*batch.samples.tolist(), 2, 77, 5, 78, 79]
    keys = Keys(unit_rows(13, 1), unit_rows(13, 2), torch.tensor(samples), unit_rows(8, 3), unit_rows(8, 4), new=8)
    losses, _ = step_of(model, ["itc"], distillation=alpha)(batch, spikes_of(model, batch), keys)
    *_, image, words = parts(model, batch)
    tau, total = 0.3, 0.0
    for queries, teachers, others in ((image, keys.own_image, keys.text), (words, keys.own_text, keys.image)):
        for i in range(8):

            def softmax(vector, others=others) -> list[float]:
                powers = [
                    math.exp(math.fsum(a * b for a, b in zip(vector.tolist(), key.tolist(), strict=True)) / tau)
                    for key in others
                ]
                return [power / math.fsum(powers) for power in powers]

            same = [samples[k] == samples[i] for k in range(13)]
            soft = softmax(teachers[i])
            for k, p in enumerate(softmax(queries[i])):
                target = alpha * soft[k] + (1 - alpha) * same[k] / sum(same)
                total -= target * math.log(p)
    assert losses["itc"].item() == pytest.approx(total / 8 / 2, rel=1e-5)
    losses["itc"].backward()
    assert not any(tensor.requires_grad for tensor in (keys.image, keys.text, keys.own_image, keys.own_text))
    assert model.image_projection.weight.grad.any() and model.text_projection.weight.grad.any()


@pytest.mark.parametrize("concrete_only", [False, True])
def test_keys_are_the_momentum_encoders_then_the_queue(model_of, batch, concrete_only):
    model = model_of()
    encoders = average_of(model_of(seed=1), 0.9).module
    spikes = None if concrete_only else spikes_of(model, batch)
    queue = obj.EmbeddingQueue(6, 16)
    assert len(momentum_keys(encoders, queue, batch, spikes, concrete_only).samples) == 8, "an empty queue adds none"
    queue.enqueue(unit_rows(4, 1), unit_rows(4, 2), torch.tensor([90, 91, 92, 93]))
    keys = momentum_keys(encoders, queue, batch, spikes, concrete_only)
    assert keys.new == 8 and keys.samples.tolist() == [*batch.samples.tolist(), 90, 91, 92, 93]
    options = {"spikes": spikes, "group_size": 4, "concrete_only": concrete_only}
    with torch.no_grad():
        image, _ = encoders.encode_image(batch.pixel_values, **options)
        text = encoders.encode_text(batch.input_ids, batch.attention_mask)
    for own, together, expected, queued in (
        (keys.own_image, keys.image, image, unit_rows(4, 1)),
        (keys.own_text, keys.text, text, unit_rows(4, 2)),
    ):
        assert torch.equal(own, expected) and torch.equal(together, torch.cat([expected, queued]))
        assert not own.requires_grad and not together.requires_grad
    assert int(queue.written) == 4, "they go in after the step"
    losses, _ = step_of(model, ["itc"], concrete_only=concrete_only, distillation=0.4)(batch, spikes, keys)
    losses["itc"].backward()
    assert all(p.grad is None for p in encoders.parameters())


def test_similarities_are_float32_under_bf16(model_of, batch):
    """ITC of the embeddings that bf16 gave, in float64: a product in bf16 would be off in the third digit."""
    model, raw = model_of(), {}
    for name in ("image_projection", "text_projection"):
        getattr(model, name).register_forward_hook(lambda _m, _i, out, name=name: raw.update({name: out}))
    with torch.autocast("cpu", torch.bfloat16):
        losses, _ = step_of(model, ["itc", "stua"])(batch, spikes_of(model, batch))
    assert losses["itc"].dtype == losses["stua"].dtype == torch.float32
    assert raw["image_projection"].dtype == torch.bfloat16
    image, words = (F.normalize(raw[name].double(), dim=1) for name in ("image_projection", "text_projection"))
    targets = even_targets(batch.samples.tolist(), batch.samples.tolist()).double()
    both_ways = F.cross_entropy(image @ words.T / 0.3, targets) + F.cross_entropy(words @ image.T / 0.3, targets)
    assert losses["itc"].item() == pytest.approx(both_ways.item() / 2, rel=1e-6)


def test_a_silent_stack_gives_no_masked_tokens_and_finite_losses(model_of, batch):
    """Without a single spike MVM is 0 with a gradient of 0, and STUA stays finite."""
    model = model_of()
    for block in model.ashnets.vision.abstract_encoder.layers.values():
        torch.nn.init.constant_(block.norm.weight, 0.0)
        torch.nn.init.constant_(block.norm.bias, -1.0)
    losses, figures = step_of(model, ALL)(batch, spikes_of(model, batch))
    assert figures["training_rate_concepts"] == 0 and losses["mvm"] == 0
    sum(losses.values()).backward()
    assert all(loss.isfinite() for loss in losses.values())
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
