from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from qd.metrics.headroom import ScoredSamples, gain_over_front, optimum, policy
from qd.objectives.optimum import log_tilt, optimal_mean

BETA = 15.0


class World:
    """A teacher over 12 outcomes: the rare ones are unlike the frequent ones, and better."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.teacher = torch.tensor([0.3, 0.2, 0.15, 0.1, 0.06, 0.05, 0.04, 0.03, 0.03, 0.02, 0.01, 0.01])
        vectors = torch.randn(12, 6, generator=generator, dtype=torch.float64)
        vectors[:6, 0] += 3.0
        self.embeddings = F.normalize(vectors, dim=-1)
        self.quality = torch.linspace(0.0, 1.0, 12, dtype=torch.float64)

    def exact(self, beta: float) -> dict[str, float]:
        log_prior = self.teacher.double().log()[None]
        mean = optimal_mean(self.embeddings[None], beta, log_prior)
        p = (log_tilt(self.embeddings[None], mean, beta) + log_prior).softmax(-1)[0]
        return {
            "kl": float((p * (p.log() - log_prior[0])).sum()),
            "diversity": float(1 - (p @ self.embeddings).square().sum()),
            "quality": float(p @ self.quality),
        }

    def draw(self, samples: int, prompts: int = 4, seed: int = 1) -> ScoredSamples:
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.multinomial(self.teacher, prompts * samples, replacement=True, generator=generator)
        drawn = drawn.view(prompts, samples)
        return ScoredSamples(self.embeddings[drawn], self.embeddings[drawn].flip(-1), {"quality": self.quality[drawn]})


@pytest.mark.parametrize("beta", [0.0, 2.0, BETA])
def test_it_approaches_the_exact_optimum(beta):
    world = World()
    exact = world.exact(beta)
    estimates = {samples: optimum(world.draw(samples), beta) for samples in (100, 20_000)}
    for name, value in exact.items():
        error = {samples: np.abs(found[name] - value).mean() for samples, found in estimates.items()}
        assert error[20_000] < 0.03 and error[20_000] <= error[100] + 1e-9, name


def test_at_beta_0_it_is_the_teacher():
    samples = World().draw(400)
    found, teacher = optimum(samples, 0.0), policy(samples)
    np.testing.assert_allclose(found["kl"], 0.0, atol=1e-12)
    np.testing.assert_allclose(found["quality"], teacher["quality"], atol=1e-9)
    np.testing.assert_allclose(found["diversity"], teacher["diversity"], atol=0.01)
    np.testing.assert_allclose(found["effective_samples"], 200.0)


def test_both_embedders_are_measured_with_the_weights_of_the_first():
    samples = World().draw(400)
    found = optimum(samples, BETA)
    np.testing.assert_allclose(found["diversity"], found["diversity_heldout"])  # a rotation of the first
    noise = F.normalize(torch.randn(4, 400, 6, generator=torch.Generator().manual_seed(3), dtype=torch.float64), dim=-1)
    independent = optimum(samples._replace(eval_embeddings=noise), BETA)
    np.testing.assert_allclose(independent["diversity_heldout"], 1.0, atol=0.05)


def test_noise_shows_no_gain():
    """The embedding of a sample is random and says nothing about another sample: there is nothing to gain."""
    generator = torch.Generator().manual_seed(0)
    noise = F.normalize(torch.randn(64, 200, 64, generator=generator, dtype=torch.float64), dim=-1)
    samples = ScoredSamples(noise, noise, {"quality": torch.zeros(64, 200)})
    assert abs(optimum(samples, BETA)["diversity"].mean() - policy(samples)["diversity"].mean()) < 2e-3


def point(quality: float, diversity: float, noise: float = 0.0) -> dict[str, np.ndarray]:
    ripple = noise * np.sin(np.arange(50))
    return {"quality": quality + ripple, "diversity": np.full(50, diversity), "diversity_heldout": np.full(50, 0.5)}


def test_the_gain_is_taken_at_equal_diversity():
    front = [point(1.0, 0.2), point(0.0, 0.6), point(0.8, 0.4)]
    gain = gain_over_front(point(1.0, 0.5, noise=0.1), front)
    assert gain.mean == pytest.approx(0.6, abs=0.01) and gain.lo < gain.mean < gain.hi
    assert gain_over_front(point(1.0, 0.7), front) is None and gain_over_front(point(1.0, 0.1), front) is None


def test_noise_that_a_prompt_shares_with_the_front_cancels():
    gain = gain_over_front(point(1.0, 0.3, noise=0.5), [point(0.5, 0.2, noise=0.5), point(0.5, 0.4, noise=0.5)])
    assert gain.hi - gain.lo < 1e-9


@pytest.mark.parametrize("count", [2, 5])
def test_too_few_or_an_odd_number_of_samples(count):
    with pytest.raises(ValueError, match=str(count)):
        optimum(World().draw(count), BETA)
