"""Runs the command line in its own process, with fake scorers, so that a test can kill it.

With ``--hold`` the run waits before it saves its last step, so that it cannot end before a test kills it.
With ``--hold-checkpoint`` it prints "held" and waits before its first checkpoint, with ``--hold-step`` in its step 1.
With ``--see`` each rank writes its codes, and its baseline after each step, to ``seen-<rank>.pt`` next to the run.
With ``--nan=1`` the loss of rank 1 is NaN at step 2; with ``--error=1`` that rank fails there.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import lightning.pytorch as pl
import torch
from torch import Tensor

import qd.evaluation.evaluator
from qd.callbacks.last_checkpoint import LastCheckpoint
from qd.callbacks.progress import StepProgress
from qd.cli.main import main
from qd.data.prompts import PromptBatch
from qd.modules.distillation import DiversityDistillation
from qd.modules.rollout import Rollout
from qd.scorers.protocol import Quality
from tests.power_scorer import PowerScorer


def stand_in_quality(*names: object) -> Quality:
    return Quality(PowerScorer("loudness"), PowerScorer("loudness"))


def hold(progress: StepProgress, trainer: pl.Trainer, module: pl.LightningModule) -> None:
    ended(progress, trainer, module)
    if trainer.global_step == trainer.max_steps:
        time.sleep(600)


def hold_early(what: str) -> None:
    """Makes the run print "held" and wait before it writes a checkpoint, or before it ends a step."""

    def wait(*arguments: object) -> None:
        print("held", flush=True)
        time.sleep(600)

    if what == "checkpoint":
        LastCheckpoint.save = wait
    else:
        StepProgress.on_step_end = wait


def break_rank(what: str, rank: str) -> None:
    """Makes a rank fail in its step 2."""
    step = DiversityDistillation.training_step

    def broken(module: DiversityDistillation, batch: PromptBatch, index: int) -> Tensor:
        loss = step(module, batch, index)
        if module.global_step < 2 or module.global_rank != int(rank):
            return loss
        if what == "error":
            raise RuntimeError("made to fail")
        return loss * float("nan")

    DiversityDistillation.training_step = broken


def see() -> None:
    """Records the codes of each prompt at each step, and the state of the baseline after the step."""
    rollout, seen = DiversityDistillation.rollout, {"codes": {}, "baseline": {}}

    def recorded(module: DiversityDistillation, batch: PromptBatch) -> Rollout:
        drawn = rollout(module, batch)
        for position, codes in zip(batch.positions, drawn.codes.chunk(len(batch.positions)), strict=True):
            seen["codes"][module.global_step, position, batch.prompts[batch.positions.index(position)]] = codes
        return drawn

    def saved(progress: StepProgress, trainer: pl.Trainer, module: DiversityDistillation) -> None:
        on_step_end(progress, trainer, module)
        state = module.baseline.state_dict()
        seen["baseline"][trainer.global_step] = {name: value.clone() for name, value in state.items()}
        torch.save(seen, Path(module.config.trainer.runs) / f"seen-{trainer.global_rank}.pt")

    on_step_end, StepProgress.on_step_end = StepProgress.on_step_end, saved
    DiversityDistillation.rollout = recorded


if __name__ == "__main__":
    qd.evaluation.evaluator.load_quality = stand_in_quality
    if "--hold" in sys.argv:
        sys.argv.remove("--hold")
        ended, StepProgress.on_step_end = StepProgress.on_step_end, hold
    for what in ("checkpoint", "step"):
        if f"--hold-{what}" in sys.argv:
            sys.argv.remove(f"--hold-{what}")
            hold_early(what)
    if "--see" in sys.argv:
        see()
    for option in [text for text in sys.argv if text.startswith(("--nan=", "--error="))]:
        # The option stays in the arguments, because Lightning starts the other ranks with them.
        break_rank(*option.removeprefix("--").split("="))
    sys.exit(main([text for text in sys.argv[1:] if not text.startswith(("--see", "--nan=", "--error="))]))
