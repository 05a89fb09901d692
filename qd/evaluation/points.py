"""Measured points, and the append-only ``points.jsonl`` that keeps them: one flat JSON object a line."""

from __future__ import annotations

import hashlib
import json
import math
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from qd.metrics.bootstrap import Interval
from qd.runs.atomic import atomic_write

FILE = "points.jsonl"
"""Of a run's points, in its folder."""

METRICS = ("quality", "adherence", "preference", "diversity", "diversity_heldout", "vendi", "entropy")


def content_key(made_by: Mapping[str, Any]) -> str:
    """Sixteen hex digits that name a measurement by all that made it: weights, prompts, sampling, scorers, seed."""
    canonical = json.dumps(made_by, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Point:
    """One measured model: what it is, how it was sampled, what it scored.

    Attributes:
        key: :func:`content_key` of all that made the measurement.
        run: run folder's name. model: what was measured (a resolvable name; of a run the step folder, which earlier
            versions left out). step: optimiser step of the weights.
        beta: diversity coefficient of the run, None for a model that was not finetuned.
        guidance_scale, negative: γ and the negative prompt at sampling (None = unconditional). temperature: T.
        lam: interpolation coefficient λ, None if not merged.
        seed: of the sampling. protocol: :attr:`qd.config.protocols.Protocol.id`.
        scorers: the evaluation_models, names and versions.
        metrics: a mean over prompts with its bootstrap interval for each of :data:`METRICS`.
        seconds: wall time of the measurement.
        series: the name of the line of a sweep that asked for the point; "" = measured by itself, or by a run.
        fad, fad_infinite: Fréchet audio distance and FAD∞, None if not measured.
        fad_reference: the recordings and the embedder of the distance; others do not compare. "" without a distance.
    """

    key: str
    run: str
    model: str
    step: int
    beta: float | None
    guidance_scale: float
    negative: str | None
    temperature: float
    lam: float | None
    seed: int
    protocol: str
    scorers: str
    n_prompts: int
    n_samples: int
    metrics: Mapping[str, Interval]
    seconds: float
    series: str = ""
    fad: float | None = None
    fad_infinite: float | None = None
    fad_reference: str = ""

    def __post_init__(self) -> None:
        if set(self.metrics) != set(METRICS):
            raise ValueError(f"a point has metrics {sorted(self.metrics)}; expected exactly {sorted(METRICS)}")

    def to_json(self) -> str:
        """One flat JSON object: the fields, each metric beside its ``_lo`` and ``_hi``, then the rest."""
        row = asdict(self)
        row.pop("metrics")
        last = {name: row.pop(name) for name in ("seconds", *OPTIONAL)}
        for name in METRICS:
            mean, lo, hi = self.metrics[name]
            row |= {name: mean, f"{name}_lo": lo, f"{name}_hi": hi}
        # JSON has no NaN: an undefined value is null
        row = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}
        return json.dumps(row | last, ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_json(cls, line: str) -> Point:
        """Inverse of :meth:`to_json`, of earlier versions too. Raises ``ValueError`` naming what is wrong."""
        row = json.loads(line)
        if not isinstance(row, dict):
            raise ValueError(f"a point is a JSON object, got {line[:60]!r}")
        names = [field.name for field in fields(cls) if field.name not in ("metrics", *OPTIONAL)]
        missing = [name for name in (*names, *METRICS) if name not in row]
        if missing:
            raise ValueError(f"point lacks {', '.join(missing)}")
        kinds = {field.name: field.type for field in fields(cls) if field.name != "metrics"}
        kinds |= {name + suffix: "float | None" for name in METRICS for suffix in ("", "_lo", "_hi")}
        wrong = [name for name, kind in kinds.items() if name in row and type(row[name]) not in _KINDS[kind][0]]
        if wrong:
            told = (f"{name} is {json.dumps(row[name])[:60]}, expected {_KINDS[kinds[name]][1]}" for name in wrong)
            raise ValueError("; ".join(told))

        def number(key: str) -> float:
            return math.nan if row.get(key) is None else float(row[key])

        metrics = {m: Interval(number(m), number(f"{m}_lo"), number(f"{m}_hi")) for m in METRICS}
        names += [name for name in OPTIONAL if name in row]
        return cls(**{name: row[name] for name in names}, metrics=metrics)

    @property
    def identity(self) -> tuple[str, str, int, str]:
        """Two points that agree in it are one, written twice. A run whose weights stand still measures them again."""
        return self.key, self.series, self.step, self.fad_reference


OPTIONAL = ("series", "fad", "fad_infinite", "fad_reference")
"""Fields that a point of an earlier version lacks."""

_KINDS = {
    "str": ((str,), "a text"),
    "str | None": ((str, type(None)), "a text or null"),
    "int": ((int,), "a whole number"),
    "float": ((int, float), "a number"),
    "float | None": ((int, float, type(None)), "a number or null"),
}
"""Of a field's annotation: what JSON may hold there, and its name."""


OUT_OF_DATE = "Remove the lines that are out of date, or measure into another file"
"""How to mend a results file that holds two models where one is expected."""


def comparable(a: Point, b: Point) -> bool:
    """Whether two points may stand on one plot: the same protocol, measured with the same scorers and embedders."""
    return (a.protocol, a.scorers) == (b.protocol, b.scorers)


def refuse_other_weights(file: str | Path, points: Sequence[Point]) -> None:
    """Of one model, asked in one way: a name that stood for other weights before would be two models in one.

    Raises:
        ValueError: they have several keys.
    """
    models: dict[str, str] = {}
    for point in points:
        models.setdefault(point.key, point.model)
    if len(models) > 1:
        listed = ", ".join(f"{key} of {model!r}" for key, model in sorted(models.items()))
        raise ValueError(
            f"{file} has {len(models)} measurements of one model, asked in one way with seed {points[0].seed}, of "
            f"different weights or prompts (keys {listed}): was it trained anew under its old name? {OUT_OF_DATE}"
        )


class PointsFile:
    """Append-only list of points on disk.

    A line torn by a killed process can only be the last one: reading skips it and says so, appending first cuts it off.
    Of points that agree in their identity the first counts; one without a Fréchet audio distance gives way to the same
    one with it.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def read(self) -> list[Point]:
        """All points in the order written, each once. Raises ``ValueError`` naming a line damaged before the last."""
        whole, torn = self._split()
        if torn:
            warnings.warn(f"{self.path}: the last line is torn and was skipped ({torn[:40]!r} …)", stacklevel=2)
        points = []
        # Not splitlines: JSON leaves U+2028 and its like unescaped inside a text.
        for number, line in enumerate(whole.split(b"\n")[:-1], start=1):
            try:
                points.append(Point.from_json(line.decode()))
            except ValueError as error:
                raise ValueError(f"{self.path}, line {number}: {error}; remove that line to go on") from error
        distinct: dict[tuple[str, str, int, str], Point] = {}
        for point in points:
            distinct.setdefault(point.identity, point)
        if again := len(points) - len(distinct):
            warnings.warn(f"{self.path}: {again} points stand there twice and were dropped", stacklevel=2)
        heard = {point.identity[:-1] for point in points if point.fad_reference}
        return [point for point in distinct.values() if point.fad_reference or point.identity[:-1] not in heard]

    def append(self, point: Point) -> None:
        """Adds one line and forces it to the disk."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        whole, torn = self._split()
        if torn:
            warnings.warn(f"{self.path}: a torn last line was cut off ({torn[:40]!r} …)", stacklevel=2)
            with self.path.open("r+b") as file:
                file.truncate(len(whole))
        with self.path.open("ab") as file:
            file.write(whole[file.tell() :])  # the line break that the last line may lack
            file.write(point.to_json().encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def drop_after(self, step: int) -> int:
        """Removes the points of later steps than ``step`` (a resumed run measures them again); returns how many."""
        points = self.read()
        kept = [point for point in points if point.step <= step]
        if len(kept) < len(points):
            self._rewrite(kept)
        return len(points) - len(kept)

    def _split(self) -> tuple[bytes, bytes]:
        """Bytes of the finished lines, and of a torn one. A last line that lacks nothing but its line break, as some
        editors leave it, is finished, and gets one here."""
        content = self.path.read_bytes() if self.path.is_file() else b""
        end = content.rfind(b"\n") + 1
        try:
            Point.from_json(content[end:].decode())
        except ValueError:
            return content[:end], content[end:]
        return content + b"\n", b""

    def _rewrite(self, points: Iterable[Point]) -> None:
        with atomic_write(self.path) as temporary:
            temporary.write_text("".join(point.to_json() + "\n" for point in points), encoding="utf-8")
