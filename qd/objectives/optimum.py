"""The policy that maximises the objective, estimated from samples of the teacher, without any training.

For one prompt the objective of Eq. 4 is ``−KL(p ‖ q) + (β/2)·E[r(y, y′)]`` with the teacher q, two independent samples
y, y′ of p, and r = 1 − cosine of their embeddings e. (The factor ½: each of the two samples brings half of a pair's
reward.) Its maximum satisfies ``p(y) ∝ q(y)·exp(β·E_{y′~p} r(y, y′))``. As r is linear in the embedding, this is

    p(y) ∝ q(y)·exp(−β·e(y)·m),  m = E_p[e],

and m is the minimum of the strongly convex function ``φ(m) = (β/2)·‖m‖² + log E_q[exp(−β·e·m)]``. So the optimum is
unique, and a tilt found on some samples can be applied to others.
"""

from __future__ import annotations

import torch
from torch import Tensor

TOLERANCE = 1e-10
ITERATIONS = 100
SHORTEST_STEP = 1e-12


def optimal_mean(embeddings: Tensor, beta: float, log_prior: Tensor | None = None) -> Tensor:
    """The mean embedding m of the optimal policy, by Newton's method with backtracking.

    Args:
        embeddings: ``(prompts, samples, width)``, unit vectors of samples of the teacher.
        beta: β, 0 or more.
        log_prior: ``(prompts, samples)``, log q up to a constant, for a teacher that is known by enumeration. None:
            the samples are drawn from the teacher, and all count alike.

    Returns:
        ``(prompts, width)``, float64.

    Raises:
        ValueError: if the shape of the embeddings is wrong or β is negative or not finite.
    """
    if embeddings.ndim != 3:
        raise ValueError(f"embeddings are {tuple(embeddings.shape)}: expected (prompts, samples, width).")
    if not 0 <= beta < float("inf"):
        raise ValueError(f"beta is {beta}: expected a finite number, 0 or more.")
    units = embeddings.double()
    prior = torch.zeros(units.shape[:2], dtype=torch.float64) if log_prior is None else log_prior.double()
    mean = _tilted_mean(units, prior.log_softmax(-1))[0]
    identity = torch.eye(units.shape[-1], dtype=torch.float64, device=units.device)
    for _ in range(ITERATIONS):
        target, weights = _tilted_mean(units, log_tilt(units, mean, beta) + prior)
        gradient = mean - target  # of φ / β
        if gradient.norm(dim=-1).max() < TOLERANCE:
            break
        centred = units - target[:, None]
        covariance = torch.einsum("ps,psi,psj->pij", weights, centred, centred)
        step = torch.linalg.solve(identity + beta * covariance, gradient)
        mean = _descend(units, prior, beta, mean, step, gradient)
    return mean


def log_tilt(embeddings: Tensor, mean: Tensor, beta: float) -> Tensor:
    """log p(y)/q(y) of the optimal policy, up to a constant of the prompt: ``−β·e(y)·m``.

    Args:
        embeddings: ``(prompts, samples, width)``, unit vectors; other samples than those that gave ``mean`` are fine.
        mean: ``(prompts, width)``, from :func:`optimal_mean`.
        beta: β.

    Returns:
        ``(prompts, samples)``.
    """
    return -beta * torch.einsum("psw,pw->ps", embeddings.double(), mean)


def weighted_diversity(embeddings: Tensor, weights: Tensor) -> Tensor:
    """E[r(y, y′)] of two independent samples: ``Σ_{i≠j} w_i w_j r_ij / Σ_{i≠j} w_i w_j``.

    With equal weights this is the diversity of Eq. 7.

    Args:
        embeddings: ``(prompts, samples, width)``, unit vectors, samples ≥ 2.
        weights: ``(prompts, samples)``, 0 or more, each row sums to 1.

    Returns:
        ``(prompts,)``.

    Example:
        >>> weighted_diversity(torch.eye(2)[None], torch.tensor([[0.5, 0.5]]))
        tensor([1.], dtype=torch.float64)
    """
    weights = weights.double()
    mean = torch.einsum("ps,psw->pw", weights, embeddings.double())
    return (1 - mean.square().sum(-1)) / (1 - weights.square().sum(-1))


def weighted_kl(weights: Tensor) -> Tensor:
    """KL of a reweighting of samples of the teacher to the teacher, in nats: ``Σ w_i·log(w_i·S)`` of S samples.

    Args:
        weights: ``(prompts, samples)``, 0 or more, each row sums to 1.

    Returns:
        ``(prompts,)``, 0 or more.

    Example:
        >>> weighted_kl(torch.tensor([[0.25, 0.25, 0.25, 0.25]]))
        tensor([0.], dtype=torch.float64)
    """
    weights = weights.double()
    return torch.special.xlogy(weights, weights * weights.shape[-1]).sum(-1)


def effective_samples(weights: Tensor) -> Tensor:
    """Kish's effective sample size ``1 / Σ w_i²``, ``(prompts,)``; the weights ``(prompts, samples)`` sum to 1."""
    return 1 / weights.double().square().sum(-1)


def _tilted_mean(units: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
    weights = logits.softmax(-1)
    return torch.einsum("ps,psw->pw", weights, units), weights


def _potential(units: Tensor, prior: Tensor, beta: float, mean: Tensor) -> Tensor:
    """φ(m), ``(prompts,)``, up to a constant of the prompt."""
    return beta / 2 * mean.square().sum(-1) + (log_tilt(units, mean, beta) + prior).logsumexp(-1)


def _descend(units: Tensor, prior: Tensor, beta: float, mean: Tensor, step: Tensor, gradient: Tensor) -> Tensor:
    """Newton's step, halved for each prompt until φ falls enough (Armijo's rule)."""
    before, slope = _potential(units, prior, beta, mean), beta * (gradient * step).sum(-1)
    size = torch.ones_like(before)
    while True:
        moved = mean - size[:, None] * step
        short = _potential(units, prior, beta, moved) > before - 1e-4 * size * slope
        if not (short & (size > SHORTEST_STEP) & (slope > TOLERANCE**2)).any():
            return moved
        size = torch.where(short, size / 2, size)
