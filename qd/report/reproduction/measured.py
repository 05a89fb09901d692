"""Finds measured points by the role of their models.

A role is the name of a run or of a shipped model: ``runs/reproduction/beta15`` and ``beta15`` both have the role
``beta15``. So the same claims are judged for shipped weights and for retrained ones.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qd.evaluation.measurement import Measurement
from qd.evaluation.points import Point, PointsFile, comparable
from qd.evaluation.results import OUT_OF_DATE, NotMeasuredError, Results, refuse_other_weights
from qd.models.checkpoints.resolver import step_folder
from qd.models.merging.weights import soup
from qd.runs.scalars import read_scalars

BASE = "base"
BETAS = ("beta0", "beta5", "beta10", "beta15")
"""Roles of the paper's models."""

TEACHER_SCALE = 3.0
_WEIGHT_TOLERANCE = 1e-6


class Measured:
    """A results file with its values for each prompt, and the training runs of its models.

    Args:
        file: Results file; ``per_prompt/<key>.npz`` is in the same folder.
        runs: Folder of the training runs, one for each role.
        betas: Roles of the models by increasing β, from the quality model to the diverse one.

    Raises:
        ValueError: There are no points, they are not comparable, or two models, or two steps of one model, have the
            same role.
    """

    def __init__(self, file: str | Path, runs: str | Path, betas: Sequence[str] = BETAS) -> None:
        self.file, self.runs, self.betas = Path(file), Path(runs), tuple(betas)
        # If points differ only in the Fréchet audio distance, the first one counts, so points with it come first.
        self.points = sorted(PointsFile(self.file).read(), key=lambda point: point.fad is None)
        if not self.points:
            raise ValueError(f"{self.file} has no points; measure some with `make sweep`")
        others = [point for point in self.points if not comparable(point, self.points[0])]
        if others:
            kinds = sorted({f"{p.protocol}, {p.scorers}" for p in self.points})
            raise ValueError(
                "\n".join([f"{self.file} has points that are not comparable; split it into files of one kind:", *kinds])
            )
        references = sorted({point.fad_reference for point in self.points if point.fad_reference})
        if len(references) > 1:
            listed = ", ".join(references)
            raise ValueError(
                f"{self.file} has Fréchet audio distances to several references ({listed}), which are not comparable; "
                "keep the points of one reference"
            )
        self._refuse_two_models_of_a_role()
        self._refuse_other_weights()
        self.temperature = Counter(p.temperature for p in self.points if p.guidance_scale == 1).most_common(1)[0][0]
        self.seeds = sorted({point.seed for point in self.points})
        self.seed = self.seeds[0]

    @property
    def ends(self) -> tuple[str, str]:
        """Roles of the quality model and the diverse model, the two ends of the slider."""
        return self.betas[0], self.betas[-1]

    def model(self, role: str, seed: int | None = None) -> Point:
        """The point of a model without guidance, at the temperature of most points."""
        return self._first({role: 1.0}, f"{role} without guidance", seed=seed)

    def guided(
        self, role: str, scale: float = TEACHER_SCALE, unconditional: bool = False, seed: int | None = None
    ) -> Point:
        """The point of a model with guidance; ``base`` at γ = 3 with the negative prompt is the teacher."""
        if scale == 1.0:
            return self.model(role, seed)
        for point in self._guided(role, unconditional, seed):
            if point.guidance_scale == scale:
                return point
        raise NotMeasuredError(f"{role} at γ = {scale:g}, {'unconditional' if unconditional else 'negative prompt'}")

    def scales(self, role: str, unconditional: bool = False) -> list[Point]:
        """The γ sweep by increasing γ, including γ = 1 if it was measured."""
        by_scale = {p.guidance_scale: p for p in reversed(self._guided(role, unconditional))}
        plain = [point for point in self._all({role: 1.0}) if self._plain(point)]
        by_scale |= {point.guidance_scale: point for point in plain}
        return self._several([by_scale[scale] for scale in sorted(by_scale)], f"γ sweep of {role}")

    def temperatures(self, role: str) -> list[Point]:
        """The temperature sweep without guidance, by increasing T."""
        by_temperature = {p.temperature: p for p in reversed(self._all({role: 1.0})) if p.guidance_scale == 1}
        return self._several([by_temperature[t] for t in sorted(by_temperature)], f"temperature sweep of {role}")

    def line(self, a: str, b: str) -> list[tuple[float, Point]]:
        """λ and point of each interpolation (1 − λ) · A + λ · B, by increasing λ, including both ends."""
        by_lambda: dict[float, Point] = {}
        for point in self.points:
            weights = roles(point.model)
            if set(weights) <= {a, b} and self._plain(point) and point.seed == self.seed:
                by_lambda.setdefault(round(weights.get(b, 0.0), 9), point)
        ordered = [(lam, by_lambda[lam]) for lam in sorted(by_lambda) if 0 <= lam <= 1]
        if not any(0 < lam < 1 for lam, _ in ordered) or len(ordered) < 3 or ordered[0][0] or ordered[-1][0] != 1:
            raise NotMeasuredError(f"LERP({a}, {b}) with both ends")
        return ordered

    def soup(self, *names: str) -> Point:
        """The uniform average of three or more models."""
        if len(names) < 3:
            raise NotMeasuredError("uniform average of more than two")
        return self._first(dict.fromkeys(names, 1 / len(names)), f"uniform average of {', '.join(names)}")

    def values(self, point: Point) -> Mapping[str, NDArray[np.float64]]:
        """Values for each prompt, by metric. Raises :class:`NotMeasuredError` if their file is missing."""
        return self._measurement(point).per_prompt

    def pooled(self, find: Callable[[int], Point], metric: str) -> NDArray[np.float64]:
        """Means ``(prompts,)`` over the sampling seeds with which a model was measured.

        Args:
            find: Returns the model's point for a seed, such as ``lambda seed: measured.model("beta0", seed)``.
            metric: Name of the metric.
        """
        points, missing = [], None
        for seed in self.seeds:
            try:
                points.append(find(seed))
            except NotMeasuredError as error:
                missing = missing or error
        if missing and not points:
            raise missing
        return self.stack(points, metric).mean(0)

    def training_runs(self, role: str) -> list[str]:
        """The role itself, and the measured roles of its other training seeds, such as ``beta15-seed1``."""
        measured = {name for point in self.points for name in roles(point.model)}
        return [role, *sorted(name for name in measured if re.fullmatch(rf"{re.escape(role)}-seed\d+", name))]

    def sampling_seconds(self, point: Point) -> float:
        """Seconds of sampling and decoding. Raises :class:`NotMeasuredError` if they were not saved."""
        seconds = self._measurement(point).sampling_seconds
        if math.isnan(seconds):
            raise NotMeasuredError(f"sampling time of {point.model}")
        return seconds

    def stack(self, points: Sequence[Point], metric: str) -> NDArray[np.float64]:
        """Values ``(points, prompts)`` of a metric."""
        return np.stack([self.values(point)[metric] for point in points])

    def logged(self, role: str, tag: str) -> dict[int, float]:
        """Values that a run logged by step, from its TensorBoard events.

        Raises:
            NotMeasuredError: The run folder or the tag is missing.
        """
        folder = self.runs / role
        if folder.is_dir() and (scalars := read_scalars(folder).get(tag)):
            return {step: scalar.value for step, scalar in scalars.items()}
        raise NotMeasuredError(f"{tag} of the run {folder}")

    def _refuse_two_models_of_a_role(self) -> None:
        names: dict[str, set[str]] = {}
        for point in self.points:
            for name in _names(point):
                names.setdefault(role_of(name), set()).add(name)
        for role, models in names.items():
            # Earlier versions named a run without its step; such a name may be any of the steps.
            distinct = models - {_without_step(name) for name in models if name != _without_step(name)}
            if len(distinct) > 1:
                raise ValueError(
                    f"{self.file} has several models, or several steps of one, with the role {role} "
                    f"({', '.join(sorted(distinct))}). {OUT_OF_DATE}"
                )

    def _refuse_other_weights(self) -> None:
        groups: dict[tuple, list[Point]] = {}
        for point in self.points:
            weights = frozenset((role, round(weight, 9)) for role, weight in roles(point.model).items())
            sampling = point.seed, point.guidance_scale, point.negative, point.temperature
            groups.setdefault((weights, *sampling), []).append(point)
        for points in groups.values():
            refuse_other_weights(self.file, points)

    def _measurement(self, point: Point) -> Measurement:
        file = Results(self.file).per_prompt(point.key)
        if not file.is_file():
            raise NotMeasuredError(f"values for each prompt of {point.model}: {file} is missing")
        return Measurement.load(file)

    def _first(self, weights: Mapping[str, float], what: str, seed: int | None = None) -> Point:
        for point in self._all(weights, seed):
            if self._plain(point):
                return point
        raise NotMeasuredError(what)

    def _all(self, weights: Mapping[str, float], seed: int | None = None) -> list[Point]:
        seed = self.seed if seed is None else seed
        return [p for p in self.points if p.seed == seed and _same(roles(p.model), weights)]

    def _guided(self, role: str, unconditional: bool, seed: int | None = None) -> list[Point]:
        points = [
            p for p in self._all({role: 1.0}, seed) if p.temperature == self.temperature and p.guidance_scale != 1
        ]
        return [point for point in points if (point.negative is None) == unconditional]

    def _plain(self, point: Point) -> bool:
        return point.guidance_scale == 1 and point.temperature == self.temperature

    def _several(self, points: list[Point], what: str) -> list[Point]:
        if len(points) < 2:
            raise NotMeasuredError(what)
        return points


