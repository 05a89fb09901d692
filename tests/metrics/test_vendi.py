from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qd.metrics.vendi import KERNELS, vendi_score
from qd.objectives.diversity import pairwise_dissimilarity

# Table 1 of the paper: beta = 15, base, LERP(0, 15), beta = 0, CFG; 8 samples of each prompt.
DIVERSITY = [0.60, 0.46, 0.44, 0.32, 0.32]
PUBLISHED = [2.91, 2.40, 2.35, 1.95, 1.93]


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def vendi(embeddings: torch.Tensor, kernel: str = "half_shifted") -> torch.Tensor:
    return vendi_score(1 - pairwise_dissimilarity(embeddings), kernel)


def numpy_vendi(embeddings: np.ndarray, kernel: str) -> float:
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    gram = unit @ unit.T
    if kernel == "half_shifted":
        gram = (1 + gram) / 2
    eigenvalues = [value for value in np.linalg.eigvals(gram / len(gram)).real if value > 1e-14]
    return float(np.exp(-sum(value * np.log(value) for value in eigenvalues)))


def table_1(kernel: str) -> list[float]:
    """Returns the score of 8 samples with equal distances between all pairs, at each published diversity."""
    similarity = torch.stack([(1 - d) + d * torch.eye(8) for d in torch.tensor(DIVERSITY)])
    return vendi_score(similarity, kernel).tolist()


@pytest.mark.parametrize("kernel", KERNELS)
@given(samples=st.integers(1, 8), width=st.integers(1, 8), seed=st.integers(0, 1000))
def test_equals_a_direct_computation(kernel, samples, width, seed):
    embeddings = draw(2, samples, width, seed=seed)
    expected = [numpy_vendi(prompt.numpy(), kernel) for prompt in embeddings]
    assert vendi(embeddings, kernel).tolist() == pytest.approx(expected, rel=1e-6)


def test_the_default_kernel_agrees_with_table_1():
    predicted = table_1("half_shifted")
    assert [round(value, 2) for value in predicted] == [2.96, 2.44, 2.37, 1.97, 1.97]
    assert np.abs(np.subtract(predicted, PUBLISHED)).max() < 0.06
    assert vendi_score(torch.eye(8)) == vendi_score(torch.eye(8), kernel="half_shifted")


def test_the_plain_cosine_kernel_does_not_agree_with_table_1():
    predicted = table_1("cosine")
    assert [round(value, 2) for value in predicted[:2]] == [5.55, 4.29]
    assert np.subtract(predicted, PUBLISHED).min() > 1


@given(samples=st.integers(1, 8), seed=st.integers(0, 1000))
def test_the_score_is_between_one_and_the_number_of_samples(samples, seed):
    assert 1 - 1e-9 <= vendi(draw(1, samples, 4, seed=seed)).item() <= samples + 1e-9


@pytest.mark.parametrize("kernel", KERNELS)
def test_copies_count_as_one_sample_and_silence_is_finite(kernel):
    one, two = draw(1, 1, 5), draw(1, 2, 5, seed=1)
    assert vendi(one.expand(1, 6, 5), kernel).item() == pytest.approx(1)
    assert vendi(two.repeat(1, 3, 1), kernel).item() == pytest.approx(vendi(two, kernel).item())
    silent = torch.cat([torch.zeros(1, 2, 5), draw(1, 4, 5)], dim=1)
    assert vendi(silent, kernel).isfinite().all()


def test_refuses_bad_input():
    with pytest.raises(ValueError, match="square"):
        vendi_score(torch.zeros(2, 3))
    with pytest.raises(ValueError, match="half_shifted, cosine"):
        vendi_score(torch.eye(2), kernel="rbf")
