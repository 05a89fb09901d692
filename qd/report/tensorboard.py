"""Writes the report to TensorBoard: its figures, and each sweep as curves."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure
from torch.utils.tensorboard import SummaryWriter

from qd.report.data import ReportData, Setting

PER_UNIT = 100
"""TensorBoard steps a unit of λ, γ, T or β, because steps are whole numbers."""


def log_report(folder: Path, data: ReportData, figures: Mapping[str, Figure]) -> None:
    """Writes events into the folder and removes those of an earlier report."""
    for old in folder.glob("events.out.tfevents.*"):
        old.unlink()
    with SummaryWriter(str(folder)) as writer:
        for name, figure in figures.items():
            writer.add_figure(f"report/{name}", figure, close=False)
        for series in data.names:
            for step, setting in _curve(data, series):
                for metric, value in setting.metrics.items():
                    writer.add_scalar(f"sweep_{series}/{metric}", value.mean, step)


def _curve(data: ReportData, series: str) -> list[tuple[int, Setting]]:
    """Steps and settings; empty if two settings have the same step, such as several runs of one β."""
    values = [(varied_value(series, setting), setting) for setting in data.series(series)]
    curve = [(round(PER_UNIT * value), setting) for value, setting in values if value is not None]
    return curve if len({step for step, _ in curve}) == len(curve) else []


def varied_value(series: str, setting: Setting) -> float | None:
    """Value of the quantity that varies along the series: λ, γ, T or β; None if the model has no β."""
    point = setting.point
    if point.lam is not None:
        return point.lam
    if series.startswith("guidance"):
        return point.guidance_scale
    if series.startswith("temperature"):
        return point.temperature
    return point.beta
