"""Time, memory and disk space that a training run needs, measured on one micro-batch or, under FSDP, by formula."""

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
    """Needs of a run, or of the rest of a resumed run.

    The time does not include communication between processes. If ``step_seconds`` is None, the memory is by formula.

    Attributes:
        ranks: Number of processes.
        step_seconds: Seconds of an optimiser step; None if not measured.
        seconds: Seconds of all steps and measurements that are left; None if not measured.
        memory: Bytes of memory on each device.
        disk: Bytes of disk space.
        steps: Optimiser steps of the whole run.
        done: Optimiser steps that are done.
    """

    ranks: int
    step_seconds: float | None
    seconds: float | None
    memory: float
    disk: int
    steps: int
    done: int = 0

    def __str__(self) -> str:
        time, formula = "not measured: with trainer.strategy=fsdp the model may not fit into one process", ""
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
    """Returns the largest number of bytes that the run has on disk at once."""
    trained = _trained(module)
    settings = config.trainer
    folders = -(-settings.max_steps // settings.save_weights_every)
    saved = min(folders, settings.keep_weights) if settings.keep_weights else folders
    return disk_needed(trained, _count(module.music) - trained, saved)


def estimate(
    module: DiversityDistillation,
    config: TrainConfig,
    accumulation: int,
    device: torch.device,
    run: Path | None = None,
    done: int = 0,
) -> Estimate:
    """Estimates what a run needs: runs two micro-batches on the device and times the second; the first is a warm-up.

    Afterwards the module is as before. The time of a measured point follows from the time of the rollout, row by row.
    A run under FSDP is not measured, because its model may not fit on one device.

    Args:
        module: The module of the run.
        config: The configuration of the run.
        accumulation: Micro-batches of an optimiser step on each rank.
        device: Device of the run.
        run: Folder of a run to resume. Its files already have their disk space.
        done: Optimiser steps that the run to resume has done.
    """
    steps = config.trainer.max_steps
    disk = max(0, disk_bytes(module, config) - held_bytes(run))
    if config.trainer.sharded:
        memory = sum(needed_bytes(run_size(module, config)).values())
        return Estimate(config.trainer.ranks, None, None, memory, disk, steps, done)
    module.to(device)
    # The estimate runs in one process, where a baseline that uses the prompts of other ranks may have none.
    baseline, module.baseline = module.baseline, Baseline()
    prompts = config.data.micro_batch_size // config.rollout.samples_per_prompt
    batch = PromptBatch(["a piece of music with a steady beat"] * prompts, list(range(prompts)))
    for _ in range(2):
        module.reset_records()
        start = module.record.now(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=config.trainer.precision == "bf16-mixed"):
            loss = module.training_step(batch, 0)
        loss.backward()
    took, stages = module.record.now(device) - start, module.record.seconds
    # This micro-batch includes the diagnostics, which only one step in DIAGNOSTICS_EVERY has.
    step_seconds = (took - stages["diagnostics"] * (1 - 1 / DIAGNOSTICS_EVERY)) * accumulation
    rollout_seconds = stages["rollout"] / config.data.micro_batch_size
    module.zero_grad(set_to_none=True)
    module.reset_records()
    module.baseline = baseline
    rows = config.evaluation.protocol_for(config.rollout.seconds).rows(config.trainer.ranks)
    seconds = (steps - done) * step_seconds + _rollouts(steps, config.evaluation.every, done) * rows * rollout_seconds
    moments = 2 * _trained(module) * FLOAT32_BYTES
    return Estimate(config.trainer.ranks, step_seconds, seconds, _peak_bytes(device) + moments, disk, steps, done)


def _rollouts(steps: int, every: int, done: int) -> int:
    """Returns the number of rollouts of the evaluation prompts that are left.

    There is one for each point. A new run also needs two for the base model, one with one pass and one with two.
    """
    points = -(-steps // every) - done // every if done < steps else 0
    return points if done else points + 3


def _trained(module: DiversityDistillation) -> int:
    return sum(parameter.numel() for parameter in module.music.lm.parameters() if parameter.requires_grad)


def _count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _peak_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes on macOS, else in KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
