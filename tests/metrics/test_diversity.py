from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F

from qd.metrics.diversity import cross_prompt_diversity, diversity


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def one_minus_cosine(a, b):
    return 1 - F.cosine_similarity(a, b, dim=0).item()


def test_equals_a_loop_over_ordered_pairs():
    embeddings = draw(3, 4, 6)
    for prompt, value in enumerate(diversity(embeddings)):
        pairs = [one_minus_cosine(a, b) for a, b in itertools.permutations(embeddings[prompt], 2)]
        assert value.item() == pytest.approx(sum(pairs) / len(pairs), abs=1e-6)


def test_cross_prompt_bound_equals_a_loop_over_pairs_of_prompts():
    embeddings = draw(4, 3, 6)
    pairs = [one_minus_cosine(a[j], b[j]) for a, b in itertools.permutations(embeddings, 2) for j in range(3)]
    assert cross_prompt_diversity(embeddings).item() == pytest.approx(sum(pairs) / len(pairs), abs=1e-6)


def test_cross_prompt_bound_exceeds_diversity_where_prompts_differ():
    centres = 3 * draw(8, 1, 16)
    embeddings = centres + 0.3 * draw(8, 4, 16, seed=1)
    assert cross_prompt_diversity(embeddings) > 5 * diversity(embeddings).mean()


def test_identical_samples_have_diversity_zero_and_silence_is_finite():
    assert diversity(draw(2, 1, 6).expand(2, 3, 6)).tolist() == [0.0, 0.0]
    assert diversity(torch.zeros(2, 3, 6)).tolist() == [0.0, 0.0]


def test_too_few_samples_or_prompts_are_refused():
    with pytest.raises(ValueError, match="samples_per_prompt"):
        diversity(draw(3, 1, 6))
    with pytest.raises(ValueError, match="1 prompt.*2"):
        cross_prompt_diversity(draw(1, 3, 6))
    with pytest.raises(ValueError, match=r"\(3, 6\)"):
        cross_prompt_diversity(draw(4, 3, 6)[0])
