"""The shipped judges of the built-in world: adherence to the prompt, and a listener's preference."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor, nn

from qd.models.audio_vit import AudioViT, AudioViTConfig
from qd.models.resample import resample
from qd.scorers.cosine import prompt_cosine
from qd.scorers.protocol import check_rows

# 25 frames a second; mean and standard deviation of the log-mel power of the world's clips, measured once
_MEL = {"hop_length": 640, "n_mels": 96, "mel_mean": -1.4, "mel_std": 4.9}


@dataclass
class TextTowerConfig:
    """Shape of a :class:`TextTower`. Texts are cut after ``max_tokens``."""

    vocabulary: int = 768
    max_tokens: int = 96
    layers: int = 2
    width: int = 128
    heads: int = 4
    mlp_width: int = 256
    embedding_width: int = 128


@dataclass
class AdherenceConfig:
    """Both towers, and the affine map of the score; by default 0.96 M parameters."""

    audio: AudioViTConfig = field(default_factory=lambda: AudioViTConfig(embedding_width=128, **_MEL))
    text: TextTowerConfig = field(default_factory=TextTowerConfig)
    scale: float = 1.0
    offset: float = 0.0


@dataclass
class PreferenceConfig:
    """The audio tower, its head's width, and the affine map of the score; by default 0.46 M parameters."""

    audio: AudioViTConfig = field(default_factory=lambda: AudioViTConfig(layers=3, embedding_width=128, **_MEL))
    head_width: int = 128
    scale: float = 1.0
    offset: float = 0.0


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
        """Unit-norm embeddings ``(batch, embedding_width)``."""
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
    """How well the audio does what the prompt says: scale · cos(audio embedding, text embedding) + offset.

    A contrastive audio–text model in the role of MuLan (Section 3.1). Prompts are encoded once a call however often
    they repeat.
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
        """In Hz; other rates are resampled."""
        return self.audio.sample_rate

    def cosine(self, audio: Tensor, sample_rate: int, prompts: Sequence[str]) -> Tensor:
        """The score before its affine map, ``(batch,)`` in [−1, 1]."""
        return prompt_cosine(self.audio(resample(audio, sample_rate, self.sample_rate)), prompts, self.text)

    @torch.no_grad()
    def forward(self, audio: Tensor, sample_rate: int, prompts: Sequence[str]) -> Tensor:
        """Scores ``(batch,)``. Raises ``ValueError`` when rows and prompts do not match."""
        check_rows(audio, prompts)
        return self.config.scale * self.cosine(audio, sample_rate, prompts) + self.config.offset

    def save_pretrained(self, folder: str | Path, half: bool = False) -> None:
        """Writes ``config.json``, ``model.safetensors`` (float16 if ``half``) and ``tokenizer.json``."""
        _save(self, Path(folder), half)
        self.text.tokenizer.save(str(Path(folder) / "tokenizer.json"))

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> AdherenceScorer:
        """The saved scorer, float32, frozen, in eval mode. Raises ``ValueError`` for a folder that holds none."""
        content = _read(Path(folder), cls.name, ("config.json", "model.safetensors", "tokenizer.json"))
        audio, text = AudioViTConfig(**content.pop("audio")), TextTowerConfig(**content.pop("text"))
        tokenizer = Tokenizer.from_file(str(Path(folder) / "tokenizer.json"))
        return _restore(cls(AdherenceConfig(audio, text, **content), tokenizer), Path(folder))


class PreferenceScorer(nn.Module):
    """How much a listener likes the audio, whatever the prompt: scale · logit + offset.

    The logit of a Bradley–Terry model, P(a ≻ b) = σ(logit(a) − logit(b)), in the role of the User Preference score.
    """

    name = "preference"

    def __init__(self, config: PreferenceConfig) -> None:
        super().__init__()
        self.config, self.version = config, "unsaved"
        width = config.audio.embedding_width
        self.audio = AudioViT(config.audio)
        self.head = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, config.head_width), nn.GELU(), nn.Linear(config.head_width, 1)
        )

    @property
    def sample_rate(self) -> int:
        """In Hz; other rates are resampled."""
        return self.audio.sample_rate

    def logit(self, audio: Tensor, sample_rate: int) -> Tensor:
        """The score before its affine map, ``(batch,)``."""
        return self.head(self.audio(resample(audio, sample_rate, self.sample_rate))).squeeze(-1).float()

    @torch.no_grad()
    def forward(self, audio: Tensor, sample_rate: int, prompts: Sequence[str]) -> Tensor:
        """Scores ``(batch,)``; the prompts are not looked at."""
        check_rows(audio, prompts)
        return self.config.scale * self.logit(audio, sample_rate) + self.config.offset

    def save_pretrained(self, folder: str | Path, half: bool = False) -> None:
        """Writes ``config.json`` and ``model.safetensors`` (float16 if ``half``)."""
        _save(self, Path(folder), half)

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> PreferenceScorer:
        """The saved scorer, float32, frozen, in eval mode. Raises ``ValueError`` for a folder that holds none."""
        content = _read(Path(folder), cls.name, ("config.json", "model.safetensors"))
        audio = AudioViTConfig(**content.pop("audio"))
        return _restore(cls(PreferenceConfig(audio, **content)), Path(folder))


def _save(scorer: AdherenceScorer | PreferenceScorer, folder: Path, half: bool) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    config = {"model_type": scorer.name, **asdict(scorer.config)}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    dtype = torch.float16 if half else torch.float32
    tensors = {name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in scorer.state_dict().items()}
    save_file(tensors, folder / "model.safetensors")


def _read(folder: Path, name: str, files: Sequence[str]) -> dict[str, Any]:
    missing = [file for file in files if not (folder / file).is_file()]
    if missing:
        raise ValueError(f"scorer folder {folder} lacks {', '.join(missing)}; expected what save_pretrained writes")
    content = json.loads((folder / "config.json").read_text())
    if (found := content.pop("model_type", None)) != name:
        raise ValueError(f"scorer folder {folder} holds {found!r}, expected {name!r}")
    return content


def _restore(scorer: Any, folder: Path) -> Any:
    """Loads the weights; the version is a hash of the files, so that no change of a score goes unnoticed."""
    try:
        scorer.load_state_dict({name: t.float() for name, t in load_file(folder / "model.safetensors").items()})
    except RuntimeError as error:
        raise ValueError(f"scorer folder {folder}: weights do not fit config.json: {error}") from None
    paths = [folder / name for name in ("config.json", "model.safetensors", "tokenizer.json")]
    content = b"".join(path.read_bytes() for path in paths if path.is_file())
    scorer.version = hashlib.sha256(content).hexdigest()[:8]
    return scorer.eval().requires_grad_(False)
