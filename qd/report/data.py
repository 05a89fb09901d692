"""What a report is drawn from: the settings of each series of a results file, and the training curves of runs."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qd.evaluation.measurement import Measurement
from qd.evaluation.points import FILE, METRICS, OUT_OF_DATE, Point, PointsFile, refuse_other_weights
from qd.evaluation.results import NotMeasuredError, Results
from qd.metrics.bootstrap import Interval, bootstrap_interval
from qd.models.checkpoints.resolver import step_folder
from qd.runs.scalars import read_scalars


@dataclass(frozen=True)
class Setting:
    """A model, asked in one way, with one seed or several.

    Attributes:
        points: one for each seed, and for each reference of the Fréchet audio distance where there are several.
        prompts: P texts.
        per_prompt: for each metric a value for each prompt, the mean over the seeds, ``(prompts,)``.
        metrics: means over prompts with 95 % bootstrap intervals.
        spread: for each metric the largest minus the smallest mean of a seed; 0 of one seed.
        cross_prompt_bound: mean dissimilarity of generations of different prompts.
    """

    points: tuple[Point, ...]
    prompts: tuple[str, ...]
    per_prompt: Mapping[str, np.ndarray]
    metrics: Mapping[str, Interval]
    spread: Mapping[str, float]
    cross_prompt_bound: float

    @property
    def point(self) -> Point:
        """What all seeds have in common stands in the first one."""
        return self.points[0]

    @property
    def seeds(self) -> set[int]:
        return {point.seed for point in self.points}

    @property
    def place(self) -> tuple[float, float]:
        """Quality and diversity."""
        return self.metrics["quality"].mean, self.metrics["diversity"].mean


class ReportData:
    """The points of one protocol and one set of scorers, by series, with the values behind them.

    Args:
        file: ``points.jsonl``.
        protocol: of the points to take, needed where the file holds several.
        scorers: text that the description of the evaluation_models holds, needed where the file holds several.

    Raises:
        ValueError: no points, points that do not compare, or values that are missing beside the file.
    """

    def __init__(self, file: str | Path, protocol: str | None = None, scorers: str | None = None) -> None:
        self.results = Results(file)
        points = PointsFile(file).read() if Path(file).is_file() else []
        if not points:
            raise ValueError(f"{file} holds no points; measure some with `make sweep` or `make evaluate`")
        kept = [p for p in points if protocol in (None, p.protocol) and (scorers or "") in p.scorers]
        if not kept:
            raise ValueError(f"{file} holds no points of {protocol or 'any protocol'} / {scorers or 'any scorers'}")
        self.points = kept
        self._refuse_mixtures(file)
        self.protocol, self.scorers = self.points[0].protocol, self.points[0].scorers
        self._kept: dict[str, Measurement] = {}

    @property
    def names(self) -> list[str]:
        """The series, in the order in which they were measured."""
        return list(dict.fromkeys(point.series for point in self.points))

    def keep_newest_steps(self) -> None:
        """Drops, and tells, the points of a run's older steps from the series over γ and T, each the line of one model.

        A list of models may name several steps of a run, and an interpolation refuses them.
        """
        steps: dict[tuple[str, str], set[int]] = {}
        for point in self.points:
            if point.series.startswith(("guidance", "temperature")):
                steps.setdefault((point.series, _without_step(point)), set()).add(point.step)
        newest = {line: max(found) for line, found in steps.items()}
        kept = [p for p in self.points if p.step == newest.get((p.series, _without_step(p)), p.step)]
        if len(kept) < len(self.points):
            lines = [
                f"series {series!r} has {model} at steps {', '.join(map(str, sorted(found)))}"
                for (series, model), found in steps.items()
                if len(found) > 1
            ]
            older = len(self.points) - len(kept)
            warnings.warn(
                f"{self.results.points.path}: {older} points of older steps are left out, for the newest is drawn: "
                f"{'; '.join(lines)}",
                stacklevel=2,
            )
        self.points = kept

    def series(self, name: str) -> list[Setting]:
        """Its settings, in the order of λ, γ, T and β; none if it was not measured.

        Raises:
            ValueError: of one model and seed there are two measurements, of different weights; or an interpolation has
                two models at one λ, such as two steps of a run.
        """
        groups: dict[tuple, list[Point]] = {}
        for point in self.points:
            if point.series == name:
                groups.setdefault(_setting(point), []).append(point)
        for points in groups.values():
            for seed in {point.seed for point in points}:
                refuse_other_weights(self.results.points.path, [point for point in points if point.seed == seed])
        if name:  # what was measured by itself is no line
            self._refuse_two_lines(name, groups)
        return sorted((self.setting(points) for points in groups.values()), key=lambda one: _order(one.point))

    def need(self, *names: str) -> list[Setting]:
        """As :meth:`series`, of the first that there is. Raises :class:`NotMeasuredError` where there is none."""
        for name in names:
            if found := self.series(name):
                return found
        raise NotMeasuredError(f"needs series {' or '.join(names)}")

    def line(self, name: str) -> list[Setting]:
        """As :meth:`need`, of an interpolation. Raises :class:`NotMeasuredError` where the series is none."""
        found = self.need(name)
        if any(setting.point.lam is None for setting in found):
            raise NotMeasuredError(f"needs series {name} to be an interpolation; some of its points have no λ")
        return found

    def starting(self, *prefixes: str) -> dict[str, list[Setting]]:
        """The series whose name begins so. Raises :class:`NotMeasuredError` where there is none."""
        found = {name: self.series(name) for name in self.names if name.startswith(prefixes)}
        if not found:
            raise NotMeasuredError(f"needs a series whose name begins with {' or '.join(prefixes)}")
        return found

    def setting(self, points: Sequence[Point]) -> Setting:
        """Of the same model asked in the same way."""
        kept = [self._measurement(point) for point in {point.key: point for point in points}.values()]
        per_prompt = {name: np.mean([one.per_prompt[name] for one in kept], axis=0) for name in METRICS}
        means = {name: [point.metrics[name].mean for point in points] for name in METRICS}
        return Setting(
            points=tuple(points),
            prompts=kept[0].prompts,
            per_prompt=per_prompt,
            metrics={name: bootstrap_interval(values) for name, values in per_prompt.items()},
            spread={name: max(values) - min(values) for name, values in means.items()},
            cross_prompt_bound=float(np.mean([one.cross_prompt_bound for one in kept])),
        )

    def clips(self, setting: Setting) -> list[list[Path]]:
        """Audio of the first samples of each of the first prompts, of the first seed."""
        return self.results.clips(setting.point.key)

    def _measurement(self, point: Point) -> Measurement:
        if point.key not in self._kept:
            path = self.results.per_prompt(point.key)
            if not path.is_file():
                raise ValueError(
                    f"{path} is missing: the values behind the point of {point.model!r}; put it back beside the "
                    "results file, or remove the point's line and measure it again"
                )
            self._kept[point.key] = Measurement.load(path)
        return self._kept[point.key]

    def _refuse_two_lines(self, name: str, groups: Iterable[tuple]) -> None:
        """At one λ of an interpolation, which would be drawn to and fro between them."""
        models: dict[tuple, list[str]] = {}
        for model, _, *asked in groups:
            models.setdefault(tuple(asked), []).append(model)
        for (*_, lam), found in models.items():
            if lam is not None and len(found) > 1:
                raise ValueError(
                    f"{self.results.points.path} has {len(found)} models at λ = {lam:g} of series {name!r} "
                    f"({'; '.join(found)}): was one of them trained on since? {OUT_OF_DATE}"
                )

    def _refuse_mixtures(self, file: str | Path) -> None:
        for what, option, values in (
            ("protocols", "protocol", {point.protocol for point in self.points}),
            ("scorers", "scorers", {point.scorers for point in self.points}),
        ):
            if len(values) > 1:
                listed = "; ".join(sorted(values))
                raise ValueError(
                    f"{file} mixes points of {len(values)} {what}, which do not compare: {listed}. Choose one of them "
                    f"with --{option} (of make, {'PROTOCOL=…' if option == 'protocol' else 'ARGS=--scorers …'})"
                )


def _setting(point: Point) -> tuple:
    """What the seeds of a setting have in common; a point of an earlier version names a run without its step folder."""
    return _without_step(point), point.step, point.guidance_scale, point.negative, point.temperature, point.lam


def _without_step(point: Point) -> str:
    return point.model.removesuffix(f"/{step_folder(Path(), point.step)}")


def _order(point: Point) -> tuple[float, ...]:
    beta = -1.0 if point.beta is None else point.beta
    return point.lam or 0.0, point.guidance_scale, point.temperature, beta


@dataclass(frozen=True)
class Training:
    """A run, as it was trained.

    Attributes:
        name: of the run folder. beta: β.
        points: measured during training, in the order of the steps.
        scalars: for each logged name steps ``(n,)`` and values ``(n,)``.
    """

    name: str
    beta: float
    points: list[Point]
    scalars: Mapping[str, tuple[np.ndarray, np.ndarray]]


def read_training(folder: str | Path) -> Training:
    """A run folder's points and TensorBoard scalars.

    Raises:
        ValueError: it holds no points.
    """
    folder = Path(folder)
    points = PointsFile(folder / FILE).read()
    if not points:
        raise ValueError(f"run {str(folder)!r} has no points; name a folder that `make train` has made")
    scalars = {
        name: (np.array(sorted(logged)), np.array([logged[step].value for step in sorted(logged)]))
        for name, logged in read_scalars(folder).items()
    }
    beta = next((point.beta for point in points if point.beta is not None), None)
    if beta is None:
        warnings.warn(f"{folder}: no point tells β; drawn as β = 0", stacklevel=2)
    return Training(folder.name, beta or 0.0, sorted(points, key=lambda point: point.step), scalars)
