"""Random numbers, the drawing of tokens from them, and invalid arguments of the sampler."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import TopKLogitsWarper, TopPLogitsWarper

from qd.models.sampling.sampler import Sampler, counter_uniforms
from qd.models.sampling.stepwise_loop import inverse_cdf, truncate
from tests.models.sampling.reference import naive_logits


@torch.no_grad()
def test_first_tokens_follow_the_models_distribution(make_lm, make_condition):
    """Pearson's chi-square test of 4,000 first tokens against the library's probabilities, 15 degrees of freedom."""
    lm, rows = make_lm(seed=4, num_codebooks=1), 4_000
    condition = make_condition(1, 3, 32).repeat_interleave(rows)
    uniforms = counter_uniforms(1, 0, range(rows), 1, 1)
    codes = Sampler(lm).sample(condition, 1, temperature=2.0, uniforms=lambda step: uniforms[:, :, step]).codes
    start = torch.full((1, 1, 1), lm.pad)
    probs = (naive_logits(lm, start, make_condition(1, 3, 32))[0, 0, 0] / 2).softmax(dim=-1).double()
    counts = codes.flatten().bincount(minlength=16).double()
    assert ((counts - rows * probs) ** 2 / (rows * probs)).sum() < 37.7  # quantile 0.999
    assert probs.max() < 0.9


def test_inverse_cdf_boundaries():
    probs = torch.tensor([[0.0, 0.25, 0.0, 0.75, 0.0]]).repeat(5, 1)
    uniforms = torch.tensor([0.0, 0.2, 0.2500001, 0.5, 1 - 2**-24])
    assert inverse_cdf(probs, uniforms).tolist() == [1, 1, 3, 3, 3]


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 1_000), top_k=st.integers(1, 9), top_p=st.floats(0.05, 0.99))
def test_truncation_equals_the_librarys_warpers(seed, top_k, top_p):
    logits = 2 * torch.randn(3, 8, generator=torch.Generator().manual_seed(seed))
    expected = TopPLogitsWarper(top_p)(None, TopKLogitsWarper(top_k)(None, logits))
    torch.testing.assert_close(truncate(logits, top_k, top_p), expected)


@torch.no_grad()
def test_truncated_samples_stay_inside(make_lm, make_condition):
    lm, condition = make_lm(seed=3), make_condition(8, 3, 32)
    uniforms = counter_uniforms(5, 0, range(8), 4, 20)
    best = Sampler(lm).sample(condition, 10, greedy=True)
    one = Sampler(lm).sample(condition, 10, uniforms=lambda step: uniforms[:, :, step], top_k=1)
    nucleus = Sampler(lm).sample(condition, 10, uniforms=lambda step: uniforms[:, :, step], top_p=1e-6)
    assert torch.equal(one.codes, best.codes) and torch.equal(nucleus.codes, best.codes)
    assert one.log_probs.abs().max() == 0 and one.entropy.abs().max() == 0


def test_counter_uniforms_do_not_depend_on_the_split():
    together = counter_uniforms(7, 3, range(10, 18), 4, 13)
    parts = [counter_uniforms(7, 3, rows, 4, 13) for rows in (range(10, 11), torch.arange(11, 15), [15, 16, 17])]
    assert torch.equal(together, torch.cat(parts))


@pytest.mark.parametrize("other", [(8, 3, 10), (7, 4, 10), (7, 3, 11), (10, 3, 7), (3, 7, 10)])
def test_counter_uniforms_differ_by_seed_step_and_row(other):
    base, changed = counter_uniforms(7, 3, [10], 4, 50), counter_uniforms(other[0], other[1], [other[2]], 4, 50)
    assert (base == changed).float().mean() < 0.01


def test_counter_uniforms_are_uniform_and_uncorrelated():
    draws = counter_uniforms(0, 0, range(200), 4, 100)
    assert draws.dtype == torch.float32 and draws.min() >= 0 and draws.max() < 1
    counts = torch.histc(draws, bins=64, min=0, max=1)
    expected = draws.numel() / 64
    assert ((counts - expected) ** 2 / expected).sum() < 103.4  # chi-square, 63 degrees of freedom, quantile 0.999
    centred = draws.flatten(1) - 0.5
    correlation = (centred[1:] * centred[:-1]).mean() * 12
    assert abs(correlation) < 4 / math.sqrt(centred[1:].numel())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"temperature": 0.0}, "temperature .*got 0.0"),
        ({"temperature": math.nan}, "temperature"),
        ({"guidance_scale": math.inf}, "guidance_scale .*got inf"),
        ({"guidance_scale": -1.0}, "guidance_scale .*got -1.0"),
        ({"top_k": 0}, "top_k .*got 0"),
        ({"top_p": 1.5}, r"top_p .*\(0, 1\], got 1.5"),
        ({"greedy": False}, "uniforms are needed"),
        ({"frames": 0}, "frames .*got 0"),
    ],
)
def test_bad_arguments_are_named(arguments, message, make_lm, make_condition):
    arguments = {"greedy": True, "frames": 3} | arguments
    with pytest.raises(ValueError, match=message):
        Sampler(make_lm()).sample(make_condition(2, 3, 32), **arguments)


def test_a_negative_prompt_with_other_rows_is_refused(make_lm, make_condition):
    with pytest.raises(ValueError, match="negative .*1 row or 2 .*got 3"):
        Sampler(make_lm()).sample(
            make_condition(2, 3, 32), 3, greedy=True, guidance_scale=2.0, negative=make_condition(3, 2, 32)
        )


def test_negative_counters_are_refused():
    with pytest.raises(ValueError, match="rows=\\[-1\\]"):
        counter_uniforms(0, 0, [-1], 1, 1)
