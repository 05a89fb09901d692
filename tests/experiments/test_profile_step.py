"""The profiled step has the settings of the run."""

from __future__ import annotations

from collections.abc import Callable

import torch

from experiments import profile_step
from qd.config.train import TrainConfig
from qd.models.lora import AdaptedLanguageModel
from qd.modules.distillation import DiversityDistillation


def test_the_profiled_module_has_the_settings_of_the_run(tiny_config: Callable[..., TrainConfig]) -> None:
    adapted = profile_step.build_module(tiny_config("model.lora={rank: 2}"))
    assert isinstance(adapted.music.lm, AdaptedLanguageModel)
    half = profile_step.build_module(tiny_config("model.dtype=bfloat16", "model.gradient_checkpointing=true"))
    assert half.teacher.decoder.dtype == half.music.text_encoder.dtype == torch.bfloat16
    layers = half.music.lm.decoder.model.decoder.layers
    assert all("forward" in vars(layer) for layer in layers)  # checkpointed


def test_the_profiled_module_is_on_the_runs_device(tiny_config: Callable[..., TrainConfig], monkeypatch) -> None:
    """Uses the meta device, which has no data."""
    moved = []
    monkeypatch.setattr(profile_step, "resolve_device", lambda name: torch.device("meta"))
    monkeypatch.setattr(DiversityDistillation, "to", lambda module, device: moved.append(device) or module)
    profile_step.build_module(tiny_config())
    assert moved == [torch.device("meta")]
