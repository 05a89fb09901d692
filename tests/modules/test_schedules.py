from __future__ import annotations

import math

import pytest
import torch

from qd.modules.schedules import scheduled, warmup, warmup_cosine


def test_the_warm_up_rises_linearly_to_one():
    assert [warmup(step, 4) for step in range(6)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    assert warmup(0, 0) == 1.0


def test_the_cosine_schedule_rises_then_falls_to_zero():
    factors = [warmup_cosine(step, 4, 20) for step in range(26)]
    assert factors[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert factors[8] == pytest.approx(0.5 * (1 + math.cos(math.pi / 4)))
    assert factors[12] == pytest.approx(0.5)
    assert factors[20:] == [0.0] * 6
    assert all(a >= b for a, b in zip(factors[4:], factors[5:], strict=False))


@pytest.mark.parametrize(("warmup_steps", "last"), [(0, 0.0), (3, 1.0)])
def test_the_cosine_schedule_without_warm_up_and_with_only_warm_up(warmup_steps, last):
    assert warmup_cosine(0, warmup_steps, 3) == (1.0 if warmup_steps == 0 else pytest.approx(1 / 3))
    assert warmup_cosine(3, warmup_steps, 3) == last  # Lightning also calls it for the step after the last one


def test_the_factor_multiplies_the_learning_rate_at_each_step():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(()))], lr=0.5)
    schedule = scheduled(optimizer, lambda step: 1 / (1 + step))["lr_scheduler"]
    rates = []
    for _ in range(3):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule["scheduler"].step()
    assert rates == pytest.approx([0.5, 0.25, 0.5 / 3]) and schedule["interval"] == "step"
