"""The configuration of a tiny embedder run, and a tiny codec."""

from __future__ import annotations

from pathlib import Path

import torch

from qd.config.embedder import EmbedderTrainConfig
from qd.config.loading import load_config
from qd.models.codecs.codec import CodecConfig, FrameCodec

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
    """Returns the config of the run ``name`` without a codec, with the dotted overrides ``changes``."""
    run = [f"trainer.runs={runs}", f"name={name}", "codec.model=null"]
    return load_config(EmbedderTrainConfig, "embedder", None, [*TINY, *run, *changes])


def tiny_codec() -> FrameCodec:
    """Returns an untrained codec, the same in each call."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        shape = {"n_mels": 16, "width": 8, "latent_width": 4, "codebook_size": 16, "codebooks": 2}
        return FrameCodec(CodecConfig(**shape, encoder_depths=(1, 1), decoder_depths=(1, 1)))
