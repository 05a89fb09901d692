"""What a run will need, by a clock that only the test advances."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

import qd.modules.distillation as distillation
from qd.config_schema import TrainConfig
from qd.estimate import estimate
from qd.memory import GIB, needed_bytes
from qd.models.embedder import load_embedder
from qd.models.musicgen import MusicGen
from qd.modules.step_record import StepRecord
from qd.objectives.baselines import Baseline
from qd.run_size import run_size


def test_what_one_step_in_fifty_measures_counts_a_fiftieth(
    tiny_config: Callable[..., TrainConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, every = [0.0], distillation.DIAGNOSTICS_EVERY

    def lasting(seconds: float, result: Callable) -> Callable:
        def run(*arguments: object) -> object:
            clock[0] += seconds
            return result(*arguments)

        return run

    config = tiny_config("trainer.max_steps=100", "data.batch_size=24", "data.micro_batch_size=8")
    module = distillation.DiversityDistillation(
        MusicGen.load(config.model.name), load_embedder(config.reward.embedder), Baseline(), config
    )
    monkeypatch.setattr(StepRecord, "now", lambda record, device: clock[0])
    monkeypatch.setattr(distillation, "compare_gradients", lasting(1.0 * every, distillation.compare_gradients))
    monkeypatch.setattr(module, "decode", lasting(3.0, module.decode))
    found = estimate(module, config, accumulation=3, device=torch.device("cpu"))
    assert found.step_seconds == pytest.approx(3 * (3.0 + 1.0))
    assert found.seconds == pytest.approx(100 * found.step_seconds)  # nothing of it is the rollout's


def test_a_run_that_shares_its_weights_out_is_told_by_formula(
    tiny_config: Callable[..., TrainConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its whole is put on no device, where it may not fit."""
    config = tiny_config("trainer.strategy=fsdp", "trainer.devices=2", "data.batch_size=32")
    module = distillation.DiversityDistillation(
        MusicGen.load(config.model.name), load_embedder(config.reward.embedder), Baseline(), config
    )
    monkeypatch.setattr(module, "to", None)
    monkeypatch.setattr(module, "training_step", None)
    found = estimate(module, config, accumulation=1, device=torch.device("cpu"))
    assert found.memory == sum(needed_bytes(run_size(module, config)).values())
    told = str(found).splitlines()
    assert told[1] == "time: not measured: one process would have to hold what trainer.strategy=fsdp shares out"
    assert told[2] == f"memory: {found.memory / GIB:.1f} GiB a rank at least, by formula"
