"""Numbers that are not finite stop the run before the step, and a collapse gives one warning."""

from __future__ import annotations

import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from qd.callbacks import guards
from qd.callbacks.guards import CollapseWarning, NonFiniteError, NonFiniteGuard
from qd.callbacks.last_checkpoint import LastCheckpoint
from qd.modules.rollout import RolloutStats
from tests.callbacks.toy_run import Policy, fit


@pytest.mark.parametrize(
    ("spoil", "facts"),
    [
        ("reward", "step 3: the reward is not finite. Prompts: 'fast drums'."),
        ("KL", "step 3: the KL is not finite. Prompts: 'fast drums'."),
        ("loss", "step 3: the loss is inf. Prompts: 'calm piano'; 'fast drums'."),
        ("gradient", "step 3: the gradient is not finite. Prompts: 'calm piano'; 'fast drums'."),
    ],
)
def test_the_run_stops_before_the_step_and_keeps_the_last_good_checkpoint(
    tmp_path: Path, spoil: str, facts: str
) -> None:
    module = Policy(spoil)
    with pytest.raises(NonFiniteError) as caught:
        fit(module, NonFiniteGuard(tmp_path), LastCheckpoint(tmp_path, every=2))
    assert str(caught.value).startswith(facts)
    torch.testing.assert_close(module.weight.detach(), torch.full((3,), 0.8**3))  # three steps of w ← w − 0.2 w
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert saved["global_step"] == 2
    torch.testing.assert_close(saved["state_dict"]["weight"], torch.full((3,), 0.8**2))


def test_a_bad_micro_batch_stops_the_step_even_if_the_last_one_is_fine(tmp_path: Path) -> None:
    guard, module, trainer = NonFiniteGuard(tmp_path), Policy(), SimpleNamespace(global_step=7)
    optimizer = module.configure_optimizers()
    module.weight.grad = torch.ones(3)
    for prompts, bad in ((["a"], False), (["b", "c"], True), (["d"], False)):
        kl = torch.ones(len(prompts), 2)
        kl[-1, 0] = float("inf") if bad else 1.0
        module.latest = RolloutStats(prompts, kl, torch.ones_like(kl))
        guard.on_before_backward(trainer, module, torch.tensor(1.0))
    with pytest.raises(NonFiniteError, match="step 7.*KL is not finite.*'c'"):
        guard.on_before_optimizer_step(trainer, module, optimizer)


def test_large_finite_values_whose_sum_overflows_are_fine(tmp_path: Path) -> None:
    guard, module, trainer = NonFiniteGuard(tmp_path), Policy(), SimpleNamespace(global_step=7)
    module.weight.grad = torch.ones(3)
    module.latest = RolloutStats(["a"], torch.full((1, 4), 3e38), torch.ones(1, 4))
    guard.on_before_backward(trainer, module, torch.tensor(1.0))
    guard.on_before_optimizer_step(trainer, module, module.configure_optimizers())


def test_the_cause_on_one_rank_is_reported_rather_than_the_gradient_of_all(tmp_path: Path, monkeypatch) -> None:
    others = [("the gradient is not finite", ["a"]), ("the loss is nan", ["b"]), (None, [])]
    monkeypatch.setattr(guards, "gather_objects", lambda mine: others)
    with pytest.raises(NonFiniteError, match="step 2.*loss is nan.*'b'"):
        NonFiniteGuard(tmp_path)._stop(SimpleNamespace(global_step=2), *others[0])


def test_finite_steps_pass(tmp_path: Path) -> None:
    module = Policy()
    fit(module, NonFiniteGuard(tmp_path), LastCheckpoint(tmp_path, every=2))
    torch.testing.assert_close(module.weight.detach(), torch.full((3,), 0.8**6))


def test_the_advice_names_the_saved_weights_if_there_are_any(tmp_path: Path) -> None:
    for saved in (False, True):
        if saved:
            (tmp_path / "step-000002").mkdir()
        with pytest.raises(NonFiniteError, match=r"new run.*optimizer\.learning_rate or beta") as caught:
            fit(Policy("loss"), NonFiniteGuard(tmp_path))
        message = str(caught.value)
        assert ("step-000002" in message) == (f"model.name={tmp_path};" in message) == saved
        assert "last.ckpt" not in message  # a resumed run would repeat the same step


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_the_advice_for_bfloat16_names_another_precision(tmp_path: Path, precision: str) -> None:
    with pytest.raises(NonFiniteError) as caught:
        fit(Policy("loss"), NonFiniteGuard(tmp_path, precision))
    assert ("trainer.precision=32-true" in str(caught.value)) == (precision == "bf16-mixed")


def collapse_warnings(metrics: list[dict[str, float]], patience: int) -> list[tuple[int, str]]:
    """Returns the step and the text of each warning."""
    guard, module, messages = CollapseWarning(patience=patience), SimpleNamespace(), []
    for step, module.metrics in enumerate(metrics, start=1):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            guard.on_step_end(SimpleNamespace(global_step=step), module)
        messages += [(step, str(warning.message)) for warning in caught]
    return messages


@pytest.mark.parametrize("name", ["entropy", "reward"])
def test_a_collapse_gives_one_warning(name: str) -> None:
    fine = {"entropy": 1.0, "reward": 0.3}
    low = fine | {name: 0.001}
    ((step, message),) = collapse_warnings([fine, low, low, fine, *[low] * 10], patience=4)
    assert step == 8  # the first two low steps are fewer than the patience
    assert name in message and "step 8" in message


def test_a_healthy_policy_gives_no_warning() -> None:
    assert collapse_warnings([{"entropy": 1.0, "reward": 0.3}] * 20, patience=4) == []
