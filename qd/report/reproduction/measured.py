"""What was measured, found by what it is rather than by where it came from.

A model is known by its role: the name of its run or shipped model, ``beta15`` in ``runs/reproduction/beta15`` and in
``beta15`` alike. So the claims hold for the kept weights as for those of a retrained pair.
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
from qd.evaluation.points import OUT_OF_DATE, Point, PointsFile, comparable, refuse_other_weights
from qd.evaluation.results import NotMeasuredError, Results
from qd.models.checkpoints.resolver import step_folder
from qd.models.merging.weights import soup
from qd.runs.scalars import read_scalars

BASE = "base"
BETAS = ("beta0", "beta5", "beta10", "beta15")
"""The paper's."""

TEACHER_SCALE = 3.0
_WEIGHT_TOLERANCE = 1e-6


class Measured:
    """A results file, the values behind its points, and the runs that its models came from.

    Args:
        file: results file, with ``per_prompt/<key>.npz`` beside it.
        runs: folder of the training runs, one for each role.
        betas: roles of the models of rising β, from the quality model to the diverse one.

    Raises:
        ValueError: there are no points, they do not compare with one another, or they are of two models, or two
            steps of one, that have the same role.
    """

    def __init__(self, file: str | Path, runs: str | Path, betas: Sequence[str] = BETAS) -> None:
        self.file, self.runs, self.betas = Path(file), Path(runs), tuple(betas)
        # Of points that differ in the Fréchet audio distance alone the first counts: one that has it.
        self.points = sorted(PointsFile(self.file).read(), key=lambda point: point.fad is None)
        if not self.points:
            raise ValueError(f"{self.file} holds no points; measure first: make sweep")
        others = [point for point in self.points if not comparable(point, self.points[0])]
        if others:
            kinds = sorted({f"{p.protocol}, {p.scorers}" for p in self.points})
            raise ValueError("\n".join([f"{self.file} holds points that do not compare; split it:", *kinds]))
        references = sorted({point.fad_reference for point in self.points if point.fad_reference})
        if len(references) > 1:
            listed = ", ".join(references)
            raise ValueError(
                f"{self.file} holds distances to {listed}, which do not compare; keep those to one of them"
            )
        self._refuse_two_models_of_a_role()
        self._refuse_other_weights()
        self.temperature = Counter(p.temperature for p in self.points if p.guidance_scale == 1).most_common(1)[0][0]
        self.seeds = sorted({point.seed for point in self.points})
        self.seed = self.seeds[0]

    @property
    def ends(self) -> tuple[str, str]:
        """The quality model and the diverse one, between which the slider goes."""
        return self.betas[0], self.betas[-1]

    def model(self, role: str, seed: int | None = None) -> Point:
        """The model by itself, without guidance, at the temperature of most points."""
        return self._first({role: 1.0}, f"{role} without guidance", seed=seed)

    def guided(
        self, role: str, scale: float = TEACHER_SCALE, unconditional: bool = False, seed: int | None = None
    ) -> Point:
        """The model under guidance; of ``base`` at γ = 3 against the negative prompt, this is the teacher."""
        if scale == 1.0:
            return self.model(role, seed)
        for point in self._guided(role, unconditional, seed):
            if point.guidance_scale == scale:
                return point
        raise NotMeasuredError(f"{role} at γ = {scale:g}, {'unconditional' if unconditional else 'negative prompt'}")

    def scales(self, role: str, unconditional: bool = False) -> list[Point]:
        """The γ sweep, by rising γ, from γ = 1 where that was measured."""
        found = {p.guidance_scale: p for p in reversed(self._guided(role, unconditional))}
        plain = [point for point in self._all({role: 1.0}) if self._plain(point)]
        found |= {point.guidance_scale: point for point in plain}
        return self._several([found[scale] for scale in sorted(found)], f"γ sweep of {role}")

    def temperatures(self, role: str) -> list[Point]:
        """The temperature sweep without guidance, by rising T."""
        found = {p.temperature: p for p in reversed(self._all({role: 1.0})) if p.guidance_scale == 1}
        return self._several([found[t] for t in sorted(found)], f"temperature sweep of {role}")

    def line(self, a: str, b: str) -> list[tuple[float, Point]]:
        """λ and point of the interpolations (1 − λ) · A + λ · B, by rising λ, the ends among them."""
        found: dict[float, Point] = {}
        for point in self.points:
            weights = roles(point.model)
            if set(weights) <= {a, b} and self._plain(point) and point.seed == self.seed:
                found.setdefault(round(weights.get(b, 0.0), 9), point)
        ordered = [(lam, found[lam]) for lam in sorted(found) if 0 <= lam <= 1]
        if not any(0 < lam < 1 for lam, _ in ordered) or len(ordered) < 3 or ordered[0][0] or ordered[-1][0] != 1:
            raise NotMeasuredError(f"LERP({a}, {b}) with both ends")
        return ordered

    def soup(self, *names: str) -> Point:
        """The uniform average."""
        if len(names) < 3:
            raise NotMeasuredError("uniform average of more than two")
        return self._first(dict.fromkeys(names, 1 / len(names)), f"uniform average of {', '.join(names)}")

    def values(self, point: Point) -> Mapping[str, NDArray[np.float64]]:
        """One value for each prompt, by metric. Raises :class:`NotMeasuredError` if their file has gone."""
        return self._measurement(point).per_prompt

    def pooled(self, find: Callable[[int], Point], metric: str) -> NDArray[np.float64]:
        """``(prompts,)``: mean over the seeds of sampling with which a model was measured.

        Args:
            find: the model's point of a seed, as ``lambda seed: measured.model("beta0", seed)``.
        """
        found, missing = [], None
        for seed in self.seeds:
            try:
                found.append(find(seed))
            except NotMeasuredError as error:
                missing = missing or error
        if missing and not found:
            raise missing
        return self.stack(found, metric).mean(0)

    def training_runs(self, role: str) -> list[str]:
        """The role itself, and those of its further training seeds that were measured: ``beta15-seed1``."""
        measured = {name for point in self.points for name in roles(point.model)}
        return [role, *sorted(name for name in measured if re.fullmatch(rf"{re.escape(role)}-seed\d+", name))]

    def sampling_seconds(self, point: Point) -> float:
        """Until the audio of a measurement was there. Raises :class:`NotMeasuredError` if that was not kept."""
        seconds = self._measurement(point).sampling_seconds
        if math.isnan(seconds):
            raise NotMeasuredError(f"seconds of sampling of {point.model}")
        return seconds

    def stack(self, points: Sequence[Point], metric: str) -> NDArray[np.float64]:
        """``(points, prompts)``."""
        return np.stack([self.values(point)[metric] for point in points])

    def logged(self, role: str, tag: str) -> dict[int, float]:
        """What a run logged at each step, from its TensorBoard events.

        Raises:
            NotMeasuredError: the run is not there, or logged no such thing.
        """
        folder = self.runs / role
        if folder.is_dir() and (found := read_scalars(folder).get(tag)):
            return {step: scalar.value for step, scalar in found.items()}
        raise NotMeasuredError(f"{tag} of the run {folder}")

    def _refuse_two_models_of_a_role(self) -> None:
        names: dict[str, set[str]] = {}
        for point in self.points:
            for name in _names(point):
                names.setdefault(role_of(name), set()).add(name)
        for role, found in names.items():
            # Earlier versions named a run without its step, of which a sum does not tell it either.
            told = found - {_without_step(name) for name in found if name != _without_step(name)}
            if len(told) > 1:
                raise ValueError(
                    f"{self.file} has several models, or steps of one, of the role {role} ({', '.join(sorted(told))}); "
                    f"which of them is meant? {OUT_OF_DATE}"
                )

    def _refuse_other_weights(self) -> None:
        groups: dict[tuple, list[Point]] = {}
        for point in self.points:
            weights = frozenset((role, round(weight, 9)) for role, weight in roles(point.model).items())
            asked = point.seed, point.guidance_scale, point.negative, point.temperature
            groups.setdefault((weights, *asked), []).append(point)
        for points in groups.values():
            refuse_other_weights(self.file, points)

    def _measurement(self, point: Point) -> Measurement:
        file = Results(self.file).per_prompt(point.key)
        if not file.is_file():
            raise NotMeasuredError(f"values for each prompt of {point.model}: {file} is missing")
        return Measurement.load(file)

    def _first(self, weights: Mapping[str, float], what: str, seed: int | None = None) -> Point:
        wanted = self.seed if seed is None else seed
        for point in self._all(weights, wanted):
            if self._plain(point):
                return point
        raise NotMeasuredError(what)

    def _all(self, weights: Mapping[str, float], seed: int | None = None) -> list[Point]:
        wanted = self.seed if seed is None else seed
        return [p for p in self.points if p.seed == wanted and _same(roles(p.model), weights)]

    def _guided(self, role: str, unconditional: bool, seed: int | None = None) -> list[Point]:
        found = [p for p in self._all({role: 1.0}, seed) if p.temperature == self.temperature and p.guidance_scale != 1]
        return [point for point in found if (point.negative is None) == unconditional]

    def _plain(self, point: Point) -> bool:
        return point.guidance_scale == 1 and point.temperature == self.temperature

    def _several(self, points: list[Point], what: str) -> list[Point]:
        if len(points) < 2:
            raise NotMeasuredError(what)
        return points


def roles(model: str) -> dict[str, float]:
    """Roles and weights of a model's name, as ``qd merge --models`` takes it; weights of 0 are left out.

    Example:
        >>> roles("runs/x/beta0:0.25 runs/x/beta15/step-002000:0.75"), roles("base")
        ({'beta0': 0.25, 'beta15': 0.75}, {'base': 1.0})
    """
    return {role_of(name): weight for name, weight in soup(model.split()) if abs(weight) > _WEIGHT_TOLERANCE}


def role_of(name: str) -> str:
    """The run's name, also of one of its steps."""
    return Path(_without_step(name)).name


def _names(point: Point) -> list[str]:
    """Of its models, with the step where it is known: a model by itself tells it beside its name."""
    names = [str(Path(name)) for name, _ in soup(point.model.split())]
    alone = len(names) == 1 and point.step and names[0] == _without_step(names[0])
    return [str(step_folder(Path(names[0]), point.step))] if alone else names


def _without_step(name: str) -> str:
    path = Path(name)
    return str(path.parent if path.name.startswith("step-") else path)


def _same(a: Mapping[str, float], b: Mapping[str, float]) -> bool:
    return set(a) == set(b) and all(abs(a[name] - b[name]) < _WEIGHT_TOLERANCE for name in a)
