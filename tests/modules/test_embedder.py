"""Training the embedder: real tiny runs, and the parts of a step."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from qd.config import ConfigError, load_config
from qd.models.audio_vit import AudioViT, AudioViTConfig
from qd.models.codec import CodecConfig, FrameCodec
from qd.models.embedder import load_embedder
from qd.modules.embedder import (
    CodecRoundTrip,
    CollapseError,
    EmbedderModule,
    mean_pairwise_cosine,
)
from qd.modules.embedder_config import EmbedderTrainConfig
from qd.train_embedder import train_embedder

TINY = [
    "model.clip_seconds=0.32",
    "model.layers=1",
    "model.width=16",
    "model.heads=2",
    "model.head_dim=8",
    "model.mlp_width=16",
    "model.n_mels=16",
    "model.embedding_width=8",
    "data.batch_pairs=4",
    "data.validation_pairs=6",
    "data.workers=0",
    "trainer.device=cpu",
    "trainer.precision=32-true",
    "trainer.validations=1",
    "trainer.max_steps=3",
    "optimizer.warmup_steps=1",
]


def tiny_config(runs: Path, name: str, *changes: str) -> EmbedderTrainConfig:
    run = [f"trainer.runs={runs}", f"name={name}", "codec.model=null"]
    return load_config(EmbedderTrainConfig, "embedder", None, [*TINY, *run, *changes])


def tiny_codec() -> FrameCodec:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        shape = {"n_mels": 16, "width": 8, "latent_width": 4, "codebook_size": 16, "codebooks": 2}
        return FrameCodec(CodecConfig(**shape, encoder_depths=(1, 1), decoder_depths=(1, 1)))


def bare_module(config: EmbedderTrainConfig, **parts: object) -> EmbedderModule:
    torch.manual_seed(0)
    return EmbedderModule(AudioViT(config.model), config, **parts)


def test_run_with_codec_leaves_a_finished_embedder(tmp_path):
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
    assert "| codec |" in (folder / "README.md").read_text()
    trained = load_embedder(tmp_path / "first")
    torch.manual_seed(config.seed)
    untrained = AudioViT(config.model)
    assert trained.config == config.model
    assert not torch.allclose(trained.embed_frame.weight, untrained.embed_frame.weight, atol=1e-4)
    # What is saved is what was trained: the checkpoint holds no codec.
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
    with pytest.raises(ValueError, match="no last.ckpt"):
        train_embedder(halved, resume=tmp_path / "halved")

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


def test_the_best_step_is_kept_even_if_it_came_before_the_interrupt(tmp_path, monkeypatch):
    recalls = iter([0.9, 0.1, 0.5, 0.9])  # steps 2, 4 and 6, then the look at the best

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


def test_all_problems_are_told_at_once(tmp_path):
    config = tiny_config(tmp_path, "bad")
    config.data.batch_pairs = 1
    config.data.train_split = "trian"
    config.codec.share = 1.5
    config.objective.negatives = "some"
    config.optimizer.learning_rate = float("nan")
    config.optimizer.warmup_steps = 9
    config.augmentation.snr_db_min = 60.0
    config.model.sample_rate = 24_000
    named = ("pairs is 1", "'trian'", "share is 1.5", "'some'", "rate is nan", "warmup_steps is 9", "snr_db_min is 60")
    with pytest.raises(ConfigError) as caught:
        train_embedder(config)
    assert len(caught.value.problems) == len(named) + 1
    assert all(name in str(caught.value) for name in (*named, "sample_rate is 24000"))
    assert not list(tmp_path.iterdir())


def test_a_seeded_half_of_the_clips_goes_through_the_codec(tmp_path):
    module = bare_module(tiny_config(tmp_path, "half"), round_trip=lambda audio: -audio)
    audio = torch.arange(1.0, 11.0)[:, None].expand(10, 4)

    def changed(seed: int) -> list[int]:
        heard = module._through_codec(audio, torch.Generator().manual_seed(seed))
        assert torch.equal(heard.abs(), audio)
        return (heard[:, 0] < 0).nonzero().flatten().tolist()

    assert len(changed(0)) == 5
    assert changed(0) == changed(0) != changed(1)
    assert {clip for seed in range(20) for clip in changed(seed)} == set(range(10))


def test_round_trip_keeps_the_shape_and_gives_no_gradient():
    codec = tiny_codec()
    round_trip = CodecRoundTrip(codec)
    audio = torch.randn(2, 1000, generator=torch.Generator().manual_seed(0)).requires_grad_()
    heard = round_trip(audio)
    assert heard.shape == (2, 1000) and not heard.requires_grad
    assert torch.equal(heard, codec.decode(codec.encode(audio))[:, :1000])
    assert round_trip(audio[:0]).shape == (0, 1000)


def test_collapse_is_named_after_50_steps_in_a_row(tmp_path):
    module = bare_module(tiny_config(tmp_path, "collapse"))
    equal = F.normalize(torch.ones(6, 4), dim=1)
    apart = F.normalize(torch.eye(6, 4) + 0.1, dim=1)
    for embeddings in [equal] * 49 + [apart] + [equal] * 49:
        module._guard(torch.tensor(0.2), embeddings)
    with pytest.raises(CollapseError, match="all embeddings are equal"):
        module._guard(torch.tensor(0.2), equal)
    assert module.state_dict()["collapsed_steps"] == 50


def test_loss_that_is_not_finite_stops_the_run(tmp_path):
    with pytest.raises(FloatingPointError, match="loss is nan at step 0"):
        bare_module(tiny_config(tmp_path, "nan"))._guard(torch.tensor(torch.nan), torch.eye(3))


def test_mean_pairwise_cosine_equals_a_loop():
    vectors = F.normalize(torch.randn(7, 5, generator=torch.Generator().manual_seed(0)), dim=1)
    expected = sum(vectors[i] @ vectors[j] for i in range(7) for j in range(7) if i != j) / 42
    torch.testing.assert_close(mean_pairwise_cosine(vectors), expected)


def test_model_config_defaults_are_those_of_the_default_file():
    assert load_config(EmbedderTrainConfig, "embedder").model == AudioViTConfig()
