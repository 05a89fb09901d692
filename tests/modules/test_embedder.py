"""The embedder's config checks, and the parts of its training step."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from qd.commands.train_embedder import train_embedder
from qd.config.embedder import EmbedderTrainConfig
from qd.config.loading import ConfigError, load_config
from qd.data.recordings import PairBatch
from qd.models.embedders.audio_vit import AudioViT, AudioViTConfig
from qd.modules.embedder import (
    CodecRoundTrip,
    CollapseError,
    EmbedderModule,
    mean_pairwise_cosine,
)
from tests.modules.tiny_embedder import tiny_codec, tiny_config


def bare_module(config: EmbedderTrainConfig, **parts: object) -> EmbedderModule:
    torch.manual_seed(0)
    return EmbedderModule(AudioViT(config.model), config, **parts)


def test_all_problems_are_reported_at_once(tmp_path):
    config = tiny_config(tmp_path, "bad")
    config.data.batch_pairs = 1
    config.data.train_split = "trian"
    config.codec.share = 1.5
    config.objective.negatives = "some"
    config.optimizer.learning_rate = float("nan")
    config.optimizer.warmup_steps = 9
    config.augmentation.snr_db_min = 60.0
    config.model.sample_rate = 24_000
    config.augmentation.tempo_min = -1.0
    config.augmentation.drums_share = 2.0
    config.objective.chunk_clips = 0
    config.trainer.devices = 0
    config.data.max_bad_share = -0.1
    config.data.streaming = True
    named = (
        "pairs is 1", "'trian'", "share is 1.5", "'some'", "rate is nan", "warmup_steps is 9", "snr_db_min is 60",
        "sample_rate is 24000", "tempo_min is -1", "drums_share is 2", "chunk_clips is 0", "devices is 0",
        "max_bad_share is -0.1", "streaming",
    )  # fmt: skip
    with pytest.raises(ConfigError) as caught:
        train_embedder(config)
    assert len(caught.value.problems) == len(named)
    assert all(name in str(caught.value) for name in named)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (["data.source=music", "data.validation_share=0"], "data.validation_share is 0"),
        (["data.source=music", "data.validation_share=1"], "data.validation_share is 1.0"),
        (["data.source=''"], "data.source is empty"),
        (["model.clip_seconds=7", "augmentation.tempo_max=1.25"], "model.clip_seconds is 7.0"),
        (["model.clip_seconds=.inf"], "model.clip_seconds is inf"),
        (["augmentation.pitch_semitones_max=.inf"], "augmentation.pitch_semitones_max is inf"),
        (["augmentation.drums_snr_db_min=13"], "augmentation.drums_snr_db_min is 13.0"),
        (["augmentation.low_pass_hz_min=9000"], "augmentation.low_pass_hz_min is 9000.0"),
        (["augmentation.room_seconds_min=0"], "augmentation.room_seconds_min is 0"),
        (["augmentation.room_db_min=1"], "augmentation.room_db_min is 1.0"),
        (["augmentation.equaliser_db=-3"], "augmentation.equaliser_db is -3"),
        (
            ["augmentation.high_pass_share=0.1", "augmentation.high_pass_hz_max=8001"],
            "augmentation.high_pass_hz_max is 8001.0; expected at most 8000 Hz, half of model.sample_rate=16000",
        ),
        (["trainer.devices=3"], "data.batch_pairs is 64"),
        (["trainer.devices=2", "trainer.device=cuda:0"], "'cuda:0'"),
        (["trainer.devices=2", "trainer.device=mps"], "trainer.device='mps'"),
    ],
)
def test_a_bad_value_is_named(overrides, named):
    with pytest.raises(ConfigError) as caught:
        load_config(EmbedderTrainConfig, "embedder", None, overrides)
    assert any(named in problem for problem in caught.value.problems)


def test_a_library_may_have_any_sample_rate_and_length():
    library = ["data.source=music", "model.sample_rate=24000", "model.clip_seconds=10", "data.train_split=none"]
    library += ["augmentation.tempo_max=1.25"]
    assert load_config(EmbedderTrainConfig, "embedder", None, library).train_samples > 10 * 24_000


def test_a_training_clip_has_the_length_that_augmentation_needs(tmp_path):
    off = [f"augmentation.{name}" for name in ("tempo_min=1", "tempo_max=1")]
    off += [f"augmentation.pitch_semitones_{end}=0" for end in ("min", "max")]
    assert tiny_config(tmp_path, "off", *off).train_samples == 0.32 * 16_000
    config = tiny_config(tmp_path, "on")
    module = bare_module(config)
    assert config.train_samples == module.augmentation.needed_samples(config.model.clip_samples) > 1.25 * 0.32 * 16_000
    augmented = module._augment(torch.randn(3, config.train_samples), torch.Generator().manual_seed(0))
    assert augmented.shape == (3, config.model.clip_samples)


def test_chunks_change_neither_loss_nor_gradients(tmp_path):
    """With codec, augmentation and loss as in training, and chunks that do not divide the batch."""
    audio = torch.randn(4, 2, 9000, generator=torch.Generator().manual_seed(0))
    batch = PairBatch(audio, torch.arange(4))
    gradients = []
    for chunk_clips in ("null", "3"):
        config = tiny_config(tmp_path, "chunks", f"objective.chunk_clips={chunk_clips}", "objective.margin=2")
        module = bare_module(config, round_trip=lambda audio: audio.tanh())
        module.log = lambda *arguments, **options: None
        module.lr_schedulers = lambda: SimpleNamespace(get_last_lr=lambda: [0.0])
        module._generator = lambda: torch.Generator().manual_seed(7)
        loss = module.training_step(batch, 0)
        loss.backward()
        gradients.append([loss.detach(), *(parameter.grad for parameter in module.parameters())])
    assert gradients[0][0] > 0
    for direct, cached in zip(*gradients, strict=True):
        torch.testing.assert_close(cached, direct, rtol=1e-4, atol=1e-6)


def test_a_seeded_half_of_the_clips_passes_through_the_codec(tmp_path):
    module = bare_module(tiny_config(tmp_path, "half"), round_trip=lambda audio: -audio)
    audio = torch.arange(1.0, 11.0)[:, None].expand(10, 4)

    def changed(seed: int) -> list[int]:
        result = module._through_codec(audio, torch.Generator().manual_seed(seed))
        assert torch.equal(result.abs(), audio)
        return (result[:, 0] < 0).nonzero().flatten().tolist()

    assert len(changed(0)) == 5
    assert changed(0) == changed(0) != changed(1)
    assert {clip for seed in range(20) for clip in changed(seed)} == set(range(10))


def test_the_round_trip_keeps_the_shape_and_has_no_gradient():
    codec = tiny_codec()
    round_trip = CodecRoundTrip(codec)
    audio = torch.randn(2, 1000, generator=torch.Generator().manual_seed(0)).requires_grad_()
    decoded = round_trip(audio)
    assert decoded.shape == (2, 1000) and not decoded.requires_grad
    assert torch.equal(decoded, codec.decode(codec.encode(audio))[:, :1000])
    assert round_trip(audio[:0]).shape == (0, 1000)


def test_a_collapse_stops_the_run_after_50_steps_in_a_row(tmp_path):
    module = bare_module(tiny_config(tmp_path, "collapse"))
    equal = F.normalize(torch.ones(6, 4), dim=1)
    different = F.normalize(torch.eye(6, 4) + 0.1, dim=1)
    for embeddings in [equal] * 49 + [different] + [equal] * 49:
        module._guard(torch.tensor(0.2), embeddings)
    with pytest.raises(CollapseError, match="all embeddings are equal.*objective.fallback=none"):
        module._guard(torch.tensor(0.2), equal)
    assert module.state_dict()["collapsed_steps"] == 50


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    with pytest.raises(FloatingPointError, match="loss is nan at step 0"):
        bare_module(tiny_config(tmp_path, "nan"))._guard(torch.tensor(torch.nan), torch.eye(3))


def test_mean_pairwise_cosine_equals_a_loop():
    vectors = F.normalize(torch.randn(7, 5, generator=torch.Generator().manual_seed(0)), dim=1)
    expected = sum(vectors[i] @ vectors[j] for i in range(7) for j in range(7) if i != j) / 42
    torch.testing.assert_close(mean_pairwise_cosine(vectors), expected)


def test_the_default_config_has_the_defaults_of_the_model():
    assert load_config(EmbedderTrainConfig, "embedder").model == AudioViTConfig()
