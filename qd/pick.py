"""``make pick``: of all measured points the model that meets a wish best, as a folder that can be deployed."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from qd.evaluation.model_spec import ModelSpec
from qd.evaluation.points import Point
from qd.merging.merge import merge
from qd.model_card import README
from qd.models.resolver import resolve_model
from qd.pareto import non_dominated
from qd.report.data import ReportData, Setting


def pick(
    points: str | Path,
    *,
    quality: float | None = None,
    diversity: float | None = None,
    allow_guidance: bool = False,
    out: str | Path | None = None,
    protocol: str | None = None,
    scorers: str | None = None,
) -> tuple[Setting, Path]:
    """Writes the model of the measured front that has the wished diversity and the best quality, or the reverse.

    Args:
        points: the results file.
        quality, diversity: the wish, exactly one of them: at least so much.
        allow_guidance: consider models that need guidance when they are deployed, at twice the cost.
        out: folder to make; ``runs/picked/<what it is>`` if None.
        protocol, scorers: which points to take, see :class:`~qd.report.data.ReportData`.

    Returns:
        The setting, and the folder.

    Raises:
        ValueError: not one wish, points that do not compare, no point that may be deployed, a wish beyond the front,
            or a folder that is there already.
    """
    if (quality is None) == (diversity is None):
        raise ValueError("name one wish: DIVERSITY=0.45 or QUALITY=1.2")
    data = ReportData(points, protocol, scorers)
    wish, other = ("quality", "diversity") if diversity is None else ("diversity", "quality")
    least = quality if diversity is None else diversity
    front = _front(data, allow_guidance)
    found = _best(front, wish, least, other)
    folder = Path(out) if out else Path("runs/picked") / f"{wish}-{least:g}"
    if folder.exists():
        raise ValueError(f"{folder} is there already; remove it, or name another OUT")
    _write(found.point, folder)
    with (folder / README).open("a", encoding="utf-8") as card:
        card.write(f"\n{told(found, front, wish, least)}\n")
    return found, folder


def _best(front: Sequence[Setting], wish: str, least: float, other: str) -> Setting:
    """The most of the other, where there is enough of the wish."""
    meets = [one for one in front if one.metrics[wish].mean >= least]
    if not meets:
        best = max(front, key=lambda one: one.metrics[wish].mean)
        raise ValueError(
            f"no measured model has {wish} {least:g}; the front reaches {best.metrics[wish].mean:.3f}, with {other} "
            f"{best.metrics[other].mean:.3f} ({best.point.model}). Wish for less, or measure more models"
        )
    return max(meets, key=lambda one: one.metrics[other].mean)


def told(found: Setting, front: Sequence[Setting], wish: str, least: float) -> str:
    """What was picked, and what it costs beside the ends of the front."""
    lines = [f"## Picked\n\nAsked for {wish} of at least {least:g}, of {len(front)} models on the front:\n"]
    for name in ("quality", "diversity"):
        best = max(front, key=lambda one, name=name: one.metrics[name].mean)
        mean, lo, hi = found.metrics[name]
        cost = mean - best.metrics[name].mean
        lines.append(f"- {name} {mean:.3f} [{lo:.3f}, {hi:.3f}]; the best of the front less {-cost:.3f}")
    point = found.point
    lines.append(f"- sample at T = {point.temperature:g}, guidance γ = {point.guidance_scale:g}")
    lines.append(f"- measured on {point.n_prompts} prompts × {point.n_samples} samples ({point.protocol})")
    return "\n".join(lines)


def _front(data: ReportData, allow_guidance: bool) -> list[Setting]:
    settings: dict[str, Setting] = {}
    for name in data.names:
        for setting in data.series(name):
            if allow_guidance or setting.point.guidance_scale == 1:
                settings.setdefault(setting.point.key, setting)
    if not settings:
        raise ValueError("all points need guidance; measure models without it, or allow it (--allow-guidance)")
    candidates = list(settings.values())
    on_front = non_dominated([setting.place for setting in candidates])
    return [setting for setting, kept in zip(candidates, on_front, strict=True) if kept]


def _write(point: Point, folder: Path) -> None:
    spec = ModelSpec.parse(point.model)
    if spec.merged and spec.lam is not None:
        merge(*spec.names, lam=spec.lam, out=folder, extrapolate=True)
    elif spec.merged:
        merge(models=point.model.split(), out=folder, extrapolate=True)
    else:
        source = Path(resolve_model(point.model))
        if not source.is_dir():
            raise ValueError(f"the best model is {point.model!r} of the hub, ready to deploy as it is")
        shutil.copytree(source, folder)
