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


def everything(utility: np.ndarray, numbers: range, rng: np.random.Generator, noise: float) -> Comparisons:
    first, second = np.array(list(combinations(numbers, 2))).T
    if noise:
        wins = 1 / (1 + np.exp(-(utility[first] - utility[second]) / noise))
        preferred = (rng.random(len(first)) < wins).astype(float)
    else:
        preferred = (np.sign(utility[first] - utility[second]) + 1) / 2
    return Comparisons(first, second, preferred, np.ones(len(first)))


def problem(noise: float) -> tuple[torch.Tensor, np.ndarray, Comparisons, Comparisons]:
    """Embeddings of which one direction is liked."""
    rng = np.random.default_rng(0)
    embeddings = rng.normal(size=(RECORDINGS, WIDTH))
    utility = embeddings @ rng.normal(size=WIDTH)
    learned, held_out = range(40), range(40, RECORDINGS)
    compared = (everything(utility, numbers, rng, noise) for numbers in (learned, held_out))
    return torch.from_numpy(embeddings).float(), utility, *compared


def head(seed: int = 0) -> torch.nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return preference_head(WIDTH, 16)


def test_learns_what_is_liked():
    embeddings, utility, learned, held_out = problem(noise=0.0)
    fitted_head = head()
    before = log_loss(logits(fitted_head, embeddings), held_out)
    fitted = fit_head(fitted_head, embeddings, learned, held_out, HeadFit(max_steps=150))
    heard = logits(fitted_head, embeddings).numpy()
    assert fitted.log_loss < 0.4 < before and fitted.step > 0
    assert np.corrcoef(heard[40:], utility[40:])[0, 1] > 0.9


def test_keeps_the_step_of_the_lowest_held_out_loss():
    """Noisy comparisons of few recordings are soon learned by heart."""
    embeddings, _, learned, held_out = problem(noise=4.0)
    fit = HeadFit(max_steps=200, weight_decay=0.0, learning_rate=1e-2)
    stopped = head()
    fitted = fit_head(stopped, embeddings, learned, held_out, fit)
    assert 0 < fitted.step < 200
    assert log_loss(logits(stopped, embeddings), held_out) == pytest.approx(fitted.log_loss, rel=1e-6)
    by_heart = head()
    fit_head(by_heart, embeddings, learned, learned, fit)
    assert log_loss(logits(by_heart, embeddings), held_out) > fitted.log_loss
    assert log_loss(logits(by_heart, embeddings), learned) < log_loss(logits(stopped, embeddings), learned)


def test_a_head_that_only_gets_worse_stays_as_it_was():
    embeddings, _, learned, _ = problem(noise=0.0)
    turned = Comparisons(learned.first, learned.second, 1 - learned.preferred, learned.weight)
    fitted_head = head()
    with torch.no_grad():
        fitted_head[-1].weight.zero_()
    fitted = fit_head(fitted_head, embeddings, learned, turned, HeadFit(max_steps=50))
    assert fitted.step == 0
    assert fitted.log_loss == pytest.approx(math.log(2), abs=1e-6)
    assert not logits(fitted_head, embeddings).std() > 1e-6


def test_is_a_function_of_the_seed():
    embeddings, _, learned, held_out = problem(noise=1.0)
    results = []
    for seed in (0, 0, 1):
        fitted_head = head()
        fit_head(fitted_head, embeddings, learned, held_out, HeadFit(max_steps=30, seed=seed))
        results.append(logits(fitted_head, embeddings))
    assert torch.equal(results[0], results[1]) and not torch.equal(results[0], results[2])


def test_bad_settings_are_told_at_once():
    problems = HeadFit(0, 0, math.nan, -1.0, -1).problems()
    assert [text.split()[0] for text in problems] == [
        "max_steps", "batch_size", "learning_rate", "weight_decay", "seed",
    ]  # fmt: skip
