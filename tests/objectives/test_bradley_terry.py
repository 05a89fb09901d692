from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize

from qd.objectives.bradley_terry import bradley_terry_loss

HALF = 0.5


def naive(first: list[float], second: list[float], preferred: list[float], weight: list[float]) -> float:
    """Adds up the comparisons one by one, from the probability."""
    total = 0.0
    for a, b, p, w in zip(first, second, preferred, weight, strict=True):
        wins = 1 / (1 + math.exp(-(a - b)))
        total -= w * (p * math.log(wins) + (1 - p) * math.log(1 - wins))
    return total / sum(weight)


comparison = st.tuples(st.floats(-8, 8), st.floats(-8, 8), st.sampled_from([0.0, HALF, 1.0]), st.floats(0.1, 4))


@given(st.lists(comparison, min_size=1, max_size=20))
def test_equals_a_naive_loop(comparisons):
    columns = [list(column) for column in zip(*comparisons, strict=True)]
    tensors = [torch.tensor(column, dtype=torch.float64) for column in columns]
    assert float(bradley_terry_loss(*tensors)) == pytest.approx(naive(*columns), rel=1e-9, abs=1e-12)
    ones = [1.0] * len(comparisons)
    assert float(bradley_terry_loss(*tensors[:3])) == pytest.approx(naive(*columns[:3], ones), rel=1e-9, abs=1e-12)


def test_booleans_are_wins_and_losses():
    first, second = torch.tensor([1.0, 0.0, 2.0]), torch.tensor([0.0, 3.0, 2.0])
    loss = bradley_terry_loss(first, second, torch.tensor([True, True, False]))
    expected = (math.log(1 + math.exp(-1.0)) + math.log(1 + math.exp(3.0)) + math.log(2.0)) / 3
    assert float(loss) == pytest.approx(expected, rel=1e-6)


def test_a_tie_is_half_a_win_for_each_and_a_weight_is_a_count():
    a, b = torch.tensor([0.7]), torch.tensor([-0.4])
    tie = bradley_terry_loss(a, b, torch.tensor([HALF]))
    both = bradley_terry_loss(a.repeat(2), b.repeat(2), torch.tensor([1.0, 0.0]))
    torch.testing.assert_close(tie, both)
    first, second, preferred = torch.tensor([0.7, 0.1]), torch.tensor([-0.4, 0.9]), torch.tensor([1.0, 1.0])
    weighted = bradley_terry_loss(first, second, preferred, torch.tensor([3.0, 1.0]))
    rows = [0, 0, 0, 1]
    torch.testing.assert_close(weighted, bradley_terry_loss(first[rows], second[rows], preferred[rows]))


def strengths_by_counting(wins: np.ndarray) -> np.ndarray:
    """Returns log-strengths of mean 0 by Zermelo's iteration on a table of wins, which needs no gradient.

    s_i ← W_i / Σ_j n_ij/(s_i+s_j); a tie is half a win for each.
    """
    games, strengths = wins + wins.T, np.ones(len(wins))
    for _ in range(5_000):
        strengths = wins.sum(1) / (games / (strengths[:, None] + strengths)).sum(1)
        strengths /= strengths.sum()
    return np.log(strengths) - np.log(strengths).mean()


def test_the_minimum_is_the_maximum_likelihood_estimate():
    items, rng = 5, np.random.default_rng(0)
    first, second, preferred = [], [], []
    for a, b in itertools.combinations(range(items), 2):
        for _ in range(7):
            first.append(a), second.append(b), preferred.append(float(rng.choice([0.0, HALF, 1.0])))
    wins = np.zeros((items, items))
    for a, b, p in zip(first, second, preferred, strict=True):
        wins[a, b] += p
        wins[b, a] += 1 - p

    def loss_and_gradient(x: np.ndarray) -> tuple[float, np.ndarray]:
        logits = torch.tensor(x, requires_grad=True)
        loss = bradley_terry_loss(logits[first], logits[second], torch.tensor(preferred, dtype=torch.float64))
        loss.backward()
        return loss.item(), logits.grad.numpy()

    fitted = minimize(loss_and_gradient, np.zeros(items), jac=True, options={"gtol": 1e-10}).x
    np.testing.assert_allclose(fitted - fitted.mean(), strengths_by_counting(wins), atol=1e-6)


def test_equal_logits_cost_log_2_and_large_logits_have_a_finite_gradient():
    preferred = torch.tensor([1.0, 0.0, HALF])
    assert float(bradley_terry_loss(torch.zeros(3), torch.zeros(3), preferred)) == pytest.approx(math.log(2))
    first = torch.tensor([1e4, -1e4, 0.0], requires_grad=True)
    bradley_terry_loss(first, -first, 1 - preferred).backward()
    assert first.grad.isfinite().all()


def test_refuses_bad_input():
    with pytest.raises(ValueError, match=r"\(2,\), \(3,\)"):
        bradley_terry_loss(torch.zeros(2), torch.zeros(3), torch.zeros(2))
    with pytest.raises(ValueError, match=r"\(0,\).*1 or more"):
        bradley_terry_loss(torch.zeros(0), torch.zeros(0), torch.zeros(0))
    with pytest.raises(ValueError, match="sum to 0"):
        bradley_terry_loss(torch.zeros(2), torch.zeros(2), torch.zeros(2), torch.zeros(2))
