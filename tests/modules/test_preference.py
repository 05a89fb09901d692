from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
import torch

from qd.data.comparisons import Comparisons
from qd.modules.preference import HeadFit, fit_head, log_loss, logits
from qd.scorers.preference import preference_head

RECORDINGS, WIDTH = 60, 12


def all_pairs(utility: np.ndarray, numbers: range, rng: np.random.Generator, noise: float) -> Comparisons:
    first, second = np.array(list(combinations(numbers, 2))).T
    if noise:
        wins = 1 / (1 + np.exp(-(utility[first] - utility[second]) / noise))
        preferred = (rng.random(len(first)) < wins).astype(float)
    else:
        preferred = (np.sign(utility[first] - utility[second]) + 1) / 2
    return Comparisons(first, second, preferred, np.ones(len(first)))


def problem(noise: float) -> tuple[torch.Tensor, np.ndarray, Comparisons, Comparisons]:
    """Returns embeddings, the utility along one direction, and comparisons for training and validation."""
    rng = np.random.default_rng(0)
    embeddings = rng.normal(size=(RECORDINGS, WIDTH))
    utility = embeddings @ rng.normal(size=WIDTH)
    training, held_out = range(40), range(40, RECORDINGS)
    compared = (all_pairs(utility, numbers, rng, noise) for numbers in (training, held_out))
    return torch.from_numpy(embeddings).float(), utility, *compared


def head(seed: int = 0) -> torch.nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return preference_head(WIDTH, 16)


def test_the_head_learns_the_preferred_direction():
    embeddings, utility, training, held_out = problem(noise=0.0)
    fitted_head = head()
    before = log_loss(logits(fitted_head, embeddings), held_out)
    result = fit_head(fitted_head, embeddings, training, held_out, HeadFit(max_steps=150))
    scores = logits(fitted_head, embeddings).numpy()
    assert result.log_loss < 0.4 < before and result.step > 0
    assert np.corrcoef(scores[40:], utility[40:])[0, 1] > 0.9


def test_the_step_with_the_lowest_held_out_loss_is_used():
    """A head soon overfits to noisy comparisons of few recordings."""
    embeddings, _, training, held_out = problem(noise=4.0)
    fit = HeadFit(max_steps=200, weight_decay=0.0, learning_rate=1e-2)
    stopped = head()
    result = fit_head(stopped, embeddings, training, held_out, fit)
    assert 0 < result.step < 200
    assert log_loss(logits(stopped, embeddings), held_out) == pytest.approx(result.log_loss, rel=1e-6)
    overfitted = head()
    fit_head(overfitted, embeddings, training, training, fit)
    assert log_loss(logits(overfitted, embeddings), held_out) > result.log_loss
    assert log_loss(logits(overfitted, embeddings), training) < log_loss(logits(stopped, embeddings), training)


def test_a_head_that_only_gets_worse_stays_unchanged():
    embeddings, _, training, _ = problem(noise=0.0)
    reversed_ = Comparisons(training.first, training.second, 1 - training.preferred, training.weight)
    fitted_head = head()
    with torch.no_grad():
        fitted_head[-1].weight.zero_()
    result = fit_head(fitted_head, embeddings, training, reversed_, HeadFit(max_steps=50))
    assert result.step == 0
    assert result.log_loss == pytest.approx(math.log(2), abs=1e-6)
    assert not logits(fitted_head, embeddings).std() > 1e-6


def test_the_fit_is_a_function_of_the_seed():
    embeddings, _, training, held_out = problem(noise=1.0)
    results = []
    for seed in (0, 0, 1):
        fitted_head = head()
        fit_head(fitted_head, embeddings, training, held_out, HeadFit(max_steps=30, seed=seed))
        results.append(logits(fitted_head, embeddings))
    assert torch.equal(results[0], results[1]) and not torch.equal(results[0], results[2])


def test_bad_settings_are_reported_at_once():
    problems = HeadFit(0, 0, math.nan, -1.0, -1).problems()
    assert [text.split()[0] for text in problems] == [
        "max_steps", "batch_size", "learning_rate", "weight_decay", "seed",
    ]  # fmt: skip
