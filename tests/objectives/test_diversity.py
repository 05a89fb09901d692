from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qd.objectives.diversity import diversity_reward, pairwise_dissimilarity, partner_mean


def draw(*shape: int, seed: int = 0, dtype=torch.float64) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@given(prompts=st.integers(1, 3), samples=st.integers(1, 5), width=st.integers(1, 6), seed=st.integers(0, 1000))
def test_dissimilarity_equals_one_minus_cosine_similarity_pair_by_pair(prompts, samples, width, seed):
    embeddings = draw(prompts, samples, width, seed=seed)
    ours = pairwise_dissimilarity(embeddings)
    for i in range(prompts):
        for j in range(samples):
            for k in range(samples):
                cosine = torch.cosine_similarity(embeddings[i, j], embeddings[i, k], dim=0)
                assert ours[i, j, k].item() == pytest.approx(1 - cosine.item(), abs=1e-12)


@given(seed=st.integers(0, 1000), scale=st.floats(1e-6, 1e6))
def test_dissimilarity_is_symmetric_bounded_and_independent_of_length(seed, scale):
    embeddings = draw(2, 4, 5, seed=seed, dtype=torch.float32)
    ours = pairwise_dissimilarity(embeddings)
    assert torch.equal(ours, ours.mT)
    assert ours.min() >= 0 and ours.max() <= 2 + 1e-5
    assert (ours.diagonal(dim1=1, dim2=2) == 0).all()
    torch.testing.assert_close(pairwise_dissimilarity(scale * embeddings), ours, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_identical_embeddings_have_reward_exactly_zero(dtype):
    embeddings = draw(3, 1, 192).to(dtype).expand(3, 4, 192)
    assert torch.equal(diversity_reward(pairwise_dissimilarity(embeddings)).double(), torch.zeros(3).double())


@pytest.mark.parametrize("silent", [[0], [0, 1], [0, 1, 2]])
def test_zero_vectors_stay_finite_with_finite_gradients(silent):
    embeddings = draw(2, 3, 4)
    embeddings[:, silent] = 0
    embeddings.requires_grad_()
    dissimilarity = pairwise_dissimilarity(embeddings)
    diversity_reward(dissimilarity).sum().backward()
    assert dissimilarity.isfinite().all()
    assert embeddings.grad.isfinite().all()
    assert (embeddings.grad[:, silent] == 0).all()
    for j in range(3):
        if j in silent:  # two zero vectors have distance 0
            torch.testing.assert_close(dissimilarity[:, 0, j], torch.zeros(2).double())
        else:
            torch.testing.assert_close(dissimilarity[:, 0, j], torch.full((2,), 0.5).double())


def test_gradient_is_that_of_the_cosine():
    embeddings = draw(2, 3, 4).requires_grad_()
    unit = embeddings / embeddings.norm(dim=-1, keepdim=True)
    expected = torch.autograd.grad((1 - unit @ unit.mT)[:, 0, 1:].sum(), embeddings)[0]
    ours = torch.autograd.grad(pairwise_dissimilarity(embeddings)[:, 0, 1:].sum(), embeddings)[0]
    torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("samples", [2, 3, 4])
def test_reward_is_the_mean_over_ordered_pairs_without_the_diagonal(samples):
    dissimilarity = draw(3, samples, samples)  # neither symmetric nor zero on the diagonal
    ours, partners = diversity_reward(dissimilarity), partner_mean(dissimilarity)
    for i in range(3):
        pairs = [(j, k) for j in range(samples) for k in range(samples) if j != k]
        assert ours[i].item() == pytest.approx(sum(dissimilarity[i, j, k].item() for j, k in pairs) / len(pairs))
        for j in range(samples):
            others = [dissimilarity[i, j, k].item() for k in range(samples) if k != j]
            assert partners[i, j].item() == pytest.approx(sum(others) / len(others))


def test_refuses_bad_shapes():
    with pytest.raises(ValueError, match="embeddings are"):
        pairwise_dissimilarity(torch.zeros(4, 8))
    with pytest.raises(ValueError, match="dissimilarity is"):
        diversity_reward(torch.zeros(2, 3, 4))
    with pytest.raises(ValueError, match="samples_per_prompt"):
        diversity_reward(torch.zeros(2, 1, 1))
