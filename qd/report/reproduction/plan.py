"""What a reproduction consists of, declared in ``configs/reproduction/*.yaml``, and how far each run has come."""

from __future__ import annotations

import re
import shutil
import sys
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from pickle import UnpicklingError

from qd.config.loading import ConfigError, load_config
from qd.config.resume import changes
from qd.config.train import TrainConfig
from qd.evaluation.points import FILE
from qd.models.checkpoints.resolver import step_folder
from qd.report.reproduction.measured import BETAS
from qd.runs.folders import CHECKPOINT, CONFIG, checkpoint_step
from qd.runs.lock import exclusive_lock


@dataclass
class RunConfig:
    """One training run."""

    name: str = ""  # of the run, and its role in the claims: beta0, beta15-seed1, n4-shared
    beta: float = 0.0  # ≥ 0
    seed: int = 0  # ≥ 0
    overrides: list[str] = field(default_factory=list)  # of `qd train`, after those of all runs


@dataclass
class ReproductionConfig:
    """``make reproduce``."""

    folder: str = "runs/reproduction"  # of the runs, their logs, the results and the report
    train: str = "default"  # overlay in configs/train/, or the path of a YAML file
    overrides: list[str] = field(default_factory=list)  # of `qd train`, for every run
    runs: list[RunConfig] = field(default_factory=list)  # none: the sweep measures what is shipped
    betas: list[str] = field(default_factory=lambda: list(BETAS))  # roles by rising β: the first and last are merged
    sweep: str = "reproduction"  # overlay in configs/sweep/, or the path of a YAML file
    notes: str = ""  # what a reader of the document is to know of how it was run, as Markdown

    def problems(self) -> list[str]:
        names = [run.name for run in self.runs]
        twice = dict.fromkeys(name for name in names if names.count(name) > 1)
        found = [f"runs: {name!r} is there twice; give each run a name of its own" for name in twice]
        values = [float(number[1]) for role in self.betas if (number := re.fullmatch(r"beta(\d+)", role))]
        if len(set(self.betas)) != len(self.betas) or len(self.betas) < 2 or values != sorted(values):
            found.append(f"betas is {self.betas}; expected two roles or more, each once, by rising β")
        found += [f"runs: a name is {name!r}; expected letters, digits, - and _" for name in names if not _plain(name)]
        return found or [text for run in self.runs for text in self._run_problems(run)]

    def settings(self, run: RunConfig) -> list[str]:
        """The overrides that make a run what it is."""
        return [f"beta={run.beta}", f"seed={run.seed}", *self.overrides, *run.overrides]

    def train_config(self, run: RunConfig) -> TrainConfig:
        return load_config(TrainConfig, "train", self.train, self.settings(run))

    def _run_problems(self, run: RunConfig) -> list[str]:
        try:
            self.train_config(run)
        except ConfigError as error:
            return [f"run {run.name}: {text}" for text in error.problems]
        return []

    @property
    def results(self) -> Path:
        return Path(self.folder) / "results" / "points.jsonl"


class State(Enum):
    """Of a run."""

    NEW = "to do"
    BEGUN = "to go on"
    DONE = "done"


@dataclass(frozen=True)
class PlannedRun:
    """A run of the plan, and its folder.

    Attributes:
        steps: optimiser steps in all.
    """

    plan: ReproductionConfig
    run: RunConfig
    steps: int

    @property
    def folder(self) -> Path:
        return Path(self.plan.folder) / self.run.name

    @property
    def state(self) -> State:
        """A run is done when the weights of its last step stand there, which are renamed into place when complete."""
        if step_folder(self.folder, self.steps).is_dir():
            return State.DONE
        return State.BEGUN if (self.folder / CHECKPOINT).is_file() else State.NEW

    @property
    def left(self) -> int:
        """Optimiser steps to make; all where the checkpoint cannot be read, and none where it has more, which going on
        will tell."""
        if self.state is not State.BEGUN:
            return 0 if self.state is State.DONE else self.steps
        try:
            return max(0, self.steps - checkpoint_step(self.folder / CHECKPOINT))
        except (EOFError, KeyError, OSError, RuntimeError, UnpicklingError):  # what torch raises, by what is wrong
            return self.steps

    def problems(self) -> list[str]:
        """Whether the folder holds a run of other settings."""
        if not (self.folder / CONFIG).is_file():
            return []
        found = changes(self.folder, self.plan.train_config(self.run), "train")
        return [f"run {self.folder}: {text}; give the plan another folder, or remove that run" for text in found]

    def command(self) -> list[str]:
        """What begins it, or goes on with it."""
        if self.state is State.BEGUN:
            return [*QD, "train", "--resume", str(self.folder), f"trainer.max_steps={self.steps}"]
        return [*QD, *self.arguments()]

    def settings(self) -> list[str]:
        """Of ``qd``, what makes the run what it is, wherever it is."""
        return ["train", "--config", self.plan.train, *self.plan.settings(self.run), "trainer.device=cpu"]

    def arguments(self) -> list[str]:
        """Of ``qd``, to begin the run."""
        return [*self.settings(), "--name", self.run.name, f"trainer.runs={self.plan.folder}"]

    def clear(self) -> None:
        """Removes what a run left that was killed before it saved anything.

        Raises:
            ValueError: it has not ended yet.
        """
        if self.state is State.NEW and self.folder.is_dir():
            with exclusive_lock(self.folder):
                if self.state is State.NEW:  # still: it may have saved and ended just now
                    shutil.rmtree(self.folder)


QD = [sys.executable, "-m", "qd"]


def planned_runs(plan: ReproductionConfig, names: list[str] | None = None) -> list[PlannedRun]:
    """The runs of the plan, or those named.

    Raises:
        ConfigError: a name is unknown, or a folder holds a run of other settings.
    """
    known = [run.name for run in plan.runs]
    unknown = [name for name in names or [] if name not in known]
    problems = [f"there is no run {name!r}; expected some of {', '.join(known)}" for name in unknown]
    chosen = [run for run in plan.runs if not names or run.name in names]
    found = [PlannedRun(plan, run, plan.train_config(run).trainer.max_steps) for run in chosen]
    if problems := [*problems, *(text for one in found for text in one.problems())]:
        raise ConfigError(problems)
    return found


def trained(plan: ReproductionConfig) -> list[Path]:
    """Folders of the runs that differ in β, seed and length alone, and have measured something: of Figures 1 and 2."""
    alike = [one for one in planned_runs(plan) if all(text.startswith("trainer.") for text in one.run.overrides)]
    return [one.folder for one in alike if (one.folder / FILE).is_file()]


def _plain(name: str) -> bool:
    """Fit for a folder, and for a part of the dotted key by which the sweep is told where the run lies."""
    return bool(name) and all(letter.isalnum() or letter in "-_" for letter in name)
