"""What stops or questions a run that has gone wrong."""

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
    """The loss, a reward or a gradient is NaN or infinite; the weights are still those of the last finite step."""


_GRADIENT = "the gradient is not finite"


class NonFiniteGuard(pl.Callback):
    """Raises :class:`NonFiniteError` before an optimiser step that would spoil the weights.

    Reads the module's ``latest`` of each micro-batch: prompts, KL of each sequence, rewards. They are noted, and looked
    at together before the step: a GPU is waited for once a step, and the ranks ask each other once.

    Args:
        folder: of the run, whose step folders a new run can start from.
        precision: of training; in bfloat16 it may be what is wrong.
    """

    def __init__(self, folder: Path, precision: str = "32-true") -> None:
        self.folder = Path(folder)
        self.precision = precision
        self._judged: list[tuple[RolloutStats, Tensor]] = []

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._judged.clear()

    def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor) -> None:
        self._judged.append((pl_module.latest, loss.detach()))

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        judged, self._judged = self._judged, []
        norm = gradient_norm(p for group in optimizer.param_groups for p in group["params"])
        noted = [value for stats, loss in judged for value in (stats.rewards.sum(), stats.kl.sum(), loss)]
        # A sum is finite only if all of its terms are; that of finite ones may overflow, and is then looked into.
        finite = bool(torch.stack([value.isfinite() for value in (norm, *noted)]).all())
        self._stop(trainer, *((None, []) if finite else _complaint(judged, norm)))

    def _stop(self, trainer: pl.Trainer, complaint: str | None, prompts: list[str]) -> None:
        """On all ranks if one of them has a complaint: the others would wait for its gradient for ever."""
        blamed = [(what, texts) for what, texts in gather_objects((complaint, prompts)) if what]
        if not blamed:
            return
        # What is wrong on one rank is in the gradient of all: the cause is told.
        blamed = [(what, texts) for what, texts in blamed if what != _GRADIENT] or blamed
        what = blamed[0][0]
        quoted = "; ".join(repr(prompt) for _, texts in blamed for prompt in texts)
        raise NonFiniteError(
            f"step {trainer.global_step}: {what}. Prompts: {quoted}. No weights were changed by this step. "
            + self._advice()
        )

    def _advice(self) -> str:
        """Not to resume: a step is a function of the seed and its number, and the optimiser's state holds its rate."""
        advice = "This run would come to the same again: start a new one with a lower optimizer.learning_rate or beta"
        if saved := step_folders(self.folder):
            advice += f", from {saved[-1].name} if you like (model.name={self.folder}; it is then the teacher too)"
        if "bf16" in self.precision:
            advice += (
                ". bfloat16 has 8 significant bits: if trainer.precision=32-true stays finite from the same seed, the "
                "rounding was to blame; model.dtype=float32 gives the teacher all its bits"
            )
        return f"{advice}."


def _complaint(judged: list[tuple[RolloutStats, Tensor]], norm: Tensor) -> tuple[str | None, list[str]]:
    """What is not finite, and the prompts of the step where it is so; None if all is."""
    for stats, loss in judged:
        finite = stats.rewards.isfinite() & stats.kl.isfinite()  # (prompts, samples)
        if not finite.all():
            prompts = [prompt for prompt, fine in zip(stats.prompts, finite.all(dim=1), strict=True) if not fine]
            return f"the {'KL' if stats.rewards.isfinite().all() else 'reward'} is not finite", prompts
        if not loss.isfinite():
            return f"the loss is {loss.item()}", stats.prompts
    return (None if norm.isfinite() else _GRADIENT), [prompt for stats, _ in judged for prompt in stats.prompts]


class CollapseWarning(StepCallback):
    """Warns, once, when the policy's entropy or its reward has been close to 0 for ``patience`` steps in a row.

    Args:
        entropy: nats a token; a policy below it says nearly the same tokens each time.
        reward: mean cosine dissimilarity; below it the samples of a prompt sound alike to the embedder.
        patience: optimiser steps.
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
                    f"{trainer.global_step}). Listen to the samples; try a lower learning rate or another beta.",
                    stacklevel=2,
                )
