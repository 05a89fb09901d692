"""The paper's figures, each a function of the data; :data:`FIGURES` lists them with what each one shows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from qd.evaluation.figures import STYLES
from qd.report.data import NotMeasuredError, ReportData, Setting, Training
from qd.report.labels import AXES, model_label, series_label

WIDE = (11.0, 3.9)
SQUARE = (7.2, 5.4)


class Drawing(NamedTuple):
    """A figure of the paper.

    Attributes:
        title: what it shows, in a sentence. draw: makes it; raises :class:`NotMeasuredError`.
    """

    title: str
    draw: Callable[[ReportData, Sequence[Training]], Figure]


def trajectories(data: ReportData, runs: Sequence[Training]) -> Figure:
    """Figure 1, right: training trajectories, and beside them (another protocol) interpolation and guidance."""
    runs = _need_runs(runs)
    figure, (left, right) = _axes(2)
    for run, style in zip(runs, STYLES, strict=False):
        places = [(p.metrics["quality"].mean, p.metrics["diversity"].mean) for p in run.points]
        _line(left, *zip(*places, strict=True), style, f"{run.name} (β = {run.beta:g})")
        for point, place in zip(run.points, places, strict=True):
            left.annotate(str(point.step), place, xytext=(3, 3), textcoords="offset points", fontsize=6)
    left.set_title(f"training, every so many steps; {runs[0].points[0].protocol}", fontsize=9)
    try:
        _plane(right, data, data.starting("lerp-", "guidance-base"))
    except NotMeasuredError:
        right.set_visible(False)
    _name(left, "quality", "diversity")
    return figure


def training_curves(data: ReportData, runs: Sequence[Training]) -> Figure:
    """Figure 2: KL to the guided teacher, quality and diversity along training."""
    runs = _need_runs(runs)
    figure, (left, middle, right) = _axes(3)
    for run, style in zip(runs, STYLES, strict=False):
        label = f"{run.name} (β = {run.beta:g})"
        steps, kl = run.scalars.get("train/kl_per_token", (np.array([]), np.array([])))
        window = max(1, len(kl) // 40)
        smooth = np.convolve(kl, np.ones(window) / window, mode="valid")
        left.plot(steps[len(steps) - len(smooth) :], smooth, color=style[0], linestyle=style[1], label=label)
        for axes, name in ((middle, "quality"), (right, "diversity")):
            values = [point.metrics[name] for point in run.points]
            _bars(axes, [point.step for point in run.points], values, style, label)
    left.set_yscale("log")
    left.set_ylabel("KL to the guided teacher, nats a token (running mean)")
    middle.set_ylabel(AXES["quality"])
    right.set_ylabel(AXES["diversity"])
    for axes in (left, middle, right):
        axes.set_xlabel("optimiser step")
        _finish(axes)
    return figure


def fronts(data: ReportData, runs: Sequence[Training]) -> Figure:
    """Figure 3: every strategy on one plane."""
    figure = Figure(figsize=SQUARE, layout="constrained")
    _plane(figure.add_subplot(), data, data.starting("lerp-", "soup", "guidance-", "temperature-", "betas"), bound=True)
    return figure


def interpolation(data: ReportData, runs: Sequence[Training]) -> Figure:
    """Figure 4: quality and diversity along λ, with the straight line between the ends; and the front beside CFG's."""
    lerp = data.need("lerp-beta0-beta15")
    figure, axes = _axes(3)
    for axis, name in zip(axes, ("quality", "diversity"), strict=False):
        lams = [setting.point.lam for setting in lerp]
        values = [setting.metrics[name] for setting in lerp]
        _bars(axis, lams, values, STYLES[0], "interpolated weights")
        ends = values[0].mean, values[-1].mean
        axis.plot((lams[0], lams[-1]), ends, "k--", linewidth=1, label="traded linearly")
        axis.set_xlabel("λ: weight of the diverse model")
        axis.set_ylabel(AXES[name])
        _finish(axis)
    _plane(axes[2], data, {"lerp-beta0-beta15": lerp, "guidance-base": data.series("guidance-base")})
    return figure


