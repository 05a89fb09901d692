"""β as a function of the step."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qd.callbacks.beta_schedule import BetaSchedule, beta_at


@pytest.mark.parametrize(("step", "expected"), [(0, 0.0), (500, 7.5), (1000, 15.0), (5000, 15.0)])
def test_beta_rises_linearly_until_step_1000(step: int, expected: float) -> None:
    assert beta_at(step, 15.0, 1000) == pytest.approx(expected)


def test_without_a_ramp_beta_is_constant() -> None:
    assert beta_at(0, 15.0, 0) == 15.0


@given(step=st.integers(0, 10_000), beta=st.floats(0, 100), ramp=st.integers(0, 5_000))
def test_beta_never_falls_and_never_exceeds_its_value(step: int, beta: float, ramp: int) -> None:
    assert 0 <= beta_at(step, beta, ramp) <= beta_at(step + 1, beta, ramp) <= beta


def test_a_new_callback_at_a_later_step_sets_the_beta_of_that_step() -> None:
    """A resumed run has such a callback: only the step determines β."""
    module = SimpleNamespace(beta=None)
    BetaSchedule(15.0, 1000).on_train_batch_start(SimpleNamespace(global_step=700), module, None, 3)
    assert module.beta == pytest.approx(10.5)
