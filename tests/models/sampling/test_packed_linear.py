from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from qd.models.sampling.packed_linear import PackedLinear


def draw(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("rows", "actual_rows"), [(4, 4), (4, 1), (1, 7)])
def test_products_equal_the_plain_ones(rows, actual_rows, dtype):
    weight, x = draw(12, 20, dtype=dtype), draw(actual_rows, 20, dtype=dtype)
    residual = draw(actual_rows, 12, dtype=dtype)
    linear, plain = PackedLinear(weight, rows), F.linear(x, weight)
    torch.testing.assert_close(linear(x), plain, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(linear.gelu(x), F.gelu(plain), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(linear.add(x, residual), residual + plain, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("packable", [True, False])
def test_products_have_the_weights_precision_and_sums_the_residuals(packable, monkeypatch):
    if not packable:
        monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    weight, x, residual = draw(12, 20).bfloat16(), draw(4, 20), draw(4, 12)
    linear, plain = PackedLinear(weight, 4), F.linear(x.bfloat16(), weight)
    assert linear(x).dtype == linear.gelu(x).dtype == torch.bfloat16
    torch.testing.assert_close(linear(x), plain)
    torch.testing.assert_close(linear.gelu(x), F.gelu(plain), atol=2e-2, rtol=2e-2)
    torch.testing.assert_close(linear.add(x, residual), residual + plain)


def test_float32_on_a_cpu_is_packed_and_a_copy(monkeypatch):
    weight = draw(12, 20)
    linear, x = PackedLinear(weight, 3), draw(3, 20)
    before = linear(x)
    assert linear.packed
    weight.zero_()
    torch.testing.assert_close(linear(x), before)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert not PackedLinear(weight, 3).packed
