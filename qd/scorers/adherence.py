"""The shipped scorer of adherence to the prompt, with an audio tower and a text tower."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor, nn

from qd.audio.resample import resample
from qd.models.checkpoints.sizes import load_checked
from qd.models.embedders.audio_vit import AudioViT, AudioViTConfig
from qd.schema.setting import setting
from qd.schema.stored import from_stored
from qd.scorers.cosine import prompt_cosine
from qd.scorers.folder import (
    CONFIG,
    TOKENIZER,
    WEIGHTS,
    folder_version,
    read_config,
    read_tokenizer,
    save_scorer,
    tower_config,
)
from qd.scorers.protocol import check_rows


@dataclass
class TextTowerConfig:
    """Shape of a :class:`TextTower`."""

    vocabulary: int = setting(768, "Number of text tokens.", ge=1, le=1_000_000)
    max_tokens: int = setting(96, "Tokens of a text; longer texts are cut.", unit="tokens", ge=1, le=65_536)
    layers: int = setting(2, "Number of transformer layers.", ge=1, le=256)
    width: int = setting(128, "Width of the transformer.", ge=1, le=16_384)
    heads: int = setting(4, "Number of attention heads, a divisor of width.", ge=1, le=256)
    mlp_width: int = setting(256, "Width of the hidden layer of a block.", ge=1, le=65_536)
    embedding_width: int = setting(128, "Width of the embedding, that of the audio tower.", ge=1, le=16_384)


@dataclass
class AdherenceConfig:
    """Shapes of both towers, and the affine map of the score; by default 0.96 M parameters."""

    audio: AudioViTConfig = field(default_factory=tower_config)
    text: TextTowerConfig = field(default_factory=TextTowerConfig)
    scale: float = setting(1.0, "Scale of the score; calibration replaces it.")
    offset: float = setting(0.0, "Offset of the score; calibration replaces it.")


class TextTower(nn.Module):
    """Byte-level BPE tokens → pre-norm transformer → mean over the tokens → unit norm. It accepts any text."""

    def __init__(self, config: TextTowerConfig, tokenizer: Tokenizer) -> None:
        super().__init__()
        self.config, self.tokenizer = config, tokenizer
        self.tokenizer.enable_truncation(config.max_tokens)
        self.tokenizer.enable_padding()
        self.tokens = nn.Embedding(config.vocabulary, config.width)
        self.positions = nn.Parameter(0.02 * torch.randn(config.max_tokens, config.width))
        nn.init.normal_(self.tokens.weight, std=0.02)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(
                config.width, config.heads, config.mlp_width, 0.0, "gelu", batch_first=True, norm_first=True
            )
            for _ in range(config.layers)
        )
        self.norm = nn.LayerNorm(config.width)
        self.projection = nn.Linear(config.width, config.embedding_width)

    def forward(self, texts: Sequence[str]) -> Tensor:
        """Embeds texts; returns unit-norm embeddings ``(batch, embedding_width)``."""
        encodings = self.tokenizer.encode_batch(list(texts))
        device = self.positions.device
        ids = torch.tensor([encoding.ids for encoding in encodings], device=device)
        real = torch.tensor([encoding.attention_mask for encoding in encodings], device=device, dtype=torch.bool)
        x = self.tokens(ids) + self.positions[: ids.shape[1]]
        for block in self.blocks:
            x = block(x, src_key_padding_mask=~real)
        weights = real[..., None] / real.sum(dim=1)[:, None, None]
        return F.normalize(self.projection((self.norm(x) * weights).sum(dim=1)).float(), dim=-1)


class AdherenceScorer(nn.Module):
    """Match between audio and prompt: scale · cos(audio embedding, text embedding) + offset.

    A contrastive audio–text model in the role of MuLan (Section 3.1). Each distinct prompt is encoded once per call.
    """

    name = "adherence"

    def __init__(self, config: AdherenceConfig, tokenizer: Tokenizer) -> None:
        super().__init__()
        self.config, self.version = config, "unsaved"
        self.audio = AudioViT(config.audio)
        self.text = TextTower(config.text, tokenizer)
        self.log_temperature = nn.Parameter(torch.tensor(math.log(0.07)))

    @property
    def sample_rate(self) -> int:
        """Sample rate in Hz; other rates are resampled."""
        return self.audio.sample_rate

    def cosine(self, audio: Tensor, sample_rate: int, prompts: Sequence[str]) -> Tensor:
        """Returns the score before its affine map, ``(batch,)`` in [−1, 1]."""
        return prompt_cosine(self.audio(resample(audio, sample_rate, self.sample_rate)), prompts, self.text)

    @torch.no_grad()
    def forward(self, audio: Tensor, sample_rate: int, prompts: Sequence[str]) -> Tensor:
        """Returns scores ``(batch,)``. Raises ``ValueError`` if the numbers of clips and prompts differ."""
        check_rows(audio, prompts)
        return self.config.scale * self.cosine(audio, sample_rate, prompts) + self.config.offset

    def save_pretrained(self, folder: str | Path, half: bool = False) -> None:
        """Writes ``config.json``, ``model.safetensors`` (float16 if ``half``) and ``tokenizer.json``."""
        folder = save_scorer(folder, self.name, self.config, self.state_dict(), half)
        self.text.tokenizer.save(str(folder / TOKENIZER))

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> AdherenceScorer:
        """Loads the scorer in float32, frozen, in eval mode. Raises ``ValueError`` if the folder holds none."""
        folder = Path(folder)
        content = read_config(folder, cls.name, (CONFIG, WEIGHTS, TOKENIZER))
        config = from_stored(AdherenceConfig, content, str(folder / CONFIG))
        tokenizer = read_tokenizer(folder / TOKENIZER)
        scorer = load_checked(lambda: cls(config, tokenizer), folder / WEIGHTS, lambda scorer: scorer)
        scorer.version = folder_version(folder)
        return scorer.eval().requires_grad_(False)
