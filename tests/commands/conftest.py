from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import qd.evaluation.evaluator
from qd.config.train import TrainConfig
from tests.commands.train_runs import FAKES, STEPS, Config, elsewhere, finished, start


@pytest.fixture
def fake_scorers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qd.evaluation.evaluator, "load_quality", FAKES["stand_in_quality"])


@pytest.fixture
def run_config(tiny_config: Config, tmp_path: Path) -> TrainConfig:
    """Eight steps; a point every 4, a checkpoint every 2, two micro-batches a step, a baseline with a state."""
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a calm piano piece\nfast drums\n", encoding="utf-8")
    return tiny_config(
        "name=x",
        "beta=100",
        "objective.beta_ramp_steps=4",
        "objective.baseline=prompt_moving_average",
        "optimizer.learning_rate=1e-3",
        "data.batch_size=8",
        "data.micro_batch_size=4",
        "evaluation.every=4",
        f"evaluation.prompts={prompts}",
        "evaluation.n_prompts=2",
        "evaluation.n_samples=2",
        "evaluation.audio_prompts=1",
        f"trainer.max_steps={STEPS}",
        "trainer.loggers=[tensorboard,csv]",
        "trainer.log_every=1",
        "trainer.checkpoint_every=2",
        "trainer.save_weights_every=4",
        "trainer.keep_weights=1",
    )


@pytest.fixture(scope="session")
def shared() -> dict[str, Path]:
    """Holds the folder of the uninterrupted run, once a test has made it."""
    return {}


@pytest.fixture
def reference(
    run_config: TrainConfig, shared: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    if "run" not in shared:
        config = elsewhere(run_config, tmp_path_factory.mktemp("uninterrupted"))
        shared["run"] = finished(start(config), Path(config.trainer.runs) / "x")
    return shared["run"]
