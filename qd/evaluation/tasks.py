"""One measurement that is asked for, and what becomes of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from qd.config.policy import TEMPERATURE
from qd.config.sweep import SweepConfig
from qd.evaluation.measure import Sampling
from qd.models.merging.model_spec import ModelSpec


@dataclass(frozen=True)
class Task:
    """A model, and how it is asked.

    Attributes:
        model: whose weights act.
        seed: of the tokens drawn. temperature: T. guidance_scale: γ. negative: prompt of the guidance.
        series: the name of the line of a sweep that asks for the point.
        fad: whether the Fréchet audio distance is wanted too.
    """

    model: ModelSpec
    seed: int = 0
    temperature: float = TEMPERATURE
    guidance_scale: float = 1.0
    negative: str | None = None
    series: str = ""
    fad: bool = False

    def sampling(self, seconds: float) -> Sampling:
        """Of clips of this length; without guidance there is no negative prompt."""
        negative = None if self.guidance_scale == 1.0 else self.negative
        return Sampling(self.temperature, self.guidance_scale, negative, seconds, self.seed)

    @property
    def passes(self) -> int:
        """Of the language model, for each token: a guided one takes two."""
        return 1 if self.guidance_scale == 1.0 else 2

    def __str__(self) -> str:
        guided = f" γ={self.guidance_scale:g} {'unconditional' if self.negative is None else 'negative'}"
        parts = [f"{self.series}: " if self.series else "", str(self.model)]
        parts += [guided] if self.passes == 2 else []
        return "".join([*parts, f" T={self.temperature:g} seed {self.seed}"])


class State(Enum):
    """Of a task, beside the results file."""

    THERE = "there"  # the point stands in the file
    KNOWN = "known"  # measured for another series, or by a command that was killed: only the line is missing
    NEW = "to measure"


@dataclass(frozen=True)
class Planned:
    """A task, the key of its measurement, and what is left to do.

    Attributes:
        fad: whether the measurement is to hear the Fréchet audio distance, for this task or another of the same key.
    """

    task: Task
    key: str
    state: State
    fad: bool


def sweep_tasks(config: SweepConfig) -> list[Task]:
    """The points in the order of the series; a series with its first seed, then with the next."""
    tasks = []
    for series in config.chosen:
        common = {"temperature": config.temperature, "series": series.name, "fad": config.measures_fad(series)}
        for seed in config.seeds if series.seeds is None else series.seeds:
            for spec, own in series.points(config.models):
                tasks.append(Task(spec, seed, **common | own))
    return tasks
