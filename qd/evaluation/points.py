"""Measured points, and the append-only file ``points.jsonl``: one flat JSON object a line."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from qd.evaluation.columns import ENDINGS, FACETS, METRICS, OPTIONAL_METRICS
from qd.metrics.bootstrap import Interval
from qd.runs.atomic import atomic_write

FILE = "points.jsonl"
"""Name of the points file in a run folder."""


def content_key(made_by: Mapping[str, Any]) -> str:
    """Returns sixteen hex digits that identify a measurement by its inputs: weights, prompts, sampling, scorers."""
    canonical = json.dumps(made_by, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Point:
    """One measured model: its name, its sampling settings and its metrics.

    Attributes:
        key: :func:`content_key` of the inputs of the measurement.
        run: Name of the run folder.
        model: Resolvable name of the model; the step folder for a run (earlier versions: the run folder).
        step: Optimiser step of the weights.
        beta: Diversity coefficient of the run; None for a model that was not finetuned.
        guidance_scale: γ at sampling.
        negative: Negative prompt at sampling; None is unconditional.
        temperature: T.
        lam: Interpolation coefficient λ; None if not merged.
        seed: Seed for token sampling.
        protocol: :attr:`qd.config.protocols.Protocol.id`.
        scorers: Names and versions of scorers and embedders.
        n_prompts: Number of prompts.
        n_samples: Number of samples per prompt.
        metrics: Mean over prompts with its bootstrap interval, for each of :data:`METRICS` and any of
            :data:`~qd.evaluation.columns.OPTIONAL_METRICS`.
        seconds: Wall time of the measurement.
        series: Name of the series of a sweep; "" for a point of `qd evaluate` or of a run.
        fad: Fréchet audio distance; None if not measured.
        fad_infinite: FAD∞; None if not measured.
        kad: Kernel audio distance to the same reference; None if not measured.
        fad_reference: Recordings and embedder of the distance, which are comparable only if equal; "" without one.
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
    kad: float | None = None

    def __post_init__(self) -> None:
        if not set(METRICS) <= set(self.metrics) <= {*METRICS, *OPTIONAL_METRICS}:
            raise ValueError(
                f"a point has metrics {sorted(self.metrics)}; expected {sorted(METRICS)}, and any of "
                f"{sorted(OPTIONAL_METRICS)}"
            )

    def to_json(self) -> str:
        """Returns one flat JSON object: the fields, each metric with its ``_lo`` and ``_hi``, then the rest."""
        row = asdict(self)
        row.pop("metrics")
        last = {name: row.pop(name) for name in ("seconds", *OPTIONAL)}
        row |= self._columns(METRICS) | last | self._columns(OPTIONAL_METRICS)
        # JSON has no NaN: an undefined value is null.
        row = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}
        return json.dumps(row, ensure_ascii=False, allow_nan=False)

    def _columns(self, names: Iterable[str]) -> dict[str, float]:
        """The columns of those metrics that the point has."""
        values = {name: self.metrics[name] for name in names if name in self.metrics}
        return {name + end: value for name, v in values.items() for end, value in zip(ENDINGS, v, strict=True)}

    @classmethod
    def from_json(cls, line: str) -> Point:
        """Inverse of :meth:`to_json`, also for earlier versions.

        Raises:
            ValueError: The line is not a point; the message names the wrong fields.
        """
        try:
            row = json.loads(line)
        except RecursionError:
            raise ValueError("it is nested too deeply") from None
        if not isinstance(row, dict):
            raise ValueError(f"a point is a JSON object, got {line[:60]!r}")
        names = [field.name for field in fields(cls) if field.name not in ("metrics", *OPTIONAL)]
        missing = [name for name in (*names, *METRICS) if name not in row]
        if missing:
            raise ValueError(f"point lacks {', '.join(missing)}")
        kinds = {field.name: field.type for field in fields(cls) if field.name != "metrics"}
        kinds |= {name + end: "float | None" for name in (*METRICS, *OPTIONAL_METRICS) for end in ENDINGS}
        wrong = [name for name, kind in kinds.items() if name in row and type(row[name]) not in _KINDS[kind][0]]
        if wrong:
            problems = (f"{name} is {json.dumps(row[name])[:60]}, expected {_KINDS[kinds[name]][1]}" for name in wrong)
            raise ValueError("; ".join(problems))

        def number(key: str) -> float:
            return math.nan if row.get(key) is None else float(row[key])

        measured = [*METRICS, *(name for name in OPTIONAL_METRICS if name in row)]
        metrics = {name: Interval(*(number(name + end) for end in ENDINGS)) for name in measured}
        names += [name for name in OPTIONAL if name in row]
        return cls(**{name: row[name] for name in names}, metrics=metrics)

    @property
    def has_facets(self) -> bool:
        """Whether the musical facets were measured."""
        return self.metrics.keys() >= {*FACETS}

    @property
    def identity(self) -> tuple[str, str, int, str]:
        """Two points with the same identity are one point, written twice.

        The step is part of the key, because a run may measure the same weights at several steps.
        """
        return self.key, self.series, self.step, self.fad_reference


