"""The objectives against plain loops in float64 and hand-computed cases."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ashnets import objectives as obj
from ashnets.objectives.mlm import IGNORED
from ashnets.objectives.mvm import SILENT


def unit(rows: int, width: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, width, generator=generator, dtype=torch.float64)
    return x / x.norm(dim=1, keepdim=True)


def loop_cross_entropy(queries, keys, tau, samples) -> float:
    """Mean over queries of −Σ_j y_j log p_j, y uniform over the entries of the same sample."""
    total = 0.0
    for i, query in enumerate(queries):
        scores = [sum(a * b for a, b in zip(query.tolist(), key.tolist(), strict=True)) / tau for key in keys]
        log_norm = math.log(sum(math.exp(s) for s in scores))
        same = [j for j in range(len(keys)) if samples[j] == samples[i]]
        total -= sum(scores[j] - log_norm for j in same) / len(same)
    return total / len(queries)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=2, max_size=7), st.floats(0.05, 0.5), st.integers(0, 99))
def test_itc_and_stua_equal_a_loop(samples, tau, seed):
    image, text = unit(len(samples), 5, seed), unit(len(samples), 5, seed + 1000)
    positive = obj.same_sample(torch.tensor(samples))
    forward = loop_cross_entropy(image, text, tau, samples)
    backward = loop_cross_entropy(text, image, tau, samples)
    loss = obj.itc_loss(image, text, torch.tensor(tau, dtype=torch.float64), positive)
    assert loss.item() == pytest.approx((forward + backward) / 2, rel=1e-9)
    # eq. 11: spiking to text only, and the factor ½ stays
    stua = obj.stua_loss(image, text, torch.tensor(tau, dtype=torch.float64), positive)
    assert stua.item() == pytest.approx(forward / 2, rel=1e-9)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 4), st.integers(4, 9), st.floats(0.05, 0.5), st.floats(0.0, 0.9), st.integers(0, 99))
def test_itc_with_keys_and_distillation_equals_a_loop(pairs, keys, tau, alpha, seed):
    """Keys of momentum encoders and queue; the target is α·softmax of the teacher + (1 − α)·uniform over positives."""
    image, text = unit(pairs, 5, seed), unit(pairs, 5, seed + 1)
    image_keys, text_keys = unit(keys, 5, seed + 2), unit(keys, 5, seed + 3)
    teacher = unit(pairs, 5, seed + 4), unit(pairs, 5, seed + 5)
    positive = torch.rand(pairs, keys, generator=torch.Generator().manual_seed(seed)) < 0.3
    positive[torch.arange(pairs), torch.arange(pairs)] = True

    def one_way(queries, others, teachers) -> float:
        total = 0.0
        for i in range(pairs):

            def softmax(vector, others=others) -> list[float]:
                powers = [
                    math.exp(sum(a * b for a, b in zip(vector.tolist(), k.tolist(), strict=True)) / tau) for k in others
                ]
                return [p / sum(powers) for p in powers]

            soft, p = softmax(teachers[i]), softmax(queries[i])
            same = int(positive[i].sum())
            target = [alpha * s + (1 - alpha) * bool(y) / same for s, y in zip(soft, positive[i], strict=True)]
            total -= sum(y * math.log(q) for y, q in zip(target, p, strict=True))
        return total / pairs

    loss = obj.itc_loss(
        image, text, torch.tensor(tau, dtype=torch.float64), positive, (image_keys, text_keys), teacher, alpha
    )
    expected = (one_way(image, text_keys, teacher[0]) + one_way(text, image_keys, teacher[1])) / 2
    assert loss.item() == pytest.approx(expected, rel=1e-9)


def test_the_queue_after_wrap_around_by_hand():
    """A ring of five entries: batches of two, three, four (beyond the end) and seven (larger than the ring)."""
    queue = obj.EmbeddingQueue(5, 2)

    def put(*ids: int) -> list[int]:
        rows = torch.tensor([[float(i), -float(i)] for i in ids])
        queue.enqueue(rows, rows * 10, torch.tensor(ids))
        image, text, samples = queue.entries()
        assert torch.equal(image[:, 0], samples.float()) and torch.equal(text, image * 10)
        return samples.tolist()

    assert [len(x) for x in queue.entries()] == [0, 0, 0]
    assert put(1, 2) == [1, 2]
    assert put(3, 4, 5) == [1, 2, 3, 4, 5]
    assert put(6, 7) == [6, 7, 3, 4, 5]
    assert put(8, 9, 10, 11) == [11, 7, 8, 9, 10], "the fourth wraps to the front"
    assert put(*range(20, 27)) == [24, 25, 26, 22, 23], "of seven the last five stay, each where its turn puts it"
    assert int(queue.written) == 18
    again = obj.EmbeddingQueue(5, 2)
    again.load_state_dict(queue.state_dict())
    assert again.entries()[2].tolist() == [24, 25, 26, 22, 23]


def test_itc_by_hand():
    """Two orthogonal pairs with τ = 1: p(correct) = e/(e + 1) in both directions."""
    eye = torch.eye(2, dtype=torch.float64)
    loss = obj.itc_loss(eye, eye, torch.tensor(1.0), torch.eye(2, dtype=torch.bool))
    assert loss.item() == pytest.approx(-math.log(math.e / (math.e + 1)))


def test_stua_gives_no_gradient_to_other_texts_direction():
    """Swapping the roles changes the loss: it is not the symmetric ITC."""
    a, b = unit(4, 6, 1), unit(4, 6, 2)
    eye = torch.eye(4, dtype=torch.bool)
    assert obj.stua_loss(a, b, torch.tensor(0.1), eye) != pytest.approx(obj.stua_loss(b, a, torch.tensor(0.1), eye))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=2, max_size=8), st.integers(0, 10_000))
def test_hard_negatives_are_never_the_positive(samples, seed):
    generator = torch.Generator().manual_seed(seed)
    similarity = torch.rand(len(samples), len(samples), generator=generator) * 2 - 1
    uniform = torch.rand(len(samples), generator=generator)
    drawn = obj.hard_negatives(similarity, obj.same_sample(torch.tensor(samples)), 0.001, uniform)
    for i, j in enumerate(drawn.tolist()):
        if len({*samples}) == 1:
            assert j == -1
        else:
            assert samples[j] != samples[i]


def test_hard_negatives_follow_the_softmax():
    """Frequencies of 20,000 draws against exp(s/τ): within five standard errors."""
    scores, tau, draws = [0.9, 0.2, 0.1, -0.3], 0.4, 20_000
    similarity = torch.tensor([scores]).expand(draws, -1)
    positive = torch.zeros(draws, 4, dtype=torch.bool)
    positive[:, 0] = True
    drawn = obj.hard_negatives(similarity, positive, tau, torch.rand(draws, generator=torch.Generator().manual_seed(3)))
    weights = [0.0] + [math.exp(s / tau) for s in scores[1:]]
    for j, weight in enumerate(weights):
        expected = weight / sum(weights)
        error = 5 * math.sqrt(expected * (1 - expected) / draws)
        assert (drawn == j).double().mean().item() == pytest.approx(expected, abs=error + 1e-12)


def test_a_hard_negative_by_hand():
    """Columns 1 and 2 have e/(e + 1) and 1/(e + 1) of the probability; column 0 is the positive."""
    similarity = torch.tensor([[9.0, 1.0, 0.0]]).expand(4, -1)
    positive = torch.tensor([[True, False, False]]).expand(4, -1)
    edge = math.e / (math.e + 1)
    uniform = torch.tensor([0.0, edge - 1e-6, edge + 1e-6, 1 - 2**-24])
    assert obj.hard_negatives(similarity, positive, 1.0, uniform).tolist() == [1, 1, 2, 2]


def test_itm_by_hand():
    logits = torch.tensor([[0.0, 2.0], [1.0, 0.0]])
    expected = (math.log(1 + math.exp(-2)) + math.log(1 + math.exp(1))) / 2
    assert obj.itm_loss(logits, torch.tensor([1, 1])).item() == pytest.approx(expected, rel=1e-6)


def test_mlm_masks_by_the_rule():
    """15 % chosen; of these 80 % [MASK], 10 % random, 10 % kept; specials never; labels are the originals."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(200, 1000, (400, 60), generator=generator)
    special = torch.zeros_like(ids, dtype=torch.bool)
    special[:, [0, -1]] = True
    uniform = torch.rand(400, 3, 64, generator=generator)
    masked, labels = obj.mask_tokens(ids, special, 103, 1000, uniform)
    chosen = labels != IGNORED
    assert not (chosen & special).any()
    assert (labels[chosen] == ids[chosen]).all()
    assert (masked[~chosen] == ids[~chosen]).all()
    ordinary = (~special).sum().item()
    assert chosen.sum().item() / ordinary == pytest.approx(0.15, abs=0.008)
    now = masked[chosen]
    assert (now == 103).double().mean().item() == pytest.approx(0.8, abs=0.03)
    assert (now == ids[chosen]).double().mean().item() == pytest.approx(0.1, abs=0.02)
    assert chosen.any(1).all()


