"""The checks of ``qd train`` before a run starts or resumes."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import qd.commands.train_preflight
import qd.evaluation.evaluator
from qd.commands.train import train
from qd.commands.train_preflight import check_points
from qd.config.loading import ConfigError, load_config
from qd.config.train import TrainConfig
from qd.data.prompt_sources import PromptSource
from qd.models.musicgen import MusicGen
from qd.scorers.protocol import Quality
from tests.commands.train_runs import (
    STEPS,
    elsewhere,
)
from tests.locking_process import locked_by_another
from tests.power_scorer import PowerScorer
from tests.runs.full_disk import full_disk

pytestmark = pytest.mark.usefixtures("fake_scorers")


def test_bad_settings_are_an_error_before_the_folder_is_made(run_config: TrainConfig) -> None:
    bad = replace(run_config, beta=-1.0, guidance=replace(run_config.guidance, scale=float("nan")))
    with pytest.raises(ConfigError) as caught:
        train(bad)
    assert {problem.split()[0].split("=")[0] for problem in caught.value.problems} >= {"beta", "guidance.scale"}
    assert not Path(run_config.trainer.runs).exists()


def test_a_clip_without_a_frame_is_an_error_before_the_folder_is_made(run_config: TrainConfig) -> None:
    with pytest.raises(ValueError, match="seconds.*at least"):
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


def test_a_disk_that_is_full_before_the_first_checkpoint_leaves_a_run_to_resume(run_config: TrainConfig) -> None:
    """Its folder exists, so the same command would be refused."""
    run = Path(run_config.trainer.runs) / "x"
    with full_disk(2000), pytest.raises(ValueError, match=f"Free some space.*step 0: make train RESUME={run}"):
        train(run_config)
    assert (run / "config.yaml").is_file() and not (run / "last.ckpt").exists()


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
    monkeypatch.setattr(
        qd.evaluation.evaluator,
        "load_quality",
        lambda *names: Quality(PowerScorer("louder"), PowerScorer("loudness")),
    )
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
        with locked_by_another(place) as other:
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
    with pytest.raises(ValueError, match="different teacher"):
        train(replace(config, model=replace(config.model, name=str(other))), resume=run)


def test_a_resumed_run_needs_only_the_rest_of_its_bytes(
    stopped: tuple[TrainConfig, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    config, run = stopped
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=2**20))
    with pytest.raises(ValueError, match="the rest of the run"):
        train(config, resume=run)
