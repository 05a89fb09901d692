"""The estimate of a reproduction's remaining work, printed before it starts."""

from __future__ import annotations

import pytest
import torch

from qd.report.reproduction.estimate import estimate, gibibytes, read_clock
from qd.report.reproduction.plan import PlannedRun, ReproductionConfig, RunConfig
from qd.report.reproduction.processes import Job
from qd.report.reproduction.reproduce import _progress, reproduce
from qd.report.reproduction.sweep_plan import load_sweep
from qd.runs.folders import CHECKPOINT
from tests.locking_process import locked_by_another
from tests.report.reproduction.conftest import load_plan


def test_estimating_a_started_run_does_not_resume_it(one):
    one.folder.mkdir()
    (one.folder / CHECKPOINT).touch()
    assert "--resume" in one.command() and "--resume" not in one.settings()
    assert not any(text.startswith(("--name", "trainer.runs=")) for text in one.settings())
    assert one.command()[-1] == "trainer.max_steps=20"  # in case the plan now has more steps


def test_the_estimate_counts_the_remaining_steps_of_a_started_run(tmp_path, monkeypatch):
    """Two runs of 100 steps of 1 s; one has made 80, later 150, and then its checkpoint is unreadable."""
    monkeypatch.setattr(
        "qd.report.reproduction.estimate._dry_run", lambda arguments: "time: 10 min (1.00 s a step)\ndisk: 1.0 GiB"
    )
    runs = [RunConfig("a", 15.0), RunConfig("b", 15.0, seed=1)]
    plan = ReproductionConfig(folder=str(tmp_path), overrides=["trainer.max_steps=100"], runs=runs)
    (tmp_path / "b").mkdir()
    torch.save({"global_step": 80}, tmp_path / "b" / CHECKPOINT)
    lines = estimate(plan, ["runs"], [], jobs=1).text.splitlines()
    assert [line.strip() for line in lines[:2]] == ["to do  a, 100 steps", "to resume  b, 20 of 100 steps"]
    assert lines[-2] == "time: 2 min"
    torch.save({"global_step": 150}, tmp_path / "b" / CHECKPOINT)  # more than the plan has now
    assert estimate(plan, ["runs"], [], jobs=1).text.splitlines()[1].strip() == "to resume  b, 0 of 100 steps"
    (tmp_path / "b" / CHECKPOINT).write_bytes(b"")
    assert estimate(plan, ["runs"], [], jobs=1).text.splitlines()[-2] == "time: 3 min"


def test_the_remaining_time_assumes_that_runs_cannot_be_split(tmp_path):
    plan = ReproductionConfig(folder=str(tmp_path), overrides=["trainer.max_steps=100"], runs=[RunConfig("a", 15.0)])
    runs = {name: PlannedRun(plan, RunConfig(name), 100) for name in "abcd"}
    jobs = {name: Job(name, list, tmp_path / name) for name in "abcd"}
    jobs["b"].log.write_text("step 40/100 · 3.00 s/step · KL\n")
    line = _progress(runs, [jobs["a"]], [jobs["b"], jobs["c"]], [], 2)  # 60 steps; 100; and 100 after the 60
    assert line == "runs: 1 of 4 done · b 40/100, c 0/100 · 8 min left"


def test_times_and_sizes_of_a_dry_run_are_parsed():
    assert [read_clock(text) for text in ("45 s", "12 min", "3 h 05 min")] == [45, 720, 11_100]
    assert gibibytes("x\ndisk: 2.5 GiB\n") == 2.5 and gibibytes("disk: 512 MiB") == 0.5


def test_the_estimate_is_the_sum_of_the_remaining_work(tmp_path, monkeypatch):
    printed = {"train": "time: 10 min (2.00 s a step)\ndisk: 1.0 GiB", "evaluate": "time: 30 s\ndisk: 102 MiB"}
    monkeypatch.setattr("qd.report.reproduction.estimate._dry_run", lambda arguments: printed[arguments[0]])
    plan = load_plan("quick", f"folder={tmp_path}")
    (tmp_path / "beta0" / "step-000150").mkdir(parents=True)
    needs = estimate(plan, ["runs"], [], jobs=2)
    assert needs.left
    lines = needs.text.splitlines()
    assert lines[0].split() == ["done", "beta0,", "150", "steps"] and "to do" in lines[1]
    assert lines[-2] == "time: 20 min"  # 7 runs of 150 steps of 2 s, two in parallel: the last one waits
    assert lines[-1].startswith("disk: 7.0 GiB")
    sweep = load_sweep(plan)
    seconds = 30 * (len(sweep.guided) + sum(sweep.guided))
    minutes = read_clock(estimate(plan, ["sweep"], [], jobs=1).text.splitlines()[-2].removeprefix("time: "))
    assert minutes == pytest.approx(seconds, abs=31)
    some = estimate(plan, ["sweep"], [], jobs=1, series=["slider"]).text
    assert f"sweep: {len(load_sweep(plan, ['slider']).guided)} points, 30 s each" in some
    assert len(load_sweep(plan, ["slider"]).guided) < len(sweep.guided)


@pytest.fixture
def shipped_sweep(tmp_path, monkeypatch):
    """Makes a plan without runs whose sweep reports the given needs; also returns the dry runs that were made."""
    dry_runs = []

    def make(left: int, time: str, disk: str) -> tuple[ReproductionConfig, list[list[str]]]:
        printed = f"101 prompts\nx.jsonl: of 77 points {70 - left} are there, 7 are the same, {left} to measure\n"
        printed += f"time: {time}\ndisk: {disk}\n"
        monkeypatch.setattr(
            "qd.report.reproduction.estimate._dry_run", lambda arguments: dry_runs.append(arguments) or printed
        )
        monkeypatch.setattr("qd.report.reproduction.reproduce.run_jobs", lambda *_: [])
        return load_plan("shipped", f"folder={tmp_path}"), dry_runs

    return make


def test_the_needs_of_a_sweep_are_printed_before_it_starts(shipped_sweep, capsys):
    """They are those of the missing points, from a dry run of the same command."""
    plan, dry_runs = shipped_sweep(62, "52 min", "512 MiB")
    assert reproduce(plan, ["runs", "sweep", "report"], [], jobs=2) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["sweep: 62 of 77 points left", "time: 26 min"] and lines[2].startswith("disk: 0.5 GiB")
    assert lines[3:5] == ["== runs", "0 of 0 runs are done"] and "== sweep" in lines
    assert dry_runs == [["sweep", "--config", "shipped", "--out", str(plan.results), "--device", "cpu"]]


def test_a_plan_locked_by_another_process_is_refused(shipped_sweep, tmp_path):
    plan, dry_runs = shipped_sweep(1, "1 s", "1 MiB")
    with locked_by_another(tmp_path) as other:
        with pytest.raises(ValueError, match=f"process {other.pid}"):
            reproduce(plan, ["sweep"], [], jobs=1)
        assert dry_runs == []
    assert reproduce(plan, ["sweep"], [], jobs=1) == 0


def test_no_needs_are_printed_if_nothing_remains(shipped_sweep, capsys):
    plan, dry_runs = shipped_sweep(0, "0 s", "0 MiB")
    assert reproduce(plan, ["runs", "sweep", "report"], [], jobs=2) == 0
    assert "time:" not in capsys.readouterr().out and len(dry_runs) == 1
    assert reproduce(plan, ["report"], [], jobs=2) == 0
    assert "time:" not in capsys.readouterr().out and len(dry_runs) == 1  # drawing needs no dry run
