"""Shows the progress of a run in one line."""

from __future__ import annotations

import time
from typing import Any

import lightning.pytorch as pl
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from qd.callbacks.step_callback import StepCallback
from qd.metrics.formatting import format_duration


class StepProgress(StepCallback):
    """Shows step time, KL per token, reward, β and time left: a bar on a terminal, else a line every few steps.

    The step time is a moving average over about ten steps. It includes everything between two steps, but nothing before
    the first step.

    Args:
        log_every: Optimiser steps between two lines.
    """

    def __init__(self, log_every: int) -> None:
        self.log_every = log_every
        self.step_seconds: float | None = None
        self._since: float | None = None
        self._bar: Progress | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self._since = None
        console = Console()
        if trainer.is_global_zero and console.is_interactive:  # TERM=dumb cannot show a bar
            columns = (TextColumn("step"), MofNCompleteColumn(), BarColumn(), TextColumn("{task.description}"))
            self._bar = Progress(*columns, console=console)
            self._task = self._bar.add_task("", total=trainer.max_steps, completed=trainer.global_step)
            self._bar.start()

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, index: int) -> None:
        if self._since is None:
            self._since = time.perf_counter()

    def on_step_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        now = time.perf_counter()
        seconds, self._since = now - self._since, now
        self.step_seconds = seconds if self.step_seconds is None else 0.9 * self.step_seconds + 0.1 * seconds
        # Describes the step only where it is shown: to read numbers from a GPU, the program must wait for it.
        if self._bar is not None:
            line = self.describe(trainer, pl_module)
            self._bar.update(self._task, completed=trainer.global_step, description=line)
        elif trainer.is_global_zero and (trainer.global_step % self.log_every == 0 or trainer.global_step == 1):
            line = self.describe(trainer, pl_module)
            print(f"step {trainer.global_step}/{trainer.max_steps} · {line}", flush=True)

    def describe(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> str:
        """Returns text such as ``0.82 s/step · KL/token 0.213 · reward 0.31 · β 1.50 · 24 min left``."""
        metrics = pl_module.metrics
        left = (trainer.max_steps - trainer.global_step) * self.step_seconds
        return (
            f"{self.step_seconds:.2f} s/step · KL/token {metrics['kl_per_token']:.4f} · "
            f"reward {metrics['reward']:.3f} · β {metrics['beta']:.2f} · {format_duration(left)} left"
        )

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._stop()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._stop()  # Lightning calls no teardown after an exception, and the cursor of the terminal would stay hidden

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


_EMBEDDER_METRICS = {"train/loss": "loss", "train/active_share": "active", "validation/recall@1": "recall@1"}


class EmbedderProgress(StepProgress):
    """Shows ``2.31 s/step · loss 0.142 · active 0.63 · recall@1 0.71 · 12 min left``, with the last known recall."""

    def describe(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> str:
        measured = trainer.callback_metrics
        shown = [f"{label} {measured[key].item():.3f}" for key, label in _EMBEDDER_METRICS.items() if key in measured]
        left = (trainer.max_steps - trainer.global_step) * self.step_seconds
        return " · ".join([f"{self.step_seconds:.2f} s/step", *shown, f"{format_duration(left)} left"])
