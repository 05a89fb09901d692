"""Diversity of the samples of one prompt (paper, Eq. 7), and its bound across prompts (Figure 2)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from qd.objectives.diversity import diversity_reward, pairwise_dissimilarity


def diversity(embeddings: Tensor) -> Tensor:
    """Mean of 1 − cosine similarity over the ordered pairs i ≠ j of each prompt's samples, ``(prompts,)``.

    Args:
        embeddings: ``(prompts, samples, width)``, samples ≥ 2.

    Raises:
        ValueError: for other shapes or a single sample.

    Example:
        >>> import torch
        >>> diversity(torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [1.0, 0.0]]]))
        tensor([1., 0.])
    """
    return diversity_reward(pairwise_dissimilarity(embeddings))


def cross_prompt_diversity(embeddings: Tensor) -> Tensor:
    """Mean of 1 − cosine similarity between samples of *different* prompts, a scalar: the upper bound of Figure 2.

    Sample j of a prompt meets sample j of every other prompt.

    Args:
        embeddings: ``(prompts, samples, width)``, prompts ≥ 2.

    Raises:
        ValueError: for other shapes or a single prompt.

    Example:
        >>> import torch
        >>> cross_prompt_diversity(torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [1.0, 0.0]]]))
        tensor(0.5000)
    """
    if embeddings.ndim != 3:
        raise ValueError(f"embeddings are {tuple(embeddings.shape)}: expected (prompts, samples, width).")
    if (prompts := len(embeddings)) < 2:
        raise ValueError("1 prompt: the diversity across prompts needs 2 or more. Embed samples of more prompts.")
    units = F.normalize(embeddings, dim=-1)
    # Σ_{i≠k} u_i·u_k = |Σ u|² − Σ |u|²: the P² products are never listed, for P may be a whole file of prompts.
    products = units.sum(dim=0).square().sum(dim=-1) - units.square().sum(dim=(0, 2))
    return 1 - products.mean() / (prompts * (prompts - 1))
