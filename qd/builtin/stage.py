"""Parts that all pretraining stages share: an endless stream, a resumable fit, and the asset with its card."""

from __future__ import annotations

import itertools
import json
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.loggers import TensorBoardLogger
from torch import nn
from torch.utils.data import DataLoader, Dataset, Sampler

from qd.callbacks.last_checkpoint import GracefulInterrupt, LastCheckpoint, fit_until_stopped
from qd.runs.atomic import added_files
from qd.runs.checkpoints import DamagedCheckpointError, check_checkpoint, newest_checkpoint
from qd.runs.devices import fast_precision, resolve_device, trainer_device
from qd.runs.ranks import trainer_places

Example = dict[str, np.ndarray]

RESUME_COMMAND = "make base"
"""Command that resumes a stopped build."""


class IndexedStream(Dataset):
    """Dataset whose item i is ``example(i)``, a pure function of the index, so that any worker can make it."""

    def __init__(self, example: Callable[[int], Example]) -> None:
        self.example = example

    def __getitem__(self, index: int) -> Example:
        return self.example(index)


class CountFrom(Sampler[int]):
    """Yields ``start, start + 1, …`` without end; it has no length, so Lightning treats the stream as endless."""

    def __init__(self, start: int) -> None:
        self.start = start

    def __iter__(self) -> Iterator[int]:
        return itertools.count(self.start)


def stream_loader(
    example: Callable[[int], Example], batch_size: int, first_step: int = 0, workers: int = 0, **options: Any
) -> DataLoader:
    """Returns an endless loader whose batch s has the examples ``s · batch_size … (s + 1) · batch_size − 1``.

    Args:
        example: Returns the arrays of an index; workers must be able to pickle or inherit it.
        batch_size: Examples per step.
        first_step: First step; the checkpoint's step after a resume.
        workers: Number of worker processes; does not change the batches.
        options: Further options of the DataLoader, such as ``collate_fn``.
    """
    sampler = CountFrom(first_step * batch_size)
    return DataLoader(IndexedStream(example), batch_size, sampler=sampler, num_workers=workers, **options)


class _Stream(pl.LightningDataModule):
    """Data module around a loader, for :func:`fit_until_stopped`."""

    def __init__(self, loader: DataLoader) -> None:
        super().__init__()
        self.loader = loader

    def train_dataloader(self) -> DataLoader:
        return self.loader


class TrainingClock(pl.Callback):
    """Measures the seconds spent in training, over all resumes."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._earlier, self._start = self.seconds, time.perf_counter()

    def on_train_batch_end(self, *_: Any) -> None:
        self.seconds = self._earlier + time.perf_counter() - self._start

    def state_dict(self) -> dict[str, float]:
        return {"seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        self.seconds = state_dict["seconds"]


def fit_stage(
    module: pl.LightningModule,
    make_loader: Callable[[int], DataLoader],
    folder: Path,
    max_steps: int,
    checkpoint_every: int = 250,
    precision: str = "auto",
    device: str = "auto",
    gradient_clip: float = 1.0,
    log_every: int = 10,
    checkpoint_minutes: float = math.inf,
) -> float:
    """Trains to ``max_steps`` and returns the training seconds; resumes from ``folder/last.ckpt`` if it exists.

    A resumed fit ends with the weights of an uninterrupted one, if the module draws no random numbers and its
    learning rate is a function of the step.

    Args:
        module: Module to train; its ``training_step`` logs the values for the progress bar.
        make_loader: Returns the loader from a first step on, such as :func:`stream_loader`.
        folder: Folder for last.ckpt and the TensorBoard events.
        max_steps: Total number of optimiser steps.
        checkpoint_every: Steps between two writes of last.ckpt.
        precision: Precision of Lightning, or "auto" for the fastest safe one on the device.
        device: Device name, see :func:`qd.runs.devices.resolve_device`.
        gradient_clip: Largest norm of the gradient.
        log_every: Steps between two logged values.
        checkpoint_minutes: Longest time between two writes of last.ckpt.

    Raises:
        ValueError: last.ckpt is damaged.
        KeyboardInterrupt: A signal stopped the stage, after the current step was finished and saved.
    """
    clock, interrupt = TrainingClock(), GracefulInterrupt()
    folder.mkdir(parents=True, exist_ok=True)
    trainer = _trainer(
        folder,
        max_steps,
        resolve_device(device),
        precision,
        gradient_clip_val=gradient_clip,
        callbacks=[
            clock,
            interrupt,
            LastCheckpoint(folder, checkpoint_every, checkpoint_minutes),
            TQDMProgressBar(refresh_rate=log_every),
        ],
        log_every_n_steps=log_every,
    )
    last = newest_checkpoint(folder)
    first_step = _checked_step(last, module) if last else 0
    data = _Stream(make_loader(first_step))
    fit_until_stopped(trainer, module, data, last, interrupt, RESUME_COMMAND)
    if interrupt.requested:  # during the last step: without this, the stage would continue
        raise KeyboardInterrupt(f"step {trainer.global_step} is saved; to resume: {RESUME_COMMAND}")
    return clock.seconds


def _checked_step(checkpoint: Path, module: nn.Module) -> int:
    try:
        return check_checkpoint(checkpoint, module)
    except DamagedCheckpointError as error:
        raise ValueError(f"{error}; remove it, and the stage starts again from step 0: {RESUME_COMMAND}") from error


def write_asset(folder: Path, model: nn.Module, card: dict[str, Any]) -> Path:
    """Writes the model in half precision, ``metrics.json`` and the model card ``README.md``; returns the folder.

    Args:
        folder: Folder of the asset; created if missing.
        model: Model with ``save_pretrained(folder, half)``.
        card: ``title``, ``description``, facts (``command``, ``data``, ``steps``, ``seconds`` …) and ``metrics``
            (name → value). Everything except title and description is written to metrics.json.
    """
    facts = {key: value for key, value in card.items() if key not in ("title", "description")}
    lines = [f"# {card['title']}", "", card["description"], "", "| | |", "|---|---|"]
    lines += [f"| {key} | {_readable(value)} |" for key, value in facts.items() if key != "metrics"]
    lines += ["", "| measured | value |", "|---|---|"]
    lines += [f"| {key} | {_readable(value)} |" for key, value in facts["metrics"].items()]
    with added_files(folder) as temporary:
        model.save_pretrained(temporary, half=True)
        (temporary / "metrics.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        (temporary / "README.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def _trainer(folder: Path, max_steps: int, device: torch.device, precision: str, **options: Any) -> pl.Trainer:
    return pl.Trainer(
        **trainer_device(device),
        precision=fast_precision(device) if precision == "auto" else precision,
        max_steps=max_steps,
        limit_train_batches=max_steps,  # an endless loader has no length; this sets the end of the progress bar
        logger=TensorBoardLogger(folder, name="", version=""),
        **trainer_places(folder),
        enable_model_summary=False,
        use_distributed_sampler=False,
        **options,
    )


def _readable(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_readable, value))
    return str(value)