def roles(model: str) -> dict[str, float]:
    """Roles and weights in a model's name, in the format of ``qd merge --models``; weights of 0 are left out.

    Example:
        >>> roles("runs/x/beta0:0.25 runs/x/beta15/step-002000:0.75"), roles("base")
        ({'beta0': 0.25, 'beta15': 0.75}, {'base': 1.0})
    """
    return {role_of(name): weight for name, weight in soup(model.split()) if abs(weight) > _WEIGHT_TOLERANCE}


def role_of(name: str) -> str:
    """The name of a run, for the run folder or one of its step folders."""
    return Path(_without_step(name)).name


def _names(point: Point) -> list[str]:
    """Names of a point's models, with the step if it is known; for a single model it is a field of the point."""
    names = [str(Path(name)) for name, _ in soup(point.model.split())]
    alone = len(names) == 1 and point.step and names[0] == _without_step(names[0])
    return [str(step_folder(Path(names[0]), point.step))] if alone else names


def _without_step(name: str) -> str:
    path = Path(name)
    return str(path.parent if path.name.startswith("step-") else path)


def _same(a: Mapping[str, float], b: Mapping[str, float]) -> bool:
    return set(a) == set(b) and all(abs(a[name] - b[name]) < _WEIGHT_TOLERANCE for name in a)
