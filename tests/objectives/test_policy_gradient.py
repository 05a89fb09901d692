from __future__ import annotations

import itertools

import pytest
import torch

from qd.objectives.baselines import build_baseline
from qd.objectives.distillation import token_log_probs
from qd.objectives.diversity import pairwise_dissimilarity
from qd.objectives.policy_gradient import ESTIMATORS, policy_gradient_objective, sample_rewards, shuffle_advantages

TEMPERATURE = 0.7
CASES = [pytest.param(e, n, id=f"{e}-N{n}") for e in ESTIMATORS for n in (2, 3, 4)]


@pytest.fixture
def policy(toy):
    return toy(codebooks=2, frames=1, vocabulary=2)


@pytest.fixture
def embeddings(policy):
    """An embedding for each sequence: (sequences, width)."""
    shape = (len(policy.sequences), 3)
    return torch.randn(shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64)


def sequence_log_probs(policy, table):
    return token_log_probs(policy.logits(table), policy.sequences, policy.mask, TEMPERATURE).sum((1, 2))


def expected_gradient(policy, table, embeddings, estimator, samples):
    """Returns the mean over all tuples of sequences, under their exact probabilities, of the policy gradient."""
    table = table.clone().requires_grad_()
    log_probs = sequence_log_probs(policy, table)
    probability = policy.naive_log_prob(table, TEMPERATURE).exp().detach()
    total = torch.zeros((), dtype=torch.float64)
    for group in itertools.product(range(len(embeddings)), repeat=samples):
        group = list(group)
        rewards = sample_rewards(pairwise_dissimilarity(embeddings[group][None]), estimator)
        total = total + probability[group].prod() * policy_gradient_objective(log_probs[group][None], rewards)
    return torch.autograd.grad(total, table)[0]


def enumerated_diversity(policy, table, embeddings):
    """Returns D of Eq. 3, with its graph."""
    probability = policy.naive_log_prob(table, TEMPERATURE).exp()
    cosine = torch.cosine_similarity(embeddings[:, None], embeddings[None, :], dim=-1)
    return (probability[:, None] * probability[None, :] * (1 - cosine)).sum()


def enumerated_group_reward(policy, table, embeddings, samples):
    """Returns E[r_D(y_1, …, y_N)] with its graph, with Eq. 7 written out for each tuple."""
    probability = policy.naive_log_prob(table, TEMPERATURE).exp()
    cosine = torch.cosine_similarity(embeddings[:, None], embeddings[None, :], dim=-1)
    total = torch.zeros((), dtype=torch.float64)
    for group in itertools.product(range(len(embeddings)), repeat=samples):
        pairs = [1 - cosine[group[i], group[j]] for i in range(samples) for j in range(samples) if i != j]
        total = total + probability[list(group)].prod() * sum(pairs) / len(pairs)
    return total


@pytest.mark.parametrize("samples", [2, 3, 4])
def test_shared_is_unbiased_for_one_nth_of_the_group_rewards_gradient(policy, embeddings, samples):
    table = policy.table(0).requires_grad_()
    objective = enumerated_group_reward(policy, table, embeddings, samples) / samples  # J of Eq. 8
    expected = torch.autograd.grad(objective, table)[0]
    ours = expected_gradient(policy, table.detach(), embeddings, "shared", samples)
    torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-12)
    assert expected.abs().max() > 1e-3


@pytest.mark.parametrize("samples", [2, 3, 4])
def test_pairs_is_unbiased_for_half_the_diversitys_gradient(policy, embeddings, samples):
    table = policy.table(0).requires_grad_()
    expected = torch.autograd.grad(enumerated_diversity(policy, table, embeddings) / 2, table)[0]
    ours = expected_gradient(policy, table.detach(), embeddings, "pairs", samples)
    torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-12)
    assert expected.abs().max() > 1e-3