OPTIONAL = ("series", "fad", "fad_infinite", "fad_reference", "kad")
"""Fields that points of earlier versions lack."""

_KINDS = {
    "str": ((str,), "a text"),
    "str | None": ((str, type(None)), "a text or null"),
    "int": ((int,), "a whole number"),
    "float": ((int, float), "a number"),
    "float | None": ((int, float, type(None)), "a number or null"),
}
"""JSON types allowed for the annotation of a field, and their name in messages."""


def comparable(a: Point, b: Point) -> bool:
    """Whether two points may share a plot: they have the same protocol, scorers and embedders."""
    return (a.protocol, a.scorers) == (b.protocol, b.scorers)


class PointsFile:
    """Append-only list of points on disk.

    A killed process can leave only the last line incomplete: reading skips it with a warning, appending removes it
    first. Among points with the same identity the first one counts. A point with a Fréchet audio distance replaces the
    same point without it, and each gets the optional metrics that only the other one has.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def read(self) -> list[Point]:
        """Returns all points in the order written, each once.

        Raises:
            ValueError: A line before the last one is damaged; the message names it.
        """
        complete, rest = self._split()
        if rest:
            warnings.warn(f"{self.path}: the last line is incomplete and was skipped ({rest[:40]!r} …)", stacklevel=2)
        points = []
        # Not splitlines: JSON leaves U+2028 and similar characters unescaped inside a text.
        for number, line in enumerate(complete.split(b"\n")[:-1], start=1):
            try:
                points.append(Point.from_json(line.decode()))
            except ValueError as error:
                raise ValueError(f"{self.path}, line {number}: {error}; remove that line to continue") from error
        distinct = {(point.identity, *point.metrics): point for point in reversed(points)}
        if again := len(points) - len(distinct):
            warnings.warn(f"{self.path}: {again} points are in the file twice and were dropped", stacklevel=2)
        return _merged(points)

    def append(self, point: Point) -> None:
        """Adds one line and forces it to the disk; if that fails, the file is as before.

        Raises:
            OSError: The disk is full, or the file cannot be written.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        complete, rest = self._split()
        if rest:
            warnings.warn(f"{self.path}: an incomplete last line was removed ({rest[:40]!r} …)", stacklevel=2)
            with self.path.open("r+b") as file:
                file.truncate(len(complete))
        with self.path.open("ab", buffering=0) as file:
            end = file.tell()
            line = complete[end:] + point.to_json().encode() + b"\n"  # first the line break that the last may lack
            try:
                if file.write(line) < len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(file.fileno())
            except OSError as error:
                file.truncate(end)
                raise OSError(error.errno, error.strerror, str(self.path)) from error

    def drop_after(self, step: int) -> int:
        """Removes points of steps after ``step``, which a resumed run measures again; returns their number."""
        points = self.read()
        earlier = [point for point in points if point.step <= step]
        if len(earlier) < len(points):
            self._rewrite(earlier)
        return len(points) - len(earlier)

    def _split(self) -> tuple[bytes, bytes]:
        """Returns the bytes of the complete lines, and of an incomplete last one.

        A last line that lacks only its line break, as some editors leave it, is complete and gets one here.
        """
        if self.path.exists() and not self.path.is_file():  # reading a pipe may never end
            raise ValueError(f"{self.path} is a folder, a device or a pipe; expected a .jsonl file: name another one")
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


def _merged(points: Sequence[Point]) -> list[Point]:
    """Returns each point once, completed by the other lines of the same measurement."""
    merged: dict[tuple[str, str, int, str], Point] = {}
    metrics: dict[tuple[str, str, int], Mapping[str, Interval]] = {}
    for point in points:
        same = point.identity[:-1]
        merged.setdefault(point.identity, point)
        metrics[same] = {**point.metrics, **metrics.get(same, {})}
    with_fad = {point.identity[:-1] for point in points if point.fad_reference}
    kept = [point for point in merged.values() if point.fad_reference or point.identity[:-1] not in with_fad]
    return [replace(point, metrics=metrics[point.identity[:-1]]) for point in kept]
