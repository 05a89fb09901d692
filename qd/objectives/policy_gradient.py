"""REINFORCE for a reward that several samples share (paper, Section 2.2 and Appendix A).

The gradient of ``D = E[r_D(y_1, y_2)]`` (Eq. 3) is ``2·E[r_D(y_1, y_2) ∇log p(y_1)]``. Both estimators leave out the
factor 2, as the paper's Eq. 4 does. At N = 2 they are equal.
"""

from __future__ import annotations

from torch import Tensor

from qd.objectives.diversity import diversity_reward, partner_mean

ESTIMATORS = ("shared", "pairs")


def sample_rewards(dissimilarity: Tensor, estimator: str) -> Tensor:
    """Returns the reward of each sample.

    - ``shared`` (Appendix A): every sample gets r_D(y_1, …, y_N) of its prompt (Eq. 7). The policy gradient is unbiased
      for the gradient of ``J = (1/N)·E[r_D]`` (Eq. 8), which falls as 1/N relative to ∇D.
    - ``pairs``: sample j gets the mean over k ≠ j of r_D(y_j, y_k). The policy gradient is unbiased for ½∇D at every N.
      It has less variance, because pairs without sample j would only add noise to the gradient of sample j.

    Args:
        dissimilarity: Values from :func:`pairwise_dissimilarity`, ``(prompts, samples, samples)``.
        estimator: ``shared`` or ``pairs``.

    Returns:
        Rewards in [0, 2], ``(prompts, samples)``.

    Raises:
        ValueError: If the estimator is unknown, or there are fewer than two samples.
    """
    if estimator == "shared":
        return diversity_reward(dissimilarity)[:, None].expand(dissimilarity.shape[:2])
    if estimator == "pairs":
        return partner_mean(dissimilarity)
    raise ValueError(f"estimator is {estimator!r}: expected one of {', '.join(ESTIMATORS)}.")


def shuffle_advantages(advantages: Tensor) -> Tensor:
    """Returns for each prompt the advantages of the prompt before, which are independent of its own samples.

    With them, the expected gradient of :func:`policy_gradient_objective` is 0 while its noise stays as large. A run
    with shuffled advantages therefore shows the effect of the noise only.

    Args:
        advantages: Reward minus baseline, ``(prompts, samples)``, prompts ≥ 2.

    Returns:
        Advantages, ``(prompts, samples)``.

    Raises:
        ValueError: If there are fewer than two prompts.
    """
    if len(advantages) < 2:
        raise ValueError(f"{len(advantages)} prompt: shuffled advantages need 2 or more, to use those of another one.")
    return advantages.roll(1, dims=0)


def policy_gradient_objective(log_probs: Tensor, advantages: Tensor) -> Tensor:
    """Returns a scalar to maximise, with the REINFORCE gradient ``1/(PN) Σ_ij A_ij ∇log p(y_ij)`` (Williams 1992).

    Args:
        log_probs: Log-probability of each sequence, ``(prompts, samples)``: a sum over tokens. Divide it, or the
            result, by the number of tokens if the distillation loss is divided by it, and only then.
        advantages: Reward minus baseline, ``(prompts, samples)``. No gradient flows into them.

    Raises:
        ValueError: If the shapes differ.
    """
    if log_probs.shape != advantages.shape:
        raise ValueError(
            f"log_probs are {tuple(log_probs.shape)} and advantages {tuple(advantages.shape)}: expected both "
            "(prompts, samples). Sum log_probs over tokens, then reshape the prompt-major rows."
        )
    return (advantages.detach() * log_probs).mean()
