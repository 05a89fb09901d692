"""What a run has logged, read back from its TensorBoard events."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple


class Scalar(NamedTuple):
    """A logged value, and the clock when it was logged, in seconds."""

    value: float
    wall_time: float


def read_scalars(run: str | Path) -> dict[str, dict[int, Scalar]]:
    """By name and step; what a resumed run has logged again counts as it was logged last.

    Args:
        run: its folder.

    Returns:
        Nothing if the run did not log to TensorBoard.
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
