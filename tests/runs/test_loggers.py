"""Loggers of a run. Services are replaced by fakes of the few functions that Lightning calls."""

from __future__ import annotations

import csv
import sys
from itertools import count
from pathlib import Path
from types import ModuleType, SimpleNamespace

import lightning.pytorch.loggers.mlflow as lightning_mlflow
import lightning.pytorch.loggers.wandb as lightning_wandb
import pytest
import yaml
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer import event_file_writer

import qd.config.loggers
from qd.config.embedder import EmbedderTrainConfig
from qd.config.loading import ConfigError, load_config
from qd.config.loggers import logger_problems
from qd.config.train import TrainConfig
from qd.config.trainer import RunTrainerConfig
from qd.runs.loggers import LOGGERS, PACKAGES, build_loggers


def problems(loggers: list[str], **options) -> list[str]:
    return list(logger_problems("trainer", loggers, options))


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def module(monkeypatch: pytest.MonkeyPatch, name: str, **attributes) -> ModuleType:
    fake = ModuleType(name)
    vars(fake).update(attributes)
    monkeypatch.setitem(sys.modules, name, fake)
    return fake


class Run:
    """A fake run of wandb that records its calls."""

    def __init__(self, **settings) -> None:
        self.settings, self.logged, self.config = settings, [], SimpleNamespace(update=self.configure)

    def configure(self, values: dict, **settings) -> None:
        self.hparams = values

    def log(self, metrics: dict) -> None:
        self.logged.append(metrics)

    def define_metric(self, *args, **kwargs) -> None:
        pass


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lightning_wandb, "_WANDB_AVAILABLE", True)
    module(monkeypatch, "wandb", run=None, init=Run)
    module(monkeypatch, "wandb.sdk")
    module(monkeypatch, "wandb.sdk.lib", RunDisabled=type("RunDisabled", (), {}))
    module(monkeypatch, "wandb.wandb_run", Run=Run)


class Client:
    """A fake client of an mlflow server that records its calls."""

    def __init__(self, uri: str) -> None:
        self.uri, self.batches = uri, []

    def get_experiment_by_name(self, name: str) -> SimpleNamespace:
        return SimpleNamespace(experiment_id=name, lifecycle_stage="active")

    def create_run(self, experiment_id: str, tags: dict) -> SimpleNamespace:
        self.experiment, self.tags = experiment_id, tags
        return SimpleNamespace(info=SimpleNamespace(run_id="1"))

    def log_batch(self, run_id: str, **batch) -> None:
        self.batches.append(batch)


@pytest.fixture
def mlflow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lightning_mlflow, "_MLFLOW_AVAILABLE", True)
    monkeypatch.setattr(lightning_mlflow, "_get_resolve_tags", lambda: lambda tags: tags)
    module(monkeypatch, "mlflow", set_tracking_uri=lambda uri: None)
    module(monkeypatch, "mlflow.tracking", MlflowClient=Client)
    module(monkeypatch, "mlflow.utils")
    module(monkeypatch, "mlflow.utils.mlflow_tags", MLFLOW_RUN_NAME="name")
    module(monkeypatch, "mlflow.entities", Param=lambda **fields: fields, Metric=lambda **fields: fields)


def test_the_default_is_tensorboard_in_the_run_folder(tmp_path):
    config = load_config(TrainConfig, "train").trainer
    (logger,) = build_loggers(config.loggers, config.logger_options, tmp_path / "x")
    assert isinstance(logger, TensorBoardLogger) and Path(logger.log_dir) == tmp_path / "x"
    assert load_config(EmbedderTrainConfig, "embedder").trainer.loggers == ["tensorboard"]


def test_a_resumed_run_hides_values_that_it_logs_again(tmp_path, monkeypatch):
    clock = count(1_700_000_000)  # the names of event files are sorted by their second
    monkeypatch.setattr(event_file_writer, "time", SimpleNamespace(time=lambda: next(clock)))
    for resumed_at, steps in ((None, (1, 2, 3)), (1, (2,))):
        (logger,) = build_loggers(["tensorboard"], {}, tmp_path, resumed_at)
        for step in steps:
            logger.log_metrics({"loss": float(step)}, step)
        logger.finalize("success")
    events = EventAccumulator(str(tmp_path)).Reload().Scalars("loss")
    assert [event.step for event in events] == [1, 2]


def test_several_loggers_with_options_by_config(tmp_path):
    overrides = ["trainer.loggers=[csv,tensorboard]", "trainer.logger_options.csv.prefix=a"]
    config = load_config(TrainConfig, "train", None, overrides).trainer
    logger, other = build_loggers(config.loggers, config.logger_options, tmp_path)
    assert isinstance(logger, CSVLogger) and isinstance(other, TensorBoardLogger)
    logger.log_metrics({"loss": 2.0}, 10)
    assert rows(tmp_path / "csv" / "version_0" / "metrics.csv") == [{"a-loss": "2.0", "step": "10"}]  # at once


