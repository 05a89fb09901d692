"""Whole runs: their files, and that a killed or interrupted run ends with the result of an uninterrupted one."""

from __future__ import annotations

import csv
import json
import random
import runpy
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import qd.commands.train_preflight
import qd.evaluation.evaluator
from qd.commands.train import train
from qd.commands.train_preflight import build_module, check_points
from qd.config.loading import ConfigError, load_config, to_yaml
from qd.config.train import TrainConfig
from qd.data.prompt_sources import PromptSource
from qd.data.prompts import PromptStream
from qd.models.musicgen import MusicGen
from qd.scorers.protocol import Quality
from tests.held_place import written_by_another

STEPS = 8
WORKER = Path(__file__).parents[1] / "tiny_run.py"
Loudness = runpy.run_path(str(WORKER))["Loudness"]
Config = Callable[..., TrainConfig]


@pytest.fixture(autouse=True)
def fake_scorers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qd.evaluation.evaluator, "load_quality", runpy.run_path(str(WORKER))["stand_in_quality"])


@pytest.fixture
def run_config(tiny_config: Config, tmp_path: Path) -> TrainConfig:
    """Eight steps; a point every 4, a checkpoint every 2, two micro-batches a step, a baseline with a state."""
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a calm piano piece\nfast drums\n", encoding="utf-8")
    return tiny_config(
        "name=x",
        "beta=100",
        "objective.beta_ramp_steps=4",
        "objective.baseline=prompt_moving_average",
        "optimizer.learning_rate=1e-3",
        "data.batch_size=8",
        "data.micro_batch_size=4",
        "evaluation.every=4",
        f"evaluation.prompts={prompts}",
        "evaluation.n_prompts=2",
        "evaluation.n_samples=2",
        "evaluation.audio_prompts=1",
        f"trainer.max_steps={STEPS}",
        "trainer.loggers=[tensorboard,csv]",
        "trainer.log_every=1",
        "trainer.checkpoint_every=2",
        "trainer.save_weights_every=4",
        "trainer.keep_weights=1",
    )


def elsewhere(config: TrainConfig, folder: Path) -> TrainConfig:
    return replace(config, trainer=replace(config.trainer, runs=str(folder)))


def outcome(run: Path) -> tuple[dict, list[dict], dict, dict]:
    """Final weights, points without wall times and paths, the state of the module and of the optimiser."""
    weights = load_file(run / f"step-{STEPS:06d}" / "decoder" / "model.safetensors")
    rows = [json.loads(line) for line in (run / "points.jsonl").read_text().splitlines()]
    points = [{k: v for k, v in row.items() if k not in ("seconds", "model")} for row in rows]
    checkpoint = torch.load(run / "last.ckpt", weights_only=True)
    return weights, points, checkpoint["state_dict"], checkpoint["optimizer_states"][0]["state"]


def assert_same_outcome(run: Path, other: Path) -> None:
    (weights, points, state, moments), (weights_, points_, state_, moments_) = outcome(run), outcome(other)
    for mine, theirs in ((weights, weights_), (state, state_)):
        assert mine.keys() == theirs.keys()
        assert [name for name in mine if not torch.equal(mine[name], theirs[name])] == []
    assert points == points_
    assert all(torch.equal(value, moments_[p][k]) for p, values in moments.items() for k, value in values.items())


def start(config: TrainConfig, *options: str) -> subprocess.Popen[str]:
    """Starts the run as a process; it prints a line for each step."""
    path = Path(config.trainer.runs).with_suffix(".yaml")
    path.write_text(to_yaml(config), encoding="utf-8")
    return launch("--config", str(path), *options)


def launch(*options: str) -> subprocess.Popen[str]:
    """Starts ``qd train`` with these options.

    Compared runs are processes of their own: threads and memory of other tests may change the last bit of a sum.
    """
    code = f"import sys, torch, runpy; torch.set_num_threads({torch.get_num_threads()}); sys.argv = sys.argv[1:]; "
    code += "sys.path.insert(0, '.'); runpy.run_path(sys.argv[0], run_name='__main__')"
    command = [sys.executable, "-c", code, str(WORKER), "train", *options]
    root = WORKER.parents[1]
    return subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(process: subprocess.Popen[str], text: str) -> None:
    for line in process.stdout:
        if line.startswith(text):
            return
    raise AssertionError(f"the run ended before {text!r}: {process.stderr.read()}")


