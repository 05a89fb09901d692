from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F

from qd.metrics.diversity import cross_prompt_diversity, diversity, effective_diversity


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def one_minus_cosine(a, b):
    return 1 - F.cosine_similarity(a, b, dim=0).item()


def test_equals_a_loop_over_ordered_pairs():
    embeddings = draw(3, 4, 6)
    for prompt, value in enumerate(diversity(embeddings)):
        pairs = [one_minus_cosine(a, b) for a, b in itertools.permutations(embeddings[prompt], 2)]
        assert value.item() == pytest.approx(sum(pairs) / len(pairs), abs=1e-6)


def test_effective_diversity_equals_a_loop_over_pairs_of_good_samples():
    embeddings, scores = draw(6, 5, 7), draw(6, 5, seed=3)
    for prompt, value in enumerate(effective_diversity(embeddings, scores, 0.2)):
        good = [vector for vector, score in zip(embeddings[prompt], scores[prompt], strict=True) if score >= 0.2]
        pairs = [one_minus_cosine(a, b) for a, b in itertools.permutations(good, 2)]
        assert value.isnan() if not pairs else value.item() == pytest.approx(sum(pairs) / len(pairs), abs=1e-6)


def test_effective_diversity_of_good_samples_only_is_diversity_and_of_none_is_undefined():
    embeddings, scores = draw(3, 4, 6), draw(3, 4, seed=1)
    torch.testing.assert_close(effective_diversity(embeddings, scores, -9.0), diversity(embeddings))
    assert effective_diversity(embeddings, scores, 9.0).isnan().all()
    exact = torch.tensor([[0.5, 0.5, 0.4, 0.4]]).expand(3, 4)  # a score equal to the threshold counts
    torch.testing.assert_close(effective_diversity(embeddings, exact, 0.5), diversity(embeddings[:, :2]))


def test_effective_diversity_is_unbiased_where_the_number_of_good_samples_varies():
    """The mean over prompts is that of two good samples, although a varying share of the samples is good."""
    good, bad = draw(4000, 4, 3), 5 + draw(4000, 4, 3, seed=1)
    is_good = draw(4000, 4, seed=2) > -0.3
    embeddings = torch.where(is_good[..., None], good, bad)
    values = effective_diversity(embeddings, is_good.float(), 0.5)
    defined = values[~values.isnan()]
    assert 2000 < len(defined) < 4000
    error = (defined.std() / len(defined) ** 0.5).item()
    assert defined.mean().item() == pytest.approx(diversity(draw(4000, 4, 3, seed=9)).mean().item(), abs=4 * error)


def test_scores_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"\(3, 5\).*\(3, 4, 6\)"):
        effective_diversity(draw(3, 4, 6), draw(3, 5), 0.0)


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
