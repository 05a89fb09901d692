"""The scripts of single figures and tables: what they measure and draw."""

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
from qd.report.reproduction.figure_script import show
from qd.report.reproduction.plan import ReproductionConfig
from qd.report.reproduction.reproduce import figure_series
from qd.report.tables import TABLES

EXPERIMENTS = Path(__file__).parents[3] / "experiments"
OWN = ("effective-diversity", "facets", "good-clips", "facet-values", "fronts")
PAPER = [name for name in (*FIGURES, *TABLES) if name not in OWN]


@cache
def plan(name: str) -> ReproductionConfig:
    """Loads a plan once, because checking the settings of its runs takes seconds."""
    return load_config(ReproductionConfig, "reproduction", name)


def test_every_figure_and_table_of_the_paper_has_a_script():
    scripts = {path.stem.replace("_", "-") for kind in ("figure", "table") for path in EXPERIMENTS.glob(f"{kind}_*.py")}
    assert scripts == set(PAPER)


@pytest.mark.parametrize("name", [*PAPER, *OWN])
def test_the_full_sweep_has_the_series_of_every_figure(name):
    assert figure_series(plan("default"), name)


def test_only_the_series_of_a_figure_are_measured():
    assert figure_series(plan("shipped"), "figure-4") == ["guidance-base", "slider"]
    with pytest.raises(ConfigError, match=r"shipped has no series for figure-10; expected samples…"):
        figure_series(plan("shipped"), "figure-10")


@pytest.mark.parametrize("name", PAPER)
def test_a_script_runs_the_stages_of_its_figure(name, tmp_path, monkeypatch, capsys):
    started = []
    monkeypatch.setattr(
        "qd.report.reproduction.reproduce.run_jobs", lambda jobs, *_: [started.append(job) for job in jobs][:0]
    )
    monkeypatch.setattr(
        "qd.report.reproduction.reproduce.estimate", lambda *arguments: Estimate(f"estimate {arguments[1:]}", True)
    )
    two = [run for run in plan("quick").runs if run.name in ("beta0", "n4-shared")]
    monkeypatch.setattr(
        "qd.report.reproduction.figure_script.load_config",
        lambda *_: replace(plan("quick"), folder=str(tmp_path), runs=two),
    )
    monkeypatch.setattr(sys, "argv", [name, "--jobs", "1"])
    module = importlib.import_module(f"experiments.{name.replace('-', '_')}")
    assert module.show(name, module.__doc__) == 0
    *runs, sweep, report = started
    assert bool(runs) == (name in ("figure-1", "figure-2"))
    command = sweep.command()
    assert command[command.index("--only") + 1 :] == figure_series(plan("quick"), name)
    assert (
        f"models.n4-shared={tmp_path}/n4-shared/step-000150" in command
    )  # the plan's run replaces the sweep's default
    assert report.command()[-2:] == ["--only", name]
    lines = capsys.readouterr().out.splitlines()
    stages = [*(["runs"] if runs else []), "sweep", "report"]
    assert lines[0] == f"estimate {(stages, [], 1, figure_series(plan('quick'), name))}"  # before anything starts
    assert lines[-1] == str(tmp_path / name / "report.html")


def test_bad_jobs_are_refused(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["figure-4", "--jobs", "0"])
    assert show("figure-4", "about") == 2 and "expected 1 or more" in capsys.readouterr().err
