from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qd.objectives.distillation import distillation_loss, reverse_kl, reward_to_go, score_tokens, token_log_probs

TEMPERATURE = 0.7
MASK = torch.tensor([[True, True, True, False], [False, True, True, True]])


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def draw_tokens(vocabulary: int = 5) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randint(vocabulary, (2, 2, 4), generator=generator).masked_fill(~MASK, vocabulary)


@pytest.fixture(params=[(1, 3, 2), (2, 2, 2), (2, 1, 3)], ids=lambda shape: "Q{}-T{}-V{}".format(*shape))
def policy(request, toy):
    return toy(*request.param)


def test_sequence_log_probs_equal_a_token_by_token_product(policy):
    table = policy.table(0)
    ours = token_log_probs(policy.logits(table), policy.sequences, policy.mask, TEMPERATURE).sum((1, 2))
    torch.testing.assert_close(ours, policy.naive_log_prob(table, TEMPERATURE), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(ours.exp().sum(), torch.ones((), dtype=torch.float64))


def test_kl_equals_a_symbol_by_symbol_sum(policy):
    table, teacher = policy.table(0), policy.table(1)
    ours = reverse_kl(policy.logits(table), policy.logits(teacher), policy.mask, TEMPERATURE).sum((1, 2))
    torch.testing.assert_close(ours, policy.naive_kl(table, teacher, TEMPERATURE), rtol=1e-10, atol=1e-12)


def expected_gradient(policy, table, teacher, exact_gradient: bool) -> torch.Tensor:
    """Returns the mean over all sequences, under their exact probabilities, of the gradient of the loss on each one."""
    table = table.clone().requires_grad_()
    probability = policy.naive_log_prob(table, TEMPERATURE).exp().detach()
    logits, sequences = policy.logits(table), policy.sequences
    teacher_logits = policy.logits(teacher)
    total = torch.zeros((), dtype=torch.float64)
    for row in range(len(sequences)):
        one = slice(row, row + 1)
        kl = reverse_kl(logits[one], teacher_logits[one], policy.mask, TEMPERATURE)
        log_probs = token_log_probs(logits[one], sequences[one], policy.mask, TEMPERATURE)
        total = total + probability[row] * distillation_loss(kl, log_probs, policy.mask, exact_gradient)
    return torch.autograd.grad(total, table)[0]


def test_exact_gradient_equals_that_of_the_enumerated_objective(policy):
    table, teacher = policy.table(0).requires_grad_(), policy.table(1)
    objective = (policy.naive_log_prob(table, TEMPERATURE).exp() * policy.naive_kl(table, teacher, TEMPERATURE)).sum()
    expected = torch.autograd.grad(objective / policy.mask.sum(), table)[0]
    ours = expected_gradient(policy, table.detach(), teacher, exact_gradient=True)
    torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-12)
    assert expected.abs().max() > 1e-3


def test_default_gradient_equals_that_of_the_divergence_at_fixed_prefixes(policy):
    table, teacher = policy.table(0).requires_grad_(), policy.table(1)
    probability = policy.naive_log_prob(table, TEMPERATURE).exp()
    kl = policy.naive_kl(table, teacher, TEMPERATURE)
    fixed_prefixes, whole = (
        torch.autograd.grad((weight * kl).sum() / policy.mask.sum(), table, retain_graph=True)[0]
        for weight in (probability.detach(), probability)
    )
    ours = expected_gradient(policy, table.detach(), teacher, exact_gradient=False)
    torch.testing.assert_close(ours, fixed_prefixes, rtol=1e-9, atol=1e-12)
    assert (ours - whole).abs().max() > 1e-3  # the score-function term is not negligible here


def test_loss_is_the_mean_over_sequences_of_the_divergence_per_token():
    kl = draw(3, 2, 4).abs() * MASK
    loss = distillation_loss(kl, torch.zeros_like(kl), MASK, exact_gradient=False)
    assert loss.item() == pytest.approx(sum(kl[row].sum().item() / 6 for row in range(3)) / 3)


