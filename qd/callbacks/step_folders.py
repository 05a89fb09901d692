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
from qd.runs.atomic import atomic_folder


class StepFolders(StepCallback, MeasurementListener):
    """Saves ``step-000500/`` every ``every`` optimiser steps and at the end.

    A step folder has the model, with trained weights in float32, ``recipe.yaml``, and a model card. The card includes
    the measurement of its step, whether that runs before or after. A folder gets its name only when it is complete.

    Args:
        folder: Folder of the run.
        every: Optimiser steps between two step folders.
        keep: Number of step folders to keep, the newest ones. None keeps all.
        recipe: Origin of the weights: ``run`` and its ``config``.
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
        folder, step = step_folder(self.folder, trainer.global_step), trainer.global_step
        if not trainer.is_global_zero:
            pl_module.music.save(folder, write=False)  # lends its share of the weights
            return
        # An existing folder is from a run that was killed after this step and resumed from an earlier one.
        with atomic_folder(folder, replace=True) as temporary:
            pl_module.music.save(temporary)
            self._describe(temporary, step, pl_module)
        self._delete_old()

    def _describe(self, folder: Path, step: int, pl_module: pl.LightningModule) -> None:
        """Adds sampling defaults, recipe and card to the weights."""
        rollout = self.recipe["config"]["rollout"]
        save_sampling_defaults(folder, pl_module.music, rollout["temperature"], rollout["seconds"])
        recipe = {"kind": "distillation", "step": step, **self.recipe}
        OmegaConf.save(OmegaConf.create(recipe), folder / "recipe.yaml")
        self._write_card(folder, step)

    def _write_card(self, folder: Path, step: int) -> None:
        write_card(folder, self.recipe | {"step": step}, PointsFile(self.folder / FILE).read())

    def _delete_old(self) -> None:
        for path in step_folders(self.folder)[: -self.keep] if self.keep else []:
            shutil.rmtree(path)
