"""The paper's figures, each a function of the data; :data:`FIGURES` lists them with their titles and series."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import cycle

import numpy as np
from matplotlib.figure import Figure

from qd.evaluation.figures import AXES, STYLES, error_bars
from qd.evaluation.points import comparable
from qd.evaluation.results import NotMeasuredError
from qd.metrics.pareto import smooth_line
from qd.report.data import ReportData, Training
from qd.report.drawing import (
    MANY,
    SQUARE,
    Drawing,
    draw_dots,
    draw_intervals,
    draw_line,
    draw_plane,
    draw_spread,
    enlarge,
    finish,
    name_axes,
    panels,
)
from qd.report.facets import effective_diversity, facets
from qd.report.headline import HEADLINE, headline
from qd.report.labels import series_label

STRATEGIES = ("slider", "lerp-", "soup", "guidance-", "temperature-", "betas")
MAIN = ("slider", "lerp-base", "soup", "guidance-base", "temperature-", "betas")
SLIDERS = ("slider", "lerp-base", "guidance-base")
FINETUNED = ("slider", "soup")
"""Prefixes of the series that several figures show; an enlarged panel shows the region around :data:`FINETUNED`."""
LINES = f"Curves through {MANY} or more interpolated models are cubic fits in λ."


def trajectories(data: ReportData, runs: Sequence[Training]) -> Figure:
    """Figure 1: training trajectories, whole and enlarged; on the right the sliders, measured by another protocol."""
    runs = _need_runs(runs)
    figure, (whole, near, right) = panels(3)
    for axes in (whole, near):
        for run, style in zip(runs, cycle(STYLES), strict=False):
            x, y = ([point.metrics[name] for point in run.points] for name in ("quality", "diversity"))
            means = [v.mean for v in x], [v.mean for v in y]
            draw_spread(axes, x, y)
            draw_line(axes, *means, style, f"{run.name} (β = {run.beta:g})")
            for point, *place in zip(run.points, *means, strict=True):
                axes.annotate(str(point.step), place, xytext=(3, 3), textcoords="offset points", fontsize=6)
        name_axes(axes, "quality", "diversity")
    whole.set_title(f"training, labelled with the step; protocol {runs[0].points[0].protocol}", fontsize=9)
    if later := [point.metrics for run in runs for point in run.points if point.step]:
        enlarge(whole, near, [m["quality"].mean for m in later], [m["diversity"].mean for m in later])
    try:
        draw_plane(right, data, data.starting(*SLIDERS))
    except NotMeasuredError:
        right.set_visible(False)
    return figure


def training_curves(data: ReportData, runs: Sequence[Training]) -> Figure:
    """Figure 2: KL to the guided teacher (running mean ± 2 standard errors), quality and diversity along training."""
    runs = _need_runs(runs)
    figure, (left, middle, right) = panels(3)
    for run, style in zip(runs, cycle(STYLES), strict=False):
        label = f"{run.name} (β = {run.beta:g})"
        steps, kl, error = _smoothed(run)
        left.plot(steps, kl, color=style[0], linestyle=style[1], label=label)
        left.fill_between(steps, kl - 2 * error, kl + 2 * error, color=style[0], alpha=0.15, linewidth=0)
        for axes, name in ((middle, "quality"), (right, "diversity")):
            values = [point.metrics[name] for point in run.points]
            draw_intervals(axes, [point.step for point in run.points], values, style, label)
    left.set_ylabel("KL to the teacher, nats a token")
    middle.set_ylabel(AXES["quality"])
    right.set_ylabel(AXES["diversity"])
    for axes in (left, middle, right):
        axes.set_xlabel("optimiser step")
        finish(axes)
    return figure


def _smoothed(run: Training) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Steps, running means of the KL over a fortieth of the logged steps, and their standard errors.

    Raises:
        NotMeasuredError: The run has no TensorBoard log of the KL.
    """
    steps, kl = run.scalars.get("train/kl_per_token", (np.array([]), np.array([])))
    if not len(kl):
        raise NotMeasuredError(f"needs TensorBoard scalars of run {run.name}, with train/kl_per_token")
    windows = np.lib.stride_tricks.sliding_window_view(kl, max(2, len(kl) // 40) if len(kl) > 1 else 1)
    width = windows.shape[1]
    return steps[width - 1 :], windows.mean(axis=1), windows.std(axis=1) / width**0.5


def fronts(data: ReportData, runs: Sequence[Training]) -> Figure:
    """Figure 3: every strategy on one plane; and the region around the finetuned models, enlarged."""
    shown = data.starting(*STRATEGIES)
    if len(shown) > len(STYLES):  # more styles would not be distinguishable
        shown = {name: settings for name, settings in shown.items() if name.startswith(MAIN)}
    finetuned = [
        setting.place
        for name, settings in shown.items()
        for setting in settings
        if setting.point.beta is not None and name == "betas" or name.startswith(FINETUNED)
    ]
    if not finetuned:
        figure = Figure(figsize=SQUARE, layout="constrained")
        draw_plane(figure.add_subplot(), data, shown, bound=True)
        return figure
    figure, (whole, near) = panels(2)
    draw_plane(whole, data, shown, bound=True)
    draw_plane(near, data, shown)
    enlarge(whole, near, *zip(*finetuned, strict=True))
    return figure


def interpolation(data: ReportData, runs: Sequence[Training]) -> Figure:
    """Figure 4: quality and diversity along λ, with the straight line between the ends; and the fronts of both."""
    lerp = data.line("slider")
    figure, axes = panels(3)
    for axis, name in zip(axes, ("quality", "diversity"), strict=False):
        lams = [setting.point.lam for setting in lerp]
        values = [setting.metrics[name] for setting in lerp]
        colour, line, marker = STYLES[0]
        means = np.array([value.mean for value in values])
        if len(lerp) >= MANY:
            axis.plot(*smooth_line(np.array(lams), np.column_stack([lams, means])).T, color=colour, linestyle=line)
            line = "none"
        draw_intervals(axis, lams, values, (colour, line, marker), "interpolated weights")
        ends = values[0].mean, values[-1].mean
        axis.plot((lams[0], lams[-1]), ends, "k--", linewidth=1, label="linear trade-off")
        axis.set_xlabel("λ: weight of the diverse model")
        axis.set_ylabel(AXES[name])
        finish(axis)
    draw_plane(axes[2], data, {"slider": lerp, "guidance-base": data.series("guidance-base")})
    return figure


def guidance(metrics: tuple[str, str]) -> Callable[[ReportData, Sequence[Training]], Figure]:
    """Figures 6 and 7: two metrics against γ, negative prompt and unconditional."""

    def draw(data: ReportData, runs: Sequence[Training]) -> Figure:
        figure, axes = panels(2)
        for (name, settings), style in zip(data.starting("guidance-").items(), cycle(STYLES), strict=False):
            for axis, metric in zip(axes, metrics, strict=True):
                scales = [setting.point.guidance_scale for setting in settings]
                label = series_label(name, settings[0].point).removeprefix("CFG γ on ")
                draw_intervals(axis, scales, [setting.metrics[metric] for setting in settings], style, label)
        for axis, metric in zip(axes, metrics, strict=True):
            axis.set_xlabel("guidance scale γ")
            axis.set_ylabel(AXES[metric])
            finish(axis)
        return figure

    return draw


def scores(data: ReportData, runs: Sequence[Training]) -> Figure:
    """Figure 8: the two parts of quality, model by model."""
    figure = Figure(figsize=SQUARE, layout="constrained")
    axes = figure.add_subplot()
    for index, (label, setting) in enumerate(headline(data).items()):
        colour, _, marker = STYLES[index % len(STYLES)]
        x, y = setting.metrics["adherence"], setting.metrics["preference"]
        axes.errorbar(
            x.mean, y.mean, xerr=error_bars([x]), yerr=error_bars([y]), fmt=marker, color=colour, label=label,
            markerfacecolor="white" if index < len(STYLES) else colour, markersize=7, elinewidth=0.8,
        )  # fmt: skip
    name_axes(axes, "adherence", "preference")
    axes.legend(fontsize=7, loc="upper left")  # no model has low adherence and high preference
    return figure


def diversities(data: ReportData, runs: Sequence[Training]) -> Figure:
    """Figure 9 without its panel of human ratings: diversity by both embedders, and token entropy."""
    figure, axes = panels(3)
    models = headline(data)
    for axis, name in zip(axes, ("diversity", "diversity_heldout", "entropy"), strict=True):
        draw_dots(axis, models, name)
    return figure


def samples_a_prompt(data: ReportData, runs: Sequence[Training]) -> Figure:
    """Figure 10: runs that differ in N and in the estimator."""
    figure, axes = panels(2)
    settings = {one.point.run: one for series in data.starting("samples").values() for one in series}
    for axis, name in zip(axes, ("quality", "diversity"), strict=True):
        draw_dots(axis, settings, name)
    return figure


FIGURES: Mapping[str, Drawing] = {
    "figure-1": Drawing(
        f"Quality and diversity: training trajectories (left, centre), and interpolation and guidance (right). {LINES}",
        trajectories,
        SLIDERS,
        trained=True,
    ),
    "figure-2": Drawing(
        "KL to the guided teacher (running mean ± 2 standard errors), quality and diversity during training.",
        training_curves,
        ("betas",),
        trained=True,
    ),
    "figure-3": Drawing(f"Quality and diversity of every strategy. {LINES}", fronts, STRATEGIES),
    "figure-4": Drawing(
        f"Interpolation between the weights of the quality model and the diverse model, and guidance. {LINES}",
        interpolation,
        ("slider", "guidance-base"),
    ),
    "figure-6": Drawing(
        "Quality and diversity as functions of the guidance scale.", guidance(("quality", "diversity")), ("guidance-",)
    ),
    "figure-7": Drawing(
        "Preference and adherence as functions of the guidance scale.",
        guidance(("preference", "adherence")),
        ("guidance-",),
    ),
    "figure-8": Drawing("Adherence and preference of each model.", scores, HEADLINE),
    "figure-9": Drawing(
        "Diversity by both embedders, and entropy of the tokens; no human ratings.", diversities, HEADLINE
    ),
    "figure-10": Drawing(
        "Quality and diversity for N samples per prompt, by estimator.", samples_a_prompt, ("samples",)
    ),
    "effective-diversity": Drawing(
        "Diversity of all clips, of clean clips (by their preference), and of effective clips (by their quality).",
        effective_diversity,
        HEADLINE,
    ),
    "facets": Drawing(
        "How much the samples of a prompt differ in tempo, chroma, brightness, onset rate and loudness.",
        facets,
        HEADLINE,
    ),
}


def _need_runs(runs: Sequence[Training]) -> Sequence[Training]:
    if not runs:
        raise NotMeasuredError("needs the folders of trained runs: RUNS='runs/beta0 runs/beta15'")
    first = runs[0].points[0]
    if not all(comparable(point, first) for run in runs for point in run.points):
        kinds = {run.name: sorted({f"{p.protocol}, {p.scorers}" for p in run.points}) for run in runs}
        listed = "; ".join(f"{name}: {' and '.join(measured)}" for name, measured in kinds.items())
        raise ValueError(
            "RUNS were measured by different protocols or scorers and cannot share one plot; name runs of one kind "
            f"({listed})"
        )
    return sorted(runs, key=lambda run: run.beta)
