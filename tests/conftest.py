"""Tiny models with random weights in the shipped layout, and the configs of tiny runs."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings
from tokenizers.pre_tokenizers import ByteLevel
from torch import nn
from transformers import (
    ClapConfig,
    ClapFeatureExtractor,
    ClapModel,
    MusicgenDecoderConfig,
    MusicgenForCausalLM,
    RobertaTokenizer,
    T5Config,
    T5EncoderModel,
)

from qd.builtin.tokenizer import train_tokenizer
from qd.config.loading import load_config
from qd.config.train import TrainConfig
from qd.models.codecs.codec import CodecConfig, FrameCodec
from qd.models.embedders.audio_vit import AudioViT, AudioViTConfig
from qd.models.language_model import LanguageModel
from qd.models.musicgen import MusicGen

# The time of an example depends on the load of the machine, so it has no limit.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

CLIP_SECONDS = 0.32
"""Clip length for the tiny models: 8 codec frames."""

CODEBOOKS, CODEBOOK_SIZE, WIDTH, TEXT_WIDTH = 4, 16, 32, 24


def build_tiny_musicgen(seed: int = 0, width: int = WIDTH) -> MusicGen:
    """Builds a model with one decoder layer and one text-encoder layer, and weights so large that prompts and guidance
    have an effect."""
    tokenizer = train_tokenizer(["a calm piano piece", "fast drums"], vocabulary=259)
    decoder_config = MusicgenDecoderConfig(
        vocab_size=CODEBOOK_SIZE,
        pad_token_id=CODEBOOK_SIZE,
        bos_token_id=CODEBOOK_SIZE,
        num_codebooks=CODEBOOKS,
        hidden_size=width,
        num_hidden_layers=1,
        num_attention_heads=4,
        ffn_dim=2 * width,
        max_position_embeddings=64,
    )
    text_config = T5Config(
        vocab_size=len(tokenizer), d_model=TEXT_WIDTH, d_kv=6, d_ff=48, num_layers=1, num_heads=4, dropout_rate=0.0
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        decoder, text_encoder = MusicgenForCausalLM(decoder_config), T5EncoderModel(text_config)
        projection = nn.Linear(TEXT_WIDTH, width)
        sizes = {"n_mels": 20, "width": 16, "latent_width": 8, "encoder_depths": (1, 1), "decoder_depths": (1, 1)}
        codec = FrameCodec(CodecConfig(**sizes, codebooks=CODEBOOKS, codebook_size=CODEBOOK_SIZE))
        for name, weight in decoder.named_parameters():
            if weight.ndim == 2 and "embed" not in name:
                nn.init.normal_(weight, std=1.5 / weight.shape[1] ** 0.5)
        for weight in (*codec.quantizer.parameters(), *codec.quantizer.buffers()):
            if weight.is_floating_point() and weight.ndim > 1:
                nn.init.normal_(weight)
    return MusicGen(LanguageModel(decoder, projection), text_encoder, tokenizer, codec)


def build_tiny_embedder(seed: int = 0) -> AudioViT:
    """Builds an embedder for clips of 0.32 s; its random weights still distinguish clips."""
    config = AudioViTConfig(
        clip_seconds=CLIP_SECONDS, n_mels=20, layers=1, width=16, heads=2, head_dim=8, mlp_width=32, embedding_width=8
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return AudioViT(config).eval()


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a complete MusicGen checkpoint in the built-in layout."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    build_tiny_musicgen().save(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_embedder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of an embedder."""
    folder = tmp_path_factory.mktemp("models") / "embedder"
    build_tiny_embedder().save_pretrained(folder)
    return folder


def build_tiny_clap(folder: Path, truncation: str = "rand_trunc") -> Path:
    """Saves a random CLAP in the hub's format, like the published models except for width, depth and vocabulary."""
    text = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    text |= {"vocab_size": 261, "max_position_embeddings": 514}
    audio = {"patch_embeds_hidden_size": 8, "depths": [1, 1], "num_attention_heads": [2, 2], "hidden_size": 16}
    audio |= {"enable_fusion": truncation == "fusion"}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = ClapModel(ClapConfig(text_config=text, audio_config=audio, projection_dim=12)).eval()
        for weight in model.parameters():
            if weight.ndim > 1:
                nn.init.normal_(weight, std=1.5 / weight.shape[1:].numel() ** 0.5)
    model.save_pretrained(folder)
    ClapFeatureExtractor(truncation=truncation, frequency_min=50).save_pretrained(folder)
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    letters = sorted(ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate([*special, *letters, "<mask>"])}
    RobertaTokenizer(vocab=vocabulary, merges=[], model_max_length=512).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_clap(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a CLAP model without fusion, like the published one for music."""
    return build_tiny_clap(tmp_path_factory.mktemp("models") / "clap")


@pytest.fixture(scope="session")
def fusing_clap(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a CLAP model that can fuse crops of long audio."""
    return build_tiny_clap(tmp_path_factory.mktemp("models") / "fusing-clap", "fusion")


@pytest.fixture(scope="session", params=[1, 2], ids=["mono", "stereo"])
def real_checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a checkpoint in the hub's format, mono in one file and stereo in shards; see ``real_checkpoint.py``."""
    library = runpy.run_path(str(Path(__file__).with_name("real_checkpoint.py")))
    folder = tmp_path_factory.mktemp("models") / f"musicgen-{request.param}"
    return library["save_real_checkpoint"](folder, request.param, "10GB" if request.param == 1 else "1MB")


@pytest.fixture
def tiny_config(tiny_model: Path, tiny_embedder: Path, tmp_path: Path) -> Callable[..., TrainConfig]:
    """Function that builds the config of a run with the tiny models from overrides: ``tiny_config("beta=0")``."""

    def build(*overrides: str) -> TrainConfig:
        settings = [
            f"model.name={tiny_model}",
            f"reward.embedder={tiny_embedder}",
            f"reward.eval_embedder={tiny_embedder}",
            f"rollout.seconds={CLIP_SECONDS}",
            "rollout.samples_per_prompt=4",
            "trainer.device=cpu",
            "trainer.precision=32-true",
            f"trainer.runs={tmp_path / 'runs'}",
        ]
        return load_config(TrainConfig, "train", None, [*settings, *overrides])

    return build
