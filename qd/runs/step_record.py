"""Values of one optimiser step: means over micro-batches and ranks, and the seconds of its stages."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import torch
from torch import Tensor

from qd.runs.collective import gather_rows


class StepRecord:
    """Collects the values of one optimiser step.

    Args:
        timing: Whether to time the stages on a GPU too; this synchronises the GPU at the start and end of each stage.
    """

    def __init__(self, timing: bool = True) -> None:
        self.timing = timing
        self.values: dict[str, list[Tensor]] = defaultdict(list)
        self.seconds: dict[str, float] = defaultdict(float)

    def add(self, **values: Tensor) -> None:
        """Adds scalars of one micro-batch; they stay on their device."""
        for name, value in values.items():
            self.values[name].append(value.detach().float())

    @contextmanager
    def stage(self, name: str, device: torch.device) -> Iterator[None]:
        """Adds the wall time of the block to the stage; synchronises a GPU, which works asynchronously."""
        start = self.now(device)
        yield
        self.took(name, start, device)

    def took(self, name: str, start: float, device: torch.device) -> None:
        """Adds the wall time since ``start``, a value of :meth:`now`; nothing on a GPU without timing."""
        if self.timing or device.type != "cuda":
            self.seconds[name] += self.now(device) - start

    def now(self, device: torch.device) -> float:
        """Returns the seconds of a clock, after the device has finished its work."""
        if self.timing and device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    def summary(self) -> dict[str, float]:
        """Returns means over micro-batches and ranks, and ``seconds_<stage>`` of this rank."""
        names = list(self.values)
        means = torch.stack([torch.stack(self.values[name]).mean() for name in names])
        means = gather_rows(means[None]).mean(dim=0).tolist()
        return dict(zip(names, means, strict=True)) | {f"seconds_{k}": v for k, v in self.seconds.items()}


def timed(stage: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorates a method of a module with a ``record``: adds its wall time to the stage."""

    def decorate(method: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(method)
        def run(self: Any, *args: Any, **kwargs: Any) -> Any:
            with self.record.stage(stage, self.device):
                return method(self, *args, **kwargs)

        return run

    return decorate
