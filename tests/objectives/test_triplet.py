from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from qd.objectives import triplet
from qd.objectives.triplet import FALLBACKS, NEGATIVES, semi_hard_triplet

MODES = [pytest.param(n, f, id=f"{n}-{f}") for n in NEGATIVES for f in FALLBACKS]


def naive(embeddings, labels, margin, negatives, fallback):
    """Returns the loss and the share of active pairs, by three loops."""
    labels = labels.tolist()
    rows = range(len(labels))
    distance = {(i, j): (embeddings[i] - embeddings[j]).square().sum() for i, j in itertools.product(rows, rows)}
    terms, pairs, active = [], 0, 0
    for a in rows:
        for p in rows:
            if a == p or labels[a] != labels[p]:
                continue
            pairs += 1
            d_ap = distance[a, p]
            d_an = [distance[a, n] for n in rows if labels[n] != labels[a]]
            chosen = [d for d in d_an if d_ap < d < d_ap + margin]
            if negatives == "closest":
                chosen = sorted(chosen, key=torch.Tensor.item)[:1]
            if fallback == "easiest" and d_an and all(d <= d_ap for d in d_an):
                chosen = [max(d_an, key=torch.Tensor.item)]
            terms += [d_ap - d + margin for d in chosen]
            active += bool(chosen)
    loss = sum(terms) / len(terms) if terms else 0 * embeddings.sum()
    return loss, active / max(pairs, 1)


def draw(batch, width=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(batch, width, generator=generator, dtype=torch.float64), dim=1)


@pytest.mark.parametrize(("negatives", "fallback"), MODES)
@given(
    labels=st.lists(st.integers(0, 3), min_size=1, max_size=9),
    seed=st.integers(0, 10_000),
    margin=st.sampled_from([0.05, 0.2, 1.0, 5.0]),
)
def test_the_loss_equals_a_triple_loop_in_value_and_gradient(negatives, fallback, labels, seed, margin):
    labels = torch.tensor(labels)
    ours, theirs = draw(len(labels), seed=seed).requires_grad_(), draw(len(labels), seed=seed).requires_grad_()
    result = semi_hard_triplet(ours, labels, margin, negatives, fallback)
    expected, share = naive(theirs, labels, margin, negatives, fallback)
    result.loss.backward()
    expected.backward()
    torch.testing.assert_close(result.loss, expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-9, atol=1e-12)
    assert result.active_share.item() == pytest.approx(share)


@pytest.mark.parametrize(("negatives", "fallback"), MODES)
@given(labels=st.lists(st.integers(0, 2), min_size=1, max_size=8), data=st.data())
def test_ties_are_on_the_right_side_of_both_bounds(negatives, fallback, labels, data):
    """Unit vectors along the axes have distances of exactly 0, 2 or 4, and the margins put ties on each bound."""
    axes = torch.cat([torch.eye(3), -torch.eye(3)]).double()
    picks = st.lists(st.integers(0, 5), min_size=len(labels), max_size=len(labels))
    embeddings, labels = axes[data.draw(picks)], torch.tensor(labels)
    margin = data.draw(st.sampled_from([1.0, 2.0, 4.0, 4.5]))
    result = semi_hard_triplet(embeddings, labels, margin, negatives, fallback)
    expected, share = naive(embeddings, labels, margin, negatives, fallback)
    torch.testing.assert_close(result.loss, expected)
    assert result.active_share.item() == pytest.approx(share)


@pytest.mark.parametrize(("negatives", "fallback"), MODES)
@pytest.mark.parametrize(
    "labels", [[0], [0, 1, 2, 3], [0, 0, 0, 0]], ids=["a single clip", "no positives", "one label"]
)
def test_degenerate_batches_give_zero_and_still_backpropagate(labels, negatives, fallback):
    embeddings = draw(len(labels)).requires_grad_()
    result = semi_hard_triplet(embeddings, torch.tensor(labels), 0.2, negatives, fallback)
    result.loss.backward()
    assert result.loss.item() == 0
    assert result.active_share.item() == 0
    assert torch.equal(embeddings.grad, torch.zeros_like(embeddings))
    distances = (result.positive_distance, result.negative_distance, result.hard_negative_distance)
    assert all(value.isfinite() for value in distances)
    assert (result.hard_negative_distance == 0) == (len(set(labels)) == 1)


@pytest.mark.parametrize("negatives", NEGATIVES)
def test_only_the_fallback_gives_a_collapsed_embedder_a_loss(negatives):
    labels = torch.tensor([0, 0, 1, 1])
    for fallback, expected in (("none", 0.0), ("easiest", 0.2)):
        embeddings = torch.tensor([[1.0, 0.0]]).repeat(4, 1).requires_grad_()
        result = semi_hard_triplet(embeddings, labels, 0.2, negatives, fallback)
        result.loss.backward()
        assert result.loss.item() == pytest.approx(expected)
        assert embeddings.grad.isfinite().all()
        assert result.active_share.item() == (fallback == "easiest")


def test_diagnostics_are_the_mean_distances_and_have_no_gradient():
    embeddings, labels = draw(6).requires_grad_(), torch.tensor([0, 0, 1, 1, 2, 2])
    result = semi_hard_triplet(embeddings, labels)
    near, far = [], []
    for i, j in itertools.permutations(range(6), 2):
        (near if labels[i] == labels[j] else far).append((embeddings[i] - embeddings[j]).square().sum().item())
    assert result.positive_distance.item() == pytest.approx(sum(near) / len(near))
    assert result.negative_distance.item() == pytest.approx(sum(far) / len(far))
    assert not result.positive_distance.requires_grad and not result.negative_distance.requires_grad


