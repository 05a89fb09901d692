"""The kernel audio distance against a double loop, a closed form, and its limits."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qd.metrics import kernel
from qd.metrics.kernel import kernel_audio_distance, median_distance, squared_mmd


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_loops(a: torch.Tensor, b: torch.Tensor) -> float:
    """KAD with one kernel value after another."""
    distances = [float((b[i] - b[j]).norm()) for i in range(len(b)) for j in range(i)]
    bandwidth = sorted(distances)[(len(distances) - 1) // 2]

    def k(x: torch.Tensor, y: torch.Tensor) -> float:
        return math.exp(-float((x - y).square().sum()) / (2 * bandwidth**2))

    within = [np.mean([k(x, y) for i, x in enumerate(s) for j, y in enumerate(s) if i != j]) for s in (a, b)]
    return 100 * (sum(within) - 2 * np.mean([k(x, y) for x in a for y in b]))


@given(n=st.integers(2, 9), m=st.integers(2, 9), width=st.integers(1, 6), seed=st.integers(0, 1000))
def test_equals_a_double_loop(n, m, width, seed):
    a, b = 0.5 + draw(n, width, seed=seed), draw(m, width, seed=seed + 5000)
    assert float(kernel_audio_distance(a, b)) == pytest.approx(by_loops(a, b), rel=1e-7, abs=1e-6)


def test_blocks_of_rows_and_float32_give_the_same(monkeypatch):
    a, b = draw(23, 5), draw(31, 5, seed=1)
    whole = float(kernel_audio_distance(a, b))
    monkeypatch.setattr(kernel, "_ROWS", 4)
    assert float(kernel_audio_distance(a, b)) == pytest.approx(whole, rel=1e-9)
    assert float(kernel_audio_distance(a.float(), b.float())) == pytest.approx(whole, abs=1e-4)


def test_the_estimate_is_unbiased():
    """Of Gaussians N(0, 1) and N(μ, 1) per axis, E k = (σ²/(σ² + 2))^(d/2) · exp(−|Δ|²/(2 (σ² + 2)))."""
    width, shift, bandwidth = 3, 0.7, 1.5
    variance = bandwidth**2 + 2
    same = (bandwidth**2 / variance) ** (width / 2)
    expected = 2 * same * (1 - math.exp(-width * shift**2 / (2 * variance)))
    values = [float(squared_mmd(draw(6, width, seed=i), shift + draw(9, width, seed=10_000 + i), bandwidth))
              for i in range(3000)]  # fmt: skip
    error = np.std(values) / math.sqrt(len(values))
    assert np.mean(values) == pytest.approx(expected, abs=4 * error) and error < expected / 20
    null = [float(squared_mmd(draw(6, width, seed=i), draw(9, width, seed=10_000 + i), bandwidth)) for i in range(3000)]
    assert abs(np.mean(null)) < 4 * np.std(null) / math.sqrt(len(null))
    assert min(null) < 0


def test_sets_far_apart_have_the_sum_of_their_own_similarities():
    a, b = draw(5, 4), draw(6, 4, seed=1)
    bandwidth = median_distance(b)
    within = sum(
        float((-torch.pdist(x).square() / (2 * bandwidth**2)).exp().mean()) for x in (a, b)
    )  # each pair counts once in pdist, and twice in both the sum and the number of ordered pairs
    assert float(kernel_audio_distance(a + 1e3, b)) == pytest.approx(100 * within, rel=1e-6)
    point = torch.zeros(5, 4)
    assert float(squared_mmd(point, point + 1e3, 1.0)) == pytest.approx(2.0)


def test_it_has_no_unit_and_is_not_symmetric():
    a, b = draw(8, 3), 2 * draw(9, 3, seed=1)
    value = float(kernel_audio_distance(a, b))
    assert float(kernel_audio_distance(7 * a, 7 * b)) == pytest.approx(value, rel=1e-9)
    assert float(kernel_audio_distance(a - 2, b - 2)) == pytest.approx(value, rel=1e-9)
    assert float(kernel_audio_distance(b, a)) != pytest.approx(value, rel=1e-3)


def test_a_reference_of_copies_is_finite():
    copies = draw(1, 6).expand(5, 6)
    assert float(kernel_audio_distance(copies, copies)) == pytest.approx(0.0, abs=1e-3)
    assert float(kernel_audio_distance(copies + 1, copies)) == pytest.approx(200.0)


def test_the_median_of_many_rows_is_that_of_a_fixed_subset(monkeypatch):
    rows = draw(600, 4)
    exact = median_distance(rows)
    monkeypatch.setattr(kernel, "MEDIAN_SAMPLES", 200)
    assert median_distance(rows) == median_distance(rows) != exact
    assert median_distance(rows) == pytest.approx(exact, rel=0.05)


@pytest.mark.parametrize(
    ("a", "b", "problem"),
    [
        (draw(3, 4), draw(3, 5), "width 4 and 5"),
        (draw(1, 4), draw(3, 4), r"\(1, 4\).*2 samples"),
        (draw(3, 4), draw(1, 4), r"\(1, 4\).*2 samples"),
        (draw(3), draw(3, 4), r"\(3,\)"),
    ],
)
def test_bad_shapes_are_refused(a, b, problem):
    with pytest.raises(ValueError, match=problem):
        kernel_audio_distance(a, b)
