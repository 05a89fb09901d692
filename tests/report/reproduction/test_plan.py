"""What a reproduction consists of, and how far each run has come."""

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
def test_every_plan_of_all_runs_is_whole(name, tmp_path):
    plan = load(name, f"folder={tmp_path}")
    runs = {one.run.name: one for one in planned_runs(plan)}
    assert {"beta0", "beta5", "beta10", "beta15", "n2", "n4", "n4-shared", "n8-shared"} <= runs.keys()
    batches = {plan.train_config(one.run).data.batch_size for one in runs.values()}
    assert len(batches) == 1
    assert all(one.state is State.NEW for one in runs.values())
    # The sweep names each of the runs by the folder that the plan gives it.
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


def test_a_larger_beta_is_measured_beside_its_placebo():
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
    assert plan.folder != load("default").folder  # their sweeps have other protocols
    assert len(load_sweep(plan).guided) == 66


def test_the_estimate_of_a_run_that_has_begun_begins_none(one):
    one.folder.mkdir()
    (one.folder / CHECKPOINT).touch()
    assert "--resume" in one.command() and "--resume" not in one.settings()
    assert not any(text.startswith(("--name", "trainer.runs=")) for text in one.settings())
    assert one.command()[-1] == "trainer.max_steps=20"  # if the plan asks for more steps than it was begun with


def test_of_a_run_that_has_begun_the_steps_that_are_left_count(tmp_path, monkeypatch):
    """Two runs of a hundred steps of a second, of which one has made eighty; and a checkpoint that cannot be read."""
    monkeypatch.setattr(
        "qd.report.reproduction.estimate._told", lambda arguments: "time: 10 min (1.00 s a step)\ndisk: 1.0 GiB"
    )
    runs = [RunConfig("a", 15.0), RunConfig("b", 15.0, seed=1)]
    plan = ReproductionConfig(folder=str(tmp_path), overrides=["trainer.max_steps=100"], runs=runs)
    (tmp_path / "b").mkdir()
    torch.save({"global_step": 80}, tmp_path / "b" / CHECKPOINT)
    told = estimate(plan, ["runs"], [], jobs=1).text.splitlines()
    assert [line.strip() for line in told[:2]] == ["to do  a, 100 steps", "to go on  b, 20 of 100 steps"]
    assert told[-2] == "time: 2 min"
    torch.save({"global_step": 150}, tmp_path / "b" / CHECKPOINT)  # more than are asked for by now
    assert estimate(plan, ["runs"], [], jobs=1).text.splitlines()[1].strip() == "to go on  b, 0 of 100 steps"
    (tmp_path / "b" / CHECKPOINT).write_bytes(b"")
    assert estimate(plan, ["runs"], [], jobs=1).text.splitlines()[-2] == "time: 3 min"


def test_the_time_left_knows_that_no_run_can_be_split(tmp_path):
    plan = ReproductionConfig(folder=str(tmp_path), overrides=["trainer.max_steps=100"], runs=[RunConfig("a", 15.0)])
    runs = {name: PlannedRun(plan, RunConfig(name), 100) for name in "abcd"}
    jobs = {name: Job(name, list, tmp_path / name) for name in "abcd"}
    jobs["b"].log.write_text("step 40/100 · 3.00 s/step · KL\n")
    told = _progress(runs, [jobs["a"]], [jobs["b"], jobs["c"]], [], 2)  # 60 steps; 100; and 100 after the 60
    assert told == "runs: 1 of 4 done · b 40/100, c 0/100 · 8 min left"


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


def test_a_run_begins_goes_on_and_ends(one):
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


def test_a_folder_of_other_settings_is_refused(one):
    one.folder.mkdir()
    (one.folder / CONFIG).write_text("beta: 5.0\nseed: 0\ntrainer: {max_steps: 20}\n")
    with pytest.raises(ConfigError, match=r"beta is 15.0, and this run has 5.0; give the plan another folder"):
        planned_runs(one.plan)
    (one.folder / CONFIG).write_text("beta: 15.0\nseed: 0\nguidance: {scale: 2.0}\n")  # no override names it
    with pytest.raises(ConfigError, match=r"guidance.scale is 3.0, and this run has 2.0"):
        planned_runs(one.plan)
    (one.folder / CONFIG).write_text("beta: 15.0\nseed: 0\ntrainer: {max_steps: 10, precision: bf16-mixed}\n")
    assert planned_runs(one.plan) == [one]


def test_problems_are_told_at_once(tmp_path):
    (tmp_path / "bad.yaml").write_text(
        "runs:\n  - {name: a, beta: -1}\n  - {name: b, overrides: [trainer.max_stepz=1]}\n"
    )
    with pytest.raises(ConfigError) as error:
        load(str(tmp_path / "bad.yaml"))
    assert "run a: beta" in str(error.value) and "run b: " in str(error.value)
    with pytest.raises(ConfigError, match="'a' is there twice"):
        load("quick", "runs=[{name: a},{name: a}]")
    with pytest.raises(ConfigError, match="a name is 'beta0.5'; expected letters, digits, - and _"):
        load("quick", "runs=[{name: beta0_5},{name: beta0.5}]")
    for betas in ("beta0,beta0", "beta0", "beta15,beta0"):
        with pytest.raises(ConfigError, match="betas is .*; expected two roles or more, each once, by rising β"):
            load("quick", f"betas=[{betas}]")
    with pytest.raises(ConfigError, match="there is no run 'beta3'; expected some of beta0"):
        planned_runs(load("quick", f"folder={tmp_path}"), ["beta3"])


