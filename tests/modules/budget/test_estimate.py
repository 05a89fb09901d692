"""Estimated time, memory and disk space of a run, with a clock that only the test advances."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import qd.modules.distillation as distillation
from qd.config.train import TrainConfig
from qd.models.embedders.loading import load_embedder
from qd.models.musicgen import MusicGen
from qd.models.sampling.sampler import Sampler
from qd.modules.budget.estimate import estimate
from qd.modules.budget.memory import GIB, needed_bytes
from qd.modules.budget.size import run_size
from qd.objectives.baselines import Baseline
from qd.runs.step_record import StepRecord


def test_the_diagnostics_of_one_step_in_fifty_count_a_fiftieth(
    tiny_config: Callable[..., TrainConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, every = [0.0], distillation.DIAGNOSTICS_EVERY

    def advancing(seconds: float, result: Callable) -> Callable:
        def run(*arguments: object) -> object:
            clock[0] += seconds
            return result(*arguments)

        return run

    config = tiny_config("trainer.max_steps=100", "data.batch_size=24", "data.micro_batch_size=8")
    module = distillation.DiversityDistillation(
        MusicGen.load(config.model.name), load_embedder(config.reward.embedder), Baseline(), config
    )
    monkeypatch.setattr(StepRecord, "now", lambda record, device: clock[0])
    monkeypatch.setattr(distillation, "compare_gradients", advancing(1.0 * every, distillation.compare_gradients))
    monkeypatch.setattr(module, "decode", advancing(3.0, module.decode))
    needs = estimate(module, config, accumulation=3, device=torch.device("cpu"))
    assert needs.step_seconds == pytest.approx(3 * (3.0 + 1.0))
    assert needs.seconds == pytest.approx(100 * needs.step_seconds)  # the rollout takes no time here
    assert "left" not in str(needs)


def test_the_estimate_of_a_resumed_run_counts_only_the_rest(
    tiny_config: Callable[..., TrainConfig], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The rest is steps, the points after them, and disk space."""
    clock = [0.0]
    config = tiny_config("trainer.max_steps=100", "evaluation.every=30")
    module = distillation.DiversityDistillation(
        MusicGen.load(config.model.name), load_embedder(config.reward.embedder), Baseline(), config
    )
    sample = Sampler.sample

    def sample_slowly(*arguments: object, **options: object) -> object:
        clock[0] += config.data.micro_batch_size  # one second for each sequence
        return sample(*arguments, **options)

    monkeypatch.setattr(StepRecord, "now", lambda record, device: clock[0])
    monkeypatch.setattr(Sampler, "sample", sample_slowly)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "last.ckpt").write_bytes(bytes(5000))
    cpu, point = torch.device("cpu"), config.evaluation.protocol_for(config.rollout.seconds).rows(1)
    whole = estimate(module, config, 1, cpu)
    assert whole.seconds == pytest.approx(100 * whole.step_seconds + (3 + 4) * point)  # at steps 30, 60, 90, 100
    rest = estimate(module, config, 1, cpu, tmp_path / "run", done=60)
    assert rest.seconds == pytest.approx(40 * rest.step_seconds + 2 * point)  # at steps 90 and 100
    assert whole.disk - rest.disk == 5000
    assert str(rest).startswith("steps: 40 of 100 left\n")
    assert estimate(module, config, 1, cpu, tmp_path / "run", done=100).seconds == 0


def test_a_run_under_fsdp_is_estimated_by_formula(
    tiny_config: Callable[..., TrainConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole model is not put on any device, where it may not fit."""
    config = tiny_config("trainer.strategy=fsdp", "trainer.devices=2", "data.batch_size=32")
    module = distillation.DiversityDistillation(
        MusicGen.load(config.model.name), load_embedder(config.reward.embedder), Baseline(), config
    )
    monkeypatch.setattr(module, "to", None)
    monkeypatch.setattr(module, "training_step", None)
    needs = estimate(module, config, accumulation=1, device=torch.device("cpu"))
    assert needs.memory == sum(needed_bytes(run_size(module, config)).values())
    lines = str(needs).splitlines()
    assert "not measured" in lines[1] and "trainer.strategy=fsdp" in lines[1]
    assert f"{needs.memory / GIB:.1f} GiB a rank" in lines[2] and "by formula" in lines[2]
