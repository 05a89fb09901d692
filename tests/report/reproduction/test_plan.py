"""The plan of a reproduction, and the state of its runs."""

from __future__ import annotations

from contextlib import contextmanager

import pytest

from qd.config.loading import ConfigError, TrainConfig, config_folder, load_config
from qd.config.resume import save_config
from qd.report.reproduction.plan import State, planned_runs
from qd.report.reproduction.sweep_plan import load_sweep
from qd.runs.folders import CHECKPOINT
from tests.locking_process import locked_by_another
from tests.report.reproduction.conftest import load_plan

PLANS = sorted(file.stem for file in (config_folder() / "reproduction").glob("*.yaml"))


@pytest.mark.parametrize("name", ["default", "quick"])
def test_full_plans_are_complete(name, tmp_path):
    plan = load_plan(name, f"folder={tmp_path}")
    runs = {one.run.name: one for one in planned_runs(plan)}
    assert {"beta0", "beta5", "beta10", "beta15", "n2", "n4", "n4-shared", "n8-shared"} <= runs.keys()
    batches = {plan.train_config(one.run).data.batch_size for one in runs.values()}
    assert len(batches) == 1
    assert all(one.state is State.NEW for one in runs.values())
    # The sweep names each run by its folder in the plan.
    text = (config_folder() / "sweep" / f"{plan.sweep}.yaml").read_text(encoding="utf-8")
    shipped = load_plan(name).folder
    assert all(f"  {run}: {shipped}/{run}\n" in text for run in runs)
    guided = load_sweep(plan).guided
    assert (len(guided), sum(guided)) == {"default": (114, 25), "quick": (30, 8)}[name]


def test_the_averages_are_measured_without_training():
    plan, default = load_plan("averaged"), load_plan("default")
    assert planned_runs(plan) == [] and plan.folder != default.folder
    text = (config_folder() / "sweep" / f"{plan.sweep}.yaml").read_text(encoding="utf-8")
    trained = [run.name for run in default.runs if run.name.startswith("beta")]
    assert len(trained) == 6 and all(f"  {run}: {plan.folder}/{run}\n" in text for run in trained)
    assert len(load_sweep(plan).guided) == 36


def test_a_larger_beta_is_measured_with_its_placebo():
    plan = load_plan("larger-beta")
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
    plan = load_plan("shipped")
    assert planned_runs(plan) == [] and plan.sweep == "shipped"
    assert plan.folder != load_plan("default").folder  # their sweeps use different protocols
    assert len(load_sweep(plan).guided) == 66


def test_both_estimators_are_compared_at_constant_batch():
    plan = load_plan("default")
    chosen = {run.name: plan.train_config(run) for run in plan.runs}
    estimators = {
        name: (c.rollout.samples_per_prompt, c.objective.estimator) for name, c in chosen.items() if c.beta == 15
    }
    assert estimators["beta15"] == (8, "pairs") and estimators["n8-shared"] == (8, "shared")
    assert estimators["n4"] == (4, "pairs") and estimators["n4-shared"] == (4, "shared") and estimators["n2"][0] == 2
    assert all(config.trainer.max_steps >= 2000 for config in chosen.values())


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
    def save(*overrides: str) -> None:
        wanted = one.plan.settings(one.run)
        save_config(load_config(TrainConfig, "train", one.plan.train, [*wanted, *overrides]), one.folder)

    one.folder.mkdir()
    save("beta=5")
    with pytest.raises(ConfigError, match=r"beta is 15.0.* 5.0.*another folder"):
        planned_runs(one.plan)
    save("guidance.scale=2")  # a setting without an override
    with pytest.raises(ConfigError, match=r"guidance.scale is 3.0.* 2.0"):
        planned_runs(one.plan)
    save("trainer.max_steps=10", "trainer.precision=bf16-mixed")
    assert planned_runs(one.plan) == [one]


def test_all_problems_are_reported_together(tmp_path):
    (tmp_path / "bad.yaml").write_text(
        "runs:\n  - {name: a, beta: -1}\n  - {name: b, overrides: [trainer.max_stepz=1]}\n"
    )
    with pytest.raises(ConfigError) as error:
        load_plan(str(tmp_path / "bad.yaml"))
    assert "run a: beta" in str(error.value) and "run b: " in str(error.value)
    with pytest.raises(ConfigError, match="'a'.* twice"):
        load_plan("quick", "runs=[{name: a},{name: a}]")
    with pytest.raises(ConfigError, match="'beta0.5'; expected letters, digits"):
        load_plan("quick", "runs=[{name: beta0_5},{name: beta0.5}]")
    for betas in ("beta0,beta0", "beta0", "beta15,beta0"):
        with pytest.raises(ConfigError, match="betas is .*; expected two"):
            load_plan("quick", f"betas=[{betas}]")
    with pytest.raises(ConfigError, match="'beta3'.* expected some of beta0"):
        planned_runs(load_plan("quick", f"folder={tmp_path}"), ["beta3"])


def test_an_active_run_is_not_cleared(one):
    """After a reproduction is killed, its runs may still be saving."""
    one.folder.mkdir()
    with locked_by_another(one.folder), pytest.raises(ValueError, match="process [0-9]+"):
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