def finished(process: subprocess.Popen[str], run: Path) -> Path:
    """Waits for the end of the run; returns the run folder."""
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return run


@pytest.fixture(scope="session")
def cache() -> dict[str, Path]:
    """Holds the folder of the uninterrupted run, once a test has made it."""
    return {}


@pytest.fixture
def reference(
    run_config: TrainConfig, cache: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    if "run" not in cache:
        config = elsewhere(run_config, tmp_path_factory.mktemp("uninterrupted"))
        cache["run"] = finished(start(config), Path(config.trainer.runs) / "x")
    return cache["run"]


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


def test_ctrl_c_saves_says_how_to_continue_and_exits_with_130(run_config: TrainConfig, reference: Path) -> None:
    process = start(run_config)
    wait_for(process, "step 3/")
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    run = Path(run_config.trainer.runs) / "x"
    assert process.returncode == 130, errors
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


def test_bad_settings_are_an_error_before_the_folder_is_made(run_config: TrainConfig) -> None:
    bad = replace(run_config, beta=-1.0, guidance=replace(run_config.guidance, scale=float("nan")))
    with pytest.raises(ConfigError) as caught:
        train(bad)
    assert {problem.split()[0].split("=")[0] for problem in caught.value.problems} >= {"beta", "guidance.scale"}
    assert not Path(run_config.trainer.runs).exists()


def test_a_clip_without_a_frame_is_an_error_before_the_folder_is_made(run_config: TrainConfig) -> None:
    with pytest.raises(ValueError, match="seconds"):
        train(replace(run_config, rollout=replace(run_config.rollout, seconds=1e-3)))
    assert not Path(run_config.trainer.runs).exists()


def test_prompts_that_are_too_long_are_an_error_before_the_folder_is_made(
    run_config: TrainConfig, tmp_path: Path
) -> None:
    long = tmp_path / "long.txt"
    long.write_text(f"calm\n{'x' * 600}\n", encoding="utf-8")
    bad = replace(run_config, data=replace(run_config.data, prompts=[PromptSource("text", str(long))]))
    with pytest.raises(ConfigError, match=r"data.prompts\[0\]: .*long.txt': 1 too long .* 512 .*line 2 \(601\)"):
        train(bad)
    assert not Path(run_config.trainer.runs).exists()


def test_a_run_that_exists_is_not_overwritten(run_config: TrainConfig, reference: Path) -> None:
    with pytest.raises(ValueError, match="exists already"):
        train(elsewhere(run_config, reference.parent))


def test_a_full_disk_is_an_error_before_the_folder_is_made(
    run_config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=2**20))
    with pytest.raises(ValueError, match="the run needs .* 0.00 GiB free"):
        train(run_config)
    assert not Path(run_config.trainer.runs).exists()


def test_missing_scorers_are_an_error_before_the_folder_is_made(
    run_config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*names: object) -> None:
        raise ValueError("checkpoint folder 'adherence' is incomplete")

    monkeypatch.setattr(qd.evaluation.evaluator, "load_quality", missing)
    with pytest.raises(ValueError, match="adherence"):
        train(run_config)
    assert not Path(run_config.trainer.runs).exists()


def test_an_incomplete_model_is_listed_with_the_other_problems(run_config: TrainConfig, tiny_model: Path) -> None:
    broken = shutil.copytree(tiny_model, Path(run_config.trainer.runs).with_name("broken"))
    (broken / "decoder" / "model.safetensors").unlink()
    bad = replace(run_config, beta=-1.0, model=replace(run_config.model, name=str(broken)))
    with pytest.raises(ConfigError) as caught:
        train(bad)
    assert len(caught.value.problems) == 2
    assert "decoder/model.safetensors is missing" in str(caught.value)


@pytest.fixture
def stopped(run_config: TrainConfig, reference: Path, tmp_path: Path) -> tuple[TrainConfig, Path]:
    """A run to resume, and its config: a copy of the reference."""
    run = shutil.copytree(reference, tmp_path / "runs" / "x")
    return load_config(TrainConfig, "train", str(run / "config.yaml")), run


