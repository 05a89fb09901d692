"""Where the numbers of a run go: TensorBoard, CSV files, wandb or mlflow, or several of them.

All get scalars and hyperparameters. Figures, audio and projections are TensorBoard's; the Pareto figure is also a file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import (
    CSVLogger,
    Logger,
    MLFlowLogger,
    TensorBoardLogger,
    WandbLogger,
)

LOGGERS: dict[str, type[Logger]] = {
    "tensorboard": TensorBoardLogger,
    "csv": CSVLogger,
    "wandb": WandbLogger,
    "mlflow": MLFlowLogger,
}
PACKAGES = {"wandb": "wandb", "mlflow": "mlflow"}
"""Modules that are not installed with this project; a service's client is large, and nobody needs them all."""


def build_loggers(
    loggers: Sequence[str], options: Mapping[str, Mapping[str, Any]], folder: Path, resumed_at: int | None = None
) -> list[Logger]:
    """The loggers of a run.

    Args:
        loggers: names of :data:`LOGGERS`.
        options: of each, keyword arguments of Lightning's logger.
        folder: of the run, whose name they take.
        resumed_at: the step that a run goes on from.
    """
    return [LOGGERS[name](**{**_settings(name, folder, resumed_at), **options.get(name, {})}) for name in loggers]


def _settings(name: str, folder: Path, resumed_at: int | None) -> dict[str, Any]:
    """What a logger is told if its options do not say otherwise."""
    if name == "tensorboard":
        # What a killed run has logged beyond its checkpoint is hidden: those steps are made again.
        purge = {} if resumed_at is None else {"purge_step": resumed_at + 1}
        return {"save_dir": folder, "name": "", "version": "", "default_hp_metric": False, **purge}
    if name == "csv":
        # A version each time the run starts: Lightning would delete the rows of before. And no row waits in memory.
        return {"save_dir": folder, "name": "csv", "flush_logs_every_n_steps": 1}
    if name == "wandb":
        return {"name": folder.name, "project": "qd", "save_dir": folder, "id": _earlier_wandb_run(folder)}
    return {"run_name": folder.name, "experiment_name": "qd", "save_dir": str(folder.parent / "mlruns")}


def _earlier_wandb_run(folder: Path) -> str | None:
    """The id of the run that is to go on, by the newest folder that wandb has left: ``run-<time>-<id>``."""
    runs = sorted(path.name.rsplit("-", 2)[1:] for path in (folder / "wandb").glob("*run-*-*"))
    return runs[-1][1] if runs else None
