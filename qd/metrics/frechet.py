"""Fréchet audio distance (Kilgour et al. 2019), and its extrapolation to infinitely many samples (Gui et al. 2024)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

LEAST = 10
"""Samples from which a line can be drawn at all."""
POINTS = 25
SMALLEST = 500
"""Of the sample sizes that the line goes through, where there are enough samples (Gui et al. 2024)."""


class Gaussian(NamedTuple):
    """What the distance looks at: mean ``(width,)`` and covariance ``(width, width)``, float64."""

    mean: Tensor
    covariance: Tensor


class Extrapolation(NamedTuple):
    """The line distance = intercept + slope / n.

    Attributes:
        intercept: FAD∞, the distance of infinitely many samples.
        slope: how fast the bias falls.
        r2: share of the variance of the distances that the line explains; where it is low, no line is there to go on.
    """

    intercept: float
    slope: float
    r2: float


def gaussian(embeddings: Tensor) -> Gaussian:
    """Mean and unbiased covariance of embeddings ``(samples, width)``.

    Raises:
        ValueError: for other shapes or fewer than 2 samples.
    """
    if embeddings.ndim != 2 or len(embeddings) < 2:
        raise ValueError(f"embeddings are {tuple(embeddings.shape)}: expected (samples, width) with 2 samples or more.")
    embeddings = embeddings.double()
    return Gaussian(embeddings.mean(dim=0), torch.cov(embeddings.T).reshape(embeddings.shape[1], -1))


def frechet_distance(a: Gaussian, b: Gaussian) -> Tensor:
    """|μ_a − μ_b|² + Tr(Σ_a + Σ_b − 2 (Σ_a Σ_b)^½), a scalar ≥ 0.

    The trace of the root is the sum of the singular values of Σ_a^½ Σ_b^½. Unlike a root of the product, which is not
    symmetric, they are real and stable where a covariance is singular, as it is of fewer samples than dimensions.

    Raises:
        ValueError: the widths differ.

    Example:
        >>> import torch
        >>> a = Gaussian(torch.zeros(2), torch.eye(2))
        >>> frechet_distance(a, Gaussian(torch.ones(2), 4 * torch.eye(2)))
        tensor(4., dtype=torch.float64)
    """
    if a.mean.shape != b.mean.shape:
        raise ValueError(f"embeddings of width {len(a.mean)} and {len(b.mean)} do not compare: use one embedder.")
    return _distance(a, b, _root(b.covariance))


def extrapolate(samples: Tensor, reference: Gaussian, points: int = POINTS, seed: int = 0) -> Extrapolation:
    """FAD∞: the distance of the first n of the samples is biased upwards by about a constant over n, so that the line
    through distances of subsets, over 1/n, meets 1/n = 0 at the distance without that bias.

    Subsets are drawn without replacement: each is then a sample of its size from what made the samples. The published
    code draws with replacement, which leaves the bias of the whole set in. That of the reference remains in both.

    Args:
        samples: embeddings ``(samples, width)``, 10 or more; many more than the width, or the bias is no line.
        reference: what they are compared with.
        points: subsets, of sizes from half of the samples (500 at most) to all.
        seed: of the subsets.

    Raises:
        ValueError: there are too few samples.
    """
    count = len(samples)
    if count < LEAST:
        raise ValueError(f"{count} samples: expected {LEAST} or more to extrapolate from.")
    root, rng = _root(reference.covariance), np.random.default_rng(seed)
    sizes = np.linspace(min(SMALLEST, count // 2), count, points).round().astype(int)
    subsets = (torch.from_numpy(rng.choice(count, size, replace=False)) for size in sizes)
    distances = np.array([float(_distance(gaussian(samples[rows]), reference, root)) for rows in subsets])
    slope, intercept = np.polyfit(1 / sizes, distances, 1)
    spread = np.square(distances - distances.mean()).sum()
    unexplained = np.square(distances - intercept - slope / sizes).sum()
    return Extrapolation(float(intercept), float(slope), float(1 - unexplained / spread) if spread > 0 else 0.0)


class FrechetAudioDistance(Metric):
    """``fad`` and ``fad_inf`` of generated against reference embeddings, over all batches and ranks.

    Args:
        seed: of the extrapolation's subsets.
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
        """Adds embeddings ``(samples, width)``, of the reference if ``real``."""
        (self.reference if real else self.generated).append(embeddings)

    def compute(self) -> dict[str, Tensor]:
        """Scalars: ``fad``, ``fad_inf``, and the line's ``slope`` and ``r2``.

        Raises:
            ValueError: there are fewer than 10 generated or 2 reference samples, or their widths differ.
        """
        generated, reference = (dim_zero_cat(s).cpu() if len(s) else torch.empty(0, 1) for s in self._samples())
        real = gaussian(reference)
        distance = frechet_distance(gaussian(generated), real)
        line = extrapolate(generated, real, seed=self.seed)
        values = {"fad_inf": line.intercept, "slope": line.slope, "r2": line.r2}
        return {"fad": distance, **{name: torch.tensor(value, dtype=torch.float64) for name, value in values.items()}}

    def _samples(self) -> tuple[list[Tensor] | Tensor, list[Tensor] | Tensor]:
        # Gathered over ranks, they are tensors.
        return self.generated, self.reference


def _distance(a: Gaussian, b: Gaussian, root_b: Tensor) -> Tensor:
    a, b = (Gaussian(*(t.double() for t in g)) for g in (a, b))
    cross = torch.linalg.svdvals(_root(a.covariance) @ root_b).sum()
    distance = (a.mean - b.mean).square().sum() + a.covariance.trace() + b.covariance.trace() - 2 * cross
    return distance.clamp_min(0.0)  # rounding


def _root(covariance: Tensor) -> Tensor:
    """The symmetric square root of a covariance, float64."""
    values, vectors = torch.linalg.eigh(covariance.double())
    return (vectors * values.clamp_min(0.0).sqrt()) @ vectors.T
