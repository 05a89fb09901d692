from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from qd.models.checkpoints import safetensors_files
from qd.models.checkpoints.safetensors_files import read_header
from qd.models.merging.weights import interpolation
from qd.models.merging.writer import copied, merged_dtype, weighted_sum

LENGTH = 23
VALUES = st.lists(st.floats(-100, 100, width=32), min_size=LENGTH, max_size=LENGTH)
WEIGHTS = st.floats(-3, 3, width=32)


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    monkeypatch.setattr(safetensors_files, "PIECE", 10)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """Function that writes vectors to a file and returns them as stored tensors."""
    file = tmp_path_factory.mktemp("stored") / "x"

    def store(*vectors, dtypes=None):
        kinds = dtypes or [torch.float32] * len(vectors)
        tensors = {str(i): torch.tensor(v, dtype=kind) for i, (v, kind) in enumerate(zip(vectors, kinds, strict=True))}
        save_file(tensors, file)
        header = read_header(file)
        return [header.tensors[name] for name in tensors]

    return store


def summed(tensors, weights):
    return torch.cat([piece.clone() for piece in weighted_sum(tensors, weights)])


@given(vectors=st.lists(VALUES, min_size=1, max_size=4), data=st.data())
def test_equals_a_loop_over_the_numbers(vectors, data, stored):
    weights = data.draw(st.lists(WEIGHTS, min_size=len(vectors), max_size=len(vectors)))
    expected = [math.fsum(w * v[i] for w, v in zip(weights, vectors, strict=True)) for i in range(LENGTH)]
    size = sum(abs(w) for w in weights) * 100
    assert summed(stored(*vectors), weights).tolist() == pytest.approx(expected, rel=1e-5, abs=1e-6 * size + 1e-30)


@given(a=VALUES, b=VALUES, lam=st.floats(0, 1))
def test_is_symmetric(a, b, lam, stored):
    first, second = stored(a, b)
    forth = [weight for _, weight in interpolation("a", "b", lam)]
    back = [weight for _, weight in interpolation("b", "a", 1 - lam)]
    torch.testing.assert_close(summed([first, second], forth), summed([second, first], back), rtol=1e-5, atol=1e-4)
    half = [0.5, 0.5]
    assert torch.equal(summed([first, second], half), summed([second, first], half))


@given(a=VALUES, b=VALUES, lam=st.floats(0, 1))
def test_stays_between_the_ends(a, b, lam, stored):
    merged = summed(stored(a, b), [1 - lam, lam])
    low, high = torch.tensor(a).minimum(torch.tensor(b)), torch.tensor(a).maximum(torch.tensor(b))
    assert ((low - 1e-4 <= merged) & (merged <= high + 1e-4)).all()


@given(a=VALUES, b=VALUES, first=st.floats(0, 1), second=st.floats(0, 1), share=st.floats(0, 1))
def test_is_linear_in_lambda(a, b, first, second, share, stored):
    """A merge of two merges equals the merge at the mean λ."""
    tensors = stored(a, b)
    ends = [summed(tensors, [1 - lam, lam]).tolist() for lam in (first, second)]
    lam = (1 - share) * first + share * second
    between = summed(stored(*ends), [1 - share, share])
    torch.testing.assert_close(between, summed(stored(a, b), [1 - lam, lam]), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_float32_and_rounded_once(dtype, stored):
    vectors = torch.randn(3, LENGTH, generator=torch.Generator().manual_seed(0)).to(dtype)
    weights = [0.2, 0.3, 0.5]
    expected = sum(w * v.float() for w, v in zip(weights, vectors, strict=True)).to(dtype)
    assert torch.equal(summed(stored(*vectors.tolist(), dtypes=[dtype] * 3), weights), expected)


def test_float64_is_summed_in_float64(stored):
    a, b = [1e-12 + i for i in range(LENGTH)], [3e-12 + i for i in range(LENGTH)]
    merged = summed(stored(a, b, dtypes=[torch.float64] * 2), [0.5, 0.5])
    assert merged.dtype == torch.float64
    assert merged.tolist() == pytest.approx([2e-12 + i for i in range(LENGTH)], rel=1e-15)


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        ([torch.float16, torch.float16], torch.float16),
        ([torch.float16, torch.float32], torch.float32),
        ([torch.float16, torch.bfloat16], torch.float32),
        ([torch.bfloat16, torch.float64, torch.float32], torch.float64),
        ([torch.bool, torch.bool], torch.bool),
    ],
)
def test_the_finest_type_is_used_and_equal_tensors_are_copied_from_it(kinds, expected, stored):
    values = [float(i % 2) for i in range(LENGTH)]
    tensors = stored(*[values] * len(kinds), dtypes=kinds)
    assert merged_dtype(tensors) == expected
    pieces = torch.cat([piece.clone() for piece in copied(tensors)])
    assert pieces.dtype == expected and pieces.tolist() == values


def test_a_copy_is_not_rounded_through_a_coarser_type(stored):
    fine = [1 / 3] * LENGTH
    half = torch.tensor(fine).half().tolist()
    for vectors, kinds in (
        ((half, fine), (torch.float16, torch.float32)),
        ((fine, half), (torch.float32, torch.float16)),
    ):
        tensors = stored(*vectors, dtypes=kinds)
        assert next(copied(tensors))[0].item() == torch.tensor(1 / 3).item()
