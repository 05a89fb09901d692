from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import minimize

from qd.objectives.diversity import diversity_reward, pairwise_dissimilarity
from qd.objectives.optimum import effective_samples, log_tilt, optimal_mean, weighted_diversity, weighted_kl


def units(*shape: int, seed: int = 0, skew: float = 1.0) -> torch.Tensor:
    """Unit vectors around a common direction, so that the diversity is well below that of random directions."""
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(*shape, generator=generator, dtype=torch.float64)
    vectors[..., 0] += skew
    return F.normalize(vectors, dim=-1)


def optimum_by_search(embeddings: np.ndarray, prior: np.ndarray, beta: float) -> np.ndarray:
    """The maximum of −KL(p ‖ q) + (β/2)·Σ p_i p_j r_ij over all distributions, by a general optimiser."""
    dissimilarity = 1 - embeddings @ embeddings.T

    def loss(logits: np.ndarray) -> float:
        p = np.exp(logits - logits.max())
        p /= p.sum()
        return float((p * np.log(p / prior)).sum() - beta / 2 * p @ dissimilarity @ p)

    found = minimize(loss, np.log(prior), method="BFGS", options={"gtol": 1e-10, "maxiter": 10_000})
    p = np.exp(found.x - found.x.max())
    return p / p.sum()


@pytest.mark.parametrize("beta", [0.0, 1.0, 15.0, 100.0])
def test_it_is_the_maximum_of_the_objective(beta):
    embeddings = units(6, 3)
    prior = np.random.default_rng(1).dirichlet(np.ones(6))
    expected = optimum_by_search(embeddings.numpy(), prior, beta)
    log_prior = torch.from_numpy(np.log(prior))[None]
    mean = optimal_mean(embeddings[None], beta, log_prior)
    found = (log_tilt(embeddings[None], mean, beta) + log_prior).softmax(-1)[0]
    np.testing.assert_allclose(found.numpy(), expected, atol=2e-5)


@pytest.mark.parametrize("beta", [0.0, 5.0, 50.0, 1000.0])
def test_it_is_the_fixed_point(beta):
    embeddings = units(4, 50, 8)
    weights = log_tilt(embeddings, optimal_mean(embeddings, beta), beta).softmax(-1)
    expected_reward = torch.einsum("pij,pj->pi", 1 - embeddings @ embeddings.mT, weights)
    torch.testing.assert_close((beta * expected_reward).softmax(-1), weights, rtol=1e-6, atol=1e-9)


def test_prompts_do_not_affect_each_other():
    embeddings = units(3, 20, 4)
    together = optimal_mean(embeddings, 15.0)
    torch.testing.assert_close(together, torch.cat([optimal_mean(one[None], 15.0) for one in embeddings]))


def test_kl_and_diversity_rise_with_beta():
    embeddings = units(1, 400, 6)
    weights = [log_tilt(embeddings, optimal_mean(embeddings, beta), beta).softmax(-1) for beta in (0.0, 2.0, 8.0, 32.0)]
    for metric in (weighted_kl, lambda w: weighted_diversity(embeddings, w), lambda w: -effective_samples(w)):
        values = torch.stack([metric(w) for w in weights])
        assert (values.diff(dim=0) > 0).all()


def test_equal_weights_give_the_usual_diversity_and_no_kl():
    embeddings = units(5, 7, 4)
    weights = torch.full((5, 7), 1 / 7)
    torch.testing.assert_close(
        weighted_diversity(embeddings, weights),
        diversity_reward(pairwise_dissimilarity(embeddings)).double(),
        rtol=1e-6,
        atol=1e-6,
    )
    torch.testing.assert_close(weighted_kl(weights).abs(), torch.zeros(5, dtype=torch.float64), atol=1e-6, rtol=0)
    torch.testing.assert_close(effective_samples(weights), torch.full((5,), 7.0, dtype=torch.float64))


def test_weighted_diversity_equals_a_loop_over_pairs():
    embeddings, weights = units(1, 5, 3), torch.tensor([[0.1, 0.4, 0.2, 0.05, 0.25]], dtype=torch.float64)
    pairs = [(i, j) for i in range(5) for j in range(5) if i != j]
    masses = torch.tensor([weights[0, i] * weights[0, j] for i, j in pairs])
    rewards = torch.tensor([1 - embeddings[0, i] @ embeddings[0, j] for i, j in pairs])
    expected = ((masses * rewards).sum() / masses.sum()).double()[None]
    torch.testing.assert_close(weighted_diversity(embeddings, weights), expected, rtol=1e-6, atol=1e-8)


def test_bad_input():
    with pytest.raises(ValueError, match="prompts, samples, width"):
        optimal_mean(torch.zeros(2, 3), 1.0)
    with pytest.raises(ValueError, match="-1"):
        optimal_mean(torch.zeros(1, 2, 3), -1.0)