def guidance(metrics: tuple[str, str]) -> Callable[[ReportData, Sequence[Training]], Figure]:
    """Figures 6 and 7: two metrics against γ, negative prompt and unconditional."""

    def draw(data: ReportData, runs: Sequence[Training]) -> Figure:
        figure, axes = _axes(2)
        for (name, settings), style in zip(data.starting("guidance-").items(), STYLES, strict=False):
            for axis, metric in zip(axes, metrics, strict=True):
                scales = [setting.point.guidance_scale for setting in settings]
                label = series_label(name, settings[0].point).removeprefix("CFG γ on ")
                _bars(axis, scales, [setting.metrics[metric] for setting in settings], style, label)
        for axis, metric in zip(axes, metrics, strict=True):
            axis.set_xlabel("guidance scale γ")
            axis.set_ylabel(AXES[metric])
            _finish(axis)
        return figure

    return draw


def scores(data: ReportData, runs: Sequence[Training]) -> Figure:
    """Figure 8: the two parts of quality, model by model."""
    figure = Figure(figsize=SQUARE, layout="constrained")
    axes = figure.add_subplot()
    for (label, setting), (colour, _, marker) in zip(headline(data).items(), STYLES * 2, strict=False):
        x, y = setting.metrics["adherence"], setting.metrics["preference"]
        axes.errorbar(
            x.mean, y.mean, xerr=_error([x]), yerr=_error([y]), fmt=marker, color=colour, label=label,
            markerfacecolor="white", markersize=7, elinewidth=0.8,
        )  # fmt: skip
    _name(axes, "adherence", "preference")
    return figure


def diversities(data: ReportData, runs: Sequence[Training]) -> Figure:
    """Figure 9 without its panel of human ratings: diversity by both embedders, and entropy."""
    figure, axes = _axes(3)
    models = headline(data)
    for axis, name in zip(axes, ("diversity", "diversity_heldout", "entropy"), strict=True):
        values = [setting.metrics[name] for setting in models.values()]
        means = [value.mean for value in values]
        bars = axis.barh(range(len(models)), means, xerr=_error(values), color="#DDDDDD", edgecolor="black", capsize=2)
        for bar, hatch in zip(bars, ("", "//", "..", "xx", "\\\\", "--", "++", "oo"), strict=False):
            bar.set_hatch(hatch)
        axis.set_yticks(range(len(models)), list(models))
        axis.invert_yaxis()
        axis.set_xlabel(AXES[name])
        if name == "entropy":
            axis.set_xlim(min(means) * 0.95, max(means) * 1.02)
    return figure


def samples_a_prompt(data: ReportData, runs: Sequence[Training]) -> Figure:
    """Figure 10: runs that differ in N and in the estimator."""
    figure, axes = _axes(2)
    settings = [one for series in data.starting("samples").values() for one in series]
    for axis, name in zip(axes, ("quality", "diversity"), strict=True):
        values = [setting.metrics[name] for setting in settings]
        means = [value.mean for value in values]
        axis.errorbar(means, range(len(settings)), xerr=_error(values), fmt="ko", markerfacecolor="white", capsize=2)
        axis.set_yticks(range(len(settings)), [setting.point.run for setting in settings])
        axis.invert_yaxis()
        axis.set_xlabel(AXES[name])
        axis.grid(color="#EEEEEE")
    return figure


FIGURES: Mapping[str, Drawing] = {
    "figure-1": Drawing("Quality against diversity: training trajectories; interpolation and guidance.", trajectories),
    "figure-2": Drawing("KL to the guided teacher, quality and diversity along training.", training_curves),
    "figure-3": Drawing("Quality against diversity of every strategy.", fronts),
    "figure-4": Drawing(
        "Interpolating the weights of the quality and the diverse model, beside guidance.", interpolation
    ),
    "figure-6": Drawing("Quality and diversity against the guidance scale.", guidance(("quality", "diversity"))),
    "figure-7": Drawing("Preference and adherence against the guidance scale.", guidance(("preference", "adherence"))),
    "figure-8": Drawing("Adherence against preference, model by model.", scores),
    "figure-9": Drawing("Diversity by both embedders, and entropy; no human ratings yet.", diversities),
    "figure-10": Drawing("Quality and diversity for N samples a prompt, by estimator.", samples_a_prompt),
}


