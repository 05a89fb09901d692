"""Diversity of the samples of a prompt (paper, Eq. 7), of the good ones only, and its upper bound across prompts."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from qd.objectives.diversity import diversity_reward, pairwise_dissimilarity


def diversity(embeddings: Tensor) -> Tensor:
    """Returns the mean of 1 − cosine similarity over the ordered pairs i ≠ j of each prompt's samples (paper, Eq. 7).

    Args:
        embeddings: Embeddings of any length, ``(prompts, samples, width)``, samples ≥ 2.

    Returns:
        One value in [0, 2] for each prompt, ``(prompts,)``. 0: all samples have the same direction.

    Raises:
        ValueError: If the shape is not three-dimensional, or there is a single sample.

    Example:
        >>> import torch
        >>> diversity(torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [1.0, 0.0]]]))
        tensor([1., 0.])
    """
    return diversity_reward(pairwise_dissimilarity(embeddings))


def effective_diversity(embeddings: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """Returns :func:`diversity` over the pairs of which both samples have a score of at least the threshold.

    Defects differ from each other, so a worse model can have a larger diversity; this one does not count them. For a
    prompt with k ≥ 2 such samples, it is an unbiased estimate of the mean dissimilarity of two of them, whatever k is.

    Args:
        embeddings: Embeddings of any length, ``(prompts, samples, width)``, samples ≥ 2.
        scores: Score of each sample, ``(prompts, samples)``.
        threshold: Least score that counts.

    Returns:
        One value in [0, 2] for each prompt, ``(prompts,)``; NaN for a prompt with fewer than 2 such samples.

    Raises:
        ValueError: If the shape of the embeddings is not three-dimensional, or the scores do not fit them.

    Example:
        >>> embeddings = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]])
        >>> effective_diversity(embeddings, torch.tensor([[0.5, 0.7, -0.2]]), 0.0)
        tensor([1.])
        >>> effective_diversity(embeddings, torch.tensor([[0.5, -0.7, -0.2]]), 0.0)
        tensor([nan])
    """
    dissimilarity = pairwise_dissimilarity(embeddings)
    if scores.shape != embeddings.shape[:2]:
        shapes = f"scores have shape {tuple(scores.shape)} and embeddings {tuple(embeddings.shape)}"
        raise ValueError(f"{shapes}: expected one score for each sample, (prompts, samples).")
    good = scores >= threshold
    pairs = good[:, :, None] & good[:, None, :]
    pairs &= ~torch.eye(scores.shape[1], dtype=torch.bool, device=pairs.device)
    return dissimilarity.where(pairs, 0.0).sum(dim=(1, 2)) / pairs.sum(dim=(1, 2))  # 0 / 0 = NaN without a pair


def cross_prompt_diversity(embeddings: Tensor) -> Tensor:
    """Returns the mean of 1 − cosine similarity between samples of *different* prompts.

    This is the "upper bound" of the paper's Figure 2. Sample j of a prompt is compared with sample j of every other
    prompt.

    Args:
        embeddings: Embeddings of any length, ``(prompts, samples, width)``, prompts ≥ 2.

    Returns:
        A scalar in [0, 2].

    Raises:
        ValueError: If the shape is not three-dimensional, or there is a single prompt.

    Example:
        >>> import torch
        >>> cross_prompt_diversity(torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [1.0, 0.0]]]))
        tensor(0.5000)
    """
    if embeddings.ndim != 3:
        raise ValueError(f"embeddings have shape {tuple(embeddings.shape)}: expected (prompts, samples, width).")
    if (prompts := len(embeddings)) < 2:
        raise ValueError("1 prompt: diversity across prompts needs 2 or more. Embed the samples of more prompts.")
    units = F.normalize(embeddings, dim=-1)
    # Σ_{i≠k} u_i·u_k = |Σ u|² − Σ |u|² needs no P × P matrix, which is too large where P is a whole file of prompts.
    products = units.sum(dim=0).square().sum(dim=-1) - units.square().sum(dim=(0, 2))
    return 1 - products.mean() / (prompts * (prompts - 1))
