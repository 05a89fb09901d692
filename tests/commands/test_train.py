"""Whole runs: their files, and that a killed or interrupted run ends with the result of an uninterrupted one."""

from __future__ import annotations

import csv
import random
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import qd.commands.train_preflight
import qd.evaluation.evaluator
from qd.commands.train import train
from qd.commands.train_preflight import build_module
from qd.config.loading import load_config
from qd.config.train import TrainConfig
from qd.data.prompts import PromptStream
from qd.models.musicgen import MusicGen
from tests.commands.train_runs import (
    STEPS,
    assert_same_outcome,
    finished,
    launch,
    outcome,
    start,
    wait_for,
)

pytestmark = pytest.mark.usefixtures("fake_scorers")


def test_a_run_writes_points_weights_and_a_checkpoint(reference: Path) -> None:
    _, points, state, _ = outcome(reference)
    assert [point["step"] for point in points] == [0, 4, 8]
    assert [path.name for path in sorted(reference.glob("step-*"))] == ["step-000008"]  # keep_weights=1
    assert {name.split(".")[0] for name in state} == {"music", "baseline"}
    saved = MusicGen.load(reference)  # the name of a run means its newest step
    assert torch.equal(saved.lm.decoder.lm_heads[0].weight, state["music.lm.decoder.lm_heads.0.weight"])
    again = load_config(TrainConfig, "train", str(reference / "config.yaml"))
    assert again.name == "x" and again.trainer.max_steps == STEPS


def test_tensorboard_has_the_numbers_of_each_step(reference: Path) -> None:
    events = EventAccumulator(str(reference))
    events.Reload()
    tags = set(events.Tags()["scalars"])
    names = ("loss", "kl", "kl_per_token", "reward", "baseline", "advantage_std", "entropy", "beta", "grad_norm")
    stages = ("rollout", "student", "teacher", "decode", "embed", "backward")
    assert {f"train/{name}" for name in names} | {f"train/seconds_{stage}" for stage in stages} <= tags
    beta = {event.step: event.value for event in events.Scalars("train/beta")}
    assert beta == {1: 0, 2: 25, 3: 50, 4: 75, **{step: 100 for step in range(5, STEPS + 1)}}


def test_every_logger_has_the_numbers_of_each_step(reference: Path) -> None:
    with (reference / "csv" / "version_0" / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["train/beta"]) for row in rows if row["train/beta"]] == [0, 25, 50, 75, *[100] * (STEPS - 4)]
    assert [int(row["step"]) for row in rows if row["eval/quality"]] == [0, 4, 8]


def test_the_card_of_the_last_step_has_its_measurement(reference: Path) -> None:
    card = (reference / f"step-{STEPS:06d}" / "README.md").read_text(encoding="utf-8")
    measured = outcome(reference)[1][-1]
    assert f"| step {STEPS} | {measured['quality']:.3f} [{measured['quality_lo']:.3f}, " in card
    assert "pipeline_tag: text-to-audio" in card


def test_the_final_micro_batch_had_the_prompts_of_its_step(run_config: TrainConfig, reference: Path) -> None:
    """A micro-batch of 4 sequences is one prompt with 4 samples: step s uses the prompts 2s and 2s + 1."""
    baseline = torch.load(reference / "last.ckpt", weights_only=True)["state_dict"]["baseline.prompt_weight"]
    stream = PromptStream(run_config.data.prompts, run_config.seed)
    assert baseline.count_nonzero() == len({stream[position] for position in range(2 * STEPS)})


def kill_and_resume(config: TrainConfig, seed: int) -> Path:
    """Kills the run at a random step and a random moment within it, then resumes it."""
    draw = random.Random(seed)
    step, delay = draw.randint(2, STEPS - 1), draw.uniform(0, 0.3)
    print(f"seed {seed}: killed {delay:.3f} s after step {step}")
    process = start(config, "--hold")
    wait_for(process, f"step {step}/")
    time.sleep(delay)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    run = Path(config.trainer.runs) / "x"
    resumed = torch.load(run / "last.ckpt", weights_only=True)["global_step"]
    print(f"resumed from step {resumed}")
    assert step - 2 <= resumed < STEPS
    return finished(launch("--resume", str(run)), run)


