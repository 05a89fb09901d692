"""Run folders: their names and their creation."""

from __future__ import annotations

import os
from datetime import datetime
from difflib import get_close_matches
from pathlib import Path

from qd.runs.atomic import TEMPORARY
from qd.runs.disk import disk_problem, try_writing
from qd.runs.process_rank import first_process

CONFIG = "config.yaml"
CHECKPOINT = "last.ckpt"
RUN_FOLDER = "QD_RUN_FOLDER"
"""Environment variable with the run folder, which the first process sets for the processes that Lightning starts."""


def run_name(label: str, now: datetime | None = None) -> str:
    """Returns the default name of a run, its label and its start time: ``beta15-20260102-1530``."""
    return f"{label}-{now or datetime.now():%Y%m%d-%H%M}"


def place_problems(runs: str | Path, name: str | None, resume: str | Path | None = None) -> list[str]:
    """Returns one sentence if the folder of a run cannot be made or written, which is tried, or exists already.

    A folder without a file is no run: its process was killed before it saved the config.

    Args:
        runs: Folder of run folders.
        name: Name of a new run; None for a default name.
        resume: Folder of the run to resume, instead of a new run.
    """
    folder = Path(resume or runs, "" if resume else name or "")
    if not first_process():
        return []
    try:
        if resume or not name or not os.path.lexists(folder) or _unused(folder):
            try_writing(folder)
            return []
    except OSError as error:
        return [f"run folder: {disk_problem(error, 'run the same command again', folder)}"]
    return [f"run folder {str(folder)!r} exists already; choose another NAME, or resume that run: RESUME={folder}"]


def create_run(runs: str | Path, name: str | None, label: str) -> Path:
    """Makes the folder of a new run.

    Args:
        runs: Folder of run folders; made if needed.
        name: Name of the run; None for a default name, with a number if it already exists.
        label: Label of the run, for the default name.

    Raises:
        ValueError: The run exists already, or the folder cannot be made.
    """
    default = run_name(label)
    candidates = [name] if name else [default, *(f"{default}-{number}" for number in range(2, 100))]
    for candidate in candidates:
        folder = Path(runs) / candidate
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            if name and _unused(folder):
                return folder
            continue
        except OSError as error:
            raise ValueError(f"run folder {str(folder)!r} cannot be made: {error}") from error
        return folder
    raise ValueError(*place_problems(runs, candidates[-1]))


def _unused(folder: Path) -> bool:
    """Whether a path is a folder without a file, apart from what a killed process was writing."""
    return folder.is_dir() and all(path.suffix == TEMPORARY for path in folder.iterdir())


def find_run(run: str | Path, runs: str | Path = "runs") -> Path:
    """Returns the folder of a run to resume.

    Args:
        run: Folder of the run, or its name in ``runs``.
        runs: Folder of run folders.

    Raises:
        ValueError: There is no such run, or it was stopped before its config was saved.
    """
    folder = next((path for path in (Path(run), Path(runs) / run) if path.is_dir()), None)
    if folder is None:
        present = sorted(path.name for path in Path(runs).glob("*") if (path / CONFIG).is_file())
        nearest = get_close_matches(Path(run).name, present, n=1) or present[-3:]
        raise ValueError(f"there is no run {str(run)!r}; in {str(runs)!r}: {', '.join(nearest) or 'none'}")
    if not (folder / CONFIG).is_file():
        raise ValueError(f"{str(folder)!r} is not a run folder: {CONFIG} is missing; start a new run")
    return folder


def new_folder(runs: str | Path, name: str | None, label: str) -> Path:
    """Returns the folder of a new run; the first process makes it.

    Other processes that Lightning starts know the folder from the environment; those of torchrun or srun know it from
    the config.

    Raises:
        ValueError: The run exists already, or this process cannot know its name.
    """
    if first_process():
        return create_run(runs, name, label)
    if name or RUN_FOLDER in os.environ:
        return Path(runs) / name if name else Path(os.environ[RUN_FOLDER])
    raise ValueError("name is null, and torchrun or srun started the processes of this run: set a NAME")
