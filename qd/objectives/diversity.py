"""The diversity reward: how unlike each other the samples of one prompt sound (paper, Section 2.2 and Eq. 7)."""

from __future__ import annotations

import torch
from torch import Tensor

_SHORTEST = 1e-12  # an embedding shorter than this has no direction


def pairwise_dissimilarity(embeddings: Tensor) -> Tensor:
    """r_D of every pair of samples of a prompt: 1 − cosine similarity, from 0 (same direction) to 2 (opposite).

    Computed as ``½‖u − v‖²`` of the unit vectors, which is 1 − u·v without its rounding: identical embeddings give
    exactly 0, and nothing is negative. A zero vector is taken as it is: it is at 0 from another zero vector and at ½
    from any other, and gets no gradient.

    Args:
        embeddings: ``(prompts, samples, width)``, of any length.

    Returns:
        ``(prompts, samples, samples)``, symmetric, 0 on the diagonal.

    Raises:
        ValueError: if ``embeddings`` is not of three dimensions.

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
    unit = embeddings / length.masked_fill(length < _SHORTEST, torch.inf)
    return (unit[:, :, None] - unit[:, None, :]).square().sum(-1) / 2


def diversity_reward(dissimilarity: Tensor) -> Tensor:
    """r_D(y_1, …, y_N): the mean dissimilarity over ordered pairs i ≠ j (Eq. 7).

    Args:
        dissimilarity: ``(prompts, samples, samples)``; its diagonal is left out.

    Returns:
        ``(prompts,)``.

    Raises:
        ValueError: if the matrices are not square or hold fewer than two samples.

    Example:
        >>> diversity_reward(torch.tensor([[[0.0, 0.4], [0.4, 0.0]]]))
        tensor([0.4000])
    """
    return partner_mean(dissimilarity).mean(-1)


def partner_mean(dissimilarity: Tensor) -> Tensor:
    """Each sample's mean dissimilarity to the other samples of its prompt, ``(prompts, samples)``.

    Raises:
        ValueError: if the matrices are not square or hold fewer than two samples.
    """
    if dissimilarity.ndim != 3 or dissimilarity.shape[1] != dissimilarity.shape[2]:
        raise ValueError(
            f"dissimilarity is {tuple(dissimilarity.shape)}: expected (prompts, samples, samples). "
            "Make it with pairwise_dissimilarity."
        )
    samples = dissimilarity.shape[1]
    if samples < 2:
        raise ValueError(f"{samples} sample of each prompt: diversity needs 2 or more. Raise samples_per_prompt.")
    others = ~torch.eye(samples, dtype=torch.bool, device=dissimilarity.device)
    return dissimilarity.where(others, 0.0).sum(-1) / (samples - 1)