def test_mlm_predicts_something_of_the_shortest_text():
    ids = torch.tensor([[101, 500, 102]])
    special = torch.tensor([[True, False, True]])
    for seed in range(20):
        uniform = torch.rand(1, 3, 3, generator=torch.Generator().manual_seed(seed))
        _, labels = obj.mask_tokens(ids, special, 103, 1000, uniform)
        assert labels.tolist() == [[IGNORED, 500, IGNORED]]


def test_mlm_loss_by_hand():
    logits = torch.zeros(1, 3, 4)
    logits[0, 1, 2] = 1.0
    labels = torch.tensor([[IGNORED, 2, IGNORED]])
    assert obj.mlm_loss(logits, labels).item() == pytest.approx(math.log(math.e + 3) - 1, rel=1e-6)
    assert obj.mlm_loss(logits, torch.full((1, 3), IGNORED)).item() == 0


def test_mvm_labels_and_masks_by_hand():
    counts = torch.tensor([[[0, 3, 1], [0, 0, 0], [5, 1, 0], [0, 2, 0]], [[0, 0, 0]] * 4])
    labels, tied = obj.spike_labels(counts.float(), counts, torch.zeros(2))
    assert labels.tolist() == [[1, SILENT, 0, 1], [SILENT] * 4] and not tied.any()
    # three tokens of the first image have a label: a third of the draws each; the first and the last share theirs
    ends, middle = [1, 0, 0, 1], [0, 0, 1, 0]
    for uniform, expected in [(0.0, ends), (0.34, middle), (0.67, ends), (1 - 2**-24, ends)]:
        masked = obj.mask_one_label(labels, torch.tensor([uniform, uniform]))
        assert masked[0].int().tolist() == expected
        assert not masked[1].any(), "a silent image has nothing to mask"


