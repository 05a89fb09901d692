"""``make report``: draws the figures and tables of the paper from a results file: pictures, a page, TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from qd.config.checks import folder_problems
from qd.config.loading import ConfigError
from qd.evaluation.results import NotMeasuredError
from qd.report.data import ReportData, Training, read_training
from qd.report.figures import FIGURES
from qd.report.page import caption, markdown, page
from qd.report.pictures import remove_outdated, save_pictures
from qd.report.tables import TABLES, Table
from qd.report.tensorboard import log_report
from qd.runs.atomic import added_files
from qd.runs.folders import CONFIG


def write_report(
    points: str | Path,
    out: str | Path,
    *,
    runs: Sequence[str] = (),
    only: Sequence[str] | None = None,
    protocol: str | None = None,
    scorers: str | None = None,
) -> dict[str, str]:
    """Writes ``<name>.png`` and ``.svg`` of each figure, ``report.md``, ``report.html`` and TensorBoard events.

    Outdated pictures of an earlier report in that folder are removed.

    Args:
        points: Results file, with the folders next to it.
        out: Folder of the report.
        runs: Folders of trained runs, for the curves along training.
        only: Names in :data:`~qd.report.figures.FIGURES` and :data:`~qd.report.tables.TABLES`; None for all.
        protocol: Protocol of the points; see :class:`~qd.report.data.ReportData`.
        scorers: Part of the description of the scorers; see :class:`~qd.report.data.ReportData`.

    Returns:
        The figures and tables that were left out, and what each needs.

    Raises:
        ConfigError: ``out`` cannot be written.
        ValueError: A name is unknown, ``out`` is a run folder, the points are not comparable, values are missing, or
            nothing can be drawn.
    """
    names = [*FIGURES, *TABLES] if only is None else list(only)
    if unknown := [name for name in names if name not in (*FIGURES, *TABLES)]:
        raise ValueError(f"there is no {', '.join(unknown)}; expected some of {', '.join((*FIGURES, *TABLES))}")
    folder = Path(out)
    if problems := folder_problems("out", folder):
        raise ConfigError(problems)
    if (folder / CONFIG).is_file():
        raise ValueError(
            f"{out} is a run folder (it has {CONFIG}), and the report would replace its TensorBoard events; name "
            "another OUT"
        )
    data = ReportData(points, protocol, scorers)
    data.keep_newest_steps()
    training = [read_training(folder) for folder in runs]
    figures, tables, left_out = _make(names, data, training)
    if not figures and not tables:
        raise ValueError(_nothing_to_draw(data, left_out))
    captions = {name: caption(data, name, training) for name in figures}
    with added_files(folder) as temporary:
        save_pictures(temporary, data, figures)
        (temporary / "report.md").write_text(markdown(data, captions, tables, left_out), encoding="utf-8")
        (temporary / "report.html").write_text(page(data, temporary, captions, tables, left_out), encoding="utf-8")
    remove_outdated(folder, data, figures, names)
    log_report(folder, data, figures)
    return left_out


def _nothing_to_draw(data: ReportData, left_out: Mapping[str, str]) -> str:
    """The error message if nothing can be drawn."""
    file = data.results.points.path
    if not any(data.names):
        return (
            f"{file} has {len(data.points)} single points (make evaluate) and no series, which figures and tables "
            "need: measure series with `make sweep`, or name RUNS=… for the curves along training"
        )
    series = ", ".join(name for name in data.names if name)
    needs = [f"  • {name} {why}" for name, why in left_out.items()]
    return "\n".join([f"{file} has the series {series}, which are not enough for any figure or table:", *needs])


def _make(
    names: Sequence[str], data: ReportData, training: Sequence[Training]
) -> tuple[dict[str, Figure], dict[str, Table], dict[str, str]]:
    """Makes figures and tables by name; returns the missing data of the others too."""
    figures: dict[str, Figure] = {}
    tables: dict[str, Table] = {}
    left_out: dict[str, str] = {}
    for name in names:
        try:
            if name in FIGURES:
                figures[name] = FIGURES[name].draw(data, training)
            else:
                tables[name] = TABLES[name].make(data)
        except NotMeasuredError as error:
            left_out[name] = str(error)
    return figures, tables, left_out
