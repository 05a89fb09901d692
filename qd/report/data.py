"""The data of a report: the settings of each series of a results file, and the training curves of runs."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qd.evaluation.columns import METRICS, OPTIONAL_METRICS
from qd.evaluation.measurement import Measurement
from qd.evaluation.points import FILE, Point, PointsFile
from qd.evaluation.results import OUT_OF_DATE, NotMeasuredError, Results, refuse_other_weights
from qd.metrics.bootstrap import Interval, defined_interval, defined_mean
from qd.models.checkpoints.resolver import step_folder
from qd.runs.scalars import read_scalars


@dataclass(frozen=True)
class Setting:
    """A model sampled with fixed settings, with one or more seeds.

    Attributes:
        points: One point for each seed, and for each reference of the Fréchet audio distance if there are several.
        prompts: P texts.
        per_prompt: For each metric that all seeds have, the mean over the seeds for each prompt, ``(prompts,)``; NaN
            for a prompt that a metric leaves out for every seed.
        metrics: Means over prompts with 95 % bootstrap intervals.
        spread: For each metric the largest minus the smallest mean of a seed; 0 for one seed.
        cross_prompt_bound: Mean dissimilarity of generations for different prompts.
    """

    points: tuple[Point, ...]
    prompts: tuple[str, ...]
    per_prompt: Mapping[str, np.ndarray]
    metrics: Mapping[str, Interval]
    spread: Mapping[str, float]
    cross_prompt_bound: float

    @property
    def point(self) -> Point:
        """The first point; the fields that all seeds share are read from it."""
        return self.points[0]

    @property
    def seeds(self) -> set[int]:
        return {point.seed for point in self.points}

    @property
    def place(self) -> tuple[float, float]:
        """Mean quality and mean diversity."""
        return self.metrics["quality"].mean, self.metrics["diversity"].mean


class ReportData:
    """The points of one protocol and one set of scorers, by series, with their values for each prompt.

    Args:
        file: Path of ``points.jsonl``.
        protocol: Protocol of the points to use; required if the file has several.
        scorers: Text in the description of the scorers to use; required if the file has several.

    Raises:
        ValueError: There are no points, the points are not comparable, or their values for each prompt are missing.
    """

    def __init__(self, file: str | Path, protocol: str | None = None, scorers: str | None = None) -> None:
        self.results = Results(file)
        points = PointsFile(file).read()
        if not points:
            raise ValueError(f"{file} has no points; measure some with `make sweep` or `make evaluate`")
        self.points = [p for p in points if protocol in (None, p.protocol) and (scorers or "") in p.scorers]
        if not self.points:
            raise ValueError(
                f"{file} has no points with protocol {protocol or '(any)'} and scorers {scorers or '(any)'}; "
                f"it has protocols {', '.join(sorted({point.protocol for point in points}))}"
            )
        self._refuse_mixtures(file)
        self.protocol, self.scorers = self.points[0].protocol, self.points[0].scorers
        self._measurements: dict[str, Measurement] = {}

    @property
    def names(self) -> list[str]:
        """Names of the series, in the order of measurement."""
        return list(dict.fromkeys(point.series for point in self.points))

    def keep_newest_steps(self) -> None:
        """Drops the points of a run's older steps from the series over γ and T, with a warning.

        Each of these series is the curve of one model. A list of models may contain several steps of a run, and an
        interpolation raises an error for them.
        """
        steps: dict[tuple[str, str], set[int]] = {}
        for point in self.points:
            if point.series.startswith(("guidance", "temperature")):
                steps.setdefault((point.series, _without_step(point)), set()).add(point.step)
        newest = {curve: max(measured) for curve, measured in steps.items()}
        remaining = [p for p in self.points if p.step == newest.get((p.series, _without_step(p)), p.step)]
        if len(remaining) < len(self.points):
            lines = [
                f"series {series!r} has {model} at steps {', '.join(map(str, sorted(measured)))}"
                for (series, model), measured in steps.items()
                if len(measured) > 1
            ]
            older = len(self.points) - len(remaining)
            warnings.warn(
                f"{self.results.points.path}: {older} points of older steps are left out; only the newest step is "
                f"drawn: {'; '.join(lines)}",
                stacklevel=2,
            )
        self.points = remaining

    def series(self, name: str) -> list[Setting]:
        """Settings of a series, in the order of λ, γ, T and β; empty if it was not measured.

        Raises:
            ValueError: One model and seed have two measurements of different weights; or an interpolation has two
                models at one λ, such as two steps of a run.
        """
        groups: dict[tuple, list[Point]] = {}
        for point in self.points:
            if point.series == name:
                groups.setdefault(_setting(point), []).append(point)
        for points in groups.values():
            for seed in {point.seed for point in points}:
                refuse_other_weights(self.results.points.path, [point for point in points if point.seed == seed])
        if name:  # points outside any series form no curve
            self._refuse_two_models_at_one_lambda(name, groups)
        return sorted((self.setting(points) for points in groups.values()), key=lambda one: _order(one.point))

    def need(self, *names: str) -> list[Setting]:
        """:meth:`series` for the first name that was measured. Raises :class:`NotMeasuredError` if none was."""
        for name in names:
            if settings := self.series(name):
                return settings
        raise NotMeasuredError(f"needs series {' or '.join(names)}")

    def line(self, name: str) -> list[Setting]:
        """:meth:`need` for an interpolation. Raises :class:`NotMeasuredError` if a point of the series has no λ."""
        settings = self.need(name)
        if any(setting.point.lam is None for setting in settings):
            raise NotMeasuredError(f"needs series {name} to be an interpolation; some of its points have no λ")
        return settings

    def starting(self, *prefixes: str) -> dict[str, list[Setting]]:
        """Series whose names start with a prefix. Raises :class:`NotMeasuredError` if there are none."""
        matching = {name: self.series(name) for name in self.names if name.startswith(prefixes)}
        if not matching:
            raise NotMeasuredError(f"needs a series whose name starts with {' or '.join(prefixes)}")
        return matching

    def setting(self, points: Sequence[Point]) -> Setting:
        """Combines the points of one model and one way of sampling."""
        measurements = [self._measurement(point) for point in {point.key: point for point in points}.values()]
        optional = [name for name in OPTIONAL_METRICS if all(name in one.per_prompt for one in measurements)]
        values = {name: [one.per_prompt[name] for one in measurements] for name in (*METRICS, *optional)}
        per_prompt = {name: defined_mean(table, axis=0) for name, table in values.items()}
        means = {name: defined_mean(table, axis=1) for name, table in values.items()}
        return Setting(
            points=tuple(points),
            prompts=measurements[0].prompts,
            per_prompt=per_prompt,
            metrics={name: defined_interval(values) for name, values in per_prompt.items()},
            spread={name: np.ptp(values) for name, values in means.items()},
            cross_prompt_bound=float(np.mean([one.cross_prompt_bound for one in measurements])),
        )

    def clips(self, setting: Setting) -> list[list[Path]]:
        """Audio files of the first samples for each of the first prompts, with the first seed."""
        return self.results.clips(setting.point.key)

    def _measurement(self, point: Point) -> Measurement:
        if point.key not in self._measurements:
            path = self.results.per_prompt(point.key)
            if not path.is_file():
                raise ValueError(
                    f"{path} is missing; it has the values for each prompt of the point of {point.model!r}. Restore it "
                    "next to the results file, or remove the point's line and measure it again"
                )
            self._measurements[point.key] = Measurement.load(path)
        return self._measurements[point.key]

    def _refuse_two_models_at_one_lambda(self, name: str, groups: Iterable[tuple]) -> None:
        """Two models at one λ would be drawn as one zigzag curve."""
        models: dict[tuple, list[str]] = {}
        for model, _, *sampling in groups:
            models.setdefault(tuple(sampling), []).append(model)
        for (*_, lam), names in models.items():
            if lam is not None and len(names) > 1:
                raise ValueError(
                    f"{self.results.points.path} has {len(names)} models at λ = {lam:g} of series {name!r} "
                    f"({'; '.join(names)}). One of them may have been trained further. {OUT_OF_DATE}"
                )

    def _refuse_mixtures(self, file: str | Path) -> None:
        for what, option, values in (
            ("protocols", "protocol", {point.protocol for point in self.points}),
            ("scorers", "scorers", {point.scorers for point in self.points}),
        ):
            if len(values) > 1:
                listed = "; ".join(sorted(values))
                raise ValueError(
                    f"{file} has points of {len(values)} {what}, which are not comparable: {listed}. Choose one with "
                    f"--{option} (with make: {'PROTOCOL=…' if option == 'protocol' else 'ARGS=--scorers …'})"
                )


def _setting(point: Point) -> tuple:
    """The fields that all seeds of a setting share. Points of earlier versions name a run without its step folder."""
    return _without_step(point), point.step, point.guidance_scale, point.negative, point.temperature, point.lam


def _without_step(point: Point) -> str:
    return point.model.removesuffix(f"/{step_folder(Path(), point.step)}")


def _order(point: Point) -> tuple[float, ...]:
    beta = -1.0 if point.beta is None else point.beta
    return point.lam or 0.0, point.guidance_scale, point.temperature, beta


@dataclass(frozen=True)
class Training:
    """Measurements of a run during its training.

    Attributes:
        name: Name of the run folder.
        beta: β.
        points: Points measured during training, in the order of the steps.
        scalars: For each logged name the steps ``(n,)`` and values ``(n,)``.
    """

    name: str
    beta: float
    points: list[Point]
    scalars: Mapping[str, tuple[np.ndarray, np.ndarray]]


def read_training(folder: str | Path) -> Training:
    """Reads the points and TensorBoard scalars of a run folder.

    Raises:
        ValueError: The folder has no points.
    """
    folder = Path(folder)
    points = PointsFile(folder / FILE).read()
    if not points:
        raise ValueError(f"run {str(folder)!r} has no points; name a run folder that `make train` created")
    scalars = {
        name: (np.array(sorted(logged)), np.array([logged[step].value for step in sorted(logged)]))
        for name, logged in read_scalars(folder).items()
    }
    beta = next((point.beta for point in points if point.beta is not None), None)
    if beta is None:
        warnings.warn(f"{folder}: no point has a value of β; drawn as β = 0", stacklevel=2)
    return Training(folder.name, beta or 0.0, sorted(points, key=lambda point: point.step), scalars)