def test_hard_negatives_are_the_closest_ones():
    embeddings, labels = draw(7).requires_grad_(), torch.tensor([0, 0, 1, 1, 2, 2, 3])
    closest = [
        min((embeddings[i] - embeddings[j]).square().sum().item() for j in range(7) if labels[j] != labels[i])
        for i in range(7)
    ]
    result = semi_hard_triplet(embeddings, labels)
    assert result.hard_negative_distance.item() == pytest.approx(sum(closest) / 7)
    assert not result.hard_negative_distance.requires_grad


def test_autocast_leaves_the_distances_in_float32():
    embeddings, labels = draw(32, width=16).float(), torch.arange(32) // 2
    expected = semi_hard_triplet(embeddings, labels)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = semi_hard_triplet(embeddings, labels)
    assert result.loss.dtype == torch.float32
    assert torch.equal(result.loss, expected.loss)


@pytest.mark.parametrize(("negatives", "fallback"), MODES)
def test_many_clips_of_a_recording_in_blocks_that_do_not_divide_the_batch(negatives, fallback, monkeypatch):
    """16, 16, 16, 12, 3 and 1 clips; blocks of 5 anchors, the last one of 4."""
    monkeypatch.setattr(triplet, "BLOCK", 5 * 64)
    labels = torch.tensor([0] * 16 + [1] * 16 + [2] * 16 + [3] * 12 + [4] * 3 + [5])
    labels = labels[torch.randperm(64, generator=torch.Generator().manual_seed(1))]
    ours, theirs = draw(64).requires_grad_(), draw(64).requires_grad_()
    result = semi_hard_triplet(ours, labels, 0.2, negatives, fallback)
    expected, share = naive(theirs, labels, 0.2, negatives, fallback)
    result.loss.backward()
    expected.backward()
    torch.testing.assert_close(result.loss, expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-9, atol=1e-12)
    assert result.active_share.item() == pytest.approx(share)


def test_linear_and_binary_search_give_the_same_ranks(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    ordered = torch.randint(9, (5, 7), generator=generator).float().sort(dim=1).values
    ordered[:, 5:] = torch.inf
    values = torch.randint(9, (5, 40), generator=generator).float()
    values[:, 0] = -torch.inf
    for right, compare in ((False, torch.lt), (True, torch.le)):
        expected = compare(ordered[:, :, None], values[:, None, :]).sum(1)
        for few in (0, 7):
            monkeypatch.setattr(triplet, "FEW", few)
            assert torch.equal(triplet._rank(ordered, values, right), expected.int())


@pytest.mark.parametrize(("negatives", "fallback"), MODES)
def test_the_gradient_equals_finite_differences(negatives, fallback):
    labels = torch.tensor([0, 0, 0, 1, 1, 2, 2, 3])
    loss = lambda embeddings: 3 * semi_hard_triplet(embeddings, labels, 0.7, negatives, fallback).loss  # noqa: E731
    assert torch.autograd.gradcheck(loss, draw(8, width=4).requires_grad_())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_embeddings_are_compared_in_float32_and_get_a_gradient(dtype):
    half, labels = draw(32, width=16).to(dtype).requires_grad_(), torch.arange(32) // 2
    full = half.detach().float().requires_grad_()
    result, expected = semi_hard_triplet(half, labels), semi_hard_triplet(full, labels)
    result.loss.backward()
    expected.loss.backward()
    assert torch.equal(result.loss, expected.loss)
    assert torch.equal(half.grad, full.grad.to(dtype))


@pytest.mark.parametrize("negatives", NEGATIVES)
def test_no_tensor_is_larger_than_the_square_of_the_batch(negatives):
    batch = 64
    with torch.profiler.profile(record_shapes=True) as profile:
        embeddings = draw(batch, width=8).requires_grad_()
        semi_hard_triplet(embeddings, torch.arange(batch) // 4, 0.2, negatives, "easiest").loss.backward()
    shapes = [shape for event in profile.events() for shape in (event.input_shapes or []) if shape]
    sizes = [torch.Size(shape).numel() for shape in shapes if all(isinstance(n, int) for n in shape)]
    assert max(sizes) == batch**2


@pytest.mark.parametrize(("negatives", "fallback"), MODES)
@pytest.mark.parametrize("recordings", [1, 2, 10, 128], ids="{} recordings".format)
def test_no_tensor_is_larger_than_a_block(recordings, negatives, fallback, monkeypatch):
    batch, width, block = 256, 8, 256 * 16
    monkeypatch.setattr(triplet, "BLOCK", block)
    labels = torch.arange(batch) % recordings
    with torch.profiler.profile(record_shapes=True) as profile:
        embeddings = draw(batch, width=width).requires_grad_()
        semi_hard_triplet(embeddings, labels, 0.2, negatives, fallback).loss.backward()
    shapes = [shape for event in profile.events() for shape in (event.input_shapes or []) if shape]
    sizes = [torch.Size(shape).numel() for shape in shapes if all(isinstance(n, int) for n in shape)]
    # Each row of the histogram has one column more than there are positives.
    assert block <= max(sizes) <= block + 16
    assert max(sizes) < batch**2 / 10


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": torch.zeros(3)}, r"\(4, 3\).*\(3,\)"),
        ({"embeddings": torch.zeros(4)}, "embeddings are"),
        ({"margin": 0.0}, "margin is"),
        ({"negatives": "hardest"}, "all, closest"),
        ({"fallback": "hardest"}, "none, easiest"),
    ],
)
def test_refuses_bad_input(changes, message):
    with pytest.raises(ValueError, match=message):
        semi_hard_triplet(**{"embeddings": draw(4), "labels": torch.tensor([0, 0, 1, 1]), **changes})
