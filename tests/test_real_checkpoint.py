"""A checkpoint in the hub's format with every command: train, step folders, resume, sample; mono and stereo."""

from __future__ import annotations

import json
import runpy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import soundfile
import torch
from safetensors.torch import load_file
from transformers import MusicgenConfig

import qd.evaluation.evaluator
from qd.commands.sample import sample
from qd.commands.train import train
from qd.commands.train_preflight import build_module
from qd.config.loading import load_config
from qd.config.train import TrainConfig
from qd.data.prompts import PromptBatch
from qd.models.musicgen import MusicGen
from qd.modules.distillation import DiversityDistillation

Config = Callable[..., TrainConfig]
BATCH = PromptBatch(["a slow jazz tune", "fast drums"], [0, 1])
LORA = "model.lora={rank: 2, alpha: 8}"


@pytest.fixture(autouse=True)
def fake_scorers(monkeypatch: pytest.MonkeyPatch) -> None:
    quality = runpy.run_path(str(Path(__file__).with_name("tiny_run.py")))["stand_in_quality"]
    monkeypatch.setattr(qd.evaluation.evaluator, "load_quality", quality)


@pytest.fixture
def config(tiny_config: Config, real_checkpoint: Path, tmp_path: Path) -> Config:
    """Config of a run of two steps, with 8 frames at 50 Hz and an embedder at half the sample rate."""
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a slow jazz tune\nfast drums\n", encoding="utf-8")

    def build(*overrides: str) -> TrainConfig:
        return tiny_config(
            f"model.name={real_checkpoint}",
            "name=x",
            "rollout.seconds=0.16",
            "rollout.samples_per_prompt=2",
            "optimizer.learning_rate=1e-2",
            "data.batch_size=4",
            "data.micro_batch_size=4",
            f"evaluation.prompts={prompts}",
            "evaluation.n_prompts=2",
            "evaluation.n_samples=2",
            "trainer.max_steps=2",
            "trainer.save_weights_every=2",
            "trainer.checkpoint_every=1",
            *overrides,
        )

    return build


def module_of(config: TrainConfig) -> DiversityDistillation:
    return build_module(config)[0]


@pytest.mark.parametrize(
    "overrides",
    [
        pytest.param((), id="all", marks=pytest.mark.slow),
        pytest.param((LORA, "model.gradient_checkpointing=true"), id="lora"),
    ],
)
def test_a_run_writes_points_and_a_folder_that_samples_and_resumes(
    config: Config, real_checkpoint: Path, tmp_path: Path, overrides: tuple[str, ...]
) -> None:
    whole = train(replace(config(*overrides), name="whole"))
    points = [json.loads(line) for line in (whole / "points.jsonl").read_text().splitlines()]
    assert [point["step"] for point in points] == [0, 2] and points[0]["key"] != points[1]["key"]
    saved, start = MusicGen.load(whole), MusicGen.load(real_checkpoint)
    assert not torch.equal(
        saved.lm.decoder.model.decoder.layers[0].fc1.weight, start.lm.decoder.model.decoder.layers[0].fc1.weight
    )
    assert (whole / "step-000002" / "adapter").is_dir() == bool(overrides)

    short = config(*overrides)
    run = train(replace(short, trainer=replace(short.trainer, max_steps=1)))
    resumed = load_config(TrainConfig, "train", str(run / "config.yaml"), ["trainer.max_steps=2"])
    assert resumed.model == short.model
    train(resumed, resume=run)
    states = [torch.load(folder / "last.ckpt", weights_only=True)["state_dict"] for folder in (whole, run)]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert all("lora_" in name for name in states[0] if name.startswith("music.")) == bool(overrides)
    files = [sorted((folder / "step-000002").glob("model*.safetensors")) for folder in (whole, run)]
    tensors = [{k: v for file in group for k, v in load_file(file).items()} for group in files]
    assert all(torch.equal(tensors[0][name], tensors[1][name]) for name in tensors[0])

    folder = sample(str(run), "fast drums", n=2, seconds=0.16, guidance=2.0, out=tmp_path / "wav", device="cpu")
    audio, rate = soundfile.read(folder / "sample-1.wav")
    assert rate == 32_000 and len(audio) == 8 * 640


