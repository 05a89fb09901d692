"""Run folders: their names, their making, their newest checkpoint, and the room that they need on the disk."""

from __future__ import annotations

import os
from datetime import datetime
from difflib import get_close_matches
from pathlib import Path

import torch

from qd.runs.process_rank import first_process

CONFIG = "config.yaml"
CHECKPOINT = "last.ckpt"
RUN_FOLDER = "QD_RUN_FOLDER"
"""Tells the run folder to the processes of the other ranks."""


def run_name(label: str, now: datetime | None = None) -> str:
    """The default name of a run: what it is, and when it began: ``beta15-20260102-1530``."""
    return f"{label}-{now or datetime.now():%Y%m%d-%H%M}"


def name_conflict(runs: str | Path, name: str | None) -> list[str]:
    """One sentence if a run of that name exists, for a list of problems."""
    folder = Path(runs) / (name or "")
    if not name or not folder.exists():
        return []
    return [f"run folder {str(folder)!r} exists already; choose another NAME, or go on with that run: RESUME={folder}"]


def create_run(runs: str | Path, name: str | None, label: str) -> Path:
    """Makes the folder of a new run.

    Args:
        runs: the folder of run folders; made if needed.
        name: of the run, or None for a default name, which gets a number if another run has taken it in this minute.
        label: what the run is, for the default name.

    Raises:
        ValueError: the run exists already, or the folder cannot be made.
    """
    default = run_name(label)
    candidates = [name] if name else [default, *(f"{default}-{number}" for number in range(2, 100))]
    for candidate in candidates:
        folder = Path(runs) / candidate
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise ValueError(f"run folder {str(folder)!r} cannot be made: {error}") from error
        return folder
    raise ValueError(*name_conflict(runs, candidates[-1]))


def find_run(run: str | Path, runs: str | Path = "runs") -> Path:
    """The folder of a run to go on with, given as a folder or as a name in ``runs``.

    Raises:
        ValueError: there is no such run, or it was stopped before its config was saved.
    """
    folder = next((path for path in (Path(run), Path(runs) / run) if path.is_dir()), None)
    if folder is None:
        present = sorted(path.name for path in Path(runs).glob("*") if (path / CONFIG).is_file())
        nearest = get_close_matches(Path(run).name, present, n=1) or present[-3:]
        raise ValueError(f"there is no run {str(run)!r}; in {str(runs)!r}: {', '.join(nearest) or 'none'}")
    if not (folder / CONFIG).is_file():
        raise ValueError(f"{str(folder)!r} is no run folder: {CONFIG} is missing; start a new run")
    return folder


def newest_checkpoint(run: Path) -> Path:
    """The file that a run is resumed from.

    Raises:
        ValueError: the run has not written one yet.
    """
    checkpoint = run / CHECKPOINT
    if not checkpoint.is_file():
        raise ValueError(
            f"run {str(run)!r} has no {CHECKPOINT} yet, so it cannot be resumed; start it under another name"
        )
    return checkpoint


def checkpoint_step(file: Path) -> int:
    """Optimiser steps that a checkpoint has behind it; its tensors are not read."""
    return torch.load(file, map_location="cpu", weights_only=True, mmap=True)["global_step"]


def new_folder(runs: str | Path, name: str | None, label: str) -> Path:
    """The folder of a new run, made by the first process. The others, started by Lightning once the first one comes to
    train, are told its name by the environment; started by torchrun or srun, by the config.

    Raises:
        ValueError: the run exists already, or its name cannot be known here.
    """
    if first_process():
        folder = create_run(runs, name, label)
        os.environ[RUN_FOLDER] = str(folder)
        return folder
    if name or RUN_FOLDER in os.environ:
        return Path(runs) / name if name else Path(os.environ[RUN_FOLDER])
    raise ValueError("name is null, and the processes of this run were not started by its first one: give it a NAME")
