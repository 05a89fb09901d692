"""The configs that the repository ships, and the numbers they state."""

from __future__ import annotations

import pytest

from qd.commands.base import BaseConfig
from qd.config.embedder import EmbedderTrainConfig
from qd.config.loading import config_folder, load_config
from qd.config.train import TrainConfig
from tests.config.problems import problems_of

pytestmark = pytest.mark.usefixtures("models")

SCHEMAS = {"train": TrainConfig, "embedder": EmbedderTrainConfig, "base": BaseConfig}


def test_any_key_of_an_optional_group_creates_it():
    config = load_config(TrainConfig, "train", None, ["model.lora.rank=4"])
    assert (config.model.lora.rank, config.model.lora.alpha, config.model.lora.dropout) == (4, 32.0, 0.0)
    assert load_config(TrainConfig, "train", None, ["model.lora.rank=4", "model.lora=null"]).model.lora is None
    (problem,) = problems_of(TrainConfig, "train", None, ["model.lora.rnak=4"])
    assert "unknown key 'model.lora.rnak'; did you mean 'model.lora.rank'?" in problem


@pytest.mark.parametrize("stereo", ["", "stereo-"])
@pytest.mark.parametrize("size", ["small", "medium", "large"])
def test_the_musicgen_configs_have_the_papers_numbers(size, stereo):
    config, paper = (
        load_config(TrainConfig, "train", f"musicgen-{stereo}{size}"),
        load_config(TrainConfig, "train", "paper"),
    )
    assert config.model.name == f"facebook/musicgen-{stereo}{size}"
    assert (config.rollout.seconds, config.data.batch_size, config.rollout.samples_per_prompt) == (10.0, 128, 2)
    assert (config.objective, config.optimizer, config.guidance) == (paper.objective, paper.optimizer, paper.guidance)
    assert (config.model.lora is not None) == (size == "large")


@pytest.mark.parametrize(
    "path",
    sorted(path for kind in SCHEMAS for path in config_folder().glob(f"{kind}/*.yaml")),
    ids=lambda path: f"{path.parent.name}-{path.stem}",
)
def test_every_shipped_config_builds(path):
    """Sweeps and reproductions need trained models: tests/commands/test_sweep.py, tests/report/reproduction."""
    assert load_config(SCHEMAS[path.parent.name], path.parent.name, path.stem)


def test_the_default_file_states_every_default_of_the_schema():
    assert load_config(TrainConfig, "train") == TrainConfig()


def test_the_paper_config_has_the_papers_numbers():
    config = load_config(TrainConfig, "train", "paper")
    assert (config.data.batch_size, config.rollout.samples_per_prompt, config.objective.estimator) == (128, 2, "shared")
    assert (config.guidance.scale, config.guidance.negative_prompt) == (3.0, "Bad audio quality.")
    assert (config.optimizer.learning_rate, config.objective.beta_ramp_steps, config.rollout.temperature) == (
        1.5e-4,
        1000,
        0.99,
    )