def test_prompts_are_tokenised_as_by_t5(config: Config) -> None:
    """The ids and the limit in the documentation of T5."""
    tokenizer = module_of(config()).music.tokenizer
    published = [13959, 1566, 12, 2968, 10, 37, 629, 19, 1627, 5, 1]
    assert tokenizer("translate English to German: The house is wonderful.").input_ids == published
    assert tokenizer("Das Haus ist wunderbar.").input_ids == [644, 4598, 229, 19250, 5, 1]
    assert tokenizer.model_max_length == 512


def test_gradients_with_checkpoints_equal_those_without(config: Config) -> None:
    losses, gradients = [], []
    for value in ("false", "true"):
        module = module_of(config("beta=100", f"model.gradient_checkpointing={value}"))
        loss = module.training_step(BATCH, 0)
        loss.backward()
        losses.append(loss.item())
        gradients.append({name: p.grad for name, p in module.music.lm.named_parameters()})
    assert losses[0] == losses[1]
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, atol=1e-7, rtol=1e-5)
        assert gradient.any(), name


def test_gradient_checkpoints_save_memory(config: Config) -> None:
    sizes = []
    for value in ("false", "true"):
        module = module_of(config(f"model.gradient_checkpointing={value}"))
        rollout = module.rollout(BATCH)
        saved: dict[int, int] = {}

        def save(tensor: torch.Tensor, saved: dict[int, int] = saved) -> torch.Tensor:
            saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor):
            module.music.lm.hidden_states(rollout.delayed, rollout.condition)
        weights = {p.untyped_storage().data_ptr() for p in module.music.lm.parameters()}
        sizes.append(sum(size for pointer, size in saved.items() if pointer not in weights))
    assert sizes[1] < 0.3 * sizes[0]


def test_a_teacher_in_bfloat16_is_close_to_one_in_float32(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, half = module_of(config()), module_of(config("model.dtype=bfloat16"))
    assert half.teacher.decoder.dtype == half.music.text_encoder.dtype == torch.bfloat16
    assert half.music.lm.decoder.dtype == torch.float32
    drawn = whole.rollout(BATCH)  # the same tokens for both: a rounded logit may draw others
    embedded = replace(drawn, condition=half.rollout(BATCH).condition)
    monkeypatch.setattr(whole, "rollout", lambda batch: drawn)
    monkeypatch.setattr(half, "rollout", lambda batch: embedded)
    losses = [module.training_step(BATCH, 0).item() for module in (whole, half)]
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)
    for module in (whole, half):
        module.zero_grad()


def test_the_embedder_gets_the_same_tone_at_its_own_sample_rate(config: Config) -> None:
    module = module_of(config())
    assert (module.music.sample_rate, module.embedder.sample_rate) == (32_000, 16_000)
    tones = [torch.sin(2 * torch.pi * 440 * torch.arange(rate) / rate)[None] for rate in (32_000, 16_000)]
    expected, other = module.embedder(tones[1]), module.embedder(tones[0])
    embedded = module.embed(tones[0])
    assert (embedded * expected).sum() > 0.999
    assert (other * expected).sum() < 0.99  # unless it is resampled, it is another tone


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_samples_in_half_precision(real_checkpoint: Path, tmp_path: Path, dtype: str) -> None:
    folder = sample(
        str(real_checkpoint), "fast drums", n=1, seconds=0.16, guidance=3.0, out=tmp_path, device="cpu", dtype=dtype
    )
    audio, _ = soundfile.read(folder / "sample-1.wav", always_2d=True)
    assert audio.any()
    channels = MusicgenConfig.from_pretrained(real_checkpoint).decoder.audio_channels
    assert audio.shape == (8 * 640, channels) and (channels == 1 or (audio[:, 0] != audio[:, 1]).any())
