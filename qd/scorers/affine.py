"""The affine map that gives a scorer a known mean and standard deviation."""

from __future__ import annotations

from torch import Tensor


def affine(raw: Tensor, deviation: float) -> tuple[float, float]:
    """Returns the scale and offset that map ``raw`` ``(clips,)`` to mean 0 and the standard deviation ``deviation``.

    Raises:
        ValueError: the raw scores do not vary.
    """
    raw = raw.double()
    spread = float(raw.std())
    if not spread > 1e-6:
        raise ValueError(f"raw scores have standard deviation {spread:g}; expected scores that differ between clips")
    scale = deviation / spread
    return scale, -scale * float(raw.mean())
