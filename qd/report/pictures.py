"""The pictures of a report as files, each of which tells what points it was made of."""

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


def save_pictures(folder: Path, data: ReportData, figures: Mapping[str, Figure], asked: Iterable[str]) -> None:
    """Writes ``<name>.png`` and ``.svg`` of each figure, and removes what an earlier report has left of the others.

    Args:
        folder: of the report.
        data: what the figures are drawn from.
        figures: by name.
        asked: names of the figures that this report was to have. A picture of another is removed where its points do
            not compare with these; it stays where it is one of the same, drawn at another time.
    """
    points = content_key({"protocol": data.protocol, "scorers": data.scorers})
    for name, figure in figures.items():
        for kind in KINDS:
            metadata = {"Description": f"qd report of points {points}", **({"Date": None} if kind == "svg" else {})}
            figure.savefig(folder / f"{name}.{kind}", dpi=DPI, metadata=metadata)
    for path in [folder / f"{name}.{kind}" for name in FIGURES if name not in figures for kind in KINDS]:
        made_of = _MARK.search(path.read_bytes()) if path.is_file() else None  # None: not ours
        if made_of and (path.stem in asked or made_of[1].decode() != points):
            path.unlink()
