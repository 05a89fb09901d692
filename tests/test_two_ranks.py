"""Whole runs of two processes on the CPU: same results as one process with the same batch; signals stop both."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from qd.config.loading import to_yaml
from qd.config.policy import LoraConfig
from qd.config.train import TrainConfig
from qd.models.musicgen import MusicGen
from tests.compare_runs import (
    assert_same_run,
    assert_same_steps,
    assert_same_weights,
    checkpoint,
    files,
    points,
)
from tests.processes import ROOT, ended, launch

WORKER = ROOT / "tests" / "tiny_run.py"
STEPS = 4
LONG = 60
Config = Callable[..., TrainConfig]


@pytest.fixture
def run_config(tiny_config: Config, tmp_path: Path) -> TrainConfig:
    """Four steps, each of two micro-batches with two prompts over all ranks; an odd number of evaluation prompts."""
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a calm piano piece\nfast drums\nslow strings\n", encoding="utf-8")
    return tiny_config(
        "name=x",
        "beta=100",
        "objective.beta_ramp_steps=2",
        "objective.baseline=prompt_moving_average",
        "optimizer.learning_rate=1e-3",
        "data.batch_size=16",
        "data.micro_batch_size=4",
        "evaluation.every=2",
        f"evaluation.prompts={prompts}",
        "evaluation.n_prompts=3",
        "evaluation.n_samples=2",
        "evaluation.audio_prompts=2",
        f"trainer.max_steps={STEPS}",
        "trainer.log_every=1",
        "trainer.checkpoint_every=2",
        "trainer.save_weights_every=4",
    )


def changed(config: TrainConfig, runs: Path, **trainer: Any) -> TrainConfig:
    return replace(config, trainer=replace(config.trainer, runs=str(runs), **trainer))


def start(config: TrainConfig, *options: str) -> subprocess.Popen[str]:
    """Starts the run in its own process group, as a terminal does."""
    path = Path(config.trainer.runs).with_suffix(".yaml")
    path.write_text(to_yaml(config), encoding="utf-8")
    return launch([sys.executable, str(WORKER), "train", "--config", str(path), *options])


def finished(config: TrainConfig, *options: str) -> Path:
    process = start(config, *options)
    output = ended(process)
    assert process.returncode == 0, output
    return Path(config.trainer.runs) / "x"


WAYS = {"one": {"devices": 1}, "ddp": {"devices": 2}, "fsdp": {"devices": 2, "strategy": "fsdp"}}


def run_of(config: TrainConfig, folder: Path, way: str, *options: str) -> Path:
    return finished(changed(config, folder / way, **WAYS[way]), *options)


def assert_same_as_one_process(one: Path, two: Path) -> None:
    assert_same_run(one, two)
    assert_same_steps(one, two)
    assert files(two) == files(one)  # only the first rank has written
    weights, saved = MusicGen.load(two / "step-000004").lm.state_dict(), checkpoint(two)["state_dict"]
    trained = [name for name in saved if name.startswith("music.lm.")]
    assert trained
    for name in trained:
        if (loaded := weights.get(name.removeprefix("music.lm."))) is not None:  # adapters are merged in the folder
            torch.testing.assert_close(loaded, saved[name], rtol=0, atol=0)


def test_two_processes_give_the_results_of_one(run_config: TrainConfig, tmp_path: Path) -> None:
    one, two = (run_of(run_config, tmp_path, way, "--see") for way in ("one", "ddp"))
    assert_same_as_one_process(one, two)


@pytest.mark.slow
@pytest.mark.parametrize("baseline", ["prompt_moving_average", "value_head"])
def test_two_processes_with_sharded_weights_give_the_results_of_one(
    run_config: TrainConfig, tmp_path: Path, baseline: str
) -> None:
    objective = replace(run_config.objective, baseline=baseline)
    model = replace(run_config.model, gradient_checkpointing=baseline == "value_head")
    config = replace(run_config, objective=objective, model=model)
    one, two = (
        run_of(config, tmp_path, way, *(["--see"] if baseline != "value_head" else [])) for way in ("one", "fsdp")
    )
    assert_same_run(one, two)
    if baseline != "value_head":
        assert_same_as_one_process(one, two)


@pytest.mark.slow
def test_the_other_prompts_baseline_uses_the_micro_batch_of_all_ranks(run_config: TrainConfig, tmp_path: Path) -> None:
    """Logged values of a micro-batch differ, because one of the two is twice as large."""
    config = replace(run_config, objective=replace(run_config.objective, baseline="other_prompts"))
    larger = replace(config, data=replace(config.data, micro_batch_size=2 * config.data.micro_batch_size))
    assert_same_weights(run_of(larger, tmp_path, "one"), run_of(config, tmp_path, "ddp"))


@pytest.mark.slow
def test_two_processes_train_adapters_as_one_does(run_config: TrainConfig, tmp_path: Path) -> None:
    config = replace(run_config, model=replace(run_config.model, lora=LoraConfig(rank=2, alpha=4.0)))
    one, two = (run_of(config, tmp_path, way, "--see") for way in ("one", "ddp"))
    assert_same_as_one_process(one, two)
    adapters = (load_file(run / "step-000004" / "adapter" / "adapter_model.safetensors") for run in (one, two))
    torch.testing.assert_close(*adapters, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("way", "then"), [("fsdp", "fsdp"), ("fsdp", "one"), ("ddp", "fsdp")])
def test_a_run_resumes_with_another_strategy(run_config: TrainConfig, tmp_path: Path, way: str, then: str) -> None:
    whole = run_of(run_config, tmp_path, "one")
    begun = finished(changed(run_config, tmp_path / "begun", max_steps=2, **WAYS[way]))
    settings = [f"trainer.{key}={value}" for key, value in ({"strategy": "ddp"} | WAYS[then]).items()]
    resumed = launch(
        [sys.executable, str(WORKER), "train", "--resume", str(begun), f"trainer.max_steps={STEPS}", *settings]
    )
    output = ended(resumed)
    assert resumed.returncode == 0, output
    assert_same_run(whole, begun)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("way", "number", "send"), [("ddp", signal.SIGTERM, os.kill), ("fsdp", signal.SIGINT, os.killpg)]
)
def test_a_signal_stops_both_ranks_and_the_run_resumes(
    run_config: TrainConfig, tmp_path: Path, way: str, number: int, send: Callable[[int, int], None]
) -> None:
    """A terminal signals all processes of the group, `kill` only the first one."""
    # Long enough to be stopped before it is over: its steps take milliseconds.
    long = replace(run_config, evaluation=replace(run_config.evaluation, every=LONG))
    whole = finished(changed(long, tmp_path / "whole", max_steps=LONG, **WAYS[way]))
    config = changed(long, tmp_path / "stopped", max_steps=LONG, **WAYS[way])
    process = start(config)
    for line in process.stdout:
        if line.startswith("step 1/"):
            break
    send(process.pid, number)
    _, errors = ended(process)
    run = tmp_path / "stopped" / "x"
    assert process.returncode == 128 + number, errors
    assert errors.count("make train RESUME=") == 1
    assert checkpoint(run)["global_step"] < LONG
    resumed = launch([sys.executable, str(WORKER), "train", "--resume", str(run)])
    output = ended(resumed)
    assert resumed.returncode == 0, output
    assert_same_run(whole, run, (0, LONG))


@pytest.mark.slow
@pytest.mark.parametrize("rank", ["0", "1"])
@pytest.mark.parametrize("what", ["nan", "error"])
@pytest.mark.parametrize("way", ["ddp", "fsdp"])
def test_a_failure_on_one_rank_ends_both(
    run_config: TrainConfig, tmp_path: Path, rank: str, what: str, way: str
) -> None:
    config = changed(run_config, tmp_path / "failing", **WAYS[way])
    process = start(config, f"--{what}={rank}")
    _, errors = ended(process)
    assert process.returncode not in (0, 130)
    if what == "nan":
        assert process.returncode == 1, errors
        assert errors.count("the loss is nan. Prompts:") == 1, errors
    else:
        assert "made to fail" in errors


@pytest.mark.slow
def test_torchrun_starts_a_run(run_config: TrainConfig, tmp_path: Path) -> None:
    config = changed(run_config, tmp_path / "torchrun", devices=2, max_steps=2)
    path = tmp_path / "torchrun.yaml"
    path.write_text(to_yaml(config), encoding="utf-8")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    process = launch([*torchrun, str(WORKER), "train", "--config", str(path)])
    output = ended(process)
    assert process.returncode == 0, output
    assert output[0].count("run folder: ") == 1
    assert [point["step"] for point in points(tmp_path / "torchrun" / "x")] == [0, 2]


@pytest.mark.slow
def test_torchrun_reports_a_bad_config_once() -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    process = launch([*torchrun, "-m", "qd", "train", "--name=x", "--beta=-1", "trainer.device=cpu"])
    _, errors = ended(process)
    assert process.returncode != 0
    assert errors.count("qd train: ") == errors.count("beta is -1.0") == 1, errors