def headline(data: ReportData) -> dict[str, Setting]:
    """The models that the tables compare, by label: base, CFG, each β, the middle of the slider, the soup.

    Raises:
        NotMeasuredError: there is none of them but the base model.
    """
    found = [*data.series("betas")]
    found += [one for one in data.series("guidance-base") if one.point.guidance_scale == 3]
    found += [one for one in data.series("lerp-beta0-beta15") if abs(one.point.lam - 0.5) < 1e-9]
    found += data.series("soup")
    if len(found) < 2:
        raise NotMeasuredError("needs series betas, and guidance-base, lerp-beta0-beta15 or soup")
    return {model_label(setting.point): setting for setting in found}


def _plane(axes: Axes, data: ReportData, series: Mapping[str, list[Setting]], bound: bool = False) -> None:
    """Lines of settings on the quality–diversity plane, with light intervals."""
    drawn = [(name, settings) for name, settings in series.items() if settings]
    for (name, settings), style in zip(drawn, STYLES * 2, strict=False):
        x, y = ([setting.metrics[metric] for setting in settings] for metric in ("quality", "diversity"))
        means = [v.mean for v in x], [v.mean for v in y]
        axes.errorbar(*means, xerr=_error(x), yerr=_error(y), fmt="none", ecolor="#CCCCCC", elinewidth=0.7, zorder=1)
        slides = not name.startswith(("betas", "soup"))
        _line(axes, *means, style if slides else (style[0], "none", style[2]), series_label(name, settings[0].point))
        if slides:
            for setting in (settings[0], settings[-1]):
                axes.annotate(_slid(setting), setting.place, xytext=(4, 3), textcoords="offset points", fontsize=6)
        elif name == "betas":
            for setting in settings:
                text = model_label(setting.point)
                axes.annotate(text, setting.place, xytext=(4, -8), textcoords="offset points", fontsize=6)
    if bound:
        first = next((s for _, settings in drawn for s in settings if s.point.model == "base"), None)
        if first and first.point.guidance_scale == 1:
            axes.axhline(first.cross_prompt_bound, color="black", linestyle=(0, (8, 4)), linewidth=0.9,
                         label="two different prompts, base")  # fmt: skip
    axes.set_title(data.protocol, fontsize=9)
    _name(axes, "quality", "diversity")


def _slid(setting: Setting) -> str:
    point = setting.point
    if point.lam is not None:
        return f"λ={point.lam:g}"
    return f"γ={point.guidance_scale:g}" if point.guidance_scale != 1 else f"T={point.temperature:g}"


def _axes(count: int) -> tuple[Figure, Sequence[Axes]]:
    figure = Figure(figsize=WIDE, layout="constrained")
    return figure, figure.subplots(1, count)


def _line(axes: Axes, x: Sequence[float], y: Sequence[float], style: tuple, label: str) -> None:
    colour, line, marker = style
    axes.plot(
        x, y, color=colour, linestyle=line, linewidth=1.2, marker=marker, markersize=4.5, markerfacecolor="white",
        label=label, zorder=3,
    )  # fmt: skip


def _bars(axes: Axes, x: Sequence[float], values: Sequence, style: tuple, label: str) -> None:
    colour, line, marker = style
    axes.errorbar(
        x, [value.mean for value in values], yerr=_error(values), color=colour, linestyle=line, marker=marker,
        markersize=4.5, markerfacecolor="white", linewidth=1.2, elinewidth=0.7, capsize=2, label=label,
    )  # fmt: skip


def _error(values: Sequence) -> list[list[float]]:
    """Distances from the mean down and up to the ends of the interval."""
    return [[max(v.mean - v.lo, 0.0) for v in values], [max(v.hi - v.mean, 0.0) for v in values]]


def _name(axes: Axes, x: str, y: str) -> None:
    axes.set_xlabel(AXES[x])
    axes.set_ylabel(AXES[y])
    _finish(axes)


def _finish(axes: Axes) -> None:
    axes.grid(color="#EEEEEE")
    axes.set_axisbelow(True)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=6.5, framealpha=0.85)


def _need_runs(runs: Sequence[Training]) -> Sequence[Training]:
    if not runs:
        raise NotMeasuredError("needs the folders of trained runs: RUNS='runs/beta0 runs/beta15'")
    return sorted(runs, key=lambda run: run.beta)
