"""Training runs in the report: trajectories, curves, and refused runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from qd.commands.report import write_report
from qd.report.data import ReportData, read_training
from qd.report.figures import FIGURES


def test_a_run_folder_is_refused_as_report_folder(whole: Path, trained) -> None:
    run = Path(trained("beta0", 0.0))
    (run / "config.yaml").touch()
    before = sorted(run.iterdir())
    with pytest.raises(ValueError, match="beta0 is a run folder.*OUT"):
        write_report(whole, run, only=["figure-4"])
    assert sorted(run.iterdir()) == before


def test_every_run_is_drawn_and_the_caption_names_its_protocol(whole: Path, trained, tmp_path: Path) -> None:
    runs = [trained(f"run-{i}", float(i)) for i in range(10)]
    training = [read_training(run) for run in runs]
    for name in ("figure-1", "figure-2"):
        figure = FIGURES[name].draw(ReportData(whole), training)
        labels = figure.axes[0].get_legend_handles_labels()[1]
        assert labels == [f"run-{i} (β = {i})" for i in range(10)]
    assert not write_report(whole, tmp_path / "report", runs=runs, only=["figure-1", "figure-2"])
    text = (tmp_path / "report" / "report.md").read_text()
    assert text.count("During training, protocol quick: 12 prompts × 4 samples") == 2
    assert text.count("protocol full") == 1  # the right panel of Figure 1


def test_without_a_logged_kl_only_figure_2_is_left_out(whole: Path, trained, tmp_path: Path) -> None:
    runs, only = [trained("silent", 1.0, logged=False)], ["figure-1", "figure-2"]
    left_out = write_report(whole, tmp_path / "report", runs=runs, only=only)
    assert list(left_out) == ["figure-2"] and "TensorBoard scalars of run silent" in left_out["figure-2"]


def test_runs_of_different_protocols_are_refused(whole: Path, trained, tmp_path: Path) -> None:
    runs = [trained("beta0", 0.0), trained("beta15", 15.0, protocol="full")]
    for name in ("figure-1", "figure-2"):
        with pytest.raises(ValueError, match=r"one kind \(beta0: quick, .*; beta15: full, .*\)"):
            write_report(whole, tmp_path / "report", runs=runs, only=[name])
    assert not (tmp_path / "report").exists()


def test_a_renamed_run_keeps_its_points(trained) -> None:
    old = Path(trained("before", 1.0))
    old.rename(old.with_name("after"))
    training = read_training(old.with_name("after"))
    assert training.name == "after" and [point.step for point in training.points] == [0, 500]
