"""The affine map that gives a scorer a known mean and spread."""

from __future__ import annotations

from torch import Tensor


def affine(raw: Tensor, deviation: float) -> tuple[float, float]:
    """Scale and offset that give ``raw`` ``(clips,)`` mean 0 and the standard deviation asked for.

    Raises:
        ValueError: the raw scores do not vary.
    """
    raw = raw.double()
    spread = float(raw.std())
    if not spread > 1e-6:
        raise ValueError(f"raw scores have standard deviation {spread:g}; a scorer that tells clips apart is expected")
    scale = deviation / spread
    return scale, -scale * float(raw.mean())
