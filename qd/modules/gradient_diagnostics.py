"""How much of the policy gradient is signal, and how large it is beside the gradient of the KL.

Both are measured on the decoder's output heads alone: their gradient needs no backward pass through the transformer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from qd.models.language_model import LanguageModel
from qd.modules.rollout import Rollout
from qd.objectives.distillation import LOGITS_AT_ONCE, reverse_kl, rows_at_once, token_log_probs
from qd.objectives.policy_gradient import policy_gradient_objective


def signal_and_noise(gradients: Tensor) -> tuple[Tensor, Tensor]:
    """Unbiased squared length of a mean gradient, and variance of that mean, from its independent terms.

    With terms g_1 … g_P (one a prompt) of mean ḡ, and expectation μ:
    signal = Σ_{i≠j} g_i·g_j / (P(P−1)), of expectation |μ|² (cross products only: a term's noise never meets itself);
    noise = Σ_i |g_i − ḡ|² / (P(P−1)), of expectation E|ḡ − μ|².
    One measurement of the signal is itself noisy and may be negative: average both over steps before dividing them.
    Terms that share a baseline taken from each other's rewards are not quite independent; this is neglected.

    Args:
        gradients: ``(prompts, parameters)``.

    Raises:
        ValueError: fewer than 2 prompts.
    """
    prompts = len(gradients)
    if prompts < 2:
        raise ValueError(f"signal and noise need the gradients of at least 2 prompts, got {prompts}")
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
    """Gradient on the heads of each prompt's loss, from chunks of its rows, as ``score_tokens`` makes them.

    Args:
        lm: whose heads.
        hidden: ``(batch, steps, width)``, prompt-major with ``n`` rows a prompt.
        loss: from the logits of some rows of a prompt, and the slice that says which rows they are, to a scalar; the
            prompt's loss is the sum over its chunks.
        at_once: logits held at once; at least those of one sequence are.

    Returns:
        ``(prompts, parameters of the heads)``.
    """
    weights: Sequence[Tensor] = list(lm.decoder.lm_heads.parameters())
    frozen = [weight for weight in weights if not weight.requires_grad]  # where adapters are trained
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
    teacher: tuple[Tensor, Callable[[Tensor], Tensor]],
    advantages: Tensor,
    temperature: float,
    beta: float,
    at_once: int = LOGITS_AT_ONCE,
) -> dict[str, Tensor]:
    """The policy gradient on the heads: its signal, its noise, and its length beside that of the KL's gradient.

    Args:
        lm: the student.
        hidden: of the student, ``(batch, steps, width)``.
        rollout: the micro-batch.
        teacher: guided hidden states ``(batch, steps, width)``, and the teacher's heads.
        advantages: ``(prompts, samples)``.
        temperature: T.
        beta: β of this step.
        at_once: logits held at once; at least those of one sequence are.

    Returns:
        ``policy_gradient_signal`` and ``policy_gradient_noise`` of this micro-batch, see :func:`signal_and_noise`;
        their ratio ``policy_gradient_snr``; and ``policy_gradient_to_kl`` = β·|∇J| / |∇KL|, what β really means.
        Empty where the micro-batch has one prompt.
    """
    prompts, n = advantages.shape
    if prompts < 2:
        return {}

    def policy(logits: Tensor, rows: slice) -> Tensor:
        log_probs = token_log_probs(logits, rollout.delayed[rows], rollout.mask, temperature).sum(dim=(1, 2))
        share = len(log_probs) / n  # of the mean over the prompt's samples
        return share * policy_gradient_objective(log_probs, advantages.flatten()[rows]) / rollout.tokens

    def kl(logits: Tensor, rows: slice) -> Tensor:
        guided, heads = teacher
        with torch.no_grad():
            teacher_logits = heads(guided[rows])
        return reverse_kl(logits, teacher_logits, rollout.mask, temperature).sum() / (len(hidden) * rollout.tokens)

    policy_gradients = head_gradients(lm, hidden, policy, n, at_once)
    (kl_gradient,) = head_gradients(lm, hidden, kl, len(hidden), at_once)  # of all prompts together
    signal, noise = signal_and_noise(policy_gradients)
    tiny = torch.finfo(noise.dtype).tiny
    return {
        "policy_gradient_signal": signal,
        "policy_gradient_noise": noise,
        "policy_gradient_snr": signal / noise.clamp_min(tiny),
        "policy_gradient_to_kl": beta * policy_gradients.mean(dim=0).norm() / kl_gradient.norm().clamp_min(tiny),
    }
