"""Vendi score: the effective number of distinct samples (Friedman and Dieng 2022; paper, Appendix D.4)."""

from __future__ import annotations

import torch
from torch import Tensor

KERNELS = ("half_shifted", "cosine")


def vendi_score(similarity: Tensor, kernel: str = "half_shifted") -> Tensor:
    """Returns ``exp(−Σ_i λ_i ln λ_i)``, with λ_i the eigenvalues of K/n: from 1 (equal samples) to n (orthogonal ones).

    The paper does not name its kernel. The five rows of its Table 1 agree with K = (1 + cos)/2 (``half_shifted``), not
    with K = cos (``cosine``). Hence the default. Scores of different kernels or numbers of samples are not comparable.

    Args:
        similarity: Cosine similarities, ``(..., samples, samples)``.
        kernel: ``half_shifted`` or ``cosine``.

    Returns:
        One score for each matrix, ``(...)``, in float64.

    Raises:
        ValueError: If the matrices are not square, or the kernel is unknown.

    Example:
        >>> vendi_score(torch.eye(4), kernel="cosine")
        tensor(4., dtype=torch.float64)
        >>> vendi_score(torch.ones(4, 4)).round(decimals=3)
        tensor(1., dtype=torch.float64)
    """
    if similarity.ndim < 2 or similarity.shape[-1] != similarity.shape[-2]:
        shape = tuple(similarity.shape)
        raise ValueError(f"similarity has shape {shape}: expected square matrices (..., samples, samples).")
    if kernel not in KERNELS:
        raise ValueError(f"kernel is {kernel!r}: expected one of {', '.join(KERNELS)}.")
    similarity = similarity.double()
    gram = similarity if kernel == "cosine" else (1 + similarity) / 2
    eigenvalues = torch.linalg.eigvalsh(gram / gram.shape[-1])
    return torch.special.entr(eigenvalues.clamp_min(0.0)).sum(-1).exp()  # rounding may make a zero slightly negative
