"""Audio transformer that embeds clips: the paper's embedder (Appendix D.1), at any size."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from qd.audio.chunks import cached_rows, map_chunks
from qd.audio.mel import MelSpectrogram
from qd.models.checkpoints.json_files import read_object
from qd.models.checkpoints.sizes import load_checked
from qd.models.embedders.clip_embedder import ClipEmbedder
from qd.schema.checker import Settings
from qd.schema.setting import setting
from qd.schema.stored import from_stored

ROTARY_BASE = 10_000.0
MOST_FRAMES = 100_000
"""Largest number of frames of a window."""


@dataclass
class AudioViTConfig(Settings):
    """Shape of an :class:`AudioViT`."""

    sample_rate: int = setting(16_000, "Sample rate of the audio.", unit="Hz", gt=0, le=384_000)
    clip_seconds: float = setting(4.0, "Length of a clip.", unit="s", gt=0, le=3600)
    n_fft: int = setting(1024, "FFT size.", unit="samples", gt=0, le=65_536)
    window_length: int = setting(1024, "Length of the window.", unit="samples", gt=0, le=65_536)
    hop_length: int = setting(512, "Distance between frames.", unit="samples", gt=0, le=65_536)
    n_mels: int = setting(80, "Number of mel filters.", gt=0, le=1024)
    log_mel: bool = setting(True, "Whether to take the logarithm of the mel power before the affine map.")
    mel_mean: float = setting(
        -0.5,
        "Value subtracted from the (log-)mel values; fixed, so that loudness matters. The default is for the built-in "
        "world's log-mel; 0 without the logarithm.",
    )
    mel_std: float = setting(4.5, "Divisor of the (log-)mel values after that; 1 without the logarithm.", gt=0)
    layers: int = setting(4, "Number of transformer layers.", gt=0, le=256)
    width: int = setting(128, "Width of the transformer.", gt=0, le=16_384)
    heads: int = setting(4, "Number of attention heads.", gt=0, le=256)
    head_dim: int = setting(
        32,
        "Width of a head, an even number; need not be width / heads: the paper's 6 heads do not divide 512.",
        gt=0,
        le=1024,
    )
    mlp_width: int = setting(256, "Width of the hidden layer of a block.", gt=0, le=65_536)
    embedding_width: int = setting(96, "Width of the embedding.", gt=0, le=16_384)

    @property
    def clip_samples(self) -> int:
        """Length of one window in samples."""
        return round(self.clip_seconds * self.sample_rate)

    @property
    def frames(self) -> int:
        """Number of tokens of one window; frames are centred, which adds one."""
        return 1 + self.clip_samples // self.hop_length

    def rules(self, prefix: str) -> Iterator[str]:
        if self.window_length > self.n_fft:
            yield f"{prefix}window_length is {self.window_length}; expected at most {prefix}n_fft={self.n_fft}"
        if self.hop_length > 0 and math.isfinite(self.clip_seconds) and self.frames > MOST_FRAMES:
            yield f"{prefix}clip_seconds and {prefix}hop_length give {self.frames:,} frames; expected {MOST_FRAMES:,}"
        if self.head_dim % 2:
            yield f"{prefix}head_dim is {self.head_dim}; expected an even number: rotary positions turn pairs"


def rotary_table(positions: int, head_dim: int) -> Tensor:
    """Returns cosines and sines of the angles t · 10000^(−2i/head_dim), shape (2, positions, head_dim / 2)."""
    frequencies = ROTARY_BASE ** (-torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
    angles = torch.arange(positions, dtype=torch.float64)[:, None] * frequencies
    return torch.stack([angles.cos(), angles.sin()]).float()


def rotate(x: Tensor, table: Tensor) -> Tensor:
    """Rotates the pairs (x_i, x_{i + d/2}) by the angle of their position.

    Products of queries and keys then depend only on the distance between positions (RoFormer, Eq. 16).

    Args:
        x: Queries or keys ``(batch, heads, positions, head_dim)``.
        table: Result of :func:`rotary_table`.
    """
    cos, sin = table.to(x.dtype)
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


class Attention(nn.Module):
    """Multi-head self-attention over all frames with rotary positions."""

    def __init__(self, config: AudioViTConfig) -> None:
        super().__init__()
        inner = config.heads * config.head_dim
        self.heads, self.head_dim = config.heads, config.head_dim
        self.qkv = nn.Linear(config.width, 3 * inner)
        self.out = nn.Linear(inner, config.width)

    def forward(self, x: Tensor, table: Tensor) -> Tensor:
        """Maps ``(batch, frames, width)`` to the same shape."""
        qkv = self.qkv(x).unflatten(-1, (3, self.heads, self.head_dim))
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(rotate(query, table), rotate(key, table), value)
        return self.out(mixed.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Pre-norm transformer block: x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, config: AudioViTConfig) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.width)
        self.attention = Attention(config)
        self.mlp_norm = nn.LayerNorm(config.width)
        self.mlp = nn.Sequential(
            nn.Linear(config.width, config.mlp_width), nn.GELU(), nn.Linear(config.mlp_width, config.width)
        )

    def forward(self, x: Tensor, table: Tensor) -> Tensor:
        """Maps ``(batch, frames, width)`` to the same shape."""
        x = x + self.attention(self.attention_norm(x), table)
        return x + self.mlp(self.mlp_norm(x))


class AudioViT(ClipEmbedder):
    """Mel spectrogram → one token a frame → transformer → mean over time → projection → unit norm.

    A clip shorter than ``clip_seconds`` is padded with zeros. The embedding of silence is finite and has unit norm.
    """

    def __init__(self, config: AudioViTConfig) -> None:
        super().__init__()
        if problems := config.problems():
            raise ValueError("audio ViT: " + "; ".join(problems))
        self.config = config
        self.mel = MelSpectrogram(
            config.sample_rate,
            config.n_fft,
            config.window_length,
            config.hop_length,
            config.n_mels,
            log=config.log_mel,
        )
        self.embed_frame = nn.Linear(config.n_mels, config.width, bias=False)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width)
        self.projection = nn.Linear(config.width, config.embedding_width)
        self.register_buffer("rotary", rotary_table(config.frames, config.head_dim), persistent=False)

    @property
    def sample_rate(self) -> int:
        """Sample rate in Hz."""
        return self.config.sample_rate

    @property
    def embedding_width(self) -> int:
        """Length of an embedding vector."""
        return self.config.embedding_width

    @property
    def clip_seconds(self) -> float:
        """Length of a window in seconds."""
        return self.config.clip_seconds

    def embed_clips(self, clips: Tensor) -> Tensor:
        """Embeds clips ``(batch, samples)`` of at most one window; returns ``(batch, embedding_width)``."""
        return map_chunks(self._embed, clips, cached_rows(clips, self.config.frames))

    def _embed(self, clips: Tensor) -> Tensor:
        clips = F.pad(clips, (0, self.config.clip_samples - clips.shape[1]))
        mel = (self.mel(clips) - self.config.mel_mean) / self.config.mel_std
        x = self.embed_frame(mel.transpose(1, 2))
        for block in self.blocks:
            x = block(x, self.rotary)
        return self.projection(self.norm(x).mean(dim=1))

    def save_pretrained(self, folder: str | Path, half: bool = False) -> None:
        """Writes ``config.json`` and ``model.safetensors`` (float16 if ``half``) into the folder."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        config = {"model_type": "audio_vit", **asdict(self.config)}
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        dtype = torch.float16 if half else torch.float32
        tensors = {name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in self.state_dict().items()}
        save_file(tensors, folder / "model.safetensors")

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> AudioViT:
        """Loads the embedder from a folder, in float32 and eval mode.

        Raises:
            ValueError: a file is missing, the config has different fields, or the tensors do not fit the config.
        """
        folder = Path(folder)
        for name in ("config.json", "model.safetensors"):
            if not (folder / name).is_file():
                raise ValueError(f"embedder folder {folder}: {name} is missing; expected what save_pretrained writes")
        content = read_object(folder / "config.json")
        if (kind := content.pop("model_type", None)) != "audio_vit":
            raise ValueError(f"embedder folder {folder}: config.json holds a model of type {kind!r}, not an audio_vit")
        config = from_stored(AudioViTConfig, content, str(folder / "config.json"))
        return load_checked(lambda: cls(config), folder / "model.safetensors", lambda model: model).eval()
