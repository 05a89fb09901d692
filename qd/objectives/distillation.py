"""On-policy distillation of the guided teacher into the student (paper, Section 2.1 and Eq. 2).

Shapes: logits are ``(batch, codebooks, steps, vocabulary)``, values per token ``(batch, codebooks, steps)``. Steps are
*delayed decoding steps*. ``mask (codebooks, steps)`` is True at real tokens. Logits and tokens at masked positions
affect neither values nor gradients. Every softmax uses the sampling temperature (Section 2.1). Values are in nats.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

LOGITS_AT_ONCE = 2**24
"""Student logits in memory at once: 64 MiB in float32, and several times that with the results of their softmax.

Larger batches are scored in chunks of sequences. A default step of the built-in model has 3.4 million logits."""

StatesAndHeads = tuple[Tensor, Callable[[Tensor], Tensor]]
"""Hidden states ``(batch, steps, width)``, and the heads that map states to logits."""


def token_log_probs(logits: Tensor, tokens: Tensor, mask: Tensor, temperature: float) -> Tensor:
    """Returns log π(token) of each token under the policy ``softmax(logits / temperature)``.

    Args:
        logits: Logits of the policy, ``(batch, codebooks, steps, vocabulary)``.
        tokens: Delayed tokens, ``(batch, codebooks, steps)``. Pad tokens at masked positions may have any value.
        mask: True at real tokens, ``(codebooks, steps)``.
        temperature: Sampling temperature T > 0.

    Returns:
        Log-probabilities in nats, ``(batch, codebooks, steps)``, 0 where masked; float32 or wider.

    Raises:
        ValueError: If the shapes disagree, or the temperature is not a positive finite number.
    """
    if tokens.shape != logits.shape[:-1]:
        raise ValueError(
            f"tokens are {tuple(tokens.shape)} and logits {tuple(logits.shape)}: expected (batch, codebooks, steps) "
            "and (batch, codebooks, steps, vocabulary). Score the tokens in their delayed layout."
        )
    log_policy = _log_policy(logits, mask, temperature)
    # The pad token may be out of range, so gather any valid token instead; the result is masked out below.
    index = tokens.masked_fill(~mask, 0)
    return log_policy.gather(-1, index[..., None])[..., 0].masked_fill(~mask, 0.0)


def reverse_kl(student_logits: Tensor, teacher_logits: Tensor, mask: Tensor, temperature: float) -> Tensor:
    """Returns KL(student ‖ teacher) over the whole vocabulary at each token: the inner term of Eq. 2.

    ``Σ_v π(v) [log π(v) − log π_teacher(v)]``. No gradient flows into the teacher. The gradient is that of the
    divergence at the sampled prefixes; :func:`distillation_loss` covers their dependence on the student.

    Args:
        student_logits: Logits of the student, ``(batch, codebooks, steps, vocabulary)``.
        teacher_logits: Guided logits of the teacher (Eq. 1), of the same shape.
        mask: True at real tokens, ``(codebooks, steps)``.
        temperature: Sampling temperature T > 0.

    Returns:
        Divergences ≥ 0 in nats, ``(batch, codebooks, steps)``, 0 where masked; float32 or wider.

    Raises:
        ValueError: If the shapes disagree, or the temperature is not a positive finite number.
    """
    if student_logits.shape != teacher_logits.shape:
        raise ValueError(
            f"student logits are {tuple(student_logits.shape)} and teacher logits {tuple(teacher_logits.shape)}: "
            "expected equal shapes. Score the same delayed codes with both."
        )
    student = _log_policy(student_logits, mask, temperature)
    teacher = _log_policy(teacher_logits.detach(), mask, temperature)
    # Where masked, both policies are uniform and the divergence is exactly 0.
    return (student.exp() * (student - teacher)).sum(-1)


def score_tokens(
    student: StatesAndHeads,
    teacher: StatesAndHeads,
    tokens: Tensor,
    mask: Tensor,
    temperature: float,
    at_once: int = LOGITS_AT_ONCE,
) -> tuple[Tensor, Tensor]:
    """Returns :func:`reverse_kl` and :func:`token_log_probs` from hidden states, with bounded memory for logits.

    A batch with more than ``at_once`` logits is scored in chunks of sequences. The backward pass recomputes the logits
    of a chunk instead of storing them. Values and gradients equal those of the plain computation, at the price of a
    second product with the heads of both models.

    Args:
        student: Hidden states and heads of the student.
        teacher: Guided hidden states of the teacher and its heads. No gradient flows into them.
        tokens: Delayed tokens, ``(batch, codebooks, steps)``.
        mask: True at real tokens, ``(codebooks, steps)``.
        temperature: Sampling temperature T > 0.
        at_once: Logits in memory at once. A chunk has at least one sequence.

    Returns:
        Divergences and log-probabilities in nats, each ``(batch, codebooks, steps)``, 0 where masked.

    Raises:
        ValueError: If the shapes disagree, or the temperature is not a positive finite number.
    """
    (hidden, heads), (guided, teacher_heads) = student, teacher

    def score(states: Tensor, guided: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        logits = heads(states)
        with torch.no_grad():
            teacher_logits = teacher_heads(guided)
        kl = reverse_kl(logits, teacher_logits, mask, temperature)
        return kl, token_log_probs(logits, tokens, mask, temperature)

    vocabulary = heads(hidden[:1, :1].detach()).shape[-1]
    rows = rows_at_once(tokens[0].numel() * vocabulary, at_once)
    if rows >= len(tokens):
        return score(hidden, guided, tokens)
    chunks = zip(hidden.split(rows), guided.split(rows), tokens.split(rows), strict=True)
    scored = [checkpoint(score, *chunk, use_reentrant=False, preserve_rng_state=False) for chunk in chunks]
    kl, log_probs = (torch.cat(values) for values in zip(*scored, strict=True))
    return kl, log_probs


def rows_at_once(logits: int, at_once: int = LOGITS_AT_ONCE) -> int:
    """Returns the number of sequences in a chunk of :func:`score_tokens`.

    Args:
        logits: Logits of one sequence.
        at_once: Logits in memory at once.
    """
    return max(1, at_once // logits)


def reward_to_go(per_token: Tensor) -> Tensor:
    """Returns, for each step, the sum of ``per_token`` over all codebooks of strictly later steps, without gradient.

    Strictly later, because the divergence at a step depends on the tokens before the step, not on its own tokens.

    Args:
        per_token: Values of each token, ``(batch, codebooks, steps)``.

    Returns:
        Sums, ``(batch, steps)``.

    Example:
        >>> reward_to_go(torch.tensor([[[1.0, 2.0, 3.0], [0.0, 1.0, 1.0]]]))
        tensor([[7., 4., 0.]])
    """
    per_step = per_token.detach().sum(1)
    from_this_step = per_step.flip(-1).cumsum(-1).flip(-1)
    return F.pad(from_this_step[:, 1:], (0, 1))


def distillation_loss(kl: Tensor, log_probs: Tensor, mask: Tensor, exact_gradient: bool) -> Tensor:
    """Returns −Q(θ) of Eq. 2 divided by the number of tokens, a loss to minimise.

    The gradient of ``E_{y~π}[Σ_n KL_n]`` has two terms: ``E[Σ_n ∇KL_n]`` and the score-function term
    ``E[Σ_t ∇log π(s_t) Σ_{n>t} KL_n]``. On-policy distillation (GKD, Agarwal et al. 2024, which the paper follows)
    keeps only the first term, so that no gradient passes through sampling. With ``exact_gradient`` the loss also has
    a term with the gradient of the second. The gradient is then unbiased, but the value is no longer a divergence.

    Args:
        kl: Divergences from :func:`reverse_kl`, ``(batch, codebooks, steps)``, 0 where masked.
        log_probs: Log-probabilities from :func:`token_log_probs`, ``(batch, codebooks, steps)``, 0 where masked.
        mask: True at real tokens, ``(codebooks, steps)``. Its number of True entries is the number of tokens.
        exact_gradient: Whether to add the score-function term.

    Returns:
        A scalar: the mean over sequences, in nats per token.
    """
    per_sequence = kl.sum((1, 2))
    if exact_gradient:
        per_sequence = per_sequence + (log_probs.sum(1) * reward_to_go(kl)).sum(-1)
    return per_sequence.mean() / mask.sum()


def _log_policy(logits: Tensor, mask: Tensor, temperature: float) -> Tensor:
    """Returns log softmax(logits / temperature) in float32 or wider, uniform where masked."""
    if logits.ndim != 4 or mask.shape != logits.shape[1:3] or mask.dtype != torch.bool:
        raise ValueError(
            f"logits are {tuple(logits.shape)} and the mask is {mask.dtype} {tuple(mask.shape)}: expected "
            "(batch, codebooks, steps, vocabulary) and boolean (codebooks, steps). Use the mask of the delayed codes."
        )
    if not (math.isfinite(temperature) and temperature > 0):
        raise ValueError(f"temperature is {temperature}: expected a positive finite number, such as 0.99.")
    scaled = logits.to(torch.promote_types(logits.dtype, torch.float32)) / temperature
    # Masked before the softmax, so that not even a NaN there reaches the gradient, where 0 · NaN would be NaN.
    return scaled.masked_fill_(~mask[..., None], 0.0).log_softmax(-1)
