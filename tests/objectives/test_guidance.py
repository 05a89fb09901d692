from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qd.objectives.guidance import apply_guidance


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_scale_one_is_the_conditional_model():
    conditional, negative = draw(2, 3, 5, 7), draw(2, 3, 5, 7, seed=1)
    assert torch.equal(apply_guidance(conditional, negative, 1.0), conditional)


def test_scale_zero_is_the_negative_model():
    conditional, negative = draw(2, 3, 5, 7), draw(2, 3, 5, 7, seed=1)
    assert torch.equal(apply_guidance(conditional, negative, 0.0), negative)


@given(scale=st.floats(-10, 10), seed=st.integers(0, 1000))
def test_guidance_equals_equation_1_entry_by_entry(scale, seed):
    conditional, negative = draw(6, seed=seed), draw(6, seed=seed + 1)
    expected = [scale * c + (1 - scale) * n for c, n in zip(conditional.tolist(), negative.tolist(), strict=True)]
    assert apply_guidance(conditional, negative, scale).tolist() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("scale", [0.5, 1.0, 3.0, 7.0])
def test_heads_without_bias_commute_with_guidance(scale):
    heads = draw(4, 11, 8)  # codebooks, vocabulary, width
    conditional, negative = draw(2, 5, 8, seed=1), draw(2, 5, 8, seed=2)

    def apply_heads(hidden):
        return torch.einsum("bsd,qvd->bqsv", hidden, heads)

    once = apply_heads(apply_guidance(conditional, negative, scale))
    twice = apply_guidance(apply_heads(conditional), apply_heads(negative), scale)
    torch.testing.assert_close(once, twice, rtol=1e-12, atol=1e-12)


def test_a_head_with_bias_commutes_too_because_the_weights_sum_to_one():
    head = torch.nn.Linear(8, 11).double()
    conditional, negative = draw(2, 8, seed=1), draw(2, 8, seed=2)
    torch.testing.assert_close(
        head(apply_guidance(conditional, negative, 3.0)),
        apply_guidance(head(conditional), head(negative), 3.0),
        rtol=1e-12,
        atol=1e-12,
    )


def test_refuses_shapes_that_would_broadcast():
    with pytest.raises(ValueError, match=r"\(2, 3\).*\(1, 3\)"):
        apply_guidance(torch.zeros(2, 3), torch.zeros(1, 3), 3.0)


@pytest.mark.parametrize("scale", [float("nan"), float("inf")])
def test_refuses_a_scale_that_is_not_finite(scale):
    with pytest.raises(ValueError, match=f"scale is {scale}"):
        apply_guidance(torch.zeros(3), torch.zeros(3), scale)
