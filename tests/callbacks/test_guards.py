"""Numbers that are not finite stop the run before the step, and a collapse gives one warning."""

from __future__ import annotations

import signal
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from qd.callbacks import guards
from qd.callbacks.guards import CollapseWarning, NonFiniteError, NonFiniteGuard
from qd.callbacks.last_checkpoint import GracefulInterrupt, LastCheckpoint, fit_until_stopped
from qd.modules.rollout import RolloutStats

NAN = float("nan")


class Prompts(IterableDataset):
    def __iter__(self) -> Iterator[list[str]]:
        while True:
            yield ["calm piano", "fast drums"]


class Policy(pl.LightningModule):
    """Records two prompts with two samples in each step. One value is not finite at ``bad_step``."""

    def __init__(self, spoil: str | None = None, bad_step: int = 3) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))
        self.spoil, self.bad_step = spoil, bad_step
        self.metrics = {"entropy": 1.0, "reward": 0.3}

    def training_step(self, batch: list[str], batch_idx: int) -> Tensor:
        bad = self.spoil if self.global_step == self.bad_step else None
        rewards, kl = torch.full((2, 2), 0.3), torch.full((2, 2), 9.0)
        if bad in ("reward", "KL"):
            {"reward": rewards, "KL": kl}[bad][1, 0] = NAN
        self.latest = RolloutStats(batch, kl, rewards)
        loss = self.weight.square().sum()
        if bad == "gradient":
            return loss + (self.weight[0] - self.weight[0].detach()).abs().sqrt()
        return loss * float("inf") if bad == "loss" else loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Data(pl.LightningDataModule):
    def train_dataloader(self) -> DataLoader:
        return DataLoader(Prompts(), batch_size=None)


def build_trainer(*callbacks: pl.Callback, steps: int = 6) -> pl.Trainer:
    return pl.Trainer(
        accelerator="cpu", max_steps=steps, callbacks=list(callbacks), logger=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip


def fit(module: Policy, *callbacks: pl.Callback, steps: int = 6) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*(many workers|checkpoint).*")
        build_trainer(*callbacks, steps=steps).fit(module, datamodule=Data())


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


class Impatient(GracefulInterrupt):
    """Receives Ctrl-C twice before the step has ended."""

    def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor) -> None:
        if trainer.global_step == 3:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize(
    ("every", "facts"),
    [(2, "since last.ckpt.*resume it"), (4, "first last.ckpt")],
)
def test_a_second_ctrl_c_names_the_checkpoint_only_if_there_is_one(tmp_path: Path, every: int, facts: str) -> None:
    interrupt = Impatient()
    trainer = build_trainer(interrupt, LastCheckpoint(tmp_path, every))
    before = signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises(KeyboardInterrupt, match=facts):
            fit_until_stopped(trainer, Policy(), Data(), None, interrupt, "resume it")
    finally:
        signal.signal(signal.SIGINT, before)  # Lightning ignores SIGINT afterwards
    assert (tmp_path / "last.ckpt").is_file() == (every == 2)


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


def test_ctrl_c_while_the_ranks_communicate_counts_at_the_next_step() -> None:
    interrupt = GracefulInterrupt()

    def decide(decision: bool, all: bool) -> bool:
        if not interrupt.requested:
            interrupt._on_signal(signal.SIGINT, None)
        return decision

    interrupt._main_pid = None
    trainer = SimpleNamespace(strategy=SimpleNamespace(reduce_boolean_decision=decide), should_stop=False)
    interrupt.on_step_end(trainer, None)
    assert not trainer.should_stop and interrupt.requested
    interrupt.on_step_end(trainer, None)
    assert trainer.should_stop
