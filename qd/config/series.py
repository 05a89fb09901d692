"""A series of points: one of the kinds of line that the paper draws.

Every kind tells which models it uses, and its ``points``: models, and what of a :class:`~qd.evaluation.tasks.Task` is
the point's own. ``names`` are the short names of models, those that have one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any

from qd.config.checks import bounded, positive
from qd.config.measuring import seed_problems
from qd.models.merging.model_spec import ModelSpec
from qd.models.merging.weights import Weighted, soup

Points = list[tuple[ModelSpec, dict[str, Any]]]


@dataclass
class InterpolateConfig:
    """(1 − λ) · A + λ · B, λ from ``start`` to ``stop``."""

    a: str = ""  # the quality model
    b: str = ""  # the diverse one
    start: float = 0.0
    stop: float = 1.0
    step: float = 0.05  # > 0
    extrapolate: bool = False  # allow λ outside [0, 1]

    @property
    def used(self) -> list[str]:
        return [self.a, self.b]

    @property
    def lambdas(self) -> list[float]:
        """As one would type them: 0.15, and not 0.15000000000000002."""
        count = math.floor((self.stop - self.start) / self.step + 1e-9)
        return [round(self.start + i * self.step, 10) for i in range(count + 1)]

    def points(self, names: Mapping[str, str]) -> Points:
        a, b = (names.get(name, name) for name in self.used)
        return [(ModelSpec.between(a, b, lam), {}) for lam in self.lambdas]

    def problems(self, path: str) -> list[str]:
        found = [*bounded(f"{path}.start", self.start), *bounded(f"{path}.stop", self.stop, self.start)]
        found += positive(f"{path}.step", self.step)
        if self.a == self.b:
            found.append(f"{path}: a and b are both {self.a!r}; expected the names of two models")
        return found


@dataclass
class GuidanceSweepConfig:
    """A model, guided."""

    model: str = ""
    scales: list[float] = field(default_factory=lambda: [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0])  # γ ≥ 0; 1 = no guidance
    negative_prompt: str | None = "Bad audio quality."  # null = unconditional

    @property
    def used(self) -> list[str]:
        return [self.model]

    def points(self, names: Mapping[str, str]) -> Points:
        spec = ModelSpec.of(names.get(self.model, self.model))
        return [(spec, {"guidance_scale": scale, "negative": self.negative_prompt}) for scale in self.scales]

    def problems(self, path: str) -> list[str]:
        return _each(f"{path}.scales", self.scales, partial(bounded, low=0))


@dataclass
class TemperatureSweepConfig:
    """A model, without guidance."""

    model: str = ""
    values: list[float] = field(default_factory=lambda: [0.8, 0.9, 0.99, 1.1, 1.2])  # T, each > 0

    @property
    def used(self) -> list[str]:
        return [self.model]

    def points(self, names: Mapping[str, str]) -> Points:
        spec = ModelSpec.of(names.get(self.model, self.model))
        return [(spec, {"temperature": value}) for value in self.values]

    def problems(self, path: str) -> list[str]:
        return _each(f"{path}.values", self.values, positive)


@dataclass
class SoupConfig:
    """Σ w_i · θ_i, one point."""

    models: list[str] = field(default_factory=list)
    weights: list[float] | None = None  # of each model, adding up to 1; null = equal shares
    extrapolate: bool = False  # allow weights outside [0, 1]

    @property
    def used(self) -> list[str]:
        return self.models

    def points(self, names: Mapping[str, str]) -> Points:
        found = [names.get(name, name) for name in self.models]
        weighted = soup(found) if self.weights is None else map(Weighted, found, self.weights)
        return [(ModelSpec(tuple(weighted)), {})]

    def problems(self, path: str) -> list[str]:
        if self.weights is not None and len(self.weights) != len(self.models):
            return [f"{path}: {len(self.models)} models and {len(self.weights)} weights; expected one for each"]
        return [] if len(self.models) > 1 else [f"{path}.models is {self.models}; expected the names of 2 or more"]


@dataclass
class ModelListConfig:
    """Models by themselves: of several β, or of several N."""

    names: list[str] = field(default_factory=list)

    @property
    def used(self) -> list[str]:
        return self.names

    def points(self, names: Mapping[str, str]) -> Points:
        return [(ModelSpec.of(names.get(name, name)), {}) for name in self.names]

    def problems(self, path: str) -> list[str]:
        return [] if self.names else [f"{path}.names is empty; expected names of models"]


@dataclass
class SeriesConfig:
    """A line of points, of one of the kinds."""

    name: str = ""  # of the series, in the results file
    interpolate: InterpolateConfig | None = None
    guidance: GuidanceSweepConfig | None = None
    temperature: TemperatureSweepConfig | None = None
    soup: SoupConfig | None = None
    models: ModelListConfig | None = None
    fad: bool | None = None  # null = as the sweep says
    seeds: list[int] | None = None  # null = as the sweep says

    @property
    def kinds(self) -> dict[str, Any]:
        """What is given of the kinds; one is expected."""
        others = ("name", "fad", "seeds")
        given = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in others}
        return {name: kind for name, kind in given.items() if kind is not None}

    @property
    def used(self) -> list[str]:
        """The names of its models, short ones or others."""
        return [name for kind in self.kinds.values() for name in kind.used]

    @property
    def extrapolate(self) -> bool:
        return any(getattr(kind, "extrapolate", False) for kind in self.kinds.values())

    def points(self, names: Mapping[str, str]) -> Points:
        """Models, and what of a task is each point's own; where there are no :meth:`problems`."""
        return [point for kind in self.kinds.values() for point in kind.points(names)]

    def problems(self, path: str) -> list[str]:
        found = [] if self.name else [f"{path}.name is missing; it is what the results file calls the series"]
        given = self.kinds
        if len(given) != 1:
            what = " and ".join(given) or "no kind"
            found.append(f"{path} has {what}; expected one of interpolate, guidance, temperature, soup and models")
        found += seed_problems(f"{path}.seeds", self.seeds) if self.seeds is not None else []
        return found + [text for name, kind in given.items() for text in kind.problems(f"{path}.{name}")]


def _each(path: str, values: list[float], check: Any) -> list[str]:
    if not values:
        return [f"{path} is empty; expected a list of numbers"]
    return [text for value in values for text in check(path, value)]
