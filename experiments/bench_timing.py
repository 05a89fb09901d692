"""Timing rivals in turn, and the rates of the machine that they run on."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

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


def machine_rates(repeats: int) -> dict[str, float]:
    """Multiply-adds a second, times two, of a 2048² product, and bytes a second read and written by a copy."""
    a, b = torch.randn(2048, 2048), torch.randn(2048, 2048)
    half_a, half_b = a.bfloat16(), b.bfloat16()
    source, target = torch.randn(2**25), torch.empty(2**25)
    rivals = {"product": lambda: a @ b, "half": lambda: half_a @ half_b, "copy": lambda: target.copy_(source)}
    times = alternate(rivals, repeats + 4)
    flops, half = (2 * 2048**3 / times[name] for name in ("product", "half"))
    return {"flops": flops, "bfloat16 flops": half, "bytes": 2 * 4 * 2**25 / times["copy"]}


def flops_of(work: Work) -> int:
    """Of its matrix products, convolutions and attention, as far as torch does them."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()
