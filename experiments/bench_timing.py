"""Timing rivals in turn, and the rates of the machine that they run on."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

Work = Callable[[], object]


def alternate(
    rivals: dict[str, Work], repeats: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """Median seconds of each, run in turn; the first round is not counted."""
    times: dict[str, list[float]] = {name: [] for name in rivals}
    for _ in range(repeats + 1):
        for name, work in rivals.items():
            start = clock()
            work()
            times[name].append(clock() - start)
    return {name: median(values[1:]) for name, values in times.items()}


class MachineRates(NamedTuple):
    """What the machine reached while something was timed on it.

    Attributes:
        flops: of a 2048² float32 product, a second (multiply-adds, times two). half_flops: the same in bfloat16.
        bandwidth: of a copy, bytes read and written a second.
    """

    flops: float
    half_flops: float
    bandwidth: float


def alternate_with_rates(rivals: dict[str, Work], repeats: int) -> tuple[dict[str, float], MachineRates]:
    """:func:`alternate`, and the rates of the machine taken in the same rounds: other work on it slows both alike."""
    a, b = torch.randn(2048, 2048), torch.randn(2048, 2048)
    half_a, half_b = a.bfloat16(), b.bfloat16()
    source, target = torch.randn(2**25), torch.empty(2**25)
    probes = {
        "float32 product": lambda: a @ b,
        "bfloat16 product": lambda: half_a @ half_b,
        "copy": lambda: target.copy_(source),
    }
    times = alternate({**rivals, **probes}, repeats)
    product, half, copy = (times.pop(name) for name in probes)
    return times, MachineRates(2 * 2048**3 / product, 2 * 2048**3 / half, 2 * 4 * 2**25 / copy)


def flops_of(work: Work) -> int:
    """Of its matrix products, convolutions and attention, as far as torch does them."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()
