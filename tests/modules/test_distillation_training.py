"""Short training runs of tiny models: what changes, what is saved and what is logged."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch

from qd.callbacks.beta_schedule import BetaSchedule
from qd.config.train import TrainConfig
from qd.models.musicgen import MusicGen
from tests.modules.tiny_runs import build, fit

Config = Callable[..., TrainConfig]


def test_micro_batches_accumulate_to_the_whole_batch(tiny_config: Config) -> None:
    """Two micro-batches of one prompt and one of both prompts give the same step of gradient descent."""
    weights = {}
    for micro in (4, 8):
        config = tiny_config("beta=50", "data.batch_size=8", f"data.micro_batch_size={micro}")
        module = build(config)
        module.configure_optimizers = lambda module=module: torch.optim.SGD(module.music.lm.parameters(), lr=1.0)
        fit(module, config, steps=3)
        weights[micro] = module.state_dict()
    start = build(config).state_dict()
    moved = max((weights[8][name] - start[name]).abs().max() for name in start)
    assert moved > 1e-2
    for name in start:
        torch.testing.assert_close(weights[4][name], weights[8][name], atol=1e-4, rtol=1e-3)


def test_two_optimiser_steps_change_only_the_language_model(tiny_config: Config) -> None:
    config = tiny_config("data.batch_size=8", "data.micro_batch_size=8")
    module = build(config)
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    fit(module, config, steps=2)
    changed = {name for name, p in module.named_parameters() if not torch.equal(p, before[name])}
    trained = {f"music.lm.{name}" for name, _ in module.music.lm.named_parameters()}
    assert changed == trained
    assert any("projection" in name for name in changed)


@pytest.mark.parametrize("channels", [1, 2])
def test_a_library_checkpoint_trains_two_steps_and_is_saved_in_the_same_format(
    tiny_config: Config, tmp_path: Path, channels: int
) -> None:
    """EnCodec at another sample rate than the embedder's, in several shards; mono and stereo."""
    library = runpy.run_path(str(Path(__file__).parents[1] / "models" / "conftest.py"))
    library["build_library_model"](channels).save_pretrained(tmp_path / "model", max_shard_size="40KB")
    library["build_tokenizer"]().save_pretrained(tmp_path / "model")
    config = tiny_config(f"model.name={tmp_path / 'model'}", "rollout.seconds=0.02", "optimizer.learning_rate=1e-2")
    module = build(config)
    fit(module, config, steps=2)
    module.music.save(tmp_path / "step-000002")
    saved, start = MusicGen.load(tmp_path / "step-000002"), MusicGen.load(tmp_path / "model")
    for name, weight in start.lm.named_parameters():
        assert not torch.equal(weight, saved.lm.get_parameter(name))
        assert torch.equal(module.music.lm.get_parameter(name), saved.lm.get_parameter(name))
    for part in ("text_encoder", "codec"):
        for name, weight in getattr(start, part).named_parameters():
            assert torch.equal(weight, getattr(saved, part).get_parameter(name))


def test_the_kl_falls_at_beta_zero(tiny_config: Config) -> None:
    config = tiny_config("beta=0", "optimizer.learning_rate=2e-3")
    module = build(config)
    curve: list[float] = []

    class Recorder(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, *args) -> None:
            curve.append(pl_module.metrics["kl_per_token"])

    fit(module, config, Recorder(), steps=30)
    assert sum(curve[-5:]) < 0.6 * sum(curve[:5])


def test_each_step_records_its_metrics_and_stages(tiny_config: Config) -> None:
    config = tiny_config("beta=15", "objective.beta_ramp_steps=2", "data.batch_size=16", "data.micro_batch_size=8")
    module = build(config)
    stages: dict[int, set[str]] = {}

    class Recorder(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, *args) -> None:
            named = (name for name in pl_module.metrics if name.startswith("seconds_"))
            stages[trainer.global_step] = {name.removeprefix("seconds_") for name in named}

    fit(module, config, BetaSchedule(15.0, 2), Recorder(), steps=2)
    metrics = module.metrics
    tokens = 4 * 8
    assert metrics["kl_per_token"] == pytest.approx(metrics["kl"] / tokens)
    assert metrics["beta"] == pytest.approx(7.5)
    assert 0 < metrics["entropy"] < torch.tensor(16.0).log()
    assert metrics["grad_norm"] > 0
    always = {"rollout", "student", "teacher", "decode", "embed", "backward"}
    assert stages == {0: set(), 1: always | {"diagnostics"}, 2: always}


def test_baselines_learn_at_the_end_of_the_step(tiny_config: Config) -> None:
    config = tiny_config("objective.baseline=value_head", "data.batch_size=8", "data.micro_batch_size=4")
    module = build(config)
    fit(module, config, steps=2)
    assert module.baseline.head.bias.abs() > 0
    config = replace(config, objective=replace(config.objective, baseline="moving_average"))
    module = build(config)
    fit(module, config, steps=1)
    assert module.baseline.weight == pytest.approx(0.1)  # one update for two micro-batches
    assert module.baseline.average == pytest.approx(module.metrics["reward"])
