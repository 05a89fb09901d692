"""The loggers of a run: TensorBoard, CSV files, wandb or mlflow, or several of them.

All get scalars and hyperparameters. Figures, audio and projections go to TensorBoard only; the Pareto figure is also a
file.
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
"""Modules that are not installed with this project, because the clients of these services are large."""


def build_loggers(
    loggers: Sequence[str], options: Mapping[str, Mapping[str, Any]], folder: Path, resumed_at: int | None = None
) -> list[Logger]:
    """Builds the loggers of a run.

    Args:
        loggers: Names in :data:`LOGGERS`.
        options: Keyword arguments for Lightning's logger, by name.
        folder: Run folder; the loggers use its name.
        resumed_at: Step that the run resumes from; None for a new run.
    """
    return [LOGGERS[name](**{**_settings(name, folder, resumed_at), **options.get(name, {})}) for name in loggers]


def _settings(name: str, folder: Path, resumed_at: int | None) -> dict[str, Any]:
    """Default keyword arguments of a logger."""
    if name == "tensorboard":
        # Steps that a killed run logged after its checkpoint are hidden, because the resumed run repeats them.
        # Step 0 is measured again.
        purge = {} if resumed_at is None else {"purge_step": resumed_at + 1 if resumed_at else 0}
        return {"save_dir": folder, "name": "", "version": "", "default_hp_metric": False, **purge}
    if name == "csv":
        # A new version for each start: Lightning would delete the earlier rows. Every row is written immediately.
        return {"save_dir": folder, "name": "csv", "flush_logs_every_n_steps": 1}
    if name == "wandb":
        return {"name": folder.name, "project": "qd", "save_dir": folder, "id": _earlier_wandb_run(folder)}
    return {"run_name": folder.name, "experiment_name": "qd", "save_dir": str(folder.parent / "mlruns")}


def _earlier_wandb_run(folder: Path) -> str | None:
    """The id of the run to resume, from the newest folder of wandb: ``run-<time>-<id>``."""
    runs = sorted(path.name.rsplit("-", 2)[1:] for path in (folder / "wandb").glob("*run-*-*"))
    return runs[-1][1] if runs else None
