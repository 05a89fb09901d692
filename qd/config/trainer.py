"""Length, place and rhythm of a run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from qd.config.checks import bounded, one_of, present_device, present_devices
from qd.config.loggers import logger_problems

PRECISIONS = ("auto", "32-true", "bf16-mixed")
STRATEGIES = ("ddp", "fsdp")


@dataclass
class TrainerConfig:
    max_steps: int = 2000  # optimiser steps, ≥ 1
    device: str = "auto"  # auto, cpu, mps, cuda or cuda:<index>
    devices: int = 1  # of each machine: so many GPUs, or so many processes on the CPU; data-parallel; ≥ 1
    num_nodes: int = 1  # machines, ≥ 1; several are started by torchrun or srun, see docs/training.md
    strategy: str = "ddp"  # of several devices: ddp (each holds all weights) or fsdp (each holds its share of them)
    precision: str = "auto"  # one of PRECISIONS: Lightning's names; auto: bf16-mixed where the device is fast at it
    loggers: list[str] = field(default_factory=lambda: ["tensorboard"])  # of qd.runs.loggers.LOGGERS; [] logs nowhere
    logger_options: dict[str, dict[str, Any]] = field(default_factory=dict)  # of each: {wandb: {project: music}}
    log_every: int = 10  # steps between scalars, ≥ 1
    checkpoint_every: int = 100  # steps between writes of last.ckpt, ≥ 1
    save_weights_every: int = 500  # steps between step folders, ≥ 1
    keep_weights: int | None = None  # step folders kept, the newest ones, ≥ 1; null = all
    runs: str = "runs"  # the folder that holds the run folders

    @property
    def ranks(self) -> int:
        """Processes of the run, over all machines."""
        return self.devices * self.num_nodes

    @property
    def sharded(self) -> bool:
        """Whether each process holds its share of the weights alone."""
        return self.strategy == "fsdp"

    def problems(self) -> list[str]:
        return [
            *bounded("trainer.max_steps", self.max_steps, 1),
            *present_device("trainer.device", self.device),
            *bounded("trainer.devices", self.devices, 1),
            *bounded("trainer.num_nodes", self.num_nodes, 1),
            *(present_devices("trainer.devices", self.devices, self.device) if self.devices > 1 else []),
            *one_of("trainer.strategy", self.strategy, STRATEGIES),
            *self._sharding_problems(),
            *one_of("trainer.precision", self.precision, PRECISIONS),
            *logger_problems("trainer", self.loggers, self.logger_options),
            *bounded("trainer.log_every", self.log_every, 1),
            *bounded("trainer.checkpoint_every", self.checkpoint_every, 1),
            *bounded("trainer.save_weights_every", self.save_weights_every, 1),
            *(bounded("trainer.keep_weights", self.keep_weights, 1) if self.keep_weights is not None else []),
        ]

    def _sharding_problems(self) -> list[str]:
        if not self.sharded:
            return []
        found = []
        if self.ranks == 1:
            found.append(
                "trainer.strategy is 'fsdp' on one device, which has nobody to share the weights with; set "
                "trainer.devices=2 or more, or trainer.strategy=ddp"
            )
        if self.device == "mps":
            found.append("trainer.strategy is 'fsdp' on mps; expected trainer.device=cuda or cpu")
        return found
