"""Settings of `qd sweep`: short names of models, and the series of points."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from qd.config.checks import unavailable
from qd.config.measuring import MeasuringConfig
from qd.config.series import SeriesConfig
from qd.models.merging.in_memory import WeightSwapper
from qd.schema.setting import setting


@dataclass
class SweepConfig(MeasuringConfig):
    """``qd sweep``."""

    models: dict[str, str] = setting({}, "Models by short names, for the series: {beta5: runs/beta5}.", path=True)
    series: list[SeriesConfig] = setting([], "Series of points.")
    only: list[str] | None = setting(None, "Names of the series to measure; null: all.", nonempty=True)

    @property
    def chosen(self) -> list[SeriesConfig]:
        """The requested series."""
        return [series for series in self.series if self.only is None or series.name in self.only]

    @property
    def any_fad(self) -> bool:
        return any(map(self.measures_fad, self.chosen))

    def measures_fad(self, series: SeriesConfig) -> bool:
        """Whether the points of a series include the Fréchet audio distance.

        The sweep's setting applies where the series has none. A reference without ``fad`` implies the distance for all
        series, unless one of them requests it explicitly: then the reference is for that series.
        """
        explicit = any(one.fad for one in self.chosen)
        return (self.fad if explicit else self.requests_fad) if series.fad is None else series.fad

    def rules(self, prefix: str) -> Iterator[str]:
        yield from super().rules(prefix)
        names = [series.name for series in self.series]
        if not names:
            yield "series is empty; expected series of points, as in configs/sweep/default.yaml"
        for name in dict.fromkeys(name for name in names if names.count(name) > 1):
            yield f"series {name!r} occurs {names.count(name)} times; expected different names"
        for name in self.only or []:
            if name not in names:
                yield f"only: there is no series {name!r}; expected some of {', '.join(names)}"
        if not any(series.problems() for series in self.series):
            yield from self._model_problems()

    def _model_problems(self) -> list[str]:
        """Models that are missing, with the series that need them, and sums of models that cannot be added."""
        weights, needed = WeightSwapper(), dict.fromkeys(name for series in self.chosen for name in series.used)
        problems, missing = [], set()
        for name in needed:
            path = f"models.{name}" if name in self.models else f"model {name!r}"
            if reasons := unavailable(path, weights.source, self.models.get(name, name)):
                users = [series.name for series in self.chosen if name in series.used]
                needed_by = f"It is needed by {', '.join(users)}: train it or leave them out (only=[…])"
                problems.append(f"{reasons[0]} {needed_by}")
                missing.add(name)
        for series in self.chosen:
            if not missing.intersection(series.used):
                problems += [f"series {series.name}: {text}" for text in self._sum_problems(series, weights)]
        return problems

    def _sum_problems(self, series: SeriesConfig, weights: WeightSwapper) -> list[str]:
        specs = [spec for spec, _ in series.points(self.models)]
        problems = [text for spec in specs for text in spec.problems(series.extrapolate) or weights.problems(spec)]
        return list(dict.fromkeys(problems))
