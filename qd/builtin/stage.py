"""What all pretraining stages share: an endless stream, a resumable fit, an asset's card."""

from __future__ import annotations

import itertools
import json
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
from qd.runs.devices import fast_precision, resolve_device, trainer_device
from qd.runs.folders import CHECKPOINT, checkpoint_step

Example = dict[str, np.ndarray]

GO_ON = "make base"
"""What to type to go on with a stopped build."""


class IndexedStream(Dataset):
    """Item i is ``example(i)``: a pure function of the index, so it matters not which worker makes it."""

    def __init__(self, example: Callable[[int], Example]) -> None:
        self.example = example

    def __getitem__(self, index: int) -> Example:
        return self.example(index)


class CountFrom(Sampler[int]):
    """``start, start + 1, …`` without end; without a length too, so that Lightning takes the stream as endless."""

    def __init__(self, start: int) -> None:
        self.start = start

    def __iter__(self) -> Iterator[int]:
        return itertools.count(self.start)


def stream_loader(
    example: Callable[[int], Example], batch_size: int, first_step: int = 0, workers: int = 0, **options: Any
) -> DataLoader:
    """Endless loader whose batch s holds the examples ``s · batch_size … (s + 1) · batch_size − 1``.

    Args:
        example: index → arrays; a function that workers can pickle or inherit.
        batch_size: examples a step.
        first_step: the step to start from, the checkpoint's when resuming.
        workers: processes; the batches are the same for any number of them.
        options: passed on to the DataLoader, such as ``collate_fn``.
    """
    sampler = CountFrom(first_step * batch_size)
    return DataLoader(IndexedStream(example), batch_size, sampler=sampler, num_workers=workers, **options)


class _Stream(pl.LightningDataModule):
    """A loader in the form in which :func:`fit_until_stopped` takes it."""

    def __init__(self, loader: DataLoader) -> None:
        super().__init__()
        self.loader = loader

    def train_dataloader(self) -> DataLoader:
        return self.loader


class TrainingClock(pl.Callback):
    """Seconds spent in training, over all resumptions."""

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
) -> float:
    """Trains to ``max_steps`` and returns the seconds that took; goes on from ``folder/last.ckpt`` where there is one.

    A resumed fit ends with the weights of an uninterrupted one, if the module draws no random numbers and its
    learning rate is a function of the step.

    Args:
        module: in its own ``training_step`` it logs what the progress bar is to show.
        make_loader: first step → loader, such as a :func:`stream_loader`.
        folder: of last.ckpt and the TensorBoard events.
        max_steps: optimiser steps in all.
        checkpoint_every: steps between two writes of last.ckpt.
        precision: Lightning's name, or "auto" for the fastest that is safe on the device.
        device: as :func:`qd.runs.devices.resolve_device` takes it.
        gradient_clip: largest norm of the gradient.
        log_every: steps between two logged values.

    Raises:
        KeyboardInterrupt: Ctrl-C; the step was finished and saved.
    """
    clock, interrupt, last = TrainingClock(), GracefulInterrupt(), folder / CHECKPOINT
    folder.mkdir(parents=True, exist_ok=True)
    trainer = _trainer(
        folder,
        max_steps,
        resolve_device(device),
        precision,
        gradient_clip_val=gradient_clip,
        callbacks=[clock, interrupt, LastCheckpoint(folder, checkpoint_every), TQDMProgressBar(refresh_rate=log_every)],
        log_every_n_steps=log_every,
    )
    first_step = checkpoint_step(last) if last.is_file() else 0
    data = _Stream(make_loader(first_step))
    fit_until_stopped(trainer, module, data, last if first_step else None, interrupt, GO_ON)
    if interrupt.requested:  # at the last step: what the stage does next would take no notice of it
        raise KeyboardInterrupt(f"step {trainer.global_step} is saved; to go on: {GO_ON}")
    return clock.seconds


def write_asset(folder: Path, model: nn.Module, card: dict[str, Any]) -> Path:
    """Writes the model in half precision, ``metrics.json`` and ``README.md``, the model card; returns the folder.

    Args:
        folder: the asset's; made if missing.
        model: with ``save_pretrained(folder, half)``.
        card: ``title``, ``description``, then facts (``command``, ``seed``, ``data``, ``steps``, ``seconds`` …) and
            ``metrics``: name → value. Everything beside title and description goes into metrics.json.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder, half=True)
    facts = {key: value for key, value in card.items() if key not in ("title", "description")}
    (folder / "metrics.json").write_text(json.dumps(facts, indent=2) + "\n")
    lines = [f"# {card['title']}", "", card["description"], "", "| | |", "|---|---|"]
    lines += [f"| {key} | {_readable(value)} |" for key, value in facts.items() if key != "metrics"]
    lines += ["", "| measured | value |", "|---|---|"]
    lines += [f"| {key} | {_readable(value)} |" for key, value in facts["metrics"].items()]
    (folder / "README.md").write_text("\n".join(lines) + "\n")
    return folder


def _trainer(folder: Path, max_steps: int, device: torch.device, precision: str, **options: Any) -> pl.Trainer:
    return pl.Trainer(
        **trainer_device(device),
        precision=fast_precision(device) if precision == "auto" else precision,
        max_steps=max_steps,
        limit_train_batches=max_steps,  # an endless loader has no length; this one gives the bar its end
        logger=TensorBoardLogger(folder, name="", version=""),
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
