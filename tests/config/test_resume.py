from __future__ import annotations

from dataclasses import asdict, dataclass, field

import pytest
import yaml

from qd.config.embedder import EmbedderTrainConfig
from qd.config.loading import ConfigError, load_config, to_yaml
from qd.config.resume import RESUMABLE, _changes, _leaves, resumed_config, save_config
from qd.config.train import TrainConfig
from qd.models.checkpoints.resolver import FINETUNED, shipped_folder
from qd.runs.folders import CONFIG, create_run


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
    """A run that needs the CPU."""

    name: str | None = None
    beta: float = 15.0
    prompts: list[str] = field(default_factory=list)
    trainer: Place = field(default_factory=Place)

    def problems(self) -> list[str]:
        return [] if self.trainer.device == "cpu" else [f"no device {self.trainer.device}"]


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run from a machine with another device."""
    monkeypatch.setattr("qd.config.loading.config_folder", lambda: tmp_path / "no-configs")
    folder = create_run(tmp_path / "runs", "mine", "beta0")
    save_config(RunSettings("old", 2.0, ["a", "b"], Place("elsewhere", "cuda", 5)), folder)
    return folder


def test_a_saved_config_loads_again(tmp_path):
    save_config(Settings(beta=0.5), tmp_path)
    assert load_config(Settings, "none", str(tmp_path / CONFIG)) == Settings(beta=0.5)


def test_a_resumed_run_keeps_its_config_and_its_new_place(run):
    overrides = ["trainer={device: cpu, max_steps: 9}", "beta=2", "prompts=[a, b]", "name=mine"]
    config = resumed_config(RunSettings, "train", run, overrides)
    assert config == RunSettings("mine", 2.0, ["a", "b"], Place(str(run.parent), "cpu", 9))


def test_a_run_may_resume_with_smaller_measurements(tiny_config, tmp_path):
    run = create_run(tmp_path, "mine", "beta0")
    save_config(tiny_config(), run)
    assert resumed_config(TrainConfig, "train", run, ["evaluation.eval_batch_size=8"]).evaluation.eval_batch_size == 8


def test_changes_that_make_it_another_run_are_reported_with_the_other_problems(run):
    overrides = ["beta=3", "prompts=[a]", "trainer.max_steps=9", "trainer.runs=there", "name=other", "betta=1"]
    with pytest.raises(ConfigError) as caught:
        resumed_config(RunSettings, "train", run, overrides, overlay="quick")
    unknown, device, config, *changed = caught.value.problems
    assert "unknown key 'betta'" in unknown and device == "no device cuda" and "remove CONFIG" in config
    assert [text.split()[0] for text in changed] == ["name", "beta", "prompts", "trainer.runs"]
    assert changed[1].startswith("beta is 3.0, and this run has 2.0") and "start a new run" in changed[1]


def test_an_embedder_cannot_change_its_steps(run):
    with pytest.raises(ConfigError, match="trainer.max_steps is 9, and this run has 5"):
        resumed_config(RunSettings, "embedder", run, ["trainer.device=cpu", "trainer.max_steps=9"])


@pytest.mark.parametrize(("kind", "schema"), [("train", TrainConfig), ("embedder", EmbedderTrainConfig)])
def test_resumable_settings_exist(kind, schema):
    config = schema()
    config.trainer.logger_options["csv"] = {"prefix": "a"}
    settings = [path for path, _ in _leaves(asdict(config))]
    for allowed in RESUMABLE[kind]:
        assert any(path == allowed or path.startswith(f"{allowed}.") for path in settings)


def test_a_run_may_resume_with_other_loggers():
    saved = {"trainer": {"loggers": ["csv"], "logger_options": {}, "log_every_other": 1}}
    wanted = {"trainer": {"loggers": ["wandb"], "logger_options": {"wandb": {"project": "x"}}, "log_every_other": 2}}
    (problem,) = _changes(saved, wanted, RESUMABLE["train"])
    assert problem.startswith("trainer.log_every_other is 2")


def test_the_config_of_an_older_run_loads_under_the_new_names(tmp_path):
    old = tmp_path / "config.yaml"
    old.write_text(
        "objective: {placebo: true}\nreward: {heldout_embedder: builtin}\nevaluation: {batch_rows: 8}\n"
        "data: {micro_batch_size: 16}\n",
    )
    config = load_config(TrainConfig, "train", str(old))
    assert config.objective.shuffle_advantages and config.reward.eval_embedder == "builtin"
    assert config.evaluation.eval_batch_size == 8


SAVED = to_yaml(RunSettings("old", 2.0, ["a"], Place("elsewhere", "cpu", 50)))


@pytest.mark.parametrize(
    ("text", "lacks"),
    [
        ("", "beta"),
        (SAVED[: SAVED.index("trainer")], "trainer.max_steps"),
        (SAVED[: SAVED.index("  max_steps")], "trainer.max_steps"),
        (SAVED[:-2], "ends within a line"),  # max_steps: 5
    ],
)
def test_an_incomplete_config_is_not_resumed_as_another_run(run, text, lacks):
    (run / CONFIG).write_text(text)
    with pytest.raises(ConfigError) as caught:
        resumed_config(RunSettings, "train", run)
    (problem,) = caught.value.problems
    assert str(run / CONFIG) in problem and lacks in problem and "recipe.yaml" in problem


@pytest.mark.parametrize("name", FINETUNED)
def test_the_configs_of_published_runs_are_complete(name, tmp_path):
    recipe = yaml.safe_load((shipped_folder(name) / "recipe.yaml").read_text(encoding="utf-8"))
    (tmp_path / CONFIG).write_text(yaml.safe_dump(recipe["config"]))
    place = [f"trainer.runs={tmp_path.parent}"]
    config = resumed_config(TrainConfig, "train", tmp_path, place)
    assert (config.beta, config.trainer.strategy) == (recipe["config"]["beta"], "ddp")
