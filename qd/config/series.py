"""A series of points: one of the kinds of line that the paper draws.

Each kind lists the models that it uses. Its ``points`` are the models with the settings in which a point differs from
the sweep: fields of a :class:`~qd.evaluation.tasks.Task`. ``names`` maps short names to models.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

from qd.config.measuring import repeated_seeds
from qd.config.policy import TEMPERATURE
from qd.data.world.captions import NEGATIVE_PROMPT
from qd.models.merging.model_spec import ModelSpec
from qd.models.merging.weights import Weighted, soup
from qd.schema.checker import Settings
from qd.schema.setting import setting

Points = list[tuple[ModelSpec, dict[str, Any]]]


@dataclass
class InterpolateConfig(Settings):
    """(1 − λ) · A + λ · B, λ from ``start`` to ``stop``."""

    a: str = setting("", "Model A, the quality model.", path=True)
    b: str = setting("", "Model B, the diverse model.", path=True)
    start: float = setting(0.0, "First λ.")
    stop: float = setting(1.0, "Last λ.")
    step: float = setting(0.05, "Step of λ.", gt=0)
    extrapolate: bool = setting(False, "Whether λ may be outside [0, 1].")

    @property
    def used(self) -> list[str]:
        return [self.a, self.b]

    @property
    def lambdas(self) -> list[float]:
        """The values of λ, rounded as one would type them: 0.15 instead of 0.15000000000000002."""
        count = math.floor((self.stop - self.start) / self.step + 1e-9)
        return [round(self.start + i * self.step, 10) for i in range(count + 1)]

    def points(self, names: Mapping[str, str]) -> Points:
        a, b = (names.get(name, name) for name in self.used)
        return [(ModelSpec.between(a, b, lam), {}) for lam in self.lambdas]

    def rules(self, prefix: str) -> Iterator[str]:
        if self.stop < self.start:
            yield f"{prefix}stop is {self.stop}; expected {prefix}start={self.start} or more"
        if self.a == self.b:
            yield f"{prefix.rstrip('.')}: a and b are both {self.a!r}; expected two different models"


@dataclass
class GuidanceSweepConfig(Settings):
    """One model at several guidance scales."""

    model: str = setting("", "Model.", path=True)
    scales: list[float] = setting(
        [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0], "Guidance scales γ; 1: no guidance.", ge=0, nonempty=True
    )
    negative_prompt: str | None = setting(NEGATIVE_PROMPT, "Negative prompt; null: unconditional guidance.")

    @property
    def used(self) -> list[str]:
        return [self.model]

    def points(self, names: Mapping[str, str]) -> Points:
        spec = ModelSpec.of(names.get(self.model, self.model))
        return [(spec, {"guidance_scale": scale, "negative": self.negative_prompt}) for scale in self.scales]


@dataclass
class TemperatureSweepConfig(Settings):
    """One model at several temperatures, without guidance."""

    model: str = setting("", "Model.", path=True)
    values: list[float] = setting([0.8, 0.9, TEMPERATURE, 1.1, 1.2], "Sampling temperatures T.", gt=0, nonempty=True)

    @property
    def used(self) -> list[str]:
        return [self.model]

    def points(self, names: Mapping[str, str]) -> Points:
        spec = ModelSpec.of(names.get(self.model, self.model))
        return [(spec, {"temperature": value}) for value in self.values]


@dataclass
class SoupConfig(Settings):
    """Σ w_i · θ_i, one point."""

    models: list[str] = setting([], "Models, two or more.", path=True)
    weights: list[float] | None = setting(None, "Weight of each model, adding up to 1; null: equal weights.")
    extrapolate: bool = setting(False, "Whether weights may be outside [0, 1].")

    @property
    def used(self) -> list[str]:
        return self.models

    def points(self, names: Mapping[str, str]) -> Points:
        models = [names.get(name, name) for name in self.models]
        weighted = soup(models) if self.weights is None else map(Weighted, models, self.weights)
        return [(ModelSpec(tuple(weighted)), {})]

    def rules(self, prefix: str) -> Iterator[str]:
        if len(self.models) < 2:
            yield f"{prefix}models is {self.models}; expected two or more models"
        if self.weights is not None and len(self.weights) != len(self.models):
            counts = f"{len(self.models)} models and {len(self.weights)} weights"
            yield f"{prefix.rstrip('.')}: {counts}; expected one weight for each model"


@dataclass
class ModelListConfig(Settings):
    """A list of models, for example of several β or N."""

    names: list[str] = setting([], "Models.", nonempty=True, path=True)

    @property
    def used(self) -> list[str]:
        return self.names

    def points(self, names: Mapping[str, str]) -> Points:
        return [(ModelSpec.of(names.get(name, name)), {}) for name in self.names]


@dataclass
class SeriesConfig(Settings):
    """A line of points, of one of the kinds."""

    name: str = setting("", "Name of the series in the results file.", nonempty=True)
    interpolate: InterpolateConfig | None = setting(None, "Kind: interpolation of two models.")
    guidance: GuidanceSweepConfig | None = setting(None, "Kind: one model at several guidance scales.")
    temperature: TemperatureSweepConfig | None = setting(None, "Kind: one model at several temperatures.")
    soup: SoupConfig | None = setting(None, "Kind: weighted sum of several models.")
    models: ModelListConfig | None = setting(None, "Kind: list of models.")
    fad: bool | None = setting(None, "Whether to measure the Fréchet audio distance; null: the sweep's setting.")
    seeds: list[int] | None = setting(None, "Seeds for token sampling; null: those of the sweep.", ge=0, nonempty=True)

    @property
    def kinds(self) -> dict[str, Any]:
        """The kinds that are set; exactly one is expected."""
        others = ("name", "fad", "seeds")
        kinds = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in others}
        return {name: kind for name, kind in kinds.items() if kind is not None}

    @property
    def used(self) -> list[str]:
        """Names of the models, short or full."""
        return [name for kind in self.kinds.values() for name in kind.used]

    @property
    def extrapolate(self) -> bool:
        return any(getattr(kind, "extrapolate", False) for kind in self.kinds.values())

    def points(self, names: Mapping[str, str]) -> Points:
        """The models, each with the settings of its own; for a series without :meth:`problems`."""
        return [point for kind in self.kinds.values() for point in kind.points(names)]

    def rules(self, prefix: str) -> Iterator[str]:
        if len(self.kinds) != 1:
            kinds = " and ".join(self.kinds) or "no kind"
            yield f"{prefix.rstrip('.')} has {kinds}; expected one of interpolate, guidance, temperature, soup, models"
        yield from repeated_seeds(f"{prefix}seeds", self.seeds or [])
