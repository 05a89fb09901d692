"""``make pick``: of all measured points the model that meets a wish best, as a folder that can be deployed."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import torch

from qd.commands.merge import merge
from qd.config.checks import folder_problems
from qd.config.loading import ConfigError
from qd.config.measuring import POINTS
from qd.config.protocols import clip_seconds
from qd.evaluation.evaluator import frozen_fingerprint, measurement_key
from qd.evaluation.measure import Sampling
from qd.evaluation.points import Point
from qd.metrics.pareto import non_dominated
from qd.models.checkpoints.resolver import resolve_model, step_folder
from qd.models.merging.in_memory import WeightSwapper
from qd.models.merging.model_spec import ModelSpec
from qd.models.musicgen import MusicGen
from qd.models.sampling_defaults import save_sampling_defaults
from qd.report.cards.model import README
from qd.report.data import ReportData, Setting


def pick(
    points: str | Path = POINTS,
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
            a folder that is there already, or weights that are no longer those that were measured.
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
    if problems := folder_problems("out", folder.parent):
        raise ConfigError(problems)
    _write(found, folder)
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
        less = best.metrics[name].mean - mean
        lines.append(f"- {name} {mean:.3f} [{lo:.3f}, {hi:.3f}]; the best of the front less {less:.3f}")
    point = found.point
    lines.append(f"- sample at T = {point.temperature:g}, guidance γ = {point.guidance_scale:g}{_against(point)}")
    lines.append(f"- measured on {point.n_prompts} prompts × {point.n_samples} samples ({point.protocol})")
    return "\n".join(lines)


def _against(point: Point) -> str:
    if point.guidance_scale == 1 or point.negative is None:
        return ""
    return f" against “{point.negative}” (`qd sample`; plain transformers knows no negative prompt)"


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


def _write(found: Setting, folder: Path) -> None:
    """The model, which plain transformers then samples as it was measured."""
    spec, point = _measured_model(found.point), found.point
    source = None if spec.merged else Path(resolve_model(spec.text))
    if source and not source.is_dir():
        raise ValueError(f"the best model is {point.model!r} of the hub, ready to deploy as it is")
    music = _checked(spec, found)
    if source:
        shutil.copytree(source, folder)
    elif spec.lam is not None:
        merge(*spec.names, lam=spec.lam, out=folder, extrapolate=True)
    else:
        merge(models=spec.text.split(), out=folder, extrapolate=True)
    save_sampling_defaults(folder, music, point.temperature, clip_seconds(point.protocol), point.guidance_scale)


def _measured_model(point: Point) -> ModelSpec:
    """What the point names; where an earlier version has written a run's name alone, the step that was measured."""
    spec = ModelSpec.parse(point.model)
    step = step_folder(Path(point.model), point.step)
    return ModelSpec.of(str(step)) if not spec.merged and step.is_dir() else spec


def _checked(spec: ModelSpec, found: Setting) -> MusicGen:
    """The model with the weights that the names stand for now, which are those that were measured."""
    point, weights = found.point, WeightSwapper()
    music = weights.load(spec, torch.device("cpu"))
    asked = (point.temperature, point.guidance_scale, point.negative, clip_seconds(point.protocol), point.seed)
    made_by = (weights.fingerprint, frozen_fingerprint(music), found.prompts, point.n_samples, Sampling(*asked))
    if measurement_key(*made_by, point.scorers) != point.key:
        raise ValueError(
            f"{spec} no longer holds the weights that were measured as point {point.key}: trained on, replaced or "
            "removed since. Put them back, or measure again (make evaluate, make sweep) and pick then"
        )
    return music
