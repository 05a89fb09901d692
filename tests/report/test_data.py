"""The points of a report by series, and refused results files."""

from __future__ import annotations

from pathlib import Path

import pytest

from qd.commands.report import write_report
from qd.evaluation.results import NotMeasuredError
from qd.report.data import ReportData
from qd.report.headline import headline
from tests.report.conftest import Synthetic


def test_a_run_named_without_its_step_is_the_same_setting(synthetic: Synthetic) -> None:
    """Earlier versions wrote such points; another step is another setting."""
    synthetic.add("betas", "runs/x", 1.0, 0.3, step=2000, seed=0)
    synthetic.add("betas", "runs/x/step-002000", 1.2, 0.3, step=2000, seed=1)
    synthetic.add("betas", "runs/x/step-001000", 0.5, 0.3, step=1000, seed=0)
    settings = ReportData(synthetic.results.points.path).series("betas")
    assert sorted([point.seed for point in one.points] for one in settings) == [[0], [0, 1]]


def test_incomparable_points_are_refused_until_one_kind_is_chosen(whole: Path, synthetic) -> None:
    synthetic.add("betas", "base", 0.0, 0.6, protocol="quick")
    with pytest.raises(ValueError, match="2 protocols.*full; quick.*--protocol"):
        ReportData(whole)
    assert {point.protocol for point in ReportData(whole, protocol="full").points} == {"full"}
    synthetic.add("betas", "base", 0.0, 0.6, scorers="clap@2")
    with pytest.raises(ValueError, match="2 scorers"):
        ReportData(whole, protocol="full")
    assert {point.scorers for point in ReportData(whole, "full", "clap").points} == {"clap@2"}


def test_a_duplicate_line_counts_once(synthetic) -> None:
    for _ in range(2):
        synthetic.add("betas", "base", 0.1, 0.6)
    with pytest.warns(UserWarning, match="twice"):
        (setting,) = ReportData(synthetic.results.points.path).series("betas")
    assert len(setting.points) == 1


def test_bad_results_are_refused(synthetic, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no points"):
        write_report(tmp_path / "none.jsonl", tmp_path / "report")
    point = synthetic.add("betas", "base", 0.0, 0.6)
    file = synthetic.results.points.path
    with pytest.raises(ValueError, match="figure-5, nonsense.* figure-1"):
        write_report(file, tmp_path / "report", only=["figure-5", "nonsense"])
    with pytest.raises(ValueError, match="series betas.*\n  • figure-6 needs a"):
        write_report(file, tmp_path / "report", only=["figure-6"])
    with pytest.raises(NotMeasuredError, match="betas"):
        headline(ReportData(file))
    (tmp_path / "file").touch()
    for out in (tmp_path / "file", tmp_path / "file" / "report"):
        with pytest.raises(ValueError, match="out.*file' is a file"):
            write_report(file, out)
    values = synthetic.results.per_prompt(point.key)
    values.write_bytes(values.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"\.npz cannot be read"):
        ReportData(file).series("betas")
    values.unlink()
    with pytest.raises(ValueError, match=r"\.npz is missing.* 'base'"):
        ReportData(file).series("betas")


def test_a_model_retrained_under_its_old_name_is_refused(synthetic) -> None:
    synthetic.add("betas", "runs/x", 1.0, 0.2)
    line = synthetic.results.points.path.read_text()
    synthetic.results.points.path.write_text(
        line + line.replace('"key": "', '"key": "z').replace('"quality": 1.0', '"quality": 2.0')
    )
    with pytest.raises(ValueError, match=r"2 measurements.*seed 0.*'runs/x'"):
        ReportData(synthetic.results.points.path).series("betas")


def test_two_steps_at_one_lambda_of_an_interpolation_are_refused(synthetic) -> None:
    for step in ("step-002000", "step-004000"):
        synthetic.add("betas", f"runs/b/{step}", 1.0, 0.3, beta=15.0, step=int(step[5:]))
        synthetic.add("", f"runs/a:0.5 runs/b/{step}:0.5", 1.0, 0.3, lam=0.5)
    synthetic.add("slider", "runs/a:0.5 runs/b/step-002000:0.5", 1.0, 0.3, lam=0.5)
    synthetic.add("slider", "runs/a:0.25 runs/b/step-004000:0.75", 1.0, 0.4, lam=0.75)
    data = ReportData(synthetic.results.points.path)
    assert [len(data.series(name)) for name in ("betas", "", "slider")] == [2, 2, 2]
    synthetic.add("slider", "runs/a:0.5 runs/b/step-004000:0.5", 0.9, 0.4, lam=0.5)
    with pytest.raises(ValueError, match=r"2 models at λ = 0.5.*'slider'.*step-002000:0.5; .*step-004000:0.5"):
        ReportData(synthetic.results.points.path).series("slider")


def test_the_newest_step_of_a_guidance_series_is_drawn(synthetic, tmp_path: Path) -> None:
    """One warning names the older points; a list of models may have both steps."""
    for step in (2000, 4000):
        for scale in (1.0, 3.0, 5.0) if step == 2000 else (1.0, 3.0):
            model, sampling = f"runs/b/step-{step:06d}", {"guidance_scale": scale, "step": step, "seed": 1}
            synthetic.add("guidance-b", model, scale + step / 1e4, 0.3, **sampling)
        synthetic.add("temperature-b", f"runs/b{step}/step-{step:06d}", 1.0, 0.3, temperature=step / 2000, step=step)
        synthetic.add("betas", f"runs/b/step-{step:06d}", 1.0, 0.3, beta=15.0, step=step)
    file = synthetic.results.points.path
    with pytest.warns(UserWarning) as warnings:
        write_report(file, tmp_path / "report", only=["figure-6"])
    (message,) = (str(warning.message) for warning in warnings)
    assert "3 points of older steps" in message and message.endswith("'guidance-b' has runs/b at steps 2000, 4000")
    data = ReportData(file)
    with pytest.warns(UserWarning, match="3 points"):
        data.keep_newest_steps()
    assert [(s.point.guidance_scale, s.point.step) for s in data.series("guidance-b")] == [(1.0, 4000), (3.0, 4000)]
    assert [len(data.series(name)) for name in ("temperature-b", "betas")] == [2, 2]
