"""Each figure and table by itself: its script, what it measures, what it draws."""

from __future__ import annotations

import importlib
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from qd.config.loading import ConfigError, load_config
from qd.report.figures import FIGURES
from qd.report.reproduction.estimate import Estimate
from qd.report.reproduction.plan import ReproductionConfig
from qd.report.reproduction.reproduce import shown_series
from qd.report.reproduction.shown import show
from qd.report.tables import TABLES

EXPERIMENTS = Path(__file__).parents[3] / "experiments"
PAPER = [name for name in (*FIGURES, *TABLES) if name != "fronts"]


@cache
def plan(name: str) -> ReproductionConfig:
    """Read once: the settings of each of its runs are checked, which takes seconds."""
    return load_config(ReproductionConfig, "reproduction", name)


def test_every_figure_and_table_of_the_paper_has_a_script():
    scripts = {path.stem.replace("_", "-") for kind in ("figure", "table") for path in EXPERIMENTS.glob(f"{kind}_*.py")}
    assert scripts == set(PAPER)


@pytest.mark.parametrize("name", [*PAPER, "fronts"])
def test_the_full_sweep_has_what_each_shows(name):
    assert shown_series(plan("default"), name)


def test_no_more_is_measured_than_is_shown():
    assert shown_series(plan("shipped"), "figure-4") == ["guidance-base", "slider"]
    with pytest.raises(ConfigError, match=r"sweep shipped has no series for figure-10; expected samples…"):
        shown_series(plan("shipped"), "figure-10")


@pytest.mark.parametrize("name", PAPER)
def test_a_script_asks_for_the_stages_of_its_figure(name, tmp_path, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(
        "qd.report.reproduction.reproduce.run_jobs", lambda jobs, *_: [asked.append(job) for job in jobs][:0]
    )
    monkeypatch.setattr(
        "qd.report.reproduction.reproduce.estimate", lambda *asked: Estimate(f"asked {asked[1:]}", True)
    )
    two = [run for run in plan("quick").runs if run.name in ("beta0", "n4-shared")]
    monkeypatch.setattr(
        "qd.report.reproduction.shown.load_config", lambda *_: replace(plan("quick"), folder=str(tmp_path), runs=two)
    )
    monkeypatch.setattr(sys, "argv", [name, "--jobs", "1"])
    module = importlib.import_module(f"experiments.{name.replace('-', '_')}")
    assert module.show(name, module.__doc__) == 0
    *runs, sweep, report = asked
    assert bool(runs) == (name in ("figure-1", "figure-2"))
    command = sweep.command()
    assert command[command.index("--only") + 1 :] == shown_series(plan("quick"), name)
    assert f"models.n4-shared={tmp_path}/n4-shared/step-000150" in command  # the plan's runs, whatever the sweep names
    assert report.command()[-2:] == ["--only", name]
    told = capsys.readouterr().out.splitlines()
    stages = [*(["runs"] if runs else []), "sweep", "report"]
    assert told[0] == f"asked {(stages, [], 1, shown_series(plan('quick'), name))}"  # before anything starts
    assert told[-1] == str(tmp_path / name / "report.html")


def test_bad_jobs_are_told(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["figure-4", "--jobs", "0"])
    assert show("figure-4", "about") == 2 and "expected 1 or more" in capsys.readouterr().err
