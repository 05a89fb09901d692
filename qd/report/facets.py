"""Figures of what the samples of a prompt differ in: good clips only, and musical facets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from qd.evaluation.columns import CLEAN, EFFECTIVE, FACETS
from qd.evaluation.figures import STYLES
from qd.evaluation.results import NotMeasuredError
from qd.report.data import ReportData, Setting, Training
from qd.report.drawing import WIDE, draw_dots
from qd.report.headline import headline

SPREADS = tuple(name for name in FACETS if name.endswith("_spread"))
CLIPS = {"diversity": "all clips", "diversity_clean": "clean clips", "diversity_effective": "effective clips"}
"""Metrics of the diversity, and which clips each counts."""
SHIFT = 0.12
"""Distance of the rows of the two embedders from the middle of the model's row."""


def with_metrics(data: ReportData, names: Sequence[str]) -> dict[str, Setting]:
    """The models of :func:`~qd.report.headline.headline` that have all these metrics.

    Raises:
        NotMeasuredError: None of them has; the message says how to measure them.
    """
    models = {label: one for label, one in headline(data).items() if one.metrics.keys() >= set(names)}
    if not models:
        raise NotMeasuredError(
            f"needs columns {names[0]} … in series betas or guidance-base: the same sweep with facets=true adds them"
        )
    return models


def good_models(data: ReportData) -> dict[str, Setting]:
    """The models whose diversity of good clips was measured."""
    return with_metrics(data, CLEAN + EFFECTIVE)


def facet_models(data: ReportData) -> dict[str, Setting]:
    """The models whose musical facets were measured."""
    return with_metrics(data, FACETS)


def effective_diversity(data: ReportData, runs: Sequence[Training]) -> Figure:
    """Diversity of all clips, of the clean ones and of the effective ones, by both embedders."""
    models = good_models(data)
    figure, axes = _panels(models, len(CLIPS), sharex=True)
    for axis, (name, clips) in zip(axes, CLIPS.items(), strict=True):
        draw_dots(axis, models, name, STYLES[0], -SHIFT, "embedder of the reward")
        draw_dots(axis, models, f"{name}_heldout", STYLES[1], SHIFT, "held-out embedder")
        axis.set_xlabel(f"diversity of {clips}")
    axes[-1].legend(fontsize=7, framealpha=0.7)
    return figure


def facets(data: ReportData, runs: Sequence[Training]) -> Figure:
    """The spread of each facet, model by model."""
    models = facet_models(data)
    figure, axes = _panels(models, len(SPREADS))
    for axis, name in zip(axes, SPREADS, strict=True):
        draw_dots(axis, models, name)
        axis.locator_params(axis="x", nbins=4)  # more labels would touch each other
    return figure


def _panels(models: Mapping[str, Setting], count: int, sharex: bool = False) -> tuple[Figure, Sequence[Axes]]:
    """Panels side by side that share the rows; the height grows with the number of models."""
    figure = Figure(figsize=(WIDE[0], 1.4 + 0.32 * len(models)), layout="constrained")
    return figure, figure.subplots(1, count, sharex=sharex, sharey=True)
