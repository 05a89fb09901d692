"""Signal and noise of the policy gradient, and its length relative to the gradient of the KL.

Both gradients are measured only on the output heads of the decoder, which needs no backward pass through the
transformer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from qd.models.language_model import LanguageModel
from qd.modules.rollout import Rollout
from qd.objectives.distillation import LOGITS_AT_ONCE, StatesAndHeads, reverse_kl, rows_at_once, token_log_probs
from qd.objectives.policy_gradient import policy_gradient_objective


def signal_and_noise(gradients: Tensor) -> tuple[Tensor, Tensor]:
    """Estimates the squared length of an expected gradient and the variance of its mean, both without bias.

    For independent terms g_1 … g_P, one for each prompt, with mean ḡ and expectation μ:
    signal = Σ_{i≠j} g_i·g_j / (P(P−1)), with expectation |μ|²: in cross products the noise of the terms averages out;
    noise = Σ_i |g_i − ḡ|² / (P(P−1)), with expectation E|ḡ − μ|².

    A single signal is noisy and may be negative, so average signal and noise over steps before you divide them. Terms
    with a baseline from each other's rewards are slightly dependent, which the estimate neglects.

    Args:
        gradients: Terms g, ``(prompts, parameters)``, prompts ≥ 2.

    Returns:
        Signal and noise, two scalars.

    Raises:
        ValueError: If there are fewer than 2 prompts.
    """
    prompts = len(gradients)
    if prompts < 2:
        raise ValueError(f"signal and noise need the gradients of 2 prompts or more, got {prompts}.")
    pairs = prompts * (prompts - 1)
    squares, total = gradients.square().sum(), gradients.sum(dim=0).square().sum()
    return (total - squares) / pairs, (squares - total / prompts) / pairs


def head_gradients(
    lm: LanguageModel,
    hidden: Tensor,
    loss: Callable[[Tensor, slice], Tensor],
    n: int,
    at_once: int = LOGITS_AT_ONCE,
) -> Tensor:
    """Returns the gradient on the heads of each prompt's loss, computed in chunks of rows as in ``score_tokens``.

    Args:
        lm: The language model with the heads.
        hidden: Hidden states, ``(batch, steps, width)``, prompt-major with ``n`` rows for each prompt.
        loss: Maps the logits of some rows of a prompt, and the slice of these rows, to a scalar. The prompt's loss is
            the sum over its chunks.
        n: Rows of a prompt.
        at_once: Logits in memory at once. A chunk has at least one sequence.

    Returns:
        Gradients, ``(prompts, parameters of the heads)``.
    """
    weights: Sequence[Tensor] = list(lm.decoder.lm_heads.parameters())
    frozen = [weight for weight in weights if not weight.requires_grad]  # those of a model with LoRA
    chunk = rows_at_once(hidden.shape[1] * lm.codebooks * lm.codebook_size, at_once)
    gradients = weights[0].new_zeros(len(hidden) // n, sum(weight.numel() for weight in weights))
    for weight in frozen:
        weight.requires_grad_(True)
    for prompt, gradient in enumerate(gradients):
        last = (prompt + 1) * n
        for first in range(prompt * n, last, chunk):
            rows = slice(first, min(first + chunk, last))
            with torch.enable_grad():
                value = loss(lm.heads(hidden[rows].detach()), rows)
            gradient += torch.cat([g.flatten() for g in torch.autograd.grad(value, weights)])
    for weight in frozen:
        weight.requires_grad_(False)
    return gradients


def compare_gradients(
    lm: LanguageModel,
    hidden: Tensor,
    rollout: Rollout,
    teacher: StatesAndHeads,
    advantages: Tensor,
    temperature: float,
    beta: float,
    at_once: int = LOGITS_AT_ONCE,
) -> dict[str, Tensor]:
    """Measures the policy gradient on the heads: signal, noise, and length relative to the gradient of the KL.

    Args:
        lm: The student.
        hidden: Hidden states of the student, ``(batch, steps, width)``.
        rollout: The micro-batch.
        teacher: Guided hidden states and heads of the teacher.
        advantages: Reward minus baseline, ``(prompts, samples)``.
        temperature: Sampling temperature T.
        beta: Diversity coefficient β of this step.
        at_once: Logits in memory at once. A chunk has at least one sequence.

    Returns:
        ``policy_gradient_signal`` and ``policy_gradient_noise``, see :func:`signal_and_noise`; their ratio
        ``policy_gradient_snr``; and ``policy_gradient_to_kl`` = β·|∇J| / |∇KL|, the actual weight of the reward. Empty
        if the micro-batch has one prompt.
    """
    prompts, n = advantages.shape
    if prompts < 2:
        return {}

    def policy(logits: Tensor, rows: slice) -> Tensor:
        log_probs = token_log_probs(logits, rollout.delayed[rows], rollout.mask, temperature).sum(dim=(1, 2))
        share = len(log_probs) / n  # weight of these rows in the mean over the prompt's samples
        return share * policy_gradient_objective(log_probs, advantages.flatten()[rows]) / rollout.tokens

    def kl(logits: Tensor, rows: slice) -> Tensor:
        guided, heads = teacher
        with torch.no_grad():
            teacher_logits = heads(guided[rows])
        return reverse_kl(logits, teacher_logits, rollout.mask, temperature).sum() / (len(hidden) * rollout.tokens)

    policy_gradients = head_gradients(lm, hidden, policy, n, at_once)
    (kl_gradient,) = head_gradients(lm, hidden, kl, len(hidden), at_once)  # all prompts as one
    signal, noise = signal_and_noise(policy_gradients)
    tiny = torch.finfo(noise.dtype).tiny
    return {
        "policy_gradient_signal": signal,
        "policy_gradient_noise": noise,
        "policy_gradient_snr": signal / noise.clamp_min(tiny),
        "policy_gradient_to_kl": beta * policy_gradients.mean(dim=0).norm() / kl_gradient.norm().clamp_min(tiny),
    }