def test_a_label_of_mvm_stands_out_against_its_own_rate_and_has_fired():
    counts = torch.tensor([[[9, 2, 0]]])
    z = torch.tensor([[[-0.5, 1.5, 3.0]]])
    assert obj.spike_labels(z, counts, torch.zeros(1))[0].tolist() == [[1]], "the third concept did not fire"


def test_tied_labels_of_mvm_prefer_no_index():
    counts = torch.tensor([[[1, 3, 3, 0, 3]]]).expand(1000, 1, 5)
    uniform = torch.arange(1000) / 1000
    labels, tied = obj.spike_labels(counts.float(), counts, uniform)
    assert tied.all()
    # starts 0 and 1 find column 1, start 2 column 2, starts 3 and 4 column 4: a fifth of the draws each
    assert labels.flatten().bincount(minlength=5).tolist() == [0, 400, 200, 0, 400]


def test_mvm_loss_by_hand():
    loss = obj.mvm_loss(torch.tensor([[0.0, 2.0, 0.0], [1.0, 0.0, 0.0]]), torch.tensor([1, 2]))
    expected = (math.log(math.exp(2) + 2) - 2 + math.log(math.e + 2)) / 2
    assert loss.item() == pytest.approx(expected, rel=1e-6)
    nothing = torch.zeros(0, 3, requires_grad=True)
    loss = obj.mvm_loss(nothing, torch.zeros(0, dtype=torch.long))
    loss.backward()
    assert loss.item() == 0 and nothing.grad is not None


def test_distillation_by_hand():
    """Cosines of 1, 0, −1 and 0.6, and of a silent token 0; a constant teacher; a gradient of bounded length."""
    abstract = torch.tensor([[[2.0, 0.0], [0.0, 3.0], [-1.0, 0.0], [3.0, 4.0], [0.0, 0.0]]], requires_grad=True)
    concrete = torch.tensor([[[5.0, 0.0]] * 5], requires_grad=True)
    loss = obj.distillation_loss(abstract, concrete)
    assert loss.item() == pytest.approx(1 - (1 + 0 - 1 + 0.6 + 0) / 5)
    loss.backward()
    assert concrete.grad is None
    assert abstract.grad is not None
    assert abstract.grad[0, 0].tolist() == [0, 0], "it has the teacher's direction"
    assert abstract.grad[0, 1].tolist() == pytest.approx([-1 / 3 / 5, 0])
    assert abstract.grad[0, 4].tolist() == pytest.approx([-1 / 1e-2 / 5, 0])
