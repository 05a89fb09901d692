"""The quality–diversity plane: trajectories, the base model, its guided self, the upper bound (Figs. 1 and 2)."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from qd.evaluation.points import FILE, Point, PointsFile, comparable
from qd.metrics.bootstrap import Interval

MAX_SIBLINGS = 8
"""Number of other runs in a figure: the most recently measured ones, one line style each."""

AXES = {
    "quality": "quality: ω · adherence + preference",
    "adherence": "adherence: cosine of text and audio",
    "preference": "preference: score of the listener's model",
    "diversity": "diversity: mean 1 − cos in a prompt",
    "diversity_heldout": "diversity, held-out embedder",
    "diversity_clean": "diversity of clean clips",
    "diversity_clean_heldout": "diversity of clean clips, held-out embedder",
    "diversity_effective": "diversity of effective clips",
    "diversity_effective_heldout": "diversity of effective clips, held-out embedder",
    "vendi": "Vendi score: effective number of samples",
    "entropy": "entropy: nats a token",
    "tempo_spread": "tempo spread, octaves (folded)",
    "chroma_spread": "chroma spread, 1 − cos",
    "brightness_spread": "brightness spread, octaves",
    "onset_rate_spread": "onset rate spread, onsets/s",
    "loudness_spread": "loudness spread, dB",
}
"""Axis labels of the metrics; the scores have no unit."""

# Colour-blind safe (Okabe, Ito); line style and marker also differ.
STYLES = (
    ("#0072B2", "--", "s"),
    ("#D55E00", "-.", "^"),
    ("#009E73", ":", "D"),
    ("#CC79A7", (0, (5, 1)), "v"),
    ("#E69F00", (0, (3, 1, 1, 1)), "P"),
    ("#56B4E9", (0, (1, 1)), "<"),
    ("#7A7A7A", (0, (7, 3)), ">"),
    ("#5D3A9B", (0, (3, 2, 1, 2, 1, 2)), "h"),
)


@dataclass(frozen=True)
class Landmarks:
    """References of a figure: the base model without and with CFG, and the mean dissimilarity of two prompts."""

    base: Point
    cfg: Point
    cross_prompt_bound: float


def sibling_trajectories(runs: Path, point: Point) -> dict[str, list[Point]]:
    """Returns the comparable points of the other runs under ``runs``, by run, oldest run first."""
    files = [path for path in runs.glob(f"*/{FILE}") if path.parent.name != point.run]
    siblings: dict[str, list[Point]] = {}
    for path in sorted(files, key=_written, reverse=True):
        try:
            points = [other for other in PointsFile(path).read() if comparable(other, point)]
        except (ValueError, OSError) as error:  # a damaged or removed file of another run must not stop this one
            warnings.warn(f"not drawn: {error}", stacklevel=2)
            continue
        if points and len(siblings) < MAX_SIBLINGS:
            siblings[path.parent.name] = points
    return dict(reversed(siblings.items()))


def _written(file: Path) -> float:
    """Time of the last write; 0 if the file was removed since it was listed."""
    try:
        return file.stat().st_mtime
    except OSError:
        return 0.0


def pareto_figure(
    trajectory: Sequence[Point],
    siblings: Mapping[str, Sequence[Point]] | None = None,
    landmarks: Landmarks | None = None,
) -> Figure:
    """Draws quality (x) against diversity (y).

    Args:
        trajectory: Points of this run in the order of their steps; each is labelled with its step.
        siblings: Points of other runs.
        landmarks: Base model, CFG and the upper bound.

    Raises:
        ValueError: There are no points, or points with different protocols or scorers.
    """
    if not trajectory:
        raise ValueError("pareto_figure got no points; measure one first")
    siblings = siblings or {}
    marks = (landmarks.base, landmarks.cfg) if landmarks else ()
    for point in (*trajectory, *marks, *(p for points in siblings.values() for p in points)):
        if not comparable(point, trajectory[0]):
            raise ValueError(
                f"{point.run} was measured by {point.protocol} / {point.scorers}, "
                f"{trajectory[0].run} by {trajectory[0].protocol} / {trajectory[0].scorers}: draw them on two plots"
            )
    figure = Figure(figsize=(7.2, 5.0), layout="constrained")
    axes = figure.add_subplot()
    for (run, points), (colour, line, marker) in zip(siblings.items(), STYLES, strict=False):
        _draw(axes, points, f"{run}{_beta(points[0])}", colour, line, marker, width=1.1, size=4)
    if landmarks:
        _draw_landmarks(axes, landmarks)
    _draw(axes, trajectory, f"{trajectory[0].run}{_beta(trajectory[0])}", "black", "-", "o", width=1.8, size=6)
    for point in trajectory:
        axes.annotate(str(point.step), _xy(point), xytext=(5, 5), textcoords="offset points", fontsize=7, zorder=5)
    _label(axes, trajectory[-1])
    return figure


def _draw_landmarks(axes: Axes, landmarks: Landmarks) -> None:
    cfg = landmarks.cfg
    negative = "unconditional" if cfg.negative is None else f"“{cfg.negative}”"
    _draw(axes, [landmarks.base], "base, γ = 1", "black", "none", "*", size=13)
    _draw(axes, [cfg], f"base, CFG γ = {cfg.guidance_scale:g}, {negative}", "black", "none", "X", size=9)
    axes.axhline(
        landmarks.cross_prompt_bound, color="black", linestyle=(0, (8, 4)), linewidth=0.9, label="two different prompts"
    )


def _draw(
    axes: Axes,
    points: Sequence[Point],
    label: str,
    colour: str,
    line: str | tuple,
    marker: str,
    *,
    width: float = 1.0,
    size: float,
) -> None:
    """Draws one line through the points, with light bars for the intervals."""
    x, y = [p.metrics["quality"] for p in points], [p.metrics["diversity"] for p in points]
    axes.errorbar(
        [v.mean for v in x],
        [v.mean for v in y],
        xerr=error_bars(x),
        yerr=error_bars(y),
        fmt="none",
        ecolor="#BBBBBB",
        elinewidth=0.8,
        zorder=1,
    )
    axes.plot(
        [v.mean for v in x],
        [v.mean for v in y],
        color=colour,
        linestyle=line,
        linewidth=width,
        marker=marker,
        markersize=size,
        markerfacecolor="white" if len(points) > 1 else colour,
        label=label,
        zorder=3,
    )


def error_bars(values: Sequence[Interval]) -> list[list[float]]:
    """Returns the distances from the mean down and up to the ends of the interval."""
    return [[max(v.mean - v.lo, 0.0) for v in values], [max(v.hi - v.mean, 0.0) for v in values]]


def _xy(point: Point) -> tuple[float, float]:
    return point.metrics["quality"].mean, point.metrics["diversity"].mean


def _beta(point: Point) -> str:
    return "" if point.beta is None else f" (β = {point.beta:g})"


def _label(axes: Axes, point: Point) -> None:
    axes.set_xlabel(AXES["quality"])
    axes.set_ylabel(AXES["diversity"])
    size = f"{point.n_prompts} prompts × {point.n_samples} samples"
    axes.set_title(f"{point.protocol}: {size}, 95 % intervals", fontsize=9)
    axes.grid(color="#EEEEEE")
    axes.set_axisbelow(True)
    axes.legend(fontsize=7, framealpha=0.9)
