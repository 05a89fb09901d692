"""The measurements that a command requests, and the remaining work for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from qd.config.measuring import EvaluateConfig
from qd.config.policy import TEMPERATURE
from qd.config.sweep import SweepConfig
from qd.evaluation.measure import Sampling
from qd.models.merging.model_spec import ModelSpec


@dataclass(frozen=True)
class Task:
    """One measurement: a model and how it is sampled.

    Attributes:
        model: Model, or weighted sum of models.
        seed: Seed for token sampling.
        temperature: T, above 0.
        guidance_scale: γ of Eq. 1; 1 is no guidance.
        negative: Negative prompt of the guidance; None is unconditional.
        series: Name of the series of a sweep; "" in `qd evaluate`.
        fad: Whether to measure the Fréchet audio distance too.
    """

    model: ModelSpec
    seed: int = 0
    temperature: float = TEMPERATURE
    guidance_scale: float = 1.0
    negative: str | None = None
    series: str = ""
    fad: bool = False

    def sampling(self, seconds: float) -> Sampling:
        """Returns the sampling settings for clips of ``seconds``; without guidance there is no negative prompt."""
        negative = self.negative if self.guided else None
        return Sampling(self.temperature, self.guidance_scale, negative, seconds, self.seed)

    @property
    def guided(self) -> bool:
        """Whether sampling uses classifier-free guidance."""
        return self.guidance_scale != 1.0

    @property
    def passes(self) -> int:
        """Forward passes of the language model per token: two with guidance."""
        return 2 if self.guided else 1

    def __str__(self) -> str:
        guided = f" γ={self.guidance_scale:g} {'unconditional' if self.negative is None else 'negative'}"
        parts = [f"{self.series}: " if self.series else "", str(self.model)]
        parts += [guided] if self.guided else []
        return "".join([*parts, f" T={self.temperature:g} seed {self.seed}"])


class State(Enum):
    """Existing results for a task, in the results file and the files next to it."""

    DONE = "done"  # the results file has the point
    MEASURED = "measured"  # for another series, or by a killed command: only the line in the results file is missing
    NEW = "to measure"


@dataclass(frozen=True)
class Planned:
    """A task and the remaining work for it.

    Attributes:
        task: The task.
        key: Key of its measurement.
        state: Existing results for the task.
        fad: Whether the measurement needs the Fréchet audio distance, for this task or another one with the same key.
    """

    task: Task
    key: str
    state: State
    fad: bool


class Plan(tuple[Planned, ...]):
    """All planned tasks of a command, in their order."""

    @property
    def missing(self) -> Sequence[Planned]:
        """Tasks whose point the results file lacks."""
        return [one for one in self if one.state is not State.DONE]

    @property
    def new(self) -> Sequence[Planned]:
        """Tasks to measure."""
        return [one for one in self if one.state is State.NEW]

    def summary(self) -> str:
        """Returns the number of points in each state, as one phrase."""
        reused = len(self.missing) - len(self.new)
        done = f"{len(self) - len(self.missing)} of {len(self)} points are done"
        same = f", {reused} are measured under another name and need only a line" if reused else ""
        return f"{done}{same}, {len(self.new)} to measure"


def evaluate_tasks(config: EvaluateConfig) -> list[Task]:
    """Returns a task for each model and seed of `qd evaluate`."""
    specs = [ModelSpec.parse(text) for text in config.models]
    sampling = (config.temperature, config.guidance_scale, config.negative_prompt)
    return [Task(spec, seed, *sampling, fad=config.requests_fad) for spec in specs for seed in config.seeds]


def sweep_tasks(config: SweepConfig) -> list[Task]:
    """Returns the tasks of `qd sweep`: series by series, and within a series seed by seed."""
    tasks = []
    for series in config.chosen:
        common = {"temperature": config.temperature, "series": series.name, "fad": config.measures_fad(series)}
        for seed in config.seeds if series.seeds is None else series.seeds:
            for spec, own in series.points(config.models):
                tasks.append(Task(spec, seed, **common | own))
    return tasks
