"""What stops or questions a run that has gone wrong."""

from __future__ import annotations

from pathlib import Path

import lightning.pytorch as pl
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.optim import Optimizer

from qd.callbacks.step_callback import StepCallback
from qd.models.resolver import step_folders
from qd.modules.collective import gather_objects, gradient_norm


class NonFiniteError(RuntimeError):
    """The loss, a reward or a gradient is NaN or infinite; the weights are still those of the last finite step."""


class NonFiniteGuard(pl.Callback):
    """Raises :class:`NonFiniteError` before an optimiser step that would spoil the weights.

    Reads the module's ``latest`` micro-batch: prompts, KL of each sequence, rewards.

    Args:
        folder: of the run, whose step folders a new run can start from.
        precision: of training; in bfloat16 it may be what is wrong.
    """

    def __init__(self, folder: Path, precision: str = "32-true") -> None:
        self.folder = Path(folder)
        self.precision = precision

    def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor) -> None:
        batch = pl_module.latest
        finite = batch.rewards.isfinite() & batch.kl.isfinite()  # (prompts, samples)
        complaint, prompts = None, batch.prompts
        if not finite.all():
            prompts = [prompt for prompt, fine in zip(batch.prompts, finite.all(dim=1), strict=True) if not fine]
            what = "reward" if not batch.rewards.isfinite().all() else "KL"
            complaint = f"the {what} is not finite"
        elif not loss.isfinite():
            complaint = f"the loss is {loss.item()}"
        self._stop(trainer, complaint, prompts)

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        finite = gradient_norm(p for group in optimizer.param_groups for p in group["params"]).isfinite()
        self._stop(trainer, None if finite else "the gradient is not finite", pl_module.latest.prompts)

    def _stop(self, trainer: pl.Trainer, complaint: str | None, prompts: list[str]) -> None:
        """On all ranks if one of them has a complaint: the others would wait for its gradient for ever."""
        blamed = [(what, texts) for what, texts in gather_objects((complaint, prompts)) if what]
        if not blamed:
            return
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
