"""How much the samples of a prompt differ in musical facets (:mod:`qd.audio.facets`)."""

from __future__ import annotations

import torch
from torch import Tensor

from qd.audio.facets import Facets
from qd.objectives.diversity import diversity_reward, pairwise_dissimilarity

ABSENT = 0.5
"""Distance in octaves of a clip that has a tempo (a spectrum) and one that has none; 0 if both have none."""


def facet_metrics(facets: Facets) -> dict[str, Tensor]:
    """Returns the mean of each facet and its spread, the mean distance of two samples of the prompt.

    The distance of two clips a and b:

    - ``tempo_spread``: |log₂(a / b)|, folded: octaves from the nearest whole number of octaves, 0 to ½. So 60, 120 and
      240 beats a minute are equal, because estimates of tempo are ambiguous by octaves.
    - ``chroma_spread``: 1 − cosine of the two chroma vectors, 0 to 1. They are not rotated against each other: the
      same chords in another key differ.
    - ``brightness_spread``: |log₂(a / b)| of the centroids, in octaves.
    - ``onset_rate_spread``: |a − b|, onsets a second.
    - ``loudness_spread``: |a − b|, dB.

    Where only one of the clips has a tempo or a spectrum, the distance is ½ octave; its chroma distance is ½ too.

    Args:
        facets: Facets of all clips, each ``(prompts, samples)``, chroma ``(prompts, samples, 12)``, samples ≥ 2.

    Returns:
        ``tempo``, ``brightness``, ``onset_rate``, ``loudness`` and the five spreads, ``(prompts,)`` each.

    Raises:
        ValueError: If chroma is not three-dimensional, or there is a single sample.

    Example:
        >>> one = torch.ones(1, 2)
        >>> two = torch.tensor([[90.0, 180.0]])
        >>> metrics = facet_metrics(Facets(two, 10 * two, one, one, torch.ones(1, 2, 12)))
        >>> metrics["tempo"].item(), metrics["tempo_spread"].item(), metrics["brightness_spread"].item()
        (135.0, 0.0, 1.0)
    """
    distances = {
        "tempo": _octaves(facets.tempo, folded=True),
        "chroma": pairwise_dissimilarity(facets.chroma),
        "brightness": _octaves(facets.brightness),
        "onset_rate": _differences(facets.onset_rate).abs(),
        "loudness": _differences(facets.loudness).abs(),
    }
    means = {name: getattr(facets, name).mean(dim=1) for name in distances if name != "chroma"}
    return means | {f"{name}_spread": diversity_reward(pairs) for name, pairs in distances.items()}


def _octaves(values: Tensor, folded: bool = False) -> Tensor:
    """Distances of the frequencies of all pairs in octaves; a frequency of 0 means that there is none."""
    present = values > 0
    octaves = _differences(values.where(present, 1.0).log2())
    octaves = (octaves - octaves.round() if folded else octaves).abs()
    both = present[:, :, None] & present[:, None, :]
    one = present[:, :, None] ^ present[:, None, :]
    return torch.where(both, octaves, ABSENT * one)


def _differences(values: Tensor) -> Tensor:
    return values[:, :, None] - values[:, None, :]
