"""Tiny training runs of the embedder: what they save and log, and how they are interrupted and resumed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from qd.commands.train_embedder import train_embedder
from qd.config.embedder import EmbedderTrainConfig
from qd.config.loading import load_config
from qd.data.recordings import BuiltinRecordings
from qd.models.embedders.audio_vit import AudioViT
from qd.models.embedders.loading import load_embedder
from qd.modules.embedder import EmbedderModule
from tests.modules.tiny_embedder import TINY, tiny_codec, tiny_config


def test_a_run_with_a_codec_saves_a_complete_embedder(tmp_path):
    tiny_codec().save_pretrained(tmp_path / "codec")
    config = tiny_config(tmp_path, "first", f"codec.model={tmp_path / 'codec'}")
    folder = train_embedder(config)
    assert folder == tmp_path / "first" / "embedder"
    assert {path.name for path in folder.iterdir()} == {"config.json", "model.safetensors", "metrics.json", "README.md"}
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["step"] == 3
    assert {f"{variant}/{name}" for variant in ("raw", "codec") for name in ("recall@1", "recall@5", "auc")} < set(
        metrics
    )
    assert 0 <= metrics["codec/recall@1"] <= metrics["codec/recall@5"] <= 1
    trained = load_embedder(tmp_path / "first")
    card = (folder / "README.md").read_text()
    assert "| codec |" in card and f" {sum(p.numel() for p in trained.parameters()):,} parameters" in card
    torch.manual_seed(config.seed)
    untrained = AudioViT(config.model)
    assert trained.config == config.model
    assert not torch.allclose(trained.embed_frame.weight, untrained.embed_frame.weight, atol=1e-4)
    # The saved embedder is the trained one, and the checkpoint does not contain the codec.
    state = torch.load(tmp_path / "first" / "last.ckpt", weights_only=True)["state_dict"]
    assert {name.removeprefix("model.") for name in state} == set(trained.state_dict()) | {"collapsed_steps"}
    assert load_config(EmbedderTrainConfig, "embedder", str(tmp_path / "first" / "config.yaml")) == config
    with pytest.raises(ValueError, match="exists"):
        train_embedder(config)


@pytest.mark.parametrize("step", [2, 3])
def test_interrupted_and_resumed_equals_uninterrupted(tmp_path, monkeypatch, step: int):
    steps = ("trainer.max_steps=5", "trainer.validations=2")  # validates after steps 2 and 4
    whole = train_embedder(tiny_config(tmp_path, "whole", *steps))
    halved = tiny_config(tmp_path, "halved", *steps)

    def interrupt(self, batch, batch_index):
        if self.global_step + 1 == step:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt, match=f"step {step} is saved"):
        patch.setattr(EmbedderModule, "on_train_batch_start", interrupt)
        train_embedder(halved)
    resumed = train_embedder(halved, resume=tmp_path / "halved")
    for file in ("last.ckpt", "best.ckpt"):
        first, second = (torch.load(asset.parent / file, weights_only=True) for asset in (whole, resumed))
        assert first["global_step"] == second["global_step"]
        for name, tensor in first["state_dict"].items():
            assert torch.equal(tensor, second["state_dict"][name]), (file, name)
    metrics = [json.loads((asset / "metrics.json").read_text()) for asset in (whole, resumed)]
    assert metrics[0].pop("train_seconds") > 0 and metrics[1].pop("train_seconds") > 0
    assert metrics[0] == metrics[1]


def test_ctrl_c_in_a_last_step_without_validation_ends_the_run_normally(tmp_path, monkeypatch):
    def interrupt(self, batch, batch_index):
        if self.global_step + 1 == 5:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(EmbedderModule, "on_train_batch_start", interrupt)
    folder = train_embedder(tiny_config(tmp_path, "last", "trainer.max_steps=5", "trainer.validations=2"))
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["step"] in (2, 4) and 0 <= metrics["raw/recall@1"] <= 1
    assert steps_of(tmp_path / "last", "validation/recall@1")[:2] == [2, 4]  # none after Ctrl-C


def test_a_killed_and_resumed_run_logs_each_step_once(tmp_path, monkeypatch):
    """Killed at step 5: the events include step 4, and the checkpoint is that of step 3."""
    settings = ["trainer.max_steps=6", "trainer.validations=2", "trainer.checkpoint_every=3", "trainer.log_every=1"]
    config, run = tiny_config(tmp_path, "killed", *settings), tmp_path / "killed"

    def kill(self, batch, batch_index):
        if self.global_step == 4:
            raise MemoryError

    with monkeypatch.context() as patch, pytest.raises(MemoryError):
        patch.setattr(EmbedderModule, "on_train_batch_start", kill)
        train_embedder(config)
    assert steps_of(run, "train/loss") == [1, 2, 3, 4]
    train_embedder(config, resume=run)
    assert steps_of(run, "train/loss") == [1, 2, 3, 4, 5, 6]
    assert steps_of(run, "validation/recall@1")[:2] == [3, 6]
    events = EventAccumulator(str(run), size_guidance={"histograms": 0}).Reload()  # without a limit of one
    assert [event.step for event in events.Histograms("cosine_raw/same_recording")] == [3, 6]


def steps_of(run: Path, tag: str) -> list[int]:
    return [event.step for event in EventAccumulator(str(run)).Reload().Scalars(tag)]


def test_the_best_step_is_used_even_if_it_came_before_the_interrupt(tmp_path, monkeypatch):
    recalls = iter([0.9, 0.1, 0.5, 0.9])  # at steps 2, 4 and 6, then of the best step

    def score(self):
        self.retrieval["raw"].reset()
        self.log("validation/recall@1", next(recalls))
        self.log_dict({f"validation/raw/{name}": 0.5 for name in ("recall@1", "recall@5", "auc")})

    def interrupt(self, batch, batch_index):
        if self.global_step + 1 == 2:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(EmbedderModule, "on_validation_epoch_end", score)
    config = tiny_config(tmp_path, "best", "trainer.max_steps=6", "trainer.validations=3")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(EmbedderModule, "on_train_batch_start", interrupt)
        train_embedder(config)
    resumed = train_embedder(config, resume=tmp_path / "best")
    assert json.loads((resumed / "metrics.json").read_text())["step"] == 2


def test_histograms_and_projector_are_logged(tmp_path):
    train_embedder(tiny_config(tmp_path, "logged", "trainer.log_every=1", "objective.chunk_clips=3"))
    run = tmp_path / "logged"
    events = EventAccumulator(str(run)).Reload()
    names = {f"cosine_raw/{kind}_recording" for kind in ("same", "different")}
    assert set(events.Tags()["histograms"]) == names
    assert [event.step for event in events.Histograms("cosine_raw/same_recording")] == [3]
    assert events.Histograms("cosine_raw/different_recording")[0].histogram_value.num == 6 * 5
    assert {"train/hard_negative_distance", "validation/raw/recall@5", "validation/raw/auc"} <= set(
        events.Tags()["scalars"]
    )
    (metadata,) = run.glob("*/raw/metadata.tsv")
    rows = [line.split("\t") for line in metadata.read_text().splitlines()]
    recordings = BuiltinRecordings("validation", 0, 0.32)
    assert rows == [["genre", "recording"], *([recordings.genre(i), str(i)] for i in range(6) for _ in range(2))]
    embeddings = np.loadtxt(metadata.with_name("tensors.tsv"))
    assert embeddings.shape == (12, 8)
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-4)
    assert (run / "projector_config.pbtxt").is_file()


def test_a_source_without_recordings_starts_no_run(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty"):
        train_embedder(tiny_config(tmp_path / "runs", "none", f"data.source={tmp_path / 'empty'}"))
    assert not (tmp_path / "runs" / "none").exists()


def test_every_process_needs_held_out_recordings(tmp_path):
    config = tiny_config(tmp_path, "few", "trainer.devices=2", "data.batch_pairs=12")
    with pytest.raises(ValueError, match="6 held-out.*trainer.devices=2.*more than 6"):
        train_embedder(config)
    assert not (tmp_path / "few").exists()


def test_a_folder_of_files_is_a_source(tmp_path):
    music = tmp_path / "music"
    music.mkdir()
    rng = np.random.default_rng(0)
    for number in range(30):
        soundfile.write(music / f"{number}.wav", 0.1 * rng.standard_normal(4 * 16_000), 16_000)
    (music / "broken.wav").write_bytes(b"RIFF")
    source = [f"data.source={music}", "data.validation_share=0.4", "data.validation_pairs=99"]
    folder = train_embedder(tiny_config(tmp_path, "library", *source))
    assert (folder / "model.safetensors").is_file()
    assert json.loads((tmp_path / "library" / "skipped.jsonl").read_text())["path"].endswith("broken.wav")
    # Fewer than 99 recordings are held out: the card counts those that were embedded, two clips each in the projector.
    (metadata,) = (tmp_path / "library").glob("*/raw/metadata.tsv")
    embedded = (len(metadata.read_text().splitlines()) - 1) // 2
    assert 2 <= embedded < 30
    assert f"\n{embedded} recordings of the 40% held out of" in (folder / "README.md").read_text()
    assert json.loads((folder / "metrics.json").read_text())["validation_pairs"] == embedded


@pytest.mark.slow
def test_two_processes_train_the_same_embedder_as_one(tmp_path):
    """Without random augmentation, because every rank draws its own."""
    (tmp_path / "run.py").write_text("import sys\nfrom qd.cli.main import main\nsys.exit(main())\n")
    quiet = ["snr_db_min=200", "snr_db_max=200", "gain_db_min=0", "gain_db_max=0", "tempo_min=1", "tempo_max=1"]
    quiet += ["pitch_semitones_min=0", "pitch_semitones_max=0", "drums_share=0"]
    changes = [*TINY, *(f"augmentation.{setting}" for setting in quiet), "codec.model=null", f"trainer.runs={tmp_path}"]
    changes += ["objective.chunk_clips=3", "data.batch_pairs=8"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    environment.pop("LOCAL_RANK", None)
    for devices in ("1", "2"):
        command = [sys.executable, tmp_path / "run.py", "train-embedder", f"--name={devices}", *changes]
        command.append(f"trainer.devices={devices}")
        subprocess.run(command, env=environment, check=True, timeout=500)
    one, two = (torch.load(tmp_path / name / "last.ckpt", weights_only=True)["state_dict"] for name in ("1", "2"))
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-3, atol=1e-5)
    one, two = (json.loads((tmp_path / name / "embedder" / "metrics.json").read_text()) for name in ("1", "2"))
    assert one | {"train_seconds": 0} == two | {"train_seconds": 0}


@pytest.mark.slow
def test_compiled_and_uncompiled_models_train_alike(tmp_path):
    runs = [
        train_embedder(tiny_config(tmp_path, name, f"trainer.compile={name}", "objective.chunk_clips=3"))
        for name in ("false", "true")
    ]
    states = [torch.load(run.parent / "last.ckpt", weights_only=True)["state_dict"] for run in runs]
    assert states[0].keys() == states[1].keys()
    for name, tensor in states[0].items():
        torch.testing.assert_close(states[1][name], tensor, rtol=1e-3, atol=1e-4)
