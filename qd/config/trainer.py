"""Length, device, logging and checkpoints of a run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from qd.config.checks import present_device, present_devices
from qd.config.loggers import logger_problems
from qd.runs.loggers import LOGGERS
from qd.schema.checker import Settings
from qd.schema.setting import setting

PRECISIONS = ("auto", "32-true", "bf16-mixed")
"""Lightning's names; auto is bf16-mixed where the device is fast at it, otherwise 32-true."""
STRATEGIES = ("ddp", "fsdp")
CHECKPOINT_MINUTES_HELP = "Longest time between writes of last.ckpt, also where checkpoint_every steps take longer."
DEVICE_HELP = "Device: auto, cpu, mps, cuda or cuda:<index>."


@dataclass
class RunTrainerConfig(Settings):
    """Settings that the runs of `qd train` and `qd train-embedder` share."""

    max_steps: int = setting(2000, "Number of optimiser steps.", unit="steps", ge=1)
    device: str = setting("auto", DEVICE_HELP)
    devices: int = setting(
        1, "Number of processes of each machine: GPUs, or parts of the CPU; data-parallel training.", ge=1
    )
    precision: str = setting(
        "auto", "Number format; auto: bf16-mixed where the device is fast at it.", choices=PRECISIONS
    )
    loggers: list[str] = setting(["tensorboard"], "Loggers; an empty list logs nowhere.", choices=LOGGERS)
    logger_options: dict[str, dict[str, Any]] = setting(
        {}, "Keyword arguments of each logger, by its name: {wandb: {project: music}}."
    )
    log_every: int = setting(10, "Interval between logged values.", unit="steps", ge=1)
    checkpoint_every: int = setting(100, "Interval between writes of last.ckpt.", unit="steps", ge=1)
    checkpoint_minutes: float = setting(5.0, CHECKPOINT_MINUTES_HELP, unit="min", gt=0)
    runs: str = setting("runs", "Folder of the run folders.", path=True)

    def rules(self, prefix: str) -> Iterator[str]:
        yield from present_device(f"{prefix}device", self.device)
        if self.devices > 1:
            yield from present_devices(f"{prefix}devices", self.devices, f"{prefix}device", self.device)
        yield from logger_problems(prefix.rstrip("."), self.loggers, self.logger_options)


@dataclass
class TrainerConfig(RunTrainerConfig):
    """Length, device, logging and checkpoints."""

    num_nodes: int = setting(
        1, "Number of machines; several are started by torchrun or srun, see docs/training.md.", ge=1
    )
    strategy: str = setting(
        "ddp",
        "Strategy of several devices: ddp (each holds all weights) or fsdp (each holds its share).",
        choices=STRATEGIES,
    )
    save_weights_every: int = setting(500, "Interval between step folders.", unit="steps", ge=1)
    keep_weights: int | None = setting(None, "Number of step folders to keep, the newest; null: all.", ge=1)

    @property
    def ranks(self) -> int:
        """Number of processes of the run, over all machines."""
        return self.devices * self.num_nodes

    @property
    def sharded(self) -> bool:
        """Whether each process holds only its share of the weights."""
        return self.strategy == "fsdp"

    def rules(self, prefix: str) -> Iterator[str]:
        yield from super().rules(prefix)
        if self.sharded and self.ranks == 1:
            yield (
                f"{prefix}strategy is 'fsdp' on one device, but it shares the weights among several; set "
                f"{prefix}devices=2 or more, or {prefix}strategy=ddp"
            )
        if self.sharded and self.device == "mps":
            yield f"{prefix}strategy is 'fsdp' on mps; expected {prefix}device=cuda or cpu"
