from __future__ import annotations

from collections import namedtuple
from dataclasses import asdict, dataclass, field
from datetime import datetime

import pytest
import torch

from qd import runs
from qd.config import ConfigError, load_config
from qd.config_schema import TrainConfig
from qd.modules.embedder_config import EmbedderTrainConfig


@dataclass
class Settings:
    beta: float = 15.0


@dataclass
class Place:
    runs: str = "runs"
    device: str = "cpu"
    max_steps: int = 1


@dataclass
class RunSettings:
    """A run that can only go on where its device is."""

    name: str | None = None
    beta: float = 15.0
    prompts: list[str] = field(default_factory=list)
    trainer: Place = field(default_factory=Place)

    def problems(self) -> list[str]:
        return [] if self.trainer.device == "cpu" else [f"no device {self.trainer.device}"]


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Was made elsewhere, on a machine with another device."""
    monkeypatch.setattr("qd.config.config_folder", lambda: tmp_path / "no-configs")
    folder = runs.create_run(tmp_path / "runs", "mine", "beta0")
    runs.save_config(RunSettings("old", 2.0, ["a", "b"], Place("elsewhere", "cuda", 5)), folder)
    return folder


def test_a_name_is_what_the_run_is_and_when_it_began():
    assert runs.run_name("beta15", datetime(2026, 1, 2, 15, 30)) == "beta15-20260102-1530"


def test_a_named_run_is_made_once(tmp_path):
    folder = runs.create_run(tmp_path / "runs", "first", "beta0")
    assert folder.is_dir() and folder.name == "first"
    with pytest.raises(ValueError, match=f"exists already.*RESUME={folder}"):
        runs.create_run(tmp_path / "runs", "first", "beta0")


def test_default_names_never_collide(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "run_name", lambda label: f"{label}-20260102-1530")
    names = [runs.create_run(tmp_path, None, "beta0").name for _ in range(3)]
    assert names == ["beta0-20260102-1530", "beta0-20260102-1530-2", "beta0-20260102-1530-3"]


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="cannot be made"):
        runs.create_run(tmp_path / "file", "x", "beta0")


def test_a_run_is_found_by_folder_or_name(tmp_path):
    run = runs.create_run(tmp_path, "mine", "beta0")
    with pytest.raises(ValueError, match="config.yaml is missing"):
        runs.find_run(run)
    runs.save_config(Settings(beta=0.5), run)
    assert runs.find_run(run) == runs.find_run("mine", tmp_path) == run
    with pytest.raises(ValueError, match="no run 'mime'.*: mine"):
        runs.find_run("mime", tmp_path)
    with pytest.raises(ValueError, match="none"):
        runs.find_run("x", tmp_path / "nothing")


def test_a_saved_config_loads_again(tmp_path):
    runs.save_config(Settings(beta=0.5), tmp_path)
    assert load_config(Settings, "none", str(tmp_path / runs.CONFIG)) == Settings(beta=0.5)


def test_a_run_goes_on_with_its_own_config_where_it_lies_now(run):
    overrides = ["trainer={device: cpu, max_steps: 9}", "beta=2", "prompts=[a, b]", "name=mine"]
    config = runs.resumed_config(RunSettings, "train", run, overrides)
    assert config == RunSettings("mine", 2.0, ["a", "b"], Place(str(run.parent), "cpu", 9))


def test_a_run_may_go_on_with_smaller_measurements(tiny_config, tmp_path):
    run = runs.create_run(tmp_path, "mine", "beta0")
    runs.save_config(tiny_config(), run)
    assert runs.resumed_config(TrainConfig, "train", run, ["evaluation.batch_rows=8"]).evaluation.batch_rows == 8


def test_what_would_make_it_another_run_is_told_with_the_other_problems(run):
    overrides = ["beta=3", "prompts=[a]", "trainer.max_steps=9", "trainer.runs=there", "name=other", "betta=1"]
    with pytest.raises(ConfigError) as caught:
        runs.resumed_config(RunSettings, "train", run, overrides, overlay="quick")
    unknown, device, config, *changed = caught.value.problems
    assert "unknown key 'betta'" in unknown and device == "no device cuda" and "leave out CONFIG" in config
    assert [text.split()[0] for text in changed] == ["name", "beta", "prompts", "trainer.runs"]
    assert changed[1] == "beta is 3.0, and this run has 2.0; leave it out, or start a new run"


def test_the_steps_of_an_embedder_are_part_of_what_it_is(run):
    with pytest.raises(ConfigError, match="trainer.max_steps is 9, and this run has 5"):
        runs.resumed_config(RunSettings, "embedder", run, ["trainer.device=cpu", "trainer.max_steps=9"])


@pytest.mark.parametrize(("kind", "schema"), [("train", TrainConfig), ("embedder", EmbedderTrainConfig)])
def test_what_may_change_is_a_setting(kind, schema):
    config = schema()
    config.trainer.logger_options["csv"] = {"prefix": "a"}
    settings = [path for path, _ in runs._leaves(asdict(config))]
    for allowed in runs.RESUMABLE[kind]:
        assert any(path == allowed or path.startswith(f"{allowed}.") for path in settings)


def test_a_run_may_go_on_with_other_loggers():
    saved = {"trainer": {"loggers": ["csv"], "logger_options": {}, "log_every_other": 1}}
    wanted = {"trainer": {"loggers": ["wandb"], "logger_options": {"wandb": {"project": "x"}}, "log_every_other": 2}}
    (found,) = runs._changes(saved, wanted, runs.RESUMABLE["train"])
    assert found.startswith("trainer.log_every_other is 2")


def test_the_checkpoint_is_found_or_asked_for(tmp_path):
    with pytest.raises(ValueError, match="last.ckpt"):
        runs.newest_checkpoint(tmp_path)
    (tmp_path / "last.ckpt").write_bytes(b"")
    assert runs.newest_checkpoint(tmp_path) == tmp_path / "last.ckpt"


def test_the_step_of_a_checkpoint(tmp_path):
    torch.save({"global_step": 7, "state_dict": {"weight": torch.ones(3)}}, tmp_path / "last.ckpt")
    assert runs.checkpoint_step(tmp_path / "last.ckpt") == 7


def test_disk_needed_counts_every_copy_of_the_weights():
    added = runs.disk_needed(1000, 10, step_folders=3) - runs.LOGS_BYTES
    assert added == 4 * (1010 * 4) + 2 * (3 * 1000 * 4)  # step folders and one being written; resume file, old and new


def test_a_full_disk_is_refused_before_the_folder_is_there(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda folder: usage(100, 0, 2**30))
    runs.check_disk(tmp_path / "not" / "yet", 2**30)
    with pytest.raises(ValueError, match="needs 2.0 GiB and .* has 1.0 GiB free"):
        runs.check_disk(tmp_path / "not" / "yet", 2**31)


def test_a_run_that_goes_on_needs_only_the_rest_of_its_bytes(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda folder: usage(100, 0, 100))
    (tmp_path / "mine" / "step-000001").mkdir(parents=True)
    (tmp_path / "mine" / "last.ckpt").write_bytes(bytes(30))
    (tmp_path / "mine" / "step-000001" / "model.safetensors").write_bytes(bytes(20))
    runs.check_disk(tmp_path, 150, tmp_path / "mine")
    for run in (tmp_path / "mine", None):
        with pytest.raises(ValueError, match="GiB more and" if run else "GiB and"):
            runs.check_disk(tmp_path, 151, run)
