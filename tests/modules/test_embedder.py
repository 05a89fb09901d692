"""Training the embedder: real tiny runs, and the parts of a step."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
import torch.nn.functional as F
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from qd.commands.train_embedder import train_embedder
from qd.config.embedder import EmbedderTrainConfig
from qd.config.loading import ConfigError, load_config
from qd.data.recordings import BuiltinRecordings, PairBatch
from qd.models.codecs.codec import CodecConfig, FrameCodec
from qd.models.embedders.audio_vit import AudioViT, AudioViTConfig
from qd.models.embedders.loading import load_embedder
from qd.modules.embedder import (
    CodecRoundTrip,
    CollapseError,
    EmbedderModule,
    mean_pairwise_cosine,
)

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
    trained = load_embedder(tmp_path / "first")
    card = (folder / "README.md").read_text()
    assert "| codec |" in card and f" {sum(p.numel() for p in trained.parameters()):,} parameters" in card
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


def test_ctrl_c_in_a_last_step_without_validation_ends_the_run_as_any_other(tmp_path, monkeypatch):
    def interrupt(self, batch, batch_index):
        if self.global_step + 1 == 5:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(EmbedderModule, "on_train_batch_start", interrupt)
    folder = train_embedder(tiny_config(tmp_path, "last", "trainer.max_steps=5", "trainer.validations=2"))
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["step"] in (2, 4) and 0 <= metrics["raw/recall@1"] <= 1
    assert steps_of(tmp_path / "last", "validation/recall@1")[:2] == [2, 4]  # none on the way out


def test_a_run_that_was_killed_shows_each_step_once(tmp_path, monkeypatch):
    """Killed at step 5: step 4 is in the events, and the checkpoint is of step 3."""
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
    events = EventAccumulator(str(run), size_guidance={"histograms": 0}).Reload()  # else it keeps one
    assert [event.step for event in events.Histograms("cosine_raw/same_recording")] == [3, 6]


def steps_of(run: Path, tag: str) -> list[int]:
    return [event.step for event in EventAccumulator(str(run)).Reload().Scalars(tag)]


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
    config.augmentation.tempo_min = -1.0
    config.augmentation.drums_share = 2.0
    config.objective.chunk_clips = 0
    config.trainer.devices = 0
    config.data.max_bad_share = -0.1
    config.data.streaming = True
    named = (
        "pairs is 1", "'trian'", "share is 1.5", "'some'", "rate is nan", "warmup_steps is 9", "snr_db_min is 60",
        "sample_rate is 24000", "tempo_min is -1", "drums_share is 2", "chunk_clips is 0", "devices is 0",
        "max_bad_share is -0.1", "streaming is for datasets:",
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
        (
            ["model.clip_seconds=7", "augmentation.tempo_max=1.25"],
            "model.clip_seconds is 7.0, and augmentation makes such a clip of 8.",
        ),
        (["model.clip_seconds=.inf"], "model.clip_seconds is inf"),
        (["augmentation.pitch_semitones_max=.inf"], "augmentation.pitch_semitones_min is -3.0"),
        (["augmentation.drums_snr_db_min=13"], "augmentation.drums_snr_db_min is 13.0"),
        (["trainer.devices=3"], "data.batch_pairs is 64; expected a multiple of trainer.devices=3"),
        (["trainer.devices=2", "trainer.device=cuda:0"], "'cuda:0' is one device"),
        (["trainer.devices=2", "trainer.device=mps"], "this machine has 1 of trainer.device='mps'"),
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


def test_a_training_clip_is_as_long_as_augmentation_needs(tmp_path):
    off = [f"augmentation.{name}" for name in ("tempo_min=1", "tempo_max=1")]
    off += [f"augmentation.pitch_semitones_{end}=0" for end in ("min", "max")]
    assert tiny_config(tmp_path, "off", *off).train_samples == 0.32 * 16_000
    config = tiny_config(tmp_path, "on")
    module = bare_module(config)
    assert config.train_samples == module.augmentation.needed_samples(config.model.clip_samples) > 1.25 * 0.32 * 16_000
    heard = module._augment(torch.randn(3, config.train_samples), torch.Generator().manual_seed(0))
    assert heard.shape == (3, config.model.clip_samples)


def test_chunks_change_neither_what_is_heard_nor_what_is_learned(tmp_path):
    """Codec, augmentation and loss as in training; the chunks do not divide the batch."""
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


def test_recordings_that_cannot_be_used_leave_no_run(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty"):
        train_embedder(tiny_config(tmp_path / "runs", "none", f"data.source={tmp_path / 'empty'}"))
    assert not (tmp_path / "runs" / "none").exists()


def test_every_process_needs_held_out_recordings(tmp_path):
    config = tiny_config(tmp_path, "few", "trainer.devices=2", "data.batch_pairs=12")
    with pytest.raises(ValueError, match="6 held-out recordings .*trainer.devices=2.*more than 6"):
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
    # Fewer than 99 are held out: the card tells of those that were heard, as the projector shows two clips of each.
    (metadata,) = (tmp_path / "library").glob("*/raw/metadata.tsv")
    heard = (len(metadata.read_text().splitlines()) - 1) // 2
    assert 2 <= heard < 30 and f"\n{heard} recordings of the 40% held out of" in (folder / "README.md").read_text()
    assert json.loads((folder / "metrics.json").read_text())["validation_pairs"] == heard


@pytest.mark.slow
def test_two_processes_train_what_one_does(tmp_path):
    """With nothing drawn but the recordings, since every rank draws its own noise."""
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
def test_compiled_and_uncompiled_models_learn_the_same(tmp_path):
    runs = [
        train_embedder(tiny_config(tmp_path, name, f"trainer.compile={name}", "objective.chunk_clips=3"))
        for name in ("false", "true")
    ]
    states = [torch.load(run.parent / "last.ckpt", weights_only=True)["state_dict"] for run in runs]
    assert states[0].keys() == states[1].keys()
    for name, tensor in states[0].items():
        torch.testing.assert_close(states[1][name], tensor, rtol=1e-3, atol=1e-4)


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
