"""On-policy distillation of the guided teacher into the student (paper, Section 2.1 and Eq. 2).

Shapes: logits ``(batch, codebooks, steps, vocabulary)``, per-token values ``(batch, codebooks, steps)``, where steps
are *delayed decoding steps*. ``mask (codebooks, steps)`` is true where a real token stands; what stands elsewhere, in
the logits or in the tokens, reaches neither a value nor a gradient. Every softmax is taken at the sampling temperature
(Section 2.1). All values are in nats.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

LOGITS_AT_ONCE = 2**24
"""Logits of the student that are held at once: 64 MiB in float32, and several times that with what their softmax keeps.

Larger batches are scored in chunks of sequences. A default step of the built-in model, 3.4 million, is below it."""


def token_log_probs(logits: Tensor, tokens: Tensor, mask: Tensor, temperature: float) -> Tensor:
    """log π of each token, ``(batch, codebooks, steps)``; 0 where masked, whatever the pad token there.

    Raises:
        ValueError: if the shapes disagree or the temperature is not a positive finite number.
    """
    if tokens.shape != logits.shape[:-1]:
        raise ValueError(
            f"tokens are {tuple(tokens.shape)} and logits {tuple(logits.shape)}: expected (batch, codebooks, steps) "
            "and (batch, codebooks, steps, vocabulary). Score the tokens in their delayed layout."
        )
    log_policy = _log_policy(logits, mask, temperature)
    # The pad token is no index into the vocabulary: any valid one stands in for it until it is masked out.
    index = tokens.masked_fill(~mask, 0)
    return log_policy.gather(-1, index[..., None])[..., 0].masked_fill(~mask, 0.0)


def reverse_kl(student_logits: Tensor, teacher_logits: Tensor, mask: Tensor, temperature: float) -> Tensor:
    """KL(student ‖ teacher) over the whole vocabulary at each token, ``(batch, codebooks, steps)``; 0 where masked.

    The teacher is a constant: no gradient flows into it. The gradient is that of the divergence at the sampled
    prefixes alone; see ``distillation_loss`` for the dependence of the prefixes on the student.

    Raises:
        ValueError: if the shapes disagree or the temperature is not a positive finite number.
    """
    if student_logits.shape != teacher_logits.shape:
        raise ValueError(
            f"student logits are {tuple(student_logits.shape)} and teacher logits {tuple(teacher_logits.shape)}: "
            "expected one shape. Score the same delayed codes with both."
        )
    student = _log_policy(student_logits, mask, temperature)
    teacher = _log_policy(teacher_logits.detach(), mask, temperature)
    # Where masked both are uniform, and the divergence is exactly 0.
    return (student.exp() * (student - teacher)).sum(-1)


def score_tokens(
    student: tuple[Tensor, Callable[[Tensor], Tensor]],
    teacher: tuple[Tensor, Callable[[Tensor], Tensor]],
    tokens: Tensor,
    mask: Tensor,
    temperature: float,
    at_once: int = LOGITS_AT_ONCE,
) -> tuple[Tensor, Tensor]:
    """``reverse_kl`` and ``token_log_probs`` from hidden states, so that the logits of the batch never coexist.

    A batch of more than ``at_once`` logits is scored in chunks of sequences. The logits of a chunk are not kept for
    the backward pass but computed again there, so values and gradients are those of the plain computation; the price
    is a second product with the heads of both models.

    Args:
        student: hidden states ``(batch, steps, width)`` and the heads, from states to logits.
        teacher: the same of the teacher, a constant; its states already guided.
        tokens: ``(batch, codebooks, steps)``, delayed.
        mask: ``(codebooks, steps)``.
        temperature: T.
        at_once: logits held at once; at least those of one sequence are.

    Returns:
        The divergences and the log-probabilities, each ``(batch, codebooks, steps)``, 0 where masked.
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
    """Sequences of so many logits each that ``score_tokens`` scores at once."""
    return max(1, at_once // logits)


def reward_to_go(per_token: Tensor) -> Tensor:
    """``(batch, steps)``: at each step, the detached sum of ``per_token`` over all codebooks of strictly later steps.

    Strictly later, because the divergence at a step depends on the tokens before it, not on those drawn at it.

    Example:
        >>> reward_to_go(torch.tensor([[[1.0, 2.0, 3.0], [0.0, 1.0, 1.0]]]))
        tensor([[7., 4., 0.]])
    """
    per_step = per_token.detach().sum(1)
    from_here_on = per_step.flip(-1).cumsum(-1).flip(-1)
    return F.pad(from_here_on[:, 1:], (0, 1))


def distillation_loss(kl: Tensor, log_probs: Tensor, mask: Tensor, exact_gradient: bool) -> Tensor:
    """−Q of Eq. 2, divided by the number of tokens: a scalar to minimise.

    The gradient of ``E_{y~π}[Σ_n KL_n]`` has two terms, ``E[Σ_n ∇KL_n]`` and the score-function term
    ``E[Σ_t ∇log π(s_t) Σ_{n>t} KL_n]``. On-policy distillation (GKD, the paper's reference) keeps the first alone:
    no gradient through sampling. With ``exact_gradient`` the loss also holds the objective of the second; its gradient
    is then unbiased for the whole, but its value is no longer a divergence.

    Args:
        kl: ``(batch, codebooks, steps)`` from ``reverse_kl``, 0 where masked.
        log_probs: ``(batch, codebooks, steps)`` from ``token_log_probs``, 0 where masked.
        mask: ``(codebooks, steps)``; its number of true entries is the number of tokens.
        exact_gradient: whether to add the score-function term.
    """
    per_sequence = kl.sum((1, 2))
    if exact_gradient:
        per_sequence = per_sequence + (log_probs.sum(1) * reward_to_go(kl)).sum(-1)
    return per_sequence.mean() / mask.sum()


def _log_policy(logits: Tensor, mask: Tensor, temperature: float) -> Tensor:
    """log softmax(logits / temperature), at least in float32; uniform where masked."""
    if logits.ndim != 4 or mask.shape != logits.shape[1:3] or mask.dtype != torch.bool:
        raise ValueError(
            f"logits are {tuple(logits.shape)} and the mask is {mask.dtype} {tuple(mask.shape)}: expected "
            "(batch, codebooks, steps, vocabulary) and boolean (codebooks, steps). Use the mask that came with the "
            "delayed codes."
        )
    if not (math.isfinite(temperature) and temperature > 0):
        raise ValueError(f"temperature is {temperature}: expected a positive finite number, such as 0.99.")
    scaled = logits.to(torch.promote_types(logits.dtype, torch.float32)) / temperature
    # Masked before the softmax: not even a NaN there may reach the gradient, where 0 · NaN would be NaN.
    return scaled.masked_fill_(~mask[..., None], 0.0).log_softmax(-1)