def test_estimators_agree_at_two_samples_and_differ_beyond(policy, embeddings):
    def both(samples):
        groups = embeddings[:samples][None]
        return [sample_rewards(pairwise_dissimilarity(groups), estimator) for estimator in ESTIMATORS]

    shared, pairs = both(2)
    torch.testing.assert_close(shared, pairs)
    shared, pairs = both(4)
    torch.testing.assert_close(shared.mean(1), pairs.mean(1))
    assert (shared - pairs).abs().max() > 1e-3


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_shuffled_advantages_give_noise_without_signal(policy, embeddings, estimator):
    """Over all groups of two prompts, the gradient is 0 in the mean and no smaller in the mean square."""
    tables = torch.stack([policy.table(0), policy.table(0)]).requires_grad_()
    log_probs = torch.stack([sequence_log_probs(policy, table) for table in tables])
    probability = policy.naive_log_prob(tables[0], TEMPERATURE).exp().detach()
    means, squares = [], []
    for swap in (shuffle_advantages, lambda advantages: advantages):
        mean, square = torch.zeros_like(tables), 0.0
        for group in itertools.product(range(len(embeddings)), repeat=4):
            rows, prompts = torch.tensor(group).view(2, 2), torch.arange(2)[:, None]
            advantages = swap(sample_rewards(pairwise_dissimilarity(embeddings[rows]), estimator) - 1.0)
            loss = policy_gradient_objective(log_probs[prompts, rows], advantages)
            (gradient,) = torch.autograd.grad(loss, tables, retain_graph=True)
            weight = probability[rows].prod()
            mean, square = mean + weight * gradient, square + weight * gradient.square().sum().item()
        means.append(mean.norm().item())
        squares.append(square)
    assert means[0] < 1e-12 < 1e-3 < means[1]
    assert squares[0] > squares[1]
    with pytest.raises(ValueError, match="1 prompt.*2"):
        shuffle_advantages(torch.zeros(1, 4))


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_other_prompts_baseline_leaves_the_gradient_unbiased(policy, embeddings, estimator):
    tables = torch.stack([policy.table(0), policy.table(1)]).requires_grad_()  # two prompts
    baseline = build_baseline("other_prompts", decay=0.9, feature_width=1)
    log_probs = torch.stack([sequence_log_probs(policy, table) for table in tables])
    probability = torch.stack([policy.naive_log_prob(table, TEMPERATURE).exp() for table in tables]).detach()
    total = torch.zeros((), dtype=torch.float64)
    for group in itertools.product(range(len(embeddings)), repeat=4):
        rows, prompts = torch.tensor(group).view(2, 2), torch.arange(2)[:, None]
        # The reward of the second prompt is larger, so that a baseline that depended on its own prompt would show.
        dissimilarity = pairwise_dissimilarity(embeddings[rows]) * torch.tensor([1.0, 3.0])[:, None, None]
        rewards = sample_rewards(dissimilarity, estimator)
        advantages = rewards - baseline(rewards, ["a", "b"])
        total = total + probability[prompts, rows].prod() * policy_gradient_objective(
            log_probs[prompts, rows], advantages
        )
    ours = torch.autograd.grad(total, tables)[0]
    scaled = [
        size * enumerated_diversity(policy, table, embeddings) for size, table in zip((1, 3), tables, strict=True)
    ]
    expected = torch.autograd.grad(sum(scaled) / 4, tables)[0]  # ½ of the mean over 2 prompts
    torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("estimator", "samples"), CASES)
def test_rewards_have_one_row_for_each_prompt(estimator, samples):
    embeddings = torch.randn(3, samples, 5, generator=torch.Generator().manual_seed(0))
    rewards = sample_rewards(pairwise_dissimilarity(embeddings), estimator)
    assert rewards.shape == (3, samples)


def test_policy_gradient_objective_is_the_mean_product_without_gradient_through_the_advantages():
    log_probs = torch.tensor([[-1.0, -2.0], [-3.0, -4.0]], requires_grad=True)
    advantages = torch.tensor([[0.5, -0.5], [1.0, 2.0]], requires_grad=True)
    value = policy_gradient_objective(log_probs, advantages)
    value.backward()
    assert value.item() == pytest.approx((-0.5 + 1.0 - 3.0 - 8.0) / 4)
    torch.testing.assert_close(log_probs.grad, advantages.detach() / 4)
    assert advantages.grad is None


def test_refuses_bad_input():
    with pytest.raises(ValueError, match="shared, pairs"):
        sample_rewards(torch.zeros(1, 2, 2), "group")
    with pytest.raises(ValueError, match="advantages"):
        policy_gradient_objective(torch.zeros(2, 2), torch.zeros(2, 1))
