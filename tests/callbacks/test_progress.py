"""The progress line of a run."""

from __future__ import annotations

import io
from types import SimpleNamespace

import pytest

from qd.callbacks.progress import StepProgress
from qd.metrics.formatting import format_duration


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (59.4, "59 s"), (61, "1 min"), (220, "4 min"), (3900, "1 h 05 min")]
)
def test_durations(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def test_without_a_terminal_a_line_is_printed_every_few_steps(capsys: pytest.CaptureFixture[str]) -> None:
    module = SimpleNamespace(metrics={"kl_per_token": 0.2131, "reward": 0.31, "beta": 1.5})
    trainer = SimpleNamespace(global_step=0, max_steps=20, is_global_zero=True)
    progress = StepProgress(log_every=5)
    progress.on_train_start(trainer, module)
    for trainer.global_step in range(1, 11):
        progress.on_train_batch_start(trainer, module, None, 0)
        progress.on_step_end(trainer, module)
    progress.teardown(trainer, module, "fit")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" · ")[0] for line in lines] == ["step 1/20", "step 5/20", "step 10/20"]
    assert "s/step · KL/token 0.2131 · reward 0.310 · β 1.50 · " in lines[-1]
    assert lines[-1].endswith("left")


def test_a_dumb_terminal_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr("sys.stdout", terminal)
    module = SimpleNamespace(metrics={"kl_per_token": 0.2131, "reward": 0.31, "beta": 1.5})
    trainer = SimpleNamespace(global_step=0, max_steps=20, is_global_zero=True)
    progress = StepProgress(log_every=5)
    progress.on_train_start(trainer, module)
    progress.on_train_batch_start(trainer, module, None, 0)
    trainer.global_step = 1
    progress.on_step_end(trainer, module)
    assert terminal.getvalue().startswith("step 1/20 · ")


def test_the_time_left_follows_from_the_step_time() -> None:
    progress = StepProgress(log_every=1)
    progress.step_seconds = 2.0
    module = SimpleNamespace(metrics={"kl_per_token": 0.0, "reward": 0.0, "beta": 0.0})
    line = progress.describe(SimpleNamespace(global_step=100, max_steps=400), module)
    assert line.startswith("2.00 s/step") and line.endswith("10 min left")


def test_the_step_time_does_not_include_what_comes_before_the_first_step(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([100.0, 102.0, 103.0])  # the first step begins at 100 s and ends at 102 s, the next one at 103 s
    monkeypatch.setattr("qd.callbacks.progress.time.perf_counter", lambda: next(clock))
    module = SimpleNamespace(metrics={"kl_per_token": 0.0, "reward": 0.0, "beta": 0.0})
    trainer = SimpleNamespace(global_step=1, max_steps=9, is_global_zero=False)
    progress = StepProgress(log_every=5)
    progress.on_train_start(trainer, module)
    for seconds in (2.0, 0.9 * 2.0 + 0.1 * 1.0):
        progress.on_train_batch_start(trainer, module, None, 0)
        progress.on_step_end(trainer, module)
        assert progress.step_seconds == pytest.approx(seconds)
