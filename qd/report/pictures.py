"""Saves a report's figures as image files; each file stores which points it was drawn from."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from matplotlib.figure import Figure

from qd.evaluation.points import content_key
from qd.report.data import ReportData
from qd.report.figures import FIGURES

DPI = 150
KINDS = ("png", "svg")
_MARK = re.compile(rb"qd report of points ([0-9a-f]{16})")


def save_pictures(folder: Path, data: ReportData, figures: Mapping[str, Figure]) -> None:
    """Writes ``<name>.png`` and ``.svg`` for each figure, drawn from ``data``, into a folder."""
    points = content_key({"protocol": data.protocol, "scorers": data.scorers})
    for name, figure in figures.items():
        for kind in KINDS:
            metadata = {"Description": f"qd report of points {points}", **({"Date": None} if kind == "svg" else {})}
            figure.savefig(folder / f"{name}.{kind}", dpi=DPI, metadata=metadata)


def remove_outdated(folder: Path, data: ReportData, figures: Mapping[str, Figure], requested: Iterable[str]) -> None:
    """Removes the images of an earlier report that are no longer true.

    Args:
        folder: Folder of the report.
        data: The data that the figures are drawn from.
        figures: Figures that were drawn.
        requested: Names of the requested figures. An earlier image of a requested figure that could not be drawn is
            removed. Other images are removed only if their points are not comparable with ``data``.
    """
    points = content_key({"protocol": data.protocol, "scorers": data.scorers})
    for path in [folder / f"{name}.{kind}" for name in FIGURES if name not in figures for kind in KINDS]:
        mark = _MARK.search(path.read_bytes()) if path.is_file() else None  # None: not ours
        if mark and (path.stem in requested or mark[1].decode() != points):
            path.unlink()