@given(seed=st.integers(0, 10_000), scale=st.floats(0.0, 30.0), temperature=st.floats(0.1, 3.0))
def test_kl_is_zero_only_at_the_teacher_and_never_negative(seed, scale, temperature):
    student, teacher = scale * draw(1, 2, 4, 6, seed=seed), scale * draw(1, 2, 4, 6, seed=seed + 1)
    assert torch.equal(reverse_kl(student, student, MASK, temperature), torch.zeros(1, 2, 4, dtype=torch.float64))
    assert reverse_kl(student, teacher, MASK, temperature).min() >= -1e-12


def test_kl_is_invariant_to_a_shift_of_the_logits_and_not_symmetric():
    student, teacher = draw(1, 2, 4, 6), draw(1, 2, 4, 6, seed=1)
    forward = reverse_kl(student, teacher, MASK, 1.0)
    torch.testing.assert_close(reverse_kl(student + 5, teacher - 3, MASK, 1.0), forward)
    assert (reverse_kl(teacher, student, MASK, 1.0) - forward).abs().max() > 1e-3


def test_no_gradient_reaches_the_teacher():
    student, teacher = draw(1, 2, 4, 6).requires_grad_(), draw(1, 2, 4, 6, seed=1).requires_grad_()
    reverse_kl(student, teacher, MASK, 1.0).sum().backward()
    assert teacher.grad is None
    assert student.grad.abs().sum() > 0


@pytest.mark.parametrize("junk", [float("nan"), float("-inf"), float("inf"), -1e30, 1e30])
def test_masked_positions_affect_neither_value_nor_gradient(junk):
    tokens = draw_tokens()
    clean, teacher = draw(2, 2, 4, 5), draw(2, 2, 4, 5, seed=1)
    dirty = clean.masked_fill(~MASK[..., None], junk)
    dirty_teacher = teacher.masked_fill(~MASK[..., None], junk)

    def terms(logits, teacher_logits):
        kl = reverse_kl(logits, teacher_logits, MASK, TEMPERATURE)
        log_probs = token_log_probs(logits, tokens, MASK, TEMPERATURE)
        return kl, log_probs

    for ours, expected in zip(terms(dirty, dirty_teacher), terms(clean, teacher), strict=True):
        assert torch.equal(ours, expected)
        assert (ours[:, ~MASK] == 0).all()
    dirty.requires_grad_()
    kl, log_probs = terms(dirty, dirty_teacher)
    distillation_loss(kl, log_probs, MASK, exact_gradient=True).backward()
    assert (dirty.grad[:, ~MASK] == 0).all()
    assert dirty.grad.isfinite().all()
    assert (dirty.grad[:, MASK] != 0).any()


@pytest.mark.parametrize("pad", [5, -100, 2048])
def test_pad_tokens_may_be_out_of_range(pad):
    logits, tokens = draw(2, 2, 4, 5), draw_tokens()
    other = tokens.masked_fill(~MASK, pad)
    ours = token_log_probs(logits, other, MASK, TEMPERATURE)
    assert torch.equal(ours, token_log_probs(logits, tokens, MASK, TEMPERATURE))


def test_half_precision_logits_are_scored_in_float32():
    logits = draw(2, 2, 4, 5).bfloat16()
    kl = reverse_kl(logits, logits + 1, MASK, 0.99)
    assert kl.dtype == torch.float32
    precise = reverse_kl(logits.double(), (logits + 1).double(), MASK, 0.99)
    torch.testing.assert_close(kl, precise.float(), rtol=1e-4, atol=1e-6)


