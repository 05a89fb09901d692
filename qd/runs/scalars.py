"""Reads the logged scalars of a run from its TensorBoard events."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import NamedTuple


class Scalar(NamedTuple):
    """A logged value, and the time of logging in seconds."""

    value: float
    wall_time: float


def read_scalars(run: str | Path) -> dict[str, dict[int, Scalar]]:
    """Returns the scalars of a run by name and step; for a step that was logged again, the last value counts.

    Args:
        run: Run folder.

    Returns:
        An empty dictionary if the run did not log to TensorBoard.
    """
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run), size_guidance={"scalars": 0})
    events.Reload()
    return {
        name: {event.step: Scalar(event.value, event.wall_time) for event in sorted(events.Scalars(name), key=_clock)}
        for name in events.Tags()["scalars"]
    }


def _clock(event: object) -> float:
    return event.wall_time


def step_seconds(run: Path) -> float | None:
    """Returns the median seconds of an optimiser step from the TensorBoard events; None without them.

    The median, because measurements and pauses lengthen some of the steps.
    """
    logged = sorted(read_scalars(run).get("train/loss", {}).items())
    rates = [(b.wall_time - a.wall_time) / (step - before) for (before, a), (step, b) in pairwise(logged)]
    return median(rates) if rates else None
