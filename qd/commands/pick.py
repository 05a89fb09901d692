"""``make pick``: writes the measured model that best meets a target, as a folder that can be deployed."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import torch

from qd.commands.merge import merge
from qd.config.checks import new_place_problems
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
    """Writes the model with the best quality at a minimum diversity, or the reverse.

    Args:
        points: Results file.
        quality: Minimum quality; exactly one of quality and diversity is the target.
        diversity: Minimum diversity.
        allow_guidance: Whether models that need guidance, at twice the cost, are allowed.
        out: Folder to make; ``runs/picked/<target>`` if None.
        protocol: Protocol of the points; see :class:`~qd.report.data.ReportData`.
        scorers: Part of the description of the scorers; see :class:`~qd.report.data.ReportData`.

    Returns:
        The setting, and the folder.

    Raises:
        ValueError: There is not exactly one target, the points are not comparable, no point may be deployed, the
            target is beyond the front, the folder exists, or the weights have changed since the measurement.
    """
    if (quality is None) == (diversity is None):
        raise ValueError("name one target: DIVERSITY=0.45 or QUALITY=1.2")
    data = ReportData(points, protocol, scorers)
    target, other = ("quality", "diversity") if diversity is None else ("diversity", "quality")
    minimum = quality if diversity is None else diversity
    front = _front(data, allow_guidance)
    picked = _best(front, target, minimum, other)
    folder = Path(out) if out else Path("runs/picked") / f"{target}-{minimum:g}"
    if problems := new_place_problems("out", folder):
        raise ConfigError(problems)
    try:
        _write(picked, folder)
        with (folder / README).open("a", encoding="utf-8") as card:
            card.write(f"\n{card_section(picked, front, target, minimum)}\n")
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return picked, folder


def _best(front: Sequence[Setting], target: str, minimum: float, other: str) -> Setting:
    """The setting with the most of ``other`` among those that reach the target."""
    meets = [one for one in front if one.metrics[target].mean >= minimum]
    if not meets:
        best = max(front, key=lambda one: one.metrics[target].mean)
        raise ValueError(
            f"no measured model has {target} {minimum:g}; the front reaches {best.metrics[target].mean:.3f}, with "
            f"{other} {best.metrics[other].mean:.3f} ({best.point.model}). Lower the target, or measure more models"
        )
    return max(meets, key=lambda one: one.metrics[other].mean)


def card_section(picked: Setting, front: Sequence[Setting], target: str, minimum: float) -> str:
    """The section of the card on the picked setting, and its distance to the ends of the front."""
    lines = [f"## Picked\n\nTarget: {target} of at least {minimum:g}; {len(front)} models are on the front.\n"]
    for name in ("quality", "diversity"):
        best = max(front, key=lambda one, name=name: one.metrics[name].mean)
        mean, lo, hi = picked.metrics[name]
        less = best.metrics[name].mean - mean
        lines.append(f"- {name} {mean:.3f} [{lo:.3f}, {hi:.3f}]; {less:.3f} below the best of the front")
    point = picked.point
    lines.append(f"- sample at T = {point.temperature:g}, guidance γ = {point.guidance_scale:g}{_against(point)}")
    lines.append(f"- measured on {point.n_prompts} prompts × {point.n_samples} samples ({point.protocol})")
    return "\n".join(lines)


def _against(point: Point) -> str:
    if point.guidance_scale == 1 or point.negative is None:
        return ""
    return f" against “{point.negative}” (`qd sample`; plain transformers supports no negative prompt)"


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
    return [setting for setting, chosen in zip(candidates, on_front, strict=True) if chosen]


def _write(picked: Setting, folder: Path) -> None:
    """Writes the model, with sampling defaults that let plain transformers sample as in the measurement."""
    spec, point = _measured_model(picked.point), picked.point
    source = None if spec.merged else Path(resolve_model(spec.text))
    if source and not source.is_dir():
        raise ValueError(f"the best model is {point.model!r} of the hub, which is ready to deploy")
    music = _load_checked(spec, picked)
    if source:
        shutil.copytree(source, folder)
    elif spec.lam is not None:
        merge(*spec.names, lam=spec.lam, out=folder, extrapolate=True)
    else:
        merge(models=spec.text.split(), out=folder, extrapolate=True)
    save_sampling_defaults(folder, music, point.temperature, clip_seconds(point.protocol), point.guidance_scale)


def _measured_model(point: Point) -> ModelSpec:
    """The model of the point; earlier versions wrote only the run's name, which then means the measured step."""
    spec = ModelSpec.parse(point.model)
    step = step_folder(Path(point.model), point.step)
    return ModelSpec.of(str(step)) if not spec.merged and step.is_dir() else spec


def _load_checked(spec: ModelSpec, picked: Setting) -> MusicGen:
    """Loads the model, and checks that its weights are the measured ones."""
    point, weights = picked.point, WeightSwapper()
    music = weights.load(spec, torch.device("cpu"))
    sampling = Sampling(
        point.temperature, point.guidance_scale, point.negative, clip_seconds(point.protocol), point.seed
    )
    made_by = (weights.fingerprint, frozen_fingerprint(music), picked.prompts, point.n_samples, sampling)
    if measurement_key(*made_by, point.scorers) != point.key:
        raise ValueError(
            f"{spec} no longer has the weights of the measured point {point.key}: they were trained further, replaced "
            "or removed. Restore them, or measure again (make evaluate, make sweep) and pick again"
        )
    return music
