"""Labels of points and of the lines through them."""

from __future__ import annotations

import re
from pathlib import Path

from qd.evaluation.points import Point


def short(name: str) -> str:
    """Short name of a model: ``runs/reproduction/beta0`` → ``β = 0``; other names keep their last part."""
    path = Path(name)
    last = (path.parent if path.name.startswith("step-") else path).name
    beta = re.fullmatch(r"beta([0-9.]+)", last)
    return f"β = {beta[1]}" if beta else last


def model_label(point: Point) -> str:
    """Label of a point: ``base``, ``base, γ = 3``, ``LERP(0, 15), λ = 0.5``."""
    words = point.model.split()
    if len(words) > 1:
        names = [short(word.rsplit(":", 1)[0]).removeprefix("β = ") for word in words]
        inside = ", ".join(names)
        return f"LERP({inside}), λ = {point.lam:g}" if point.lam is not None else f"LERP({inside})"
    parts = [_finetuned(point) if point.beta is not None else short(point.model)]
    if point.guidance_scale != 1:
        parts.append(f"γ = {point.guidance_scale:g}")
    return ", ".join(parts)


def _finetuned(point: Point) -> str:
    """``β = 15``, with the rest of the run's name: ``β = 15 (seed1)`` for ``beta15-seed1``."""
    label, name = f"β = {point.beta:g}", Path(point.run).name
    more = name.removeprefix(f"beta{point.beta:g}").removeprefix("-")
    return f"{label} ({more})" if more else label


def series_label(name: str, point: Point) -> str:
    """Name of a series in a legend: the quantity that varies, and the model."""
    words = [short(word.rsplit(":", 1)[0]) for word in point.model.split()]
    if name.startswith(("slider", "lerp")):
        return f"LERP({', '.join(word.removeprefix('β = ') for word in words)}), λ"
    if name.startswith("guidance"):
        return f"CFG γ on {words[0]}, {'unconditional' if 'unconditional' in name else 'negative prompt'}"
    if name.startswith("temperature"):
        return f"temperature on {words[0]}"
    return "trained models" if name == "betas" else "mean of weights" if name == "soup" else name
