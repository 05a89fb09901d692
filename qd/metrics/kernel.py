"""Kernel audio distance: an unbiased squared maximum mean discrepancy (Chung et al. 2025, "KAD: No More FAD!")."""

from __future__ import annotations

import torch
from torch import Tensor

SCALE = 100
"""Factor of the distance, as in the toolkit of Chung et al."""
MEDIAN_SAMPLES = 4096
"""Largest number of embeddings whose pairwise distances are held at once."""
_ROWS = 256
_SMALLEST_BANDWIDTH = 1e-4  # most of the reference may be copies of one recording


def kernel_audio_distance(generated: Tensor, reference: Tensor) -> Tensor:
    """Returns KAD, 100 · :func:`squared_mmd` with the :func:`median_distance` of the reference as bandwidth.

    Unlike the Fréchet distance it assumes no Gaussian and has no bias that depends on the number of samples. It is not
    symmetric, because the bandwidth comes from the reference. It may be slightly negative where both sets are alike.

    Args:
        generated: Embeddings, ``(samples, width)``, samples ≥ 2.
        reference: Embeddings, ``(recordings, width)``, recordings ≥ 2.

    Returns:
        A scalar, at most 200, in float64.

    Raises:
        ValueError: If a shape is not two-dimensional, there are fewer than 2 rows, or the widths differ.

    Example:
        >>> import torch
        >>> kernel_audio_distance(torch.tensor([[5.0], [6.0]]), torch.tensor([[0.0], [1.0]])).round(decimals=3)
        tensor(121.2890, dtype=torch.float64)
    """
    _check(generated, reference)
    return SCALE * squared_mmd(generated, reference, median_distance(reference))


def squared_mmd(a: Tensor, b: Tensor, bandwidth: float) -> Tensor:
    """Returns the unbiased estimate of the squared maximum mean discrepancy (Gretton et al. 2012, Eq. 3).

    ``mean_{i≠j} k(a_i, a_j) + mean_{i≠j} k(b_i, b_j) − 2 mean_{i,j} k(a_i, b_j)``, with the Gaussian kernel
    ``k(x, y) = exp(−|x − y|² / (2 · bandwidth²))``.

    Args:
        a: First set, ``(samples, width)``, samples ≥ 2.
        b: Second set of the same width.
        bandwidth: Standard deviation of the kernel, above 0, in the unit of the embeddings.

    Returns:
        A scalar in float64, whose expectation is 0 for two sets from the same distribution.

    Raises:
        ValueError: If a shape is not two-dimensional, there are fewer than 2 rows, or the widths differ.
    """
    _check(a, b)
    within = sum((_kernel_sum(x, x, bandwidth) - len(x)) / (len(x) * (len(x) - 1)) for x in (a, b))
    return within - 2 * _kernel_sum(a, b, bandwidth) / (len(a) * len(b))


def median_distance(embeddings: Tensor) -> float:
    """Returns the median Euclidean distance of two different rows, at least 1e-4.

    Of more than :data:`MEDIAN_SAMPLES` rows, a fixed random subset of this size is used.

    Args:
        embeddings: Embeddings, ``(rows, width)``, rows ≥ 2.
    """
    if len(embeddings) > MEDIAN_SAMPLES:
        chosen = torch.randperm(len(embeddings), generator=torch.Generator().manual_seed(0))[:MEDIAN_SAMPLES]
        embeddings = embeddings[chosen.to(embeddings.device)]
    return max(float(torch.pdist(embeddings.double()).median()), _SMALLEST_BANDWIDTH)


def _kernel_sum(a: Tensor, b: Tensor, bandwidth: float) -> Tensor:
    """Sum of the kernel over all pairs, in blocks of rows, because the whole matrix may not fit into memory."""
    b = b.double()
    blocks = (torch.cdist(rows.double(), b).square() for rows in a.split(_ROWS))
    return torch.stack([(-squares / (2 * bandwidth**2)).exp().sum() for squares in blocks]).sum()


def _check(a: Tensor, b: Tensor) -> None:
    for embeddings in (a, b):
        if embeddings.ndim != 2 or len(embeddings) < 2:
            shape = tuple(embeddings.shape)
            raise ValueError(f"embeddings have shape {shape}: expected (samples, width) with 2 samples or more.")
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"embeddings of width {a.shape[1]} and {b.shape[1]} cannot be compared: use one embedder.")
