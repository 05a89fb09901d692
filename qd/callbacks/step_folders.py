"""Saves the weights of a run as folders that plain ``transformers`` loads."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from omegaconf import OmegaConf
from torch.utils.tensorboard import SummaryWriter

from qd.callbacks.pareto_log import MeasurementListener
from qd.callbacks.step_callback import StepCallback
from qd.evaluation.measurement import Measurement
from qd.evaluation.points import FILE, PointsFile
from qd.models.checkpoints.resolver import step_folder, step_folders
from qd.models.sampling_defaults import save_sampling_defaults
from qd.report.cards.model import write_card


class StepFolders(StepCallback, MeasurementListener):
    """Saves ``step-000500/`` every ``every`` optimiser steps and at the end.

    A step folder has the model, with trained weights in float32, ``recipe.yaml``, and a model card. The card includes
    the measurement of its step, whether that runs before or after. A folder gets its name only when it is complete.

    Args:
        folder: Folder of the run.
        every: Optimiser steps between two step folders.
        keep: Number of step folders to keep, the newest ones. None keeps all.
        recipe: How the weights are made: ``run`` and its ``config``.
    """

    def __init__(self, folder: Path, every: int, keep: int | None, recipe: Mapping[str, Any]) -> None:
        self.folder = Path(folder)
        self.every = every
        self.keep = keep
        self.recipe = dict(recipe)

    def on_measurement(self, writer: SummaryWriter | None, step: int, measurement: Measurement) -> None:
        step_dir = step_folder(self.folder, step)
        if step_dir.is_dir():
            self._write_card(step_dir, step)

    def on_step_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        due = trainer.global_step % self.every == 0 or trainer.global_step == trainer.max_steps
        if not due:
            return
        unfinished = self.folder / f"unfinished-{trainer.global_step:06d}"
        if trainer.is_global_zero:
            shutil.rmtree(unfinished, ignore_errors=True)
        pl_module.music.save(unfinished, write=trainer.is_global_zero)
        if trainer.is_global_zero:
            self._finish(unfinished, trainer.global_step, pl_module)
            self._delete_old()

    def _finish(self, unfinished: Path, step: int, pl_module: pl.LightningModule) -> None:
        rollout = self.recipe["config"]["rollout"]
        save_sampling_defaults(unfinished, pl_module.music, rollout["temperature"], rollout["seconds"])
        recipe = {"kind": "distillation", "step": step, **self.recipe}
        OmegaConf.save(OmegaConf.create(recipe), unfinished / "recipe.yaml")
        self._write_card(unfinished, step)
        final = step_folder(self.folder, step)
        shutil.rmtree(final, ignore_errors=True)  # from a run that was killed later and resumed from an earlier step
        unfinished.rename(final)

    def _write_card(self, folder: Path, step: int) -> None:
        write_card(folder, self.recipe | {"step": step}, PointsFile(self.folder / FILE).read())

    def _delete_old(self) -> None:
        for path in step_folders(self.folder)[: -self.keep] if self.keep else []:
            shutil.rmtree(path)
