"""Runs whose checkpoint is damaged, and runs whose output nobody reads."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from qd.commands.train import train
from qd.commands.train_embedder import train_embedder
from qd.config.policy import LoraConfig
from qd.config.train import TrainConfig
from qd.models.musicgen import MusicGen
from tests.commands.train_runs import start
from tests.modules.tiny_embedder import tiny_config as tiny_embedder_config

pytestmark = pytest.mark.usefixtures("fake_scorers")


def short(config: TrainConfig, **changes: object) -> TrainConfig:
    return replace(
        config, trainer=replace(config.trainer, max_steps=2, save_weights_every=1, keep_weights=None), **changes
    )


def longer(config: TrainConfig) -> TrainConfig:
    return replace(config, trainer=replace(config.trainer, max_steps=3))


def steps(run: Path) -> list[str]:
    return sorted(path.name for path in run.glob("step-*"))


@pytest.mark.parametrize("lora", [None, LoraConfig(rank=2, alpha=4.0)], ids=["all weights", "adapters"])
def test_a_damaged_checkpoint_is_named_and_the_newest_good_step_folder_replaces_it(
    run_config: TrainConfig, lora: LoraConfig | None
) -> None:
    config = short(run_config, model=replace(run_config.model, lora=lora))
    run = train(config)
    (run / "last.ckpt").write_bytes(b"PK")
    weights = run / "step-000002" / ("adapter/adapter_model.safetensors" if lora else "decoder/model.safetensors")
    weights.write_bytes(weights.read_bytes()[:-100])  # the newest step folder is damaged too
    with pytest.raises(
        ValueError, match=r"last\.ckpt' is cut.*step-000001.*optimiser.*--recover \(RECOVER=1"
    ) as caught:
        train(longer(config), resume=run)
    assert "\n" not in str(caught.value)
    before = MusicGen.load(run / "step-000001").lm.state_dict()
    train(longer(config), resume=run, recover=True)
    assert (run / "last.ckpt.damaged").read_bytes() == b"PK"
    assert torch.load(run / "last.ckpt", weights_only=True)["global_step"] == 3
    assert steps(run) == ["step-000001", "step-000002", "step-000003"]
    after = MusicGen.load(run / "step-000002").lm.state_dict()
    moved = max(float((after[name] - before[name]).abs().max()) for name in before)
    assert 0 < moved < 0.01  # one step of AdamW with the learning rate 0.001, from the weights of step 1


@pytest.mark.parametrize("baseline", ["value_head", "none"])
@pytest.mark.parametrize("lora", [None, LoraConfig(rank=2, alpha=4.0)], ids=["all weights", "adapters"])
def test_a_good_checkpoint_of_each_kind_of_run_is_not_called_damaged(
    run_config: TrainConfig, baseline: str, lora: LoraConfig | None
) -> None:
    objective = replace(run_config.objective, baseline=baseline)
    config = short(run_config, objective=objective, model=replace(run_config.model, lora=lora), beta=0.0)
    run = train(config)
    train(longer(config), resume=run)
    assert torch.load(run / "last.ckpt", weights_only=True)["global_step"] == 3


def test_without_a_good_step_folder_the_way_out_is_to_start_again(run_config: TrainConfig) -> None:
    config = short(run_config)
    run = train(config)
    for folder in run.glob("step-*"):
        shutil.rmtree(folder / "decoder")
    for damage in (lambda file: file.write_bytes(b""), lambda file: (file.unlink(), file.mkdir())):
        damage(run / "last.ckpt")
        with pytest.raises(ValueError, match=r"last\.ckpt.*remove .*last\.ckpt.*step 0"):
            train(longer(config), resume=run, recover=True)


def test_a_lost_checkpoint_does_not_restart_a_run_with_step_folders(run_config: TrainConfig) -> None:
    config = short(run_config)
    run = train(config)
    (run / "last.ckpt").unlink()
    with pytest.raises(ValueError, match=r"last\.ckpt' is missing.*step-000002.*--recover"):
        train(longer(config), resume=run)


def test_an_embedder_goes_on_from_its_best_checkpoint(tmp_path: Path) -> None:
    config = tiny_embedder_config(tmp_path, "e", "trainer.max_steps=3", "trainer.validations=3")
    run = train_embedder(config).parent
    (run / "last.ckpt").write_bytes(b"")
    with pytest.raises(ValueError, match=r"last\.ckpt' is empty.*best\.ckpt.*--recover"):
        train_embedder(config, resume=run)
    assert train_embedder(config, resume=run, recover=True) == run / "embedder"
    assert (run / "last.ckpt.damaged").is_file()
    assert torch.load(run / "last.ckpt", weights_only=True)["global_step"] == 3


def test_a_run_goes_on_if_nobody_reads_its_output_and_no_letter_fits(run_config: TrainConfig, monkeypatch) -> None:
    """``make train | head`` in a terminal that is not UTF-8: the lines contain β."""
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    process = start(short(run_config))
    line = next(line for line in process.stdout if line.startswith("step 1/"))
    assert "\\u03b2" in line
    process.stdout.close()
    process.wait(timeout=300)
    assert process.returncode == 0, process.stderr.read()
    assert "step-000002" in steps(Path(run_config.trainer.runs) / "x")
