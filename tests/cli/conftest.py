"""Fakes of the commands' functions and of the configs that options set."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


@dataclass
class Trainer:
    runs: str = "runs"
    device: str = "auto"
    max_steps: int = 1
    log_every: int = 10


@dataclass
class Schema:
    """The settings of a run that options set."""

    name: str | None = None
    seed: int = 0
    beta: float = 15.0
    reward: dict[str, str] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    trainer: Trainer = field(default_factory=Trainer)


@pytest.fixture
def calls(monkeypatch):
    """Replaces the modules that do the work; lists their calls."""
    made = []

    def replace(module: str, function: str, **attributes) -> None:
        fake = ModuleType(module)
        setattr(fake, function, lambda *args, **kwargs: made.append((function, args, kwargs)))
        for name, value in attributes.items():
            setattr(fake, name, value)
        monkeypatch.setitem(sys.modules, module, fake)

    replace("qd.commands.train", "train")
    replace("qd.commands.train_embedder", "train_embedder")
    replace("qd.commands.embedder_report", "embedder_report")
    replace("qd.commands.scorer_ranges", "scorer_ranges")
    replace("qd.commands.train_preference", "train_preference")
    replace("qd.commands.fad", "fad")
    replace("qd.commands.sample", "sample")
    replace("qd.commands.merge", "merge")
    replace("qd.commands.base", "build")
    monkeypatch.setattr("qd.config.train.TrainConfig", Schema)
    monkeypatch.setattr("qd.config.embedder.EmbedderTrainConfig", Schema)
    monkeypatch.setattr("qd.config.loading.config_folder", lambda: Path("no-configs"))
    return made
