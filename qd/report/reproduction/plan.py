"""The plan of a reproduction, read from ``configs/reproduction/*.yaml``, and the state of each of its runs."""

from __future__ import annotations

import re
import shutil
import sys
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from qd.config.loading import ConfigError, load_config
from qd.config.resume import changes
from qd.config.train import TrainConfig
from qd.evaluation.points import FILE
from qd.models.checkpoints.resolver import step_folder
from qd.report.reproduction.measured import BETAS
from qd.runs.checkpoints import DamagedCheckpointError, checkpoint_step
from qd.runs.folders import CHECKPOINT, CONFIG
from qd.runs.lock import exclusive_lock
from qd.schema.setting import setting


@dataclass
class RunConfig:
    """One training run."""

    name: str = ""  # name of the run and its role in the claims: beta0, beta15-seed1, n4-shared
    beta: float = 0.0  # ≥ 0
    seed: int = 0  # ≥ 0
    overrides: list[str] = field(default_factory=list)  # overrides of `qd train`, applied after those for every run


@dataclass
class ReproductionConfig:
    """``make reproduce``."""

    folder: str = setting("runs/reproduction", "Folder of the runs, their logs, the results and the report.", path=True)
    train: str = setting("default", "Overlay in configs/train/, or the path of a YAML file.", path=True)
    overrides: list[str] = field(default_factory=list)  # overrides of `qd train` for every run
    runs: list[RunConfig] = field(default_factory=list)  # if empty, the sweep measures models that already exist
    betas: list[str] = field(
        default_factory=lambda: list(BETAS)
    )  # roles by increasing β: the first and last are merged
    sweep: str = setting("reproduction", "Overlay in configs/sweep/, or the path of a YAML file.", path=True)
    notes: str = ""  # Markdown text for the document: how it was run, and remarks on the results

    def problems(self) -> list[str]:
        names = [run.name for run in self.runs]
        twice = dict.fromkeys(name for name in names if names.count(name) > 1)
        problems = [f"runs: the name {name!r} is used twice; give each run its own name" for name in twice]
        values = [float(number[1]) for role in self.betas if (number := re.fullmatch(r"beta(\d+)", role))]
        if len(set(self.betas)) != len(self.betas) or len(self.betas) < 2 or values != sorted(values):
            problems.append(f"betas is {self.betas}; expected two or more roles, each once, by increasing β")
        problems += [
            f"runs: a name is {name!r}; expected letters, digits, - and _" for name in names if not _plain(name)
        ]
        return problems or [text for run in self.runs for text in self._run_problems(run)]

    def settings(self, run: RunConfig) -> list[str]:
        """All overrides of a run."""
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
    """The state of a run."""

    NEW = "to do"
    BEGUN = "to resume"
    DONE = "done"


@dataclass(frozen=True)
class PlannedRun:
    """A run of the plan.

    Attributes:
        plan: The plan.
        run: Settings of the run.
        steps: Total number of optimiser steps.
    """

    plan: ReproductionConfig
    run: RunConfig
    steps: int

    @property
    def folder(self) -> Path:
        return Path(self.plan.folder) / self.run.name

    @property
    def state(self) -> State:
        """The state on disk. A run is done when the step folder of its last step exists; it is renamed into place."""
        if step_folder(self.folder, self.steps).is_dir():
            return State.DONE
        return State.BEGUN if (self.folder / CHECKPOINT).is_file() else State.NEW

    @property
    def left(self) -> int:
        """Remaining optimiser steps.

        All steps if the checkpoint cannot be read, and 0 if it has more steps than the plan; resuming reports both.
        """
        if self.state is not State.BEGUN:
            return 0 if self.state is State.DONE else self.steps
        try:
            return max(0, self.steps - checkpoint_step(self.folder / CHECKPOINT))
        except DamagedCheckpointError:
            return self.steps

    def problems(self) -> list[str]:
        """One message for each setting in which the run in the folder differs from the plan."""
        if not (self.folder / CONFIG).is_file():
            return []
        different = changes(self.folder, self.plan.train_config(self.run), "train")
        return [f"run {self.folder}: {text}; give the plan another folder, or remove that run" for text in different]

    def command(self) -> list[str]:
        """The command that starts or resumes the run."""
        if self.state is State.BEGUN:
            return [*QD, "train", "--resume", str(self.folder), f"trainer.max_steps={self.steps}"]
        return [*QD, *self.arguments()]

    def settings(self) -> list[str]:
        """Arguments of ``qd`` with all settings of the run, but without its name and folder."""
        return ["train", "--config", self.plan.train, *self.plan.settings(self.run), "trainer.device=cpu"]

    def arguments(self) -> list[str]:
        """Arguments of ``qd`` that start the run."""
        return [*self.settings(), "--name", self.run.name, f"trainer.runs={self.plan.folder}"]

    def clear(self) -> None:
        """Removes the folder of a run that was killed before it saved anything.

        Raises:
            ValueError: The run is still active.
        """
        if self.state is State.NEW and self.folder.is_dir():
            with exclusive_lock(self.folder):
                if self.state is State.NEW:  # checked again, because it may have just saved and ended
                    shutil.rmtree(self.folder)


QD = [sys.executable, "-m", "qd"]


def planned_runs(plan: ReproductionConfig, names: list[str] | None = None) -> list[PlannedRun]:
    """The runs of the plan, or those with the given names.

    Raises:
        ConfigError: A name is unknown, or a folder has a run with other settings.
    """
    known = [run.name for run in plan.runs]
    unknown = [name for name in names or [] if name not in known]
    problems = [f"run {name!r} is not in the plan; expected some of {', '.join(known)}" for name in unknown]
    chosen = [run for run in plan.runs if not names or run.name in names]
    planned = [PlannedRun(plan, run, plan.train_config(run).trainer.max_steps) for run in chosen]
    if problems := [*problems, *(text for one in planned for text in one.problems())]:
        raise ConfigError(problems)
    return planned


def trained(plan: ReproductionConfig) -> list[Path]:
    """Folders of the runs for Figures 1 and 2: they differ only in β, seed and length, and have measured points."""
    alike = [one for one in planned_runs(plan) if all(text.startswith("trainer.") for text in one.run.overrides)]
    return [one.folder for one in alike if (one.folder / FILE).is_file()]


def _plain(name: str) -> bool:
    """Whether a name can be a folder name and a part of the dotted key ``models.<name>`` of the sweep."""
    return bool(name) and all(letter.isalnum() or letter in "-_" for letter in name)
