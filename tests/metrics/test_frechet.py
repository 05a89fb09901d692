from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import sqrtm
from torchmetrics.image.fid import _compute_fid

from qd.metrics.frechet import FrechetAudioDistance, Gaussian, extrapolate, frechet_distance, gaussian


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def random_gaussian(width: int, rank: int, seed: int) -> Gaussian:
    factor = draw(width, rank, seed=seed)
    return Gaussian(draw(width, seed=seed + 1), factor @ factor.T)


def by_scipy(a: Gaussian, b: Gaussian) -> float:
    """The distance as its formula has it, with the matrix square root of the product."""
    mean = (a.mean - b.mean).numpy()
    product = sqrtm(a.covariance.numpy() @ b.covariance.numpy())
    return float(mean @ mean + np.trace(a.covariance.numpy() + b.covariance.numpy() - 2 * np.real(product)))


@given(width=st.integers(1, 12), seed=st.integers(0, 1000))
def test_equals_scipy_and_torchmetrics(width, seed):
    a, b = random_gaussian(width, width + 3, seed), random_gaussian(width, width + 3, seed + 500)
    distance = float(frechet_distance(a, b))
    assert distance == pytest.approx(by_scipy(a, b), rel=1e-6)
    assert distance == pytest.approx(float(_compute_fid(*a, *b)), rel=1e-6)


@given(width=st.integers(1, 8), seed=st.integers(0, 1000))
def test_closed_form_of_covariances_that_commute(width, seed):
    """With one set of axes the distance is Σ (μ_a − μ_b)² + Σ (σ_a − σ_b)²."""
    axes = torch.linalg.qr(draw(width, width, seed=seed)).Q
    sigma_a, sigma_b = draw(2, width, seed=seed + 1).abs()
    means = draw(2, width, seed=seed + 2)
    a, b = (Gaussian(m, axes @ torch.diag(s**2) @ axes.T) for m, s in zip(means, (sigma_a, sigma_b), strict=True))
    expected = (means[0] - means[1]).square().sum() + (sigma_a - sigma_b).square().sum()
    assert float(frechet_distance(a, b)) == pytest.approx(float(expected), rel=1e-6, abs=1e-9)


@given(rank_a=st.integers(0, 5), rank_b=st.integers(0, 5), seed=st.integers(0, 1000))
def test_singular_covariances(rank_a, rank_b, seed):
    """Covariances of fewer samples than dimensions: Tr (Σ_a Σ_b)^½ equals the nuclear norm of the product of the
    factors, which needs no root of a singular matrix."""
    factors = draw(9, rank_a, seed=seed), draw(9, rank_b, seed=seed + 1)
    a, b = (Gaussian(torch.zeros(9), factor @ factor.T) for factor in factors)
    expected = a.covariance.trace() + b.covariance.trace() - 2 * torch.linalg.svdvals(factors[0].T @ factors[1]).sum()
    assert float(frechet_distance(a, b)) == pytest.approx(float(expected), abs=1e-5)
    assert float(frechet_distance(a, a)) == pytest.approx(0.0, abs=1e-6)
    torch.testing.assert_close(frechet_distance(a, b), frechet_distance(b, a), atol=1e-6, rtol=1e-6)


def test_gaussian_equals_numpy():
    embeddings = draw(7, 3).float()
    mean, covariance = gaussian(embeddings)
    np.testing.assert_allclose(mean, embeddings.double().numpy().mean(0))
    np.testing.assert_allclose(covariance, np.cov(embeddings.double().numpy(), rowvar=False))
    assert gaussian(embeddings[:, :1]).covariance.shape == (1, 1)


def test_the_extrapolation_removes_the_bias():
    """A hundred samples at 16 dimensions: the plain distance is far too large, FAD∞ is right on average."""
    width, repeats = 16, 40
    root_a, root_b = draw(width, width), draw(width, width, seed=1)
    b = Gaussian(torch.full((width,), 0.2).double(), root_b @ root_b.T)
    truth = float(frechet_distance(Gaussian(torch.zeros(width), root_a @ root_a.T), b))
    samples = [draw(100, width, seed=10 + i) @ root_a.T for i in range(repeats)]
    plain = np.array([float(frechet_distance(gaussian(x), b)) for x in samples]) - truth
    lines = [extrapolate(x, b, seed=i) for i, x in enumerate(samples)]
    extrapolated = np.array([line.intercept for line in lines]) - truth
    standard_error = extrapolated.std() / repeats**0.5
    assert plain.mean() > 5 * standard_error
    assert abs(extrapolated.mean()) < 3 * standard_error
    assert np.mean([line.slope for line in lines]) == pytest.approx(100 * plain.mean(), rel=0.3)


def test_the_extrapolation_is_a_function_of_the_seed():
    reference = gaussian(draw(50, 4, seed=1))
    first, again, other = (extrapolate(draw(30, 4), reference, seed=seed) for seed in (0, 0, 1))
    assert first == again != other
    assert 0 <= first.r2 <= 1


def test_the_metric_accumulates_batches():
    generated, reference = draw(40, 4), 1.5 * draw(60, 4, seed=1) + 0.3
    metric = FrechetAudioDistance(seed=3)
    for batch in generated.split(7):
        metric.update(batch, real=False)
    for batch in reference.split(13):
        metric.update(batch, real=True)
    values = metric.compute()
    torch.testing.assert_close(values["fad"], frechet_distance(gaussian(generated), gaussian(reference)))
    line = extrapolate(generated, gaussian(reference), seed=3)
    assert (float(values["fad_inf"]), float(values["slope"]), float(values["r2"])) == line
    metric = FrechetAudioDistance()
    metric.update(generated, real=False)
    with pytest.raises(ValueError, match="2 samples"):
        metric.compute()


def test_refuses_bad_input():
    with pytest.raises(ValueError, match="width 3 and 4"):
        frechet_distance(gaussian(draw(5, 3)), gaussian(draw(5, 4)))
    with pytest.raises(ValueError, match="2 samples"):
        gaussian(draw(1, 3))
    with pytest.raises(ValueError, match="9 samples.*10"):
        extrapolate(draw(9, 3), gaussian(draw(9, 3)))
