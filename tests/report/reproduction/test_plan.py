"""The plan of a reproduction, and the state of its runs."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch

from qd.config.loading import ConfigError, config_folder, load_config
from qd.report.reproduction.estimate import estimate, gibibytes, read_clock
from qd.report.reproduction.plan import PlannedRun, ReproductionConfig, RunConfig, State, planned_runs
from qd.report.reproduction.processes import Job
from qd.report.reproduction.reproduce import _progress, reproduce
from qd.report.reproduction.sweep_plan import load_sweep
from qd.runs.folders import CHECKPOINT, CONFIG
from tests.held_place import written_by_another

PLANS = sorted(file.stem for file in (config_folder() / "reproduction").glob("*.yaml"))


def load(name: str, *overrides: str) -> ReproductionConfig:
    return load_config(ReproductionConfig, "reproduction", name, overrides)


@pytest.mark.parametrize("name", ["default", "quick"])
def test_full_plans_are_complete(name, tmp_path):
    plan = load(name, f"folder={tmp_path}")
    runs = {one.run.name: one for one in planned_runs(plan)}
    assert {"beta0", "beta5", "beta10", "beta15", "n2", "n4", "n4-shared", "n8-shared"} <= runs.keys()
    batches = {plan.train_config(one.run).data.batch_size for one in runs.values()}
    assert len(batches) == 1
    assert all(one.state is State.NEW for one in runs.values())
    # The sweep names each run by its folder in the plan.
    text = (config_folder() / "sweep" / f"{plan.sweep}.yaml").read_text(encoding="utf-8")
    shipped = load(name).folder
    assert all(f"  {run}: {shipped}/{run}\n" in text for run in runs)
    guided = load_sweep(plan).guided
    assert (len(guided), sum(guided)) == {"default": (114, 25), "quick": (30, 8)}[name]


def test_the_averages_are_measured_without_training():
    plan, default = load("averaged"), load("default")
    assert planned_runs(plan) == [] and plan.folder != default.folder
    text = (config_folder() / "sweep" / f"{plan.sweep}.yaml").read_text(encoding="utf-8")
    trained = [run.name for run in default.runs if run.name.startswith("beta")]
    assert len(trained) == 6 and all(f"  {run}: {plan.folder}/{run}\n" in text for run in trained)
    assert len(load_sweep(plan).guided) == 36


def test_a_larger_beta_is_measured_with_its_placebo():
    plan = load("larger-beta")
    configs = {one.run.name: plan.train_config(one.run) for one in planned_runs(plan)}
    assert {name for name, config in configs.items() if config.objective.shuffle_advantages} == {
        "beta15-placebo",
        "beta100-placebo",
    }
    assert configs["beta100"].trainer.max_steps == configs["beta100-placebo"].trainer.max_steps
    text = (config_folder() / "sweep" / f"{plan.sweep}.yaml").read_text(encoding="utf-8")
    assert all(f"  {run}: {plan.folder}/{run}\n" in text for run in configs)
    assert set(plan.betas) <= {"beta0", "beta15", *configs}
    assert len(load_sweep(plan).guided) == 63


def test_the_shipped_pair_is_measured_without_training():
    plan = load("shipped")
    assert planned_runs(plan) == [] and plan.sweep == "shipped"
    assert plan.folder != load("default").folder  # their sweeps use different protocols
    assert len(load_sweep(plan).guided) == 66


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


def test_both_estimators_are_compared_at_constant_batch():
    plan = load("default")
    chosen = {run.name: plan.train_config(run) for run in plan.runs}
    found = {name: (c.rollout.samples_per_prompt, c.objective.estimator) for name, c in chosen.items() if c.beta == 15}
    assert found["beta15"] == (8, "pairs") and found["n8-shared"] == (8, "shared")
    assert found["n4"] == (4, "pairs") and found["n4-shared"] == (4, "shared") and found["n2"][0] == 2
    assert all(config.trainer.max_steps >= 2000 for config in chosen.values())


@pytest.fixture
def one(tmp_path) -> PlannedRun:
    plan = ReproductionConfig(folder=str(tmp_path), overrides=["trainer.max_steps=20"], runs=[RunConfig("a", 15.0)])
    return planned_runs(plan)[0]


def test_the_states_of_a_run(one):
    assert one.state is State.NEW and one.command()[3:6] == ["train", "--config", "default"]
    assert {"beta=15.0", "seed=0", "trainer.max_steps=20", "--name", "a"} <= set(one.command())
    one.folder.mkdir()
    (one.folder / "hparams.yaml").touch()
    one.clear()  # killed before anything was saved
    assert not one.folder.exists()
    one.folder.mkdir()
    (one.folder / CHECKPOINT).touch()
    assert one.state is State.BEGUN and one.command()[3:5] == ["train", "--resume"]
    one.clear()
    assert one.folder.exists()
    (one.folder / "step-000010").mkdir()
    assert one.state is State.BEGUN
    (one.folder / "step-000020").mkdir()
    assert one.state is State.DONE


def test_a_folder_with_other_settings_is_refused(one):
    one.folder.mkdir()
    (one.folder / CONFIG).write_text("beta: 5.0\nseed: 0\ntrainer: {max_steps: 20}\n")
    with pytest.raises(ConfigError, match=r"beta is 15.0.* 5.0.*another folder"):
        planned_runs(one.plan)
    (one.folder / CONFIG).write_text("beta: 15.0\nseed: 0\nguidance: {scale: 2.0}\n")  # a setting without an override
    with pytest.raises(ConfigError, match=r"guidance.scale is 3.0.* 2.0"):
        planned_runs(one.plan)
    (one.folder / CONFIG).write_text("beta: 15.0\nseed: 0\ntrainer: {max_steps: 10, precision: bf16-mixed}\n")
    assert planned_runs(one.plan) == [one]


def test_all_problems_are_reported_together(tmp_path):
    (tmp_path / "bad.yaml").write_text(
        "runs:\n  - {name: a, beta: -1}\n  - {name: b, overrides: [trainer.max_stepz=1]}\n"
    )
    with pytest.raises(ConfigError) as error:
        load(str(tmp_path / "bad.yaml"))
    assert "run a: beta" in str(error.value) and "run b: " in str(error.value)
    with pytest.raises(ConfigError, match="'a'.* twice"):
        load("quick", "runs=[{name: a},{name: a}]")
    with pytest.raises(ConfigError, match="'beta0.5'; expected letters, digits"):
        load("quick", "runs=[{name: beta0_5},{name: beta0.5}]")
    for betas in ("beta0,beta0", "beta0", "beta15,beta0"):
        with pytest.raises(ConfigError, match="betas is .*; expected two"):
            load("quick", f"betas=[{betas}]")
    with pytest.raises(ConfigError, match="'beta3'.* expected some of beta0"):
        planned_runs(load("quick", f"folder={tmp_path}"), ["beta3"])


def test_times_and_sizes_of_a_dry_run_are_parsed():
    assert [read_clock(text) for text in ("45 s", "12 min", "3 h 05 min")] == [45, 720, 11_100]
    assert gibibytes("x\ndisk: 2.5 GiB\n") == 2.5 and gibibytes("disk: 512 MiB") == 0.5


def test_the_estimate_is_the_sum_of_the_remaining_work(tmp_path, monkeypatch):
    printed = {"train": "time: 10 min (2.00 s a step)\ndisk: 1.0 GiB", "evaluate": "time: 30 s\ndisk: 102 MiB"}
    monkeypatch.setattr("qd.report.reproduction.estimate._dry_run", lambda arguments: printed[arguments[0]])
    plan = load("quick", f"folder={tmp_path}")
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
        return load("shipped", f"folder={tmp_path}"), dry_runs

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
    with written_by_another(tmp_path) as other:
        with pytest.raises(ValueError, match=f"process {other.pid}"):
            reproduce(plan, ["sweep"], [], jobs=1)
        assert dry_runs == []
    assert reproduce(plan, ["sweep"], [], jobs=1) == 0


def test_an_active_run_is_not_cleared(one):
    """After a reproduction is killed, its runs may still be saving."""
    one.folder.mkdir()
    with written_by_another(one.folder), pytest.raises(ValueError, match="process"):
        one.clear()
    assert one.folder.is_dir()
    one.clear()
    assert not one.folder.exists()


def test_a_run_that_saves_just_before_the_lock_is_not_cleared(one, monkeypatch):
    one.folder.mkdir()

    @contextmanager
    def saved_first(place):
        (one.folder / CHECKPOINT).touch()
        yield

    monkeypatch.setattr("qd.report.reproduction.plan.exclusive_lock", saved_first)
    one.clear()
    assert one.state is State.BEGUN


def test_no_needs_are_printed_if_nothing_remains(shipped_sweep, capsys):
    plan, dry_runs = shipped_sweep(0, "0 s", "0 MiB")
    assert reproduce(plan, ["runs", "sweep", "report"], [], jobs=2) == 0
    assert "time:" not in capsys.readouterr().out and len(dry_runs) == 1
    assert reproduce(plan, ["report"], [], jobs=2) == 0
    assert "time:" not in capsys.readouterr().out and len(dry_runs) == 1  # drawing needs no dry run