def test_a_killed_run_ends_bitwise_equal(run_config: TrainConfig, reference: Path) -> None:
    assert_same_outcome(kill_and_resume(run_config, seed=0), reference)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 7))
def test_a_run_killed_anywhere_ends_bitwise_equal(run_config: TrainConfig, reference: Path, seed: int) -> None:
    assert_same_outcome(kill_and_resume(run_config, seed), reference)


def test_a_run_killed_before_its_first_checkpoints_ends_bitwise_equal(run_config: TrainConfig, reference: Path) -> None:
    """Killed without a checkpoint, then with that of step 0."""
    run, process = Path(run_config.trainer.runs) / "x", start(run_config, "--hold-checkpoint")
    wait_for(process, "held")
    process.kill()
    process.communicate()
    assert (run / "config.yaml").is_file() and not (run / "last.ckpt").exists()
    process = launch("--resume", str(run), "--hold-step")
    wait_for(process, "held")
    process.kill()
    process.communicate()
    assert torch.load(run / "last.ckpt", weights_only=True)["global_step"] == 0
    assert_same_outcome(finished(launch("--resume", str(run)), run), reference)


@pytest.mark.parametrize("number", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGTERM])
def test_a_signal_saves_says_how_to_continue_and_sets_the_status(
    run_config: TrainConfig, reference: Path, number: int
) -> None:
    process = start(run_config)
    wait_for(process, "step 3/")
    process.send_signal(number)
    _, errors = process.communicate(timeout=120)
    run = Path(run_config.trainer.runs) / "x"
    assert process.returncode == 128 + number, errors
    assert f"make train RESUME={run}" in errors
    saved = torch.load(run / "last.ckpt", weights_only=True)["global_step"]
    assert f"step {saved} is saved" in errors
    assert 3 <= saved < STEPS
    assert_same_outcome(finished(launch("--resume", str(run)), run), reference)


def test_a_dry_run_of_several_ranks_is_one_process(run_config: TrainConfig, capsys: pytest.CaptureFixture[str]) -> None:
    """With one prompt per rank, the mean of the other prompts comes from the other ranks."""
    config = replace(run_config, objective=replace(run_config.objective, baseline="other_prompts"))
    config = replace(config, trainer=replace(config.trainer, devices=2))
    assert config.problems() == []
    train(config, dry_run=True)
    assert "ranks: 2\n" in capsys.readouterr().out


def test_a_dry_run_writes_nothing(run_config: TrainConfig, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(run_config, dry_run=True) is None
    assert not Path(run_config.trainer.runs).exists()
    printed = capsys.readouterr().out
    assert "samples_per_prompt: 4" in printed
    assert f"evaluation.prompts: prompt file {run_config.evaluation.prompts!r}: 2 prompts\n" in printed
    assert all(need in printed for need in ("time: ", "memory: ", "disk: "))


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_run_trains_in_each_precision(run_config: TrainConfig, precision: str) -> None:
    trainer = replace(run_config.trainer, precision=precision, max_steps=2)
    module, _ = build_module(replace(run_config, trainer=trainer))
    attention = {"32-true": "sdpa", "bf16-mixed": "eager"}  # of the trained model, on a CPU
    assert module.music.lm.decoder.config._attn_implementation == attention[precision]
    run = train(replace(run_config, trainer=trainer))
    before, after = (
        load_file(folder / "decoder/model.safetensors") for folder in (Path(run_config.model.name), run / "step-000002")
    )
    assert all(torch.isfinite(weights).all() for weights in after.values())
    assert any(not torch.equal(before[name], after[name]) for name in after)


def test_auto_precision_is_resolved_at_the_start(
    run_config: TrainConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    auto = replace(run_config, trainer=replace(run_config.trainer, precision="auto"))
    for precision in ("32-true", "bf16-mixed"):
        monkeypatch.setattr(qd.commands.train_preflight, "fast_precision", lambda device, fastest=precision: fastest)
        train(auto, dry_run=True)
        assert f"precision: {precision}\n" in capsys.readouterr().out
