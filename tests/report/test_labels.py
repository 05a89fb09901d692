"""Labels of points."""

from __future__ import annotations

import pytest

from qd.report.labels import short


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("beta15", "β = 15"),
        ("runs/reproduction/beta0", "β = 0"),
        ("runs/x/beta2.5/step-002000", "β = 2.5"),
        ("runs/mine/step-002000", "mine"),
        ("step-by-step/beta0", "β = 0"),  # only the folder's name starts like a step
        ("beta15-seed1", "beta15-seed1"),
        ("base", "base"),
    ],
)
def test_short_names(name: str, expected: str) -> None:
    assert short(name) == expected
