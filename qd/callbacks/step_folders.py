"""The weights of a run as folders that load anywhere."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from omegaconf import OmegaConf

from qd.callbacks.step_callback import StepCallback
from qd.models.resolver import step_folder, step_folders


class StepFolders(StepCallback):
    """Saves ``step-000500/`` (the model in float32, ``recipe.yaml``) every ``every`` optimiser steps and at the end.

    A folder appears under its name only when it is complete. The ``keep`` newest stay; None keeps all.
    """

    def __init__(self, folder: Path, every: int, keep: int | None, recipe: Mapping[str, Any]) -> None:
        self.folder = Path(folder)
        self.every = every
        self.keep = keep
        self.recipe = dict(recipe)

    def on_step_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        due = trainer.global_step % self.every == 0 or trainer.global_step == trainer.max_steps
        if due and trainer.is_global_zero:
            self._save(trainer.global_step, pl_module)
            self._forget()

    def _save(self, step: int, pl_module: pl.LightningModule) -> None:
        unfinished = self.folder / f"unfinished-{step:06d}"
        shutil.rmtree(unfinished, ignore_errors=True)
        pl_module.music.save(unfinished)
        recipe = {"kind": "distillation", "step": step, **self.recipe}
        OmegaConf.save(OmegaConf.create(recipe), unfinished / "recipe.yaml")
        final = step_folder(self.folder, step)
        shutil.rmtree(final, ignore_errors=True)  # left by a run that was killed after it, and resumed from before it
        unfinished.rename(final)

    def _forget(self) -> None:
        for path in step_folders(self.folder)[: -self.keep] if self.keep else []:
            shutil.rmtree(path)