def test_times_and_sizes_are_read_as_they_are_told():
    assert [read_clock(text) for text in ("45 s", "12 min", "3 h 05 min")] == [45, 720, 11_100]
    assert gibibytes("x\ndisk: 2.5 GiB\n") == 2.5 and gibibytes("disk: 512 MiB") == 0.5


def test_the_estimate_adds_up_what_is_left(tmp_path, monkeypatch):
    told = {"train": "time: 10 min (2.00 s a step)\ndisk: 1.0 GiB", "evaluate": "time: 30 s\ndisk: 102 MiB"}
    monkeypatch.setattr("qd.report.reproduction.estimate._told", lambda arguments: told[arguments[0]])
    plan = load("quick", f"folder={tmp_path}")
    (tmp_path / "beta0" / "step-000150").mkdir(parents=True)
    needs = estimate(plan, ["runs"], [], jobs=2)
    assert needs.left
    lines = needs.text.splitlines()
    assert lines[0].split() == ["done", "beta0,", "150", "steps"] and "to do" in lines[1]
    assert lines[-2] == "time: 20 min"  # 7 runs of 150 steps of 2 s, two at once: the last one waits for its turn
    assert lines[-1].startswith("disk: 7.0 GiB of")
    sweep = load_sweep(plan)
    seconds = 30 * (len(sweep.guided) + sum(sweep.guided))
    minutes = read_clock(estimate(plan, ["sweep"], [], jobs=1).text.splitlines()[-2].removeprefix("time: "))
    assert minutes == pytest.approx(seconds, abs=31)
    some = estimate(plan, ["sweep"], [], jobs=1, series=["slider"]).text
    assert f"sweep: {len(load_sweep(plan, ['slider']).guided)} points, 30 s each" in some
    assert len(load_sweep(plan, ["slider"]).guided) < len(sweep.guided)


@pytest.fixture
def sweep_of_the_shipped(tmp_path, monkeypatch):
    """Makes a plan of no runs whose sweep tells that so many points are to be measured; returns what it is asked."""
    asked = []

    def make(left: int, time: str, disk: str) -> tuple[ReproductionConfig, list[list[str]]]:
        told = f"101 prompts\nx.jsonl: of 77 points {70 - left} are there, 7 are the same, {left} to measure\n"
        told += f"time: {time}\ndisk: {disk}\n"
        monkeypatch.setattr("qd.report.reproduction.estimate._told", lambda arguments: asked.append(arguments) or told)
        monkeypatch.setattr("qd.report.reproduction.reproduce.run_jobs", lambda *_: [])
        return load("shipped", f"folder={tmp_path}"), asked

    return make


def test_a_sweep_alone_tells_what_it_needs_before_it_starts(sweep_of_the_shipped, capsys):
    """Of the points that are left, by the very command that will measure them."""
    plan, asked = sweep_of_the_shipped(62, "52 min", "512 MiB")
    assert reproduce(plan, ["runs", "sweep", "report"], [], jobs=2) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[:2] == ["sweep: 62 of 77 points left", "time: 26 min"] and told[2].startswith("disk: 0.5 GiB of")
    assert told[3:5] == ["== runs", "0 of 0 runs are done"] and "== sweep" in told
    assert asked == [["sweep", "--config", "shipped", "--out", str(plan.results), "--device", "cpu"]]


def test_a_plan_that_another_process_is_at_is_left_alone(sweep_of_the_shipped, tmp_path):
    plan, asked = sweep_of_the_shipped(1, "1 s", "1 MiB")
    with written_by_another(tmp_path) as other:
        with pytest.raises(ValueError, match=f"is being written by process {other.pid} of "):
            reproduce(plan, ["sweep"], [], jobs=1)
        assert asked == []
    assert reproduce(plan, ["sweep"], [], jobs=1) == 0


def test_a_run_that_has_not_ended_yet_is_not_cleared(one):
    """As after a reproduction was killed, whose runs are still saving."""
    one.folder.mkdir()
    with written_by_another(one.folder), pytest.raises(ValueError, match="is being written by"):
        one.clear()
    assert one.folder.is_dir()
    one.clear()
    assert not one.folder.exists()


def test_a_run_that_saves_at_the_last_moment_is_not_cleared(one, monkeypatch):
    """Between the look at what it has saved and the lock."""
    one.folder.mkdir()

    @contextmanager
    def saved_first(place):
        (one.folder / CHECKPOINT).touch()
        yield

    monkeypatch.setattr("qd.report.reproduction.plan.exclusive_lock", saved_first)
    one.clear()
    assert one.state is State.BEGUN


def test_nothing_is_told_where_nothing_is_left(sweep_of_the_shipped, capsys):
    plan, asked = sweep_of_the_shipped(0, "0 s", "0 MiB")
    assert reproduce(plan, ["runs", "sweep", "report"], [], jobs=2) == 0
    assert "time:" not in capsys.readouterr().out and len(asked) == 1
    assert reproduce(plan, ["report"], [], jobs=2) == 0
    assert "time:" not in capsys.readouterr().out and len(asked) == 1  # what only draws asks nothing