def test_a_csv_file_outlives_a_resumed_run(tmp_path):
    for step in (1, 2):
        (logger,) = build_loggers(["csv"], {}, tmp_path, resumed_at=None if step == 1 else 1)
        logger.log_metrics({"loss": 0.5}, step)
        logger.log_hyperparams({"group": {"rate": 0.1}})
    files = sorted(tmp_path.glob("csv/*/metrics.csv"))
    assert [rows(file)[0]["step"] for file in files] == ["1", "2"]
    assert yaml.safe_load((files[0].parent / "hparams.yaml").read_text()) == {"group": {"rate": 0.1}}


def test_wandb_gets_scalars_and_hyperparameters_under_the_runs_name(wandb, tmp_path):
    (logger,) = build_loggers(["wandb"], {"wandb": {"project": "music", "tags": ["a"]}}, tmp_path / "x")
    logger.log_metrics({"train/loss": 2.0}, 10)
    logger.log_hyperparams({"beta": 15.0})
    run = logger.experiment
    expected = {"name": "x", "project": "music", "dir": str(tmp_path / "x"), "id": None, "tags": ["a"]}
    assert run.settings.items() >= expected.items()
    assert run.logged == [{"train/loss": 2.0, "trainer/global_step": 10}] and run.hparams == {"beta": 15.0}


def test_a_resumed_run_continues_its_newest_wandb_run(wandb, tmp_path):
    for name in ("run-20260102_120000-older", "offline-run-20260103_120000-newer", "latest-run"):
        (tmp_path / "wandb" / name).mkdir(parents=True)
    (logger,) = build_loggers(["wandb"], {}, tmp_path, resumed_at=5)
    assert logger.experiment.settings["id"] == "newer" and logger.experiment.settings["resume"] == "allow"


def test_mlflow_gets_scalars_and_hyperparameters_next_to_the_runs(mlflow, monkeypatch, tmp_path):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (logger,) = build_loggers(["mlflow"], {}, tmp_path / "x")
    logger.log_metrics({"train/loss": 2.0}, 10)
    logger.log_hyperparams({"model": {"name": "base"}})
    client = logger.experiment
    assert (client.uri, client.experiment, client.tags) == (f"file:{tmp_path / 'mlruns'}", "qd", {"name": "x"})
    (metric,), (param,) = client.batches[0]["metrics"], client.batches[1]["params"]
    assert (metric["key"], metric["value"], metric["step"]) == ("train/loss", 2.0, 10)
    assert param == {"key": "model/name", "value": "base"}


def test_a_package_that_is_missing_is_named(monkeypatch):
    monkeypatch.setattr(qd.config.loggers, "find_spec", lambda name: None)
    assert problems(list(PACKAGES)) == [
        "trainer.loggers: 'wandb' needs a package; pip install wandb",
        "trainer.loggers: 'mlflow' needs a package; pip install mlflow",
    ]
    assert problems([name for name in LOGGERS if name not in PACKAGES]) == []


def test_unknown_logger_options_are_reported():
    (unknown,) = RunTrainerConfig(loggers=["tensorboard", "cvs"]).problems("trainer.")
    assert unknown.startswith("trainer.loggers is 'cvs'") and "did you mean 'csv'?" in unknown
    (unknown,) = problems(["csv"], csv={"prefx": "a"})
    assert unknown.startswith("trainer.logger_options.csv.prefx is unknown") and "'prefix'" in unknown
    assert problems(["tensorboard"], tensorboard={"flush_secs": 1, "log_graph": False}) == []
    (found,) = problems(["tensorboard"], wandb={"project": "x"})
    assert found.startswith("trainer.logger_options.wandb is set, but trainer.loggers has no 'wandb'")


def test_a_secret_is_refused_because_configs_are_published():
    options = {"wandb": {"api_key": "x", "project": "y"}}
    (problem,) = [problem for problem in logger_problems("trainer", ["wandb"], options) if "secret" in problem]
    assert problem.startswith("trainer.logger_options.wandb.api_key is a secret") and "environment" in problem


def test_logger_problems_are_listed_with_the_others(monkeypatch):
    monkeypatch.setattr(qd.config.loggers, "find_spec", lambda name: None)
    with pytest.raises(ConfigError) as caught:
        load_config(TrainConfig, "train", None, ["beta=-1", "trainer.loggers=[mlflow]", "trainer.logger_options=3"])
    assert len(caught.value.problems) == 3 and "pip install mlflow" in str(caught.value)
    with pytest.raises(ConfigError, match="trainer.loggers is 'x'"):
        load_config(EmbedderTrainConfig, "embedder", None, ["trainer.loggers=[x]"])
