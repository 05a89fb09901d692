"""What a training run will need, from one micro-batch of it, really made; of shared-out weights by formula."""

from __future__ import annotations

import resource
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from qd.config.train import TrainConfig
from qd.data.prompts import PromptBatch
from qd.metrics.formatting import format_duration
from qd.modules.budget.memory import GIB, needed_bytes
from qd.modules.budget.size import run_size
from qd.modules.distillation import DIAGNOSTICS_EVERY, DiversityDistillation
from qd.objectives.baselines import Baseline
from qd.runs.disk import FLOAT32_BYTES, disk_needed, held_bytes


@dataclass(frozen=True)
class Estimate:
    """Needs of a run, or of what is left of it: its processes, seconds an optimiser step and in all, bytes of each
    device's memory, of the disk; its optimiser steps, and how many of them are done.

    What the processes send each other is not in the time. Where the time is None, the memory is by formula.
    """

    ranks: int
    step_seconds: float | None
    seconds: float | None
    memory: float
    disk: int
    steps: int
    done: int = 0

    def __str__(self) -> str:
        time, formula = "not measured: one process would have to hold what trainer.strategy=fsdp shares out", ""
        if self.step_seconds is None:
            formula = " at least, by formula"
        else:
            time = f"{format_duration(self.seconds)} ({self.step_seconds:.2f} s a step)"
        left = f"steps: {self.steps - self.done} of {self.steps} left\n" if self.done else ""
        return (
            f"{left}"
            f"ranks: {self.ranks}\n"
            f"time: {time}\n"
            f"memory: {self.memory / GIB:.1f} GiB{' a rank' if self.ranks > 1 else ''}{formula}\n"
            f"disk: {self.disk / GIB:.1f} GiB"
        )


def disk_bytes(module: DiversityDistillation, config: TrainConfig) -> int:
    """Bytes that the run writes at most."""
    trained = _trained(module)
    settings = config.trainer
    folders = -(-settings.max_steps // settings.save_weights_every)
    kept = min(folders, settings.keep_weights) if settings.keep_weights else folders
    return disk_needed(trained, _count(module.music) - trained, kept)


def estimate(
    module: DiversityDistillation,
    config: TrainConfig,
    accumulation: int,
    device: torch.device,
    run: Path | None = None,
    done: int = 0,
) -> Estimate:
    """Makes two micro-batches, forward and backward, on the device, and times the second: the first warms up.

    The module keeps no trace of them. The time of a measured point is taken from that of the rollout, row for row.
    A run that shares its weights out is not tried: the whole of it may not fit on one device.

    Args:
        run: the folder of a run that goes on; what it holds is not needed again. done: its optimiser steps.
    """
    steps = config.trainer.max_steps
    disk = max(0, disk_bytes(module, config) - held_bytes(run))
    if config.trainer.sharded:
        memory = sum(needed_bytes(run_size(module, config)).values())
        return Estimate(config.trainer.ranks, None, None, memory, disk, steps, done)
    module.to(device)
    # This is one process: a baseline that looks at the prompts of other ranks would find none.
    baseline, module.baseline = module.baseline, Baseline()
    prompts = config.data.micro_batch_size // config.rollout.samples_per_prompt
    batch = PromptBatch(["a piece of music with a steady beat"] * prompts, list(range(prompts)))
    for _ in range(2):
        module.forget()
        start = module.record.now(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=config.trainer.precision == "bf16-mixed"):
            loss = module.training_step(batch, 0)
        loss.backward()
    took, stages = module.record.now(device) - start, module.record.seconds
    # As the first of a run, this micro-batch has measured what one step in DIAGNOSTICS_EVERY does.
    step_seconds = (took - stages["diagnostics"] * (1 - 1 / DIAGNOSTICS_EVERY)) * accumulation
    rollout_seconds = stages["rollout"] / config.data.micro_batch_size
    module.zero_grad(set_to_none=True)
    module.forget()
    module.baseline = baseline
    rows = config.evaluation.protocol_for(config.rollout.seconds).rows(config.trainer.ranks)
    seconds = (steps - done) * step_seconds + _rollouts(steps, config.evaluation.every, done) * rows * rollout_seconds
    moments = 2 * _trained(module) * FLOAT32_BYTES
    return Estimate(config.trainer.ranks, step_seconds, seconds, _peak_bytes(device) + moments, disk, steps, done)


def _rollouts(steps: int, every: int, done: int) -> int:
    """Of the prompts that are measured: one a point, and once for all the base model's, of one and of two passes."""
    points = -(-steps // every) - done // every if done < steps else 0
    return points if done else points + 3


def _trained(module: DiversityDistillation) -> int:
    return sum(parameter.numel() for parameter in module.music.lm.parameters() if parameter.requires_grad)


def _count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _peak_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in KiB, on macOS in bytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