def test_reward_to_go_equals_a_naive_loop_and_carries_no_graph():
    per_token = draw(3, 2, 5).requires_grad_()
    ours = reward_to_go(per_token)
    assert not ours.requires_grad
    for b in range(3):
        for n in range(5):
            expected = sum(per_token[b, q, m].item() for m in range(n + 1, 5) for q in range(2))
            assert ours[b, n].item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_invalid_temperatures_are_refused(temperature):
    with pytest.raises(ValueError, match=f"temperature is {temperature}"):
        reverse_kl(torch.zeros(1, 2, 4, 5), torch.zeros(1, 2, 4, 5), MASK, temperature)


@pytest.mark.parametrize("mask", [MASK[:, :3], MASK.long(), MASK.T], ids=["short", "integers", "transposed"])
def test_masks_of_another_shape_or_type_are_refused(mask):
    with pytest.raises(ValueError, match="mask is"):
        reverse_kl(torch.zeros(1, 2, 4, 5), torch.zeros(1, 2, 4, 5), mask, 1.0)


def test_logits_and_tokens_of_different_shapes_are_refused():
    with pytest.raises(ValueError, match="teacher logits"):
        reverse_kl(torch.zeros(2, 2, 4, 5), torch.zeros(1, 2, 4, 5), MASK, 1.0)
    with pytest.raises(ValueError, match="tokens are"):
        token_log_probs(torch.zeros(1, 2, 4, 5), torch.zeros(1, 2, 3, dtype=torch.long), MASK, 1.0)


@pytest.mark.parametrize("at_once", [1, 2 * 2 * 4 * 5, 10**6])
@pytest.mark.parametrize("exact_gradient", [False, True])
def test_scores_in_chunks_and_their_gradients_equal_the_plain_ones(at_once, exact_gradient):
    """5 sequences in chunks of one, two and five. The loss includes a policy gradient, so that all terms are tested."""
    shapes = {"hidden": (5, 4, 3), "heads": (2, 3, 5)}
    tokens = torch.randint(5, (5, 2, 4), generator=torch.Generator().manual_seed(3)).masked_fill(~MASK, 5)
    guided, teacher_heads, advantages = draw(5, 4, 3, seed=7), draw(2, 3, 5, seed=8), draw(5, seed=9)

    def logits(states, heads):
        return torch.einsum("bsd,qdv->bqsv", states, heads)

    def gradients(score):
        leaves = [draw(*shape, seed=seed).requires_grad_() for seed, shape in enumerate(shapes.values())]
        kl, log_probs = score(*leaves)
        loss = distillation_loss(kl, log_probs, MASK, exact_gradient) - (advantages * log_probs.sum((1, 2))).mean()
        return kl, log_probs, *torch.autograd.grad(loss, leaves)

    def plain(hidden, heads):
        student, teacher = logits(hidden, heads), logits(guided, teacher_heads)
        log_probs = token_log_probs(student, tokens, MASK, TEMPERATURE)
        return reverse_kl(student, teacher, MASK, TEMPERATURE), log_probs

    def chunked(hidden, heads):
        student = hidden, lambda states: logits(states, heads)
        teacher = guided, lambda states: logits(states, teacher_heads)
        return score_tokens(student, teacher, tokens, MASK, TEMPERATURE, at_once)

    for ours, expected in zip(gradients(chunked), gradients(plain), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-12)


def test_chunked_scores_store_no_logits_for_the_backward_pass():
    heads, stored = draw(2, 3, 50).requires_grad_(), []
    hidden, tokens = draw(6, 4, 3).requires_grad_(), torch.zeros(6, 2, 4, dtype=torch.long)

    def logits(states):
        return torch.einsum("bsd,qdv->bqsv", states, heads)

    def largest(at_once):
        stored.clear()
        with torch.autograd.graph.saved_tensors_hooks(lambda x: stored.append(x.numel()) or x, lambda x: x):
            score_tokens((hidden, logits), (hidden.detach(), logits), tokens, MASK, 1.0, at_once)
        return max(stored, default=0)

    assert largest(10**6) >= 6 * 2 * 4 * 50
    assert largest(1) < 2 * 4 * 50
