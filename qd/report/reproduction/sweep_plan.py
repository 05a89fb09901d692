"""The points of a reproduction's sweep, computed without its models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from qd.config.loading import load_config
from qd.config.sweep import SweepConfig
from qd.evaluation.tasks import sweep_tasks
from qd.models.checkpoints.resolver import step_folder
from qd.models.merging.model_spec import ModelSpec
from qd.models.merging.weights import Weighted
from qd.report.reproduction.plan import ReproductionConfig, planned_runs


class _Untrained(SweepConfig):
    """A sweep config without the check that its models exist."""

    def problems(self) -> list[str]:
        return []


class SweepPlan(NamedTuple):
    """The facts that determine the time of a sweep.

    Attributes:
        guided: For each distinct point, whether it uses guidance.
        protocol: Name of the protocol.
        overrides: Overrides of ``qd evaluate`` for a point of the same size.
        series: Names of the series.
    """

    guided: list[bool]
    protocol: str
    overrides: list[str]
    series: list[str]


def sweep_arguments(plan: ReproductionConfig, series: Sequence[str] | None = None) -> list[str]:
    """Arguments of ``qd`` that measure the plan's sweep, or some of its series, with the models of the plan's runs."""
    models = [f"models.{run.run.name}={step_folder(run.folder, run.steps)}" for run in planned_runs(plan)]
    only = ["--only", *series] if series else []
    return ["sweep", "--config", plan.sweep, "--out", str(plan.results), *models, "--device", "cpu", *only]


def load_sweep(plan: ReproductionConfig, series: Sequence[str] | None = None) -> SweepPlan:
    """The distinct points of the plan's sweep, or of some of its series; a point in several series counts once."""
    config = load_config(_Untrained, "sweep", plan.sweep)
    config.only = list(series) if series else config.only
    tasks = {
        (
            _nonzero(task.model),
            task.seed,
            task.temperature,
            task.guidance_scale,
            task.passes == 2 and task.negative,
        ): task
        for task in sweep_tasks(config)
    }
    sizes = {name: getattr(config, name) for name in ("n_prompts", "n_samples")}
    overrides = [f"{name}={value}" for name, value in sizes.items() if value is not None]
    names = [series.name for series in config.series]
    return SweepPlan([task.passes == 2 for task in tasks.values()], config.protocol, overrides, names)


def _nonzero(model: ModelSpec) -> tuple[Weighted, ...]:
    """The models with nonzero weight: the end of a line is the same as the single model."""
    return tuple(weighted for weighted in model.weights if weighted.weight)
