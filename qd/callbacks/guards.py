"""Stops a run with numbers that are not finite, and warns of a collapsed policy."""

from __future__ import annotations

from pathlib import Path

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.optim import Optimizer

from qd.callbacks.step_callback import StepCallback
from qd.models.checkpoints.resolver import step_folders
from qd.modules.rollout import RolloutStats
from qd.runs.collective import gather_objects, gradient_norm


class NonFiniteError(RuntimeError):
    """The loss, a reward or a gradient is NaN or infinite. The weights are still those of the last finite step."""


_GRADIENT = "the gradient is not finite"


class NonFiniteGuard(pl.Callback):
    """Raises :class:`NonFiniteError` before an optimiser step that would damage the weights.

    It collects the module's ``latest`` of each micro-batch and checks all of them before the step, so that the program
    waits for the GPU, and the ranks communicate, once in a step.

    Args:
        folder: Folder of the run. A new run can start from its step folders.
        precision: Precision of training. The error message names bfloat16 as a possible cause.
    """

    def __init__(self, folder: Path, precision: str = "32-true") -> None:
        self.folder = Path(folder)
        self.precision = precision
        self._micro_batches: list[tuple[RolloutStats, Tensor]] = []

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._micro_batches.clear()

    def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor) -> None:
        self._micro_batches.append((pl_module.latest, loss.detach()))

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        micro_batches, self._micro_batches = self._micro_batches, []
        norm = gradient_norm(p for group in optimizer.param_groups for p in group["params"])
        values = [value for stats, loss in micro_batches for value in (stats.rewards.sum(), stats.kl.sum(), loss)]
        # A sum is finite only if all of its terms are. A sum of finite terms may overflow, so check the terms then.
        finite = bool(torch.stack([value.isfinite() for value in (norm, *values)]).all())
        self._stop(trainer, *((None, []) if finite else _problem(micro_batches, norm)))

    def _stop(self, trainer: pl.Trainer, problem: str | None, prompts: list[str]) -> None:
        """Stops all ranks if one of them has a problem; the others would wait forever for its gradient."""
        problems = [(what, texts) for what, texts in gather_objects((problem, prompts)) if what]
        if not problems:
            return
        # A problem on one rank reaches the gradient of all ranks: report the cause rather than the gradient.
        problems = [(what, texts) for what, texts in problems if what != _GRADIENT] or problems
        what = problems[0][0]
        quoted = "; ".join(repr(prompt) for _, texts in problems for prompt in texts)
        raise NonFiniteError(
            f"step {trainer.global_step}: {what}. Prompts: {quoted}. This step changed no weights. {self._advice()}"
        )

    def _advice(self) -> str:
        """Returns what to do next. Resuming would not help: the step has the same random numbers and learning rate."""
        advice = "Resuming would fail again: start a new run with a lower optimizer.learning_rate or beta"
        if saved := step_folders(self.folder):
            advice += f", optionally from {saved[-1].name} (model.name={self.folder}; it is then the teacher too)"
        if "bf16" in self.precision:
            advice += (
                ". bfloat16 has 8 significant bits: if trainer.precision=32-true stays finite from the same seed, "
                "rounding was the cause; model.dtype=float32 gives the teacher full precision"
            )
        return f"{advice}."


def _problem(micro_batches: list[tuple[RolloutStats, Tensor]], norm: Tensor) -> tuple[str | None, list[str]]:
    """Returns the name of the first value that is not finite, None if all are, and its prompts."""
    for stats, loss in micro_batches:
        finite = stats.rewards.isfinite() & stats.kl.isfinite()  # (prompts, samples)
        if not finite.all():
            prompts = [prompt for prompt, fine in zip(stats.prompts, finite.all(dim=1), strict=True) if not fine]
            return f"the {'KL' if stats.rewards.isfinite().all() else 'reward'} is not finite", prompts
        if not loss.isfinite():
            return f"the loss is {loss.item()}", stats.prompts
    return (None if norm.isfinite() else _GRADIENT), [prompt for stats, _ in micro_batches for prompt in stats.prompts]


class CollapseWarning(StepCallback):
    """Warns, once, if the policy's entropy or its reward is close to 0 for ``patience`` steps in a row.

    Args:
        entropy: Entropy in nats per token. A policy below it samples nearly the same tokens each time.
        reward: Mean cosine dissimilarity. Below it, the samples of a prompt are nearly equal for the embedder.
        patience: Number of optimiser steps.
    """

    def __init__(self, entropy: float = 0.05, reward: float = 0.01, patience: int = 50) -> None:
        self.floors = {"entropy": entropy, "reward": reward}
        self.patience = patience
        self.low_steps = dict.fromkeys(self.floors, 0)
        self.warned = False

    def on_step_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for name, floor in self.floors.items():
            low = pl_module.metrics[name] < floor
            self.low_steps[name] = self.low_steps[name] + 1 if low else 0
            if self.low_steps[name] >= self.patience and not self.warned:
                self.warned = True
                rank_zero_warn(
                    f"the policy may have collapsed: {name} has been below {floor} for {self.patience} steps (step "
                    f"{trainer.global_step}). Listen to the samples. Try a lower learning rate or another beta.",
                    stacklevel=2,
                )
