"""The rows of ``bench.py`` as tables, and what stands of them in the published page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from qd.metrics.formatting import markdown_table

BEGIN, END = "<!-- measured by make bench -->", "<!-- end of what was measured -->"
WHOLE = "whole step"
RUN = "default run"
SCORING = "KL and log-probabilities"

COLUMNS = ["reference", "ours", "times faster", "floor", "over the floor", "GFLOP/s", "reference MiB", "MiB", "slope"]

GUIDED_LOOP, LOOP, STEP = "token loop, 32 × 4 s, guidance 3", "token loop, 32 × 4 s, guidance 1", "training step of 16"
TIMES_FASTER, ROLLOUT_SHARE, MEMORY_SHARE, MINUTES = 4.0, 0.5, 0.5, 40.0
STEP_GFLOP = 240.0
"""A step may take as long as so many thousand million operations at the rate of a 2048² float32 product: 1 s at 240."""


def row(work: str, gflops: float | None = None, **values: float) -> dict[str, Any]:
    """A row of the table, with the ratios that follow from its ``reference``, ``ours`` and ``floor`` seconds.

    Args:
        gflops: the rate of a 2048² float32 product, in GFLOP/s, measured in the same rounds.
    """
    ratio = {"times faster": values["reference"] / values["ours"]} if "reference" in values else {}
    distance = {"over the floor": values["ours"] / values["floor"]} if "floor" in values else {}
    rate = {} if gflops is None else {"GFLOP/s": gflops}
    return {"work": work, **values, **ratio, **distance, **rate}


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    cells = [[r["work"], *(_cell(column, r.get(column)) for column in COLUMNS)] for r in rows]
    return markdown_table(["seconds of", *COLUMNS], cells)


def bars(rows: Sequence[Mapping[str, Any]]) -> str:
    """What was aimed at, beside what was measured; a bar whose row was not measured says so."""
    found = [_loop_bar(rows, LOOP), _loop_bar(rows, GUIDED_LOOP), *_step_bars(rows)]
    found += [_memory_bar(rows), _run_bar(rows)]
    return markdown_table(["aim", "measured", "met"], found)


def check_page(path: Path) -> None:
    """Raises ``ValueError`` unless the page has the two marks, in their order, once each."""
    text = path.read_text() if path.is_file() else ""
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ValueError(f"page {path}: expected a file that has the lines {BEGIN!r} and {END!r}, once each")


def into_page(path: Path, measured: str) -> None:
    """Puts it between the marks of the page, in place of what stands there."""
    check_page(path)
    text = path.read_text()
    before, after = text[: text.index(BEGIN)], text[text.index(END) :]
    path.write_text(f"{before}{BEGIN}\n\n{measured.strip()}\n\n{after}")


def _cell(column: str, value: float | None) -> str:
    """Three digits, but of hundreds and more all."""
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 100 or column.endswith("MiB") else f"{value:.3g}"


def _find(rows: Sequence[Mapping[str, Any]], start: str, end: str = "") -> Mapping[str, Any] | None:
    return next((r for r in rows if r["work"].startswith(start) and r["work"].endswith(end)), None)


def _bar(aim: str, measured: str | None, met: bool = False) -> list[str]:
    return [aim, "not measured", ""] if measured is None else [aim, measured, "yes" if met else "no"]


def _loop_bar(rows: Sequence[Mapping[str, Any]], work: str) -> list[str]:
    aim, found = f"{work}: at least {TIMES_FASTER:g} times as fast as `generate`", _find(rows, work)
    if found is None:
        return _bar(aim, None)
    return _bar(aim, f"{found['times faster']:.2f} times", found["times faster"] >= TIMES_FASTER)


def _step_bars(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    whole, rollout = _find(rows, STEP, WHOLE), _find(rows, STEP, "rollout")
    aim, share_aim = "default training step: at most", f"of it the rollout: at most {ROLLOUT_SHARE:.0%}"
    if whole is None or rollout is None:
        return [_bar(f"{aim} {STEP_GFLOP:g} s / (GFLOP/s)", None), _bar(share_aim, None)]
    allowed = STEP_GFLOP / whole["GFLOP/s"]
    share = rollout["ours"] / whole["ours"]
    return [
        _bar(f"{aim} {allowed:.2f} s here", f"{whole['ours']:.2f} s", whole["ours"] <= allowed),
        _bar(share_aim, f"{share:.0%}", share <= ROLLOUT_SHARE),
    ]


def _memory_bar(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    aim, found = f"{SCORING}: at most half the plain form's peak memory, equal gradients", _find(rows, SCORING)
    if found is None:
        return _bar(aim, None)
    share, norms = found["MiB"] / found["reference MiB"], zip(*found["gradient norms"], strict=True)
    equal = all(math.isclose(plain, ours, rel_tol=1e-4) for plain, ours in norms)
    told = f"{found['MiB']:,.0f} of {found['reference MiB']:,.0f} MiB, {share:.0%}"
    return _bar(aim, f"{told}, gradients {'equal' if equal else 'differ'}", share <= MEMORY_SHARE and equal)


def _run_bar(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    aim, found = f"default run with its measurements: at most {MINUTES:g} minutes", _find(rows, RUN)
    if found is None:
        return _bar(aim, None)
    minutes = found["ours"] / 60
    return _bar(aim, f"{minutes:.0f} minutes, a sum", minutes <= MINUTES)