def state_of(run: Path) -> dict[str, bytes]:
    """File contents by path, without logs and without the lock of a killed process."""
    files = [path for path in run.rglob("*") if path.is_file() and path.suffix != ".lock"]
    return {str(path): path.read_bytes() for path in files if "events" not in path.name}


def test_a_run_whose_next_points_would_not_be_comparable_does_not_resume(
    stopped: tuple[TrainConfig, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    config, run = stopped
    before = state_of(run)
    monkeypatch.setattr(qd.evaluation.evaluator, "load_quality", lambda *names: Quality(Loudness("louder"), Loudness()))
    with pytest.raises(ValueError, match="'x' .*scorers '5.loudness@1.*', now '5.louder@1"):
        train(config, resume=run)
    fewer = replace(config, evaluation=replace(config.evaluation, n_samples=3))
    with pytest.raises(ValueError, match="protocol 'quick-2x2.*', now 'quick-2x3.*; scorers "):
        train(fewer, resume=run)
    assert state_of(run) == before


def test_a_dry_run_of_a_resumed_run_reports_the_remaining_steps(
    stopped: tuple[TrainConfig, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    config, run = stopped
    before, done = state_of(run), config.trainer.max_steps
    longer = replace(config, trainer=replace(config.trainer, max_steps=done + 3))
    train(longer, resume=run, dry_run=True)
    assert f"steps: 3 of {done + 3} left\n" in capsys.readouterr().out
    assert state_of(run) == before


def test_a_run_has_one_writer(stopped: tuple[TrainConfig, Path]) -> None:
    config, run = stopped
    before = state_of(run)
    longer = replace(config, trainer=replace(config.trainer, max_steps=config.trainer.max_steps + 1))
    for place in (run, run / "points.jsonl"):  # another run, or a measurement into the run's points
        with written_by_another(place) as other:
            with pytest.raises(ValueError, match=f"{place}.* process {other.pid} "):
                train(longer, resume=run)
            train(longer, resume=run, dry_run=True)
    assert state_of(run) == before


def test_a_resumed_run_needs_enough_steps(stopped: tuple[TrainConfig, Path]) -> None:
    config, run = stopped
    before, done = state_of(run), config.trainer.max_steps
    shorter = replace(config, trainer=replace(config.trainer, max_steps=done - 1))
    with pytest.raises(ValueError, match=f"max_steps is {done - 1}, .*x' has {done} steps; expected {done} "):
        train(shorter, resume=run)
    assert state_of(run) == before


def test_points_after_the_checkpoint_do_not_count(stopped: tuple[TrainConfig, Path]) -> None:
    """A resumed run measures them again."""
    _, run = stopped
    rows = [json.loads(line) for line in (run / "points.jsonl").read_text().splitlines()]
    rows[-1]["protocol"] = "paper"
    (run / "points.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    scorers, protocol = rows[0]["scorers"], rows[0]["protocol"]
    evaluator = SimpleNamespace(
        protocol=SimpleNamespace(id=protocol), evaluation_models=SimpleNamespace(description=scorers)
    )
    check_points(run, STEPS - 1, evaluator)
    with pytest.raises(ValueError, match="protocol 'paper'"):
        check_points(run, STEPS, evaluator)


def test_a_run_does_not_resume_with_another_teacher(stopped: tuple[TrainConfig, Path], tmp_path: Path) -> None:
    config, run = stopped
    other = shutil.copytree(config.model.name, tmp_path / "other")
    music = MusicGen.load(other)
    with torch.no_grad():
        music.lm.decoder.lm_heads[0].weight.add_(1e-3)
    shutil.rmtree(other)
    music.save(other)
    before = torch.load(run / "last.ckpt", weights_only=True)["frozen"]
    assert before.keys() == {"teacher", "text encoder", "codec", "reward embedder"}
    with pytest.raises(ValueError, match="another teacher"):
        train(replace(config, model=replace(config.model, name=str(other))), resume=run)


def test_a_resumed_run_needs_only_the_rest_of_its_bytes(
    stopped: tuple[TrainConfig, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    config, run = stopped
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=2**20))
    with pytest.raises(ValueError, match="the rest of the run"):
        train(config, resume=run)
