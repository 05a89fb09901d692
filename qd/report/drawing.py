"""Building blocks of the report's figures: panels, lines with intervals, the quality–diversity plane."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import cycle
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from qd.evaluation.figures import AXES, STYLES, error_bars
from qd.evaluation.points import Point
from qd.metrics.bootstrap import Interval
from qd.metrics.pareto import smooth_line
from qd.report.data import ReportData, Setting, Training
from qd.report.labels import model_label, series_label

WIDE = (12.0, 4.2)
SQUARE = (8.4, 6.2)
"""Figure sizes in inches."""

MANY = 8
"""Least number of interpolated models for which a cubic is drawn; with fewer, it would follow the noise."""
MARGIN = 0.2
"""Margin around the points of an enlarged panel, as a share of their range."""


class Drawing(NamedTuple):
    """A figure of the report.

    Attributes:
        title: One sentence about the figure's content.
        draw: Draws the figure; raises :class:`~qd.evaluation.results.NotMeasuredError` if points are missing.
        series: Prefixes of the names of the series that it shows.
        trained: Whether it also shows training runs.
    """

    title: str
    draw: Callable[[ReportData, Sequence[Training]], Figure]
    series: tuple[str, ...]
    trained: bool = False


def draw_plane(axes: Axes, data: ReportData, series: Mapping[str, list[Setting]], bound: bool = False) -> None:
    """Draws series of settings on the quality–diversity plane, with light intervals.

    Many interpolated models are joined by a smooth curve, which hides their noise, and every fifth one has its
    interval. The ends of a curve are labelled, unless they are trained models, which have labels of their own.

    Args:
        axes: Axes to draw in.
        data: The report's data, for the title.
        series: Settings by name of the series.
        bound: Whether to draw the mean dissimilarity between clips of different prompts.
    """
    drawn = [(name, settings) for name, settings in series.items() if settings]
    for (name, settings), style in zip(drawn, cycle(STYLES), strict=False):
        x, y = ([setting.metrics[metric] for setting in settings] for metric in ("quality", "diversity"))
        means = [v.mean for v in x], [v.mean for v in y]
        is_curve, label = not name.startswith(("betas", "soup")), series_label(name, settings[0].point)
        if len(settings) >= MANY and all(setting.point.lam is not None for setting in settings):
            draw_spread(axes, x[::5], y[::5])
            draw_smooth_line(axes, [setting.point.lam for setting in settings], *means, style, label)
        else:
            draw_spread(axes, x, y)
            draw_line(axes, *means, style if is_curve else (style[0], "none", style[2]), label)
        if is_curve:
            for setting in (settings[0], settings[-1]):
                if "betas" in series and setting.point.lam in (0, 1):
                    continue
                axes.annotate(
                    _end_label(name, setting.point),
                    setting.place,
                    xytext=(4, 3),
                    textcoords="offset points",
                    fontsize=6,
                )
        elif name == "betas":
            for setting in settings:
                text = model_label(setting.point)
                axes.annotate(text, setting.place, xytext=(4, -8), textcoords="offset points", fontsize=6)
    if bound and (base := _base(series)):
        axes.axhline(
            base.cross_prompt_bound, color="black", linestyle=(0, (8, 4)), linewidth=0.9, label="two different prompts"
        )
    axes.set_title(f"protocol {data.protocol}", fontsize=9)
    name_axes(axes, "quality", "diversity")


def _base(series: Mapping[str, list[Setting]]) -> Setting | None:
    """The base model without guidance; None if it was not measured."""
    plain = [one for name in series if name.startswith(("betas", "guidance")) for one in series[name]]
    return next((one for one in plain if one.point.model == "base" and one.point.guidance_scale == 1), None)


def _end_label(series: str, point: Point) -> str:
    if point.lam is not None:
        return f"λ={point.lam:g}"
    return f"T={point.temperature:g}" if series.startswith("temperature") else f"γ={point.guidance_scale:g}"


def enlarge(whole: Axes, near: Axes, x: Sequence[float], y: Sequence[float]) -> None:
    """Limits ``near`` to the region around the given points, and frames this region in ``whole``."""
    (left, right), (bottom, top) = (_around(values) for values in (x, y))
    near.set_xlim(left, right)
    near.set_ylim(bottom, top)
    frame = Rectangle((left, bottom), right - left, top - bottom, fill=False, linestyle="--", linewidth=0.9, zorder=4)
    whole.add_patch(frame)
    for text in whole.texts:  # labels inside the frame are shown in the other panel
        text.set_visible(not (left <= text.xy[0] <= right and bottom <= text.xy[1] <= top))
    near.set_title("framed region, enlarged", fontsize=9)
    near.get_legend().remove()


def _around(values: Sequence[float]) -> tuple[float, float]:
    margin = MARGIN * (max(values) - min(values)) or 0.1
    return min(values) - margin, max(values) + margin


def panels(count: int) -> tuple[Figure, Sequence[Axes]]:
    figure = Figure(figsize=WIDE, layout="constrained")
    return figure, figure.subplots(1, count)


def draw_spread(axes: Axes, x: Sequence[Interval], y: Sequence[Interval]) -> None:
    """Draws light intervals in both directions, behind everything else."""
    means = [value.mean for value in x], [value.mean for value in y]
    axes.errorbar(
        *means, xerr=error_bars(x), yerr=error_bars(y), fmt="none", ecolor="#CCCCCC", elinewidth=0.7, zorder=1
    )


def draw_line(axes: Axes, x: Sequence[float], y: Sequence[float], style: tuple, label: str) -> None:
    colour, line, marker = style
    axes.plot(
        x, y, color=colour, linestyle=line, linewidth=1.2, marker=marker, markersize=4.5, markerfacecolor="white",
        label=label, zorder=3,
    )  # fmt: skip


def draw_smooth_line(
    axes: Axes, lams: Sequence[float], x: Sequence[float], y: Sequence[float], style: tuple, label: str
) -> None:
    """Draws interpolated models and their smoothed curve."""
    colour, line, marker = style
    axes.plot(x, y, color=colour, linestyle="none", marker=marker, markersize=3.5, markerfacecolor="white", zorder=3)
    axes.plot(*smooth_line(np.array(lams), np.column_stack([x, y])).T, color=colour, linestyle=line, zorder=2)
    axes.plot([], [], color=colour, linestyle=line, marker=marker, markerfacecolor="white", label=label)


def draw_intervals(axes: Axes, x: Sequence[float], values: Sequence[Interval], style: tuple, label: str) -> None:
    colour, line, marker = style
    axes.errorbar(
        x, [value.mean for value in values], yerr=error_bars(values), color=colour, linestyle=line, marker=marker,
        markersize=4.5, markerfacecolor="white", linewidth=1.2, elinewidth=0.7, capsize=2, label=label,
    )  # fmt: skip


def draw_dots(
    axes: Axes,
    settings: Mapping[str, Setting],
    metric: str,
    style: tuple = ("black", "none", "o"),
    shift: float = 0.0,
    label: str | None = None,
) -> None:
    """Draws one row for each setting, with its interval.

    Args:
        axes: Axes to draw in.
        settings: Settings by label.
        metric: Name of the metric.
        style: Colour, line and marker; the line is ignored.
        shift: How far below the middle of its row a dot is, in rows.
        label: Text for a legend.
    """
    colour, _, marker = style
    values = [setting.metrics[metric] for setting in settings.values()]
    rows = range(len(values))
    axes.errorbar(
        [value.mean for value in values], [row + shift for row in rows], xerr=error_bars(values), linestyle="none",
        color=colour, marker=marker, markerfacecolor="white", capsize=2, label=label,
    )  # fmt: skip
    axes.set_yticks(rows, list(settings))
    axes.set_ylim(len(values) - 0.5, -0.5)
    axes.set_xlabel(AXES[metric])
    axes.grid(color="#EEEEEE")
    axes.set_axisbelow(True)


def name_axes(axes: Axes, x: str, y: str) -> None:
    axes.set_xlabel(AXES[x])
    axes.set_ylabel(AXES[y])
    finish(axes)


def finish(axes: Axes) -> None:
    axes.grid(color="#EEEEEE")
    axes.set_axisbelow(True)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=7, framealpha=0.7)
