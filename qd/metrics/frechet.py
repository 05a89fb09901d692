"""Fréchet audio distance (Kilgour et al. 2019) and its extrapolation to infinite sample size (Gui et al. 2024)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

MIN_SAMPLES = 10
"""Smallest number of samples to fit the line to."""
SUBSETS = 25
"""Number of subsets."""
SMALLEST_SUBSET = 500
"""Size of the smallest subset, where there are at least twice as many samples (Gui et al. 2024)."""


class Gaussian(NamedTuple):
    """The two moments that the distance compares, in float64.

    Attributes:
        mean: Mean, ``(width,)``.
        covariance: Covariance, ``(width, width)``.
    """

    mean: Tensor
    covariance: Tensor


class Extrapolation(NamedTuple):
    """A fitted line, distance = intercept + slope / n.

    Attributes:
        intercept: FAD∞, the distance extrapolated to infinitely many samples.
        slope: Bias of the distance for n samples, times n.
        r2: Share of the variance of the distances that the line explains. Where it is low, do not trust the intercept.
    """

    intercept: float
    slope: float
    r2: float


def gaussian(embeddings: Tensor) -> Gaussian:
    """Returns the mean and the unbiased covariance of embeddings.

    Args:
        embeddings: Embeddings, ``(samples, width)``, samples ≥ 2.

    Raises:
        ValueError: If the shape is not two-dimensional, or there are fewer than 2 samples.
    """
    if embeddings.ndim != 2 or len(embeddings) < 2:
        shape = tuple(embeddings.shape)
        raise ValueError(f"embeddings have shape {shape}: expected (samples, width) with 2 samples or more.")
    embeddings = embeddings.double()
    return Gaussian(embeddings.mean(dim=0), torch.cov(embeddings.T).reshape(embeddings.shape[1], -1))


def frechet_distance(a: Gaussian, b: Gaussian) -> Tensor:
    """Returns the Fréchet distance of two Gaussians, ``|μ_a − μ_b|² + Tr(Σ_a + Σ_b − 2 (Σ_a Σ_b)^½)``.

    The trace of the root is the sum of the singular values of ``Σ_a^½ Σ_b^½``. Unlike the eigenvalues of ``Σ_a Σ_b``,
    which is not symmetric, they are real and numerically stable where a covariance is singular: that is the case
    where there are fewer samples than dimensions.

    Args:
        a: Moments of the first set.
        b: Moments of the second set, of the same width.

    Returns:
        A scalar ≥ 0, in float64.

    Raises:
        ValueError: If the widths differ.

    Example:
        >>> import torch
        >>> a = Gaussian(torch.zeros(2), torch.eye(2))
        >>> frechet_distance(a, Gaussian(torch.ones(2), 4 * torch.eye(2)))
        tensor(4., dtype=torch.float64)
    """
    if a.mean.shape != b.mean.shape:
        raise ValueError(f"embeddings of width {len(a.mean)} and {len(b.mean)} cannot be compared: use one embedder.")
    return _distance(a, b, _root(b.covariance))


def extrapolate(samples: Tensor, reference: Gaussian, subsets: int = SUBSETS, seed: int = 0) -> Extrapolation:
    """Returns FAD∞, the distance without the bias of a finite number of samples (Gui et al. 2024).

    The distance of n samples is biased upwards by about a constant over n. So the function fits a line to the distances
    of subsets against 1/n; its value at 1/n = 0 has no such bias. The bias of the reference remains.

    Subsets are drawn without replacement, so that each is a sample from the distribution of the samples. The code that
    Gui et al. published draws with replacement, which keeps the bias of the whole set.

    Args:
        samples: Embeddings, ``(samples, width)``, samples ≥ 10. The bias is linear in 1/n only if there are many more
            samples than dimensions.
        reference: Moments of the set that the samples are compared with.
        subsets: Number of subsets. Their sizes go from half of the samples, at most 500, to all samples.
        seed: Seed for the subsets.

    Raises:
        ValueError: If there are fewer than 10 samples.
    """
    count = len(samples)
    if count < MIN_SAMPLES:
        raise ValueError(f"{count} samples: expected {MIN_SAMPLES} or more to extrapolate from.")
    root, rng = _root(reference.covariance), np.random.default_rng(seed)
    sizes = np.linspace(min(SMALLEST_SUBSET, count // 2), count, subsets).round().astype(int)
    chosen = (torch.from_numpy(rng.choice(count, size, replace=False)) for size in sizes)
    distances = np.array([float(_distance(gaussian(samples[rows]), reference, root)) for rows in chosen])
    slope, intercept = np.polyfit(1 / sizes, distances, 1)
    total = np.square(distances - distances.mean()).sum()
    unexplained = np.square(distances - intercept - slope / sizes).sum()
    return Extrapolation(float(intercept), float(slope), float(1 - unexplained / total) if total > 0 else 0.0)


class FrechetAudioDistance(Metric):
    """Computes ``fad`` and ``fad_inf`` of generated and reference embeddings over all batches and ranks.

    Args:
        seed: Seed for the subsets of the extrapolation.
    """

    full_state_update = False
    higher_is_better = False
    generated: list[Tensor]
    reference: list[Tensor]

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.seed = seed
        self.add_state("generated", default=[], dist_reduce_fx="cat")
        self.add_state("reference", default=[], dist_reduce_fx="cat")

    def update(self, embeddings: Tensor, real: bool) -> None:
        """Adds a batch of embeddings.

        Args:
            embeddings: Embeddings, ``(samples, width)``.
            real: Whether they belong to the reference.
        """
        (self.reference if real else self.generated).append(embeddings)

    def compute(self) -> dict[str, Tensor]:
        """Returns the distances as float64 scalars.

        Returns:
            ``fad``, see :func:`frechet_distance`; ``fad_inf``, ``slope`` and ``r2``, see :func:`extrapolate`.

        Raises:
            ValueError: If there are fewer than 10 generated or 2 reference samples, or their widths differ.
        """
        generated, reference = (dim_zero_cat(s).cpu() if len(s) else torch.empty(0, 1) for s in self._samples())
        real = gaussian(reference)
        distance = frechet_distance(gaussian(generated), real)
        line = extrapolate(generated, real, seed=self.seed)
        values = {"fad_inf": line.intercept, "slope": line.slope, "r2": line.r2}
        return {"fad": distance, **{name: torch.tensor(value, dtype=torch.float64) for name, value in values.items()}}

    def _samples(self) -> tuple[list[Tensor] | Tensor, list[Tensor] | Tensor]:
        # torchmetrics replaces the lists by tensors when it gathers them over ranks.
        return self.generated, self.reference


def _distance(a: Gaussian, b: Gaussian, root_b: Tensor) -> Tensor:
    a, b = (Gaussian(*(t.double() for t in g)) for g in (a, b))
    cross = torch.linalg.svdvals(_root(a.covariance) @ root_b).sum()
    distance = (a.mean - b.mean).square().sum() + a.covariance.trace() + b.covariance.trace() - 2 * cross
    return distance.clamp_min(0.0)  # rounding may give a small negative value


def _root(covariance: Tensor) -> Tensor:
    """Returns the symmetric square root of a covariance, in float64."""
    values, vectors = torch.linalg.eigh(covariance.double())
    return (vectors * values.clamp_min(0.0).sqrt()) @ vectors.T
