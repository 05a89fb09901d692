"""What `qd sweep` measures: the models by short names, and the series of points."""

from __future__ import annotations

from dataclasses import dataclass, field

from qd.config.checks import unavailable
from qd.config.measuring import MeasuringConfig
from qd.config.series import SeriesConfig
from qd.models.merging.in_memory import WeightSwapper


@dataclass
class SweepConfig(MeasuringConfig):
    """``qd sweep``."""

    models: dict[str, str] = field(default_factory=dict)  # short name → any name that `resolve_model` knows
    series: list[SeriesConfig] = field(default_factory=list)
    only: list[str] | None = None  # names of series to measure; null = all

    @property
    def chosen(self) -> list[SeriesConfig]:
        """The series that are asked for."""
        return [series for series in self.series if self.only is None or series.name in self.only]

    def hears_fad(self, series: SeriesConfig) -> bool:
        """Whether its points want the Fréchet audio distance.

        What the series does not say the sweep does. A reference alone asks for it in all of them, unless one wants it
        anyway: then the reference is that one's.
        """
        named = any(one.fad for one in self.chosen)
        return (self.fad if named else self.asks_fad) if series.fad is None else series.fad

    def problems(self) -> list[str]:
        names = [series.name for series in self.series]
        found = self.measuring_problems(any(map(self.hears_fad, self.chosen)))
        found += ["only is empty; expected names of series, or null for all"] if self.only == [] else []
        found += [] if names else ["series is empty; expected what to measure, as configs/sweep/default.yaml has it"]
        twice = dict.fromkeys(name for name in names if names.count(name) > 1)
        found += [f"series {name!r} is there {names.count(name)} times; give each a name of its own" for name in twice]
        unknown = [name for name in self.only or [] if name not in names]
        found += [f"only: there is no series {name!r}; expected some of {', '.join(names)}" for name in unknown]
        broken = [text for i, series in enumerate(self.series) for text in series.problems(f"series[{i}]")]
        return found + (broken or self._model_problems())

    def _model_problems(self) -> list[str]:
        """Models that are missing, and the series that need them; and sums of models that cannot be added up."""
        weights, needed = WeightSwapper(), dict.fromkeys(name for series in self.chosen for name in series.used)
        found, missing = [], set()
        for name in needed:
            path = f"models.{name}" if name in self.models else f"model {name!r}"
            if told := unavailable(path, weights.source, self.models.get(name, name)):
                users = [series.name for series in self.chosen if name in series.used]
                found.append(f"{told[0]} It is needed by {', '.join(users)}: train it, or leave them out (only=[…])")
                missing.add(name)
        for series in self.chosen:
            if not missing.intersection(series.used):
                found += [f"series {series.name}: {text}" for text in self._sum_problems(series, weights)]
        return found

    def _sum_problems(self, series: SeriesConfig, weights: WeightSwapper) -> list[str]:
        specs = [spec for spec, _ in series.points(self.models)]
        told = [text for spec in specs for text in spec.problems(series.extrapolate) or weights.problems(spec)]
        return list(dict.fromkeys(told))
