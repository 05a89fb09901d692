from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import torch

EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"


@pytest.fixture
def tools(monkeypatch):
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    return importlib.import_module("bench_tools")


def rows(tools, **changes):
    measured = {"loop": 4.2, "guided": 3.9, "whole": 1.9, "rollout": 0.9, "MiB": 600.0, "norm": 2.0, "minutes": 39.0}
    m = measured | changes
    return [
        tools.row("token loop, 32 × 4 s, guidance 1", reference=m["loop"], ours=1.0),
        tools.row("token loop, 32 × 4 s, guidance 3", reference=m["guided"], ours=1.0),
        tools.row("training step of 16 sequences: rollout", ours=m["rollout"]),
        tools.row(f"training step of 16 sequences: {tools.WHOLE}", ours=m["whole"], floor=0.5, gflops=120.0),
        tools.row(f"{tools.RUN} of 2000 steps, a sum", ours=60 * m["minutes"]),
        {
            "work": tools.SCORING,
            "MiB": m["MiB"],
            "reference MiB": 4000.0,
            "gradient norms": [[1.0, 2.0], [1.0, m["norm"]]],
        },
    ]


def verdicts(tools, measured) -> list[str]:
    return [line.rstrip(" |").rpartition("|")[2].strip() for line in tools.goals_table(measured).splitlines()[2:]]


def test_each_goal_is_judged_by_its_own_row(tools):
    assert verdicts(tools, rows(tools)) == ["yes", "no", "yes", "yes", "yes", "yes"]
    missed = rows(tools, loop=3.99, guided=4.0, whole=2.1, rollout=1.2, MiB=2001.0, minutes=40.1)
    assert verdicts(tools, missed) == ["no", "yes", "no", "no", "no", "no"]
    assert verdicts(tools, rows(tools, norm=2.001))[4] == "no"  # half the memory, but other gradients


def test_missing_rows_are_marked_not_measured(tools):
    lines = tools.goals_table([]).splitlines()[2:]
    assert len(lines) == 6 and all("not measured" in line for line in lines)


def test_a_row_has_its_ratios(tools):
    row = tools.row("work", reference=6.0, ours=2.0, floor=1.0) | {"MiB": 4002.85}
    assert (row["times faster"], row["over the floor"]) == (3.0, 2.0)
    header, _, line = tools.table([row]).splitlines()
    cells = dict(zip(header.split("|"), line.split("|"), strict=True))
    assert (
        cells[" times faster "].strip() == "3" and cells[" MiB "].strip() == "4,003" and cells[" slope "].strip() == ""
    )


def test_updating_the_page_keeps_the_text_outside_the_marks(tools, tmp_path):
    path = tmp_path / "page.md"
    path.write_text(f"# Speed\n\n{tools.BEGIN}\nold\n{tools.END}\n\nWords.\n")
    for measured in ("first", "second"):
        tools.update_page(path, measured)
        assert path.read_text() == f"# Speed\n\n{tools.BEGIN}\n\n{measured}\n\n{tools.END}\n\nWords.\n"


@pytest.mark.parametrize("text", ["", "{0}", "{1} {0}", "{0} {0} {1}"])
def test_a_page_without_its_marks_is_refused_and_unchanged(tools, tmp_path, text):
    path = tmp_path / "page.md"
    path.write_text(text.format(tools.BEGIN, tools.END))
    with pytest.raises(ValueError, match="once each"):
        tools.update_page(path, "new")
    assert path.read_text() == text.format(tools.BEGIN, tools.END)


def test_the_published_page_has_its_marks(tools):
    tools.check_page(EXPERIMENTS.parent / "docs" / "performance.md")


def test_medians_use_the_given_clock(tools):
    now = [0.0]

    def work(seconds):
        return lambda: now.__setitem__(0, now[0] + seconds)

    assert tools.alternate({"a": work(1.0), "b": work(3.0)}, 3, lambda: now[0]) == {"a": 1.0, "b": 3.0}
    times, rates = tools.alternate_with_rates({"a": work(1.0)}, 1)
    assert list(times) == ["a"] and min(rates) > 0


def test_operations_are_counted(tools):
    assert tools.flops_of(lambda: torch.ones(2, 3) @ torch.ones(3, 5)) == 2 * 2 * 3 * 5
