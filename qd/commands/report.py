"""``make report``: the figures and tables of the paper from a results file, as pictures, a page, and in TensorBoard."""

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
from qd.report.pictures import save_pictures
from qd.report.tables import TABLES, Table
from qd.report.tensorboard import log_report
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

    Pictures of an earlier report in that folder that are out of date are removed.

    Args:
        points: the results file, with what lies beside it.
        out: folder of the report.
        runs: folders of trained runs, for the curves along training.
        only: names of :data:`~qd.report.figures.FIGURES` and :data:`~qd.report.tables.TABLES`; None = all.
        protocol, scorers: which points to take, see :class:`~qd.report.data.ReportData`.

    Returns:
        What was left out, and what it needs.

    Raises:
        ConfigError: ``out`` is a file.
        ValueError: an unknown name, ``out`` is a run folder, points that do not compare, missing values, or nothing
            that can be drawn.
    """
    wanted = [*FIGURES, *TABLES] if only is None else list(only)
    if unknown := [name for name in wanted if name not in (*FIGURES, *TABLES)]:
        raise ValueError(f"there is no {', '.join(unknown)}; expected some of {', '.join((*FIGURES, *TABLES))}")
    folder = Path(out)
    if problems := folder_problems("out", folder):
        raise ConfigError(problems)
    if (folder / CONFIG).is_file():
        raise ValueError(
            f"{out} is the folder of a run (it holds {CONFIG}), whose TensorBoard events the report's would replace; "
            "name another OUT"
        )
    data = ReportData(points, protocol, scorers)
    data.keep_newest_steps()
    training = [read_training(folder) for folder in runs]
    figures, tables, left_out = _made(wanted, data, training)
    if not figures and not tables:
        raise ValueError(_nothing(data, left_out))
    folder.mkdir(parents=True, exist_ok=True)
    save_pictures(folder, data, figures, wanted)
    captions = {name: caption(data, name, training) for name in figures}
    (folder / "report.md").write_text(markdown(data, captions, tables, left_out), encoding="utf-8")
    (folder / "report.html").write_text(page(data, folder, captions, tables, left_out), encoding="utf-8")
    log_report(folder, data, figures)
    return left_out


def _nothing(data: ReportData, left_out: Mapping[str, str]) -> str:
    """What to do where there is nothing to draw."""
    file = data.results.points.path
    if not any(data.names):
        return (
            f"{file} has no series, of which figures and tables are drawn, but {len(data.points)} points that were "
            "measured by themselves (make evaluate): measure series with `make sweep`, or name RUNS=… for the curves "
            "along training"
        )
    series = ", ".join(name for name in data.names if name)
    needs = [f"  • {name} {why}" for name, why in left_out.items()]
    return "\n".join([f"{file} has the points of no figure and no table, but of the series {series}:", *needs])


def _made(
    wanted: Sequence[str], data: ReportData, training: Sequence[Training]
) -> tuple[dict[str, Figure], dict[str, Table], dict[str, str]]:
    """Figures and tables by name, and of those that lack something, what."""
    figures: dict[str, Figure] = {}
    tables: dict[str, Table] = {}
    left_out: dict[str, str] = {}
    for name in wanted:
        try:
            if name in FIGURES:
                figures[name] = FIGURES[name].draw(data, training)
            else:
                tables[name] = TABLES[name].make(data)
        except NotMeasuredError as error:
            left_out[name] = str(error)
    return figures, tables, left_out
