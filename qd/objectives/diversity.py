"""Diversity reward: how different the samples of a prompt are (paper, Section 2.2 and Eq. 7)."""

from __future__ import annotations

import torch
from torch import Tensor

_MIN_LENGTH = 1e-12  # a shorter embedding has no direction


def pairwise_dissimilarity(embeddings: Tensor) -> Tensor:
    """Returns r_D of every pair of samples of a prompt: 1 − cosine similarity (paper, Section 2.2).

    Computed as ``½‖u − v‖²`` of the unit vectors u and v. This equals 1 − u·v without its rounding error: identical
    embeddings give exactly 0, and no value is negative. A zero vector stays zero: its distance is 0 to a zero vector
    and ½ to any other vector, and its gradient is 0.

    Args:
        embeddings: Embeddings of any length, ``(prompts, samples, width)``.

    Returns:
        Values from 0 (same direction) to 2 (opposite), ``(prompts, samples, samples)``, symmetric, 0 on the diagonal.

    Raises:
        ValueError: If ``embeddings`` is not three-dimensional.

    Example:
        >>> pairwise_dissimilarity(torch.tensor([[[2.0, 0.0], [0.0, 1.0], [-3.0, 0.0]]]))
        tensor([[[0., 1., 2.],
                 [1., 0., 1.],
                 [2., 1., 0.]]])
    """
    if embeddings.ndim != 3:
        raise ValueError(
            f"embeddings are {tuple(embeddings.shape)}: expected (prompts, samples, width). "
            "Reshape the prompt-major rows with view(prompts, samples, -1)."
        )
    embeddings = embeddings.to(torch.promote_types(embeddings.dtype, torch.float32))
    length = embeddings.norm(dim=-1, keepdim=True)
    unit = embeddings / length.masked_fill(length < _MIN_LENGTH, torch.inf)
    return (unit[:, :, None] - unit[:, None, :]).square().sum(-1) / 2


def diversity_reward(dissimilarity: Tensor) -> Tensor:
    """Returns r_D(y_1, …, y_N), the mean dissimilarity over ordered pairs i ≠ j (paper, Eq. 7).

    Args:
        dissimilarity: Values from :func:`pairwise_dissimilarity`, ``(prompts, samples, samples)``. The diagonal does
            not count.

    Returns:
        One reward for each prompt, ``(prompts,)``.

    Raises:
        ValueError: If the matrices are not square, or have fewer than two samples.

    Example:
        >>> diversity_reward(torch.tensor([[[0.0, 0.4], [0.4, 0.0]]]))
        tensor([0.4000])
    """
    return partner_mean(dissimilarity).mean(-1)


def partner_mean(dissimilarity: Tensor) -> Tensor:
    """Returns each sample's mean dissimilarity to the other samples of its prompt.

    Args:
        dissimilarity: Values from :func:`pairwise_dissimilarity`, ``(prompts, samples, samples)``. The diagonal does
            not count.

    Returns:
        One value for each sample, ``(prompts, samples)``.

    Raises:
        ValueError: If the matrices are not square, or have fewer than two samples.
    """
    if dissimilarity.ndim != 3 or dissimilarity.shape[1] != dissimilarity.shape[2]:
        raise ValueError(
            f"dissimilarity is {tuple(dissimilarity.shape)}: expected (prompts, samples, samples). "
            "Compute it with pairwise_dissimilarity."
        )
    samples = dissimilarity.shape[1]
    if samples < 2:
        raise ValueError(f"{samples} sample for each prompt: diversity needs 2 or more. Raise samples_per_prompt.")
    others = ~torch.eye(samples, dtype=torch.bool, device=dissimilarity.device)
    return dissimilarity.where(others, 0.0).sum(-1) / (samples - 1)
