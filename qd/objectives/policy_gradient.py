"""REINFORCE for a reward that several samples share (paper, Appendix A).

The true gradient of ``D = E[r(y_1, y_2)]`` (Eq. 3) is ``2·E[r ∇log p(y_1)]``; both estimators here leave the 2 out, as
the paper's Eq. 4 does, and agree with each other at N = 2.
"""

from __future__ import annotations

from torch import Tensor

from qd.objectives.diversity import diversity_reward, partner_mean

ESTIMATORS = ("shared", "pairs")


def sample_rewards(dissimilarity: Tensor, estimator: str) -> Tensor:
    """The reward of each sample, ``(prompts, samples)``.

    - ``shared`` (Appendix A): every sample gets r_D(y_1, …, y_N) of its group. It is unbiased for
      the gradient of ``J = (1/N)·E[r_D]`` (Eq. 8), so its push shrinks as 1/N against ∇D.
    - ``pairs``: sample j gets the mean over k ≠ j of r(y_j, y_k). It is unbiased for ½∇D at every N, with less
      variance, because the pairs that sample j has no part in are only noise to its score.

    Args:
        dissimilarity: ``(prompts, samples, samples)`` from ``pairwise_dissimilarity``.
        estimator: ``shared`` or ``pairs``.

    Raises:
        ValueError: if the estimator is unknown, or for matrices of fewer than two samples.
    """
    if estimator == "shared":
        return diversity_reward(dissimilarity)[:, None].expand(dissimilarity.shape[:2])
    if estimator == "pairs":
        return partner_mean(dissimilarity)
    raise ValueError(f"estimator is {estimator!r}: expected one of {', '.join(ESTIMATORS)}.")


def shuffle_advantages(advantages: Tensor) -> Tensor:
    """The advantages of the prompt before, ``(prompts, samples)``: as large as its own, and independent of its samples.

    The expected gradient of :func:`policy_gradient_objective` is then zero, with all of its noise. A run with shuffled
    advantages shows the effect of the noise alone.

    Raises:
        ValueError: for fewer than two prompts.
    """
    if len(advantages) < 2:
        raise ValueError("advantages are of one prompt: expected two or more, to take those of another.")
    return advantages.roll(1, dims=0)


def policy_gradient_objective(log_probs: Tensor, advantages: Tensor) -> Tensor:
    """A scalar whose gradient is ``1/(PN) Σ_ij A_ij ∇log p(y_ij)``, the REINFORCE estimate; to *maximise*.

    Args:
        log_probs: ``(prompts, samples)``, the log-probability of each whole sequence: a sum over its tokens, divided
            by the number of tokens if, and only if, the distillation loss is.
        advantages: ``(prompts, samples)``, reward minus baseline; a constant, whether or not it carries a graph.

    Raises:
        ValueError: if the shapes differ.
    """
    if log_probs.shape != advantages.shape:
        raise ValueError(
            f"log_probs are {tuple(log_probs.shape)} and advantages {tuple(advantages.shape)}: expected both "
            "(prompts, samples). Sum log_probs over tokens and reshape the prompt-major rows."
        )
    return (advantages.detach() * log_probs).mean()
