"""Codes and captions of the base model's training clips: rendered and encoded once, kept in shards on disk."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from rich.progress import track
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from qd.builtin.stage_checks import clip_length
from qd.config.checks import bounded
from qd.config.loading import ConfigError
from qd.data.world.world import clip
from qd.models.codecs.codec import FrameCodec
from qd.runs.atomic import atomic_write

TRAINING, VALIDATION = "base", "validation"
_CONFIG = "config.json"
_CARD = """# Codes and captions

{clips} clips of {seconds:g} s of the built-in world's split base and {validation_clips} of its split validation, by
`qd base --stage tokens`. `config.json` names the codec by the hash of its weights.
"""


@dataclass
class TokensStageConfig:
    """Which clips are encoded. The shards are a pure function of these values, ``workers`` aside, and of the codec.

    Attributes:
        clips: clips of the split 'base', each of its own piece.
        validation_clips: clips of the split 'validation', for the held-out loss.
        seconds: length of a clip.
        shard_size: clips in a shard: what a killed run loses at most.
        batch_size: clips encoded at once; it may change the last bits of the sums before a code is chosen.
        workers: processes that render; the main process encodes.
    """

    clips: int = 75_000
    validation_clips: int = 512
    seconds: float = 4.0
    shard_size: int = 1_500
    batch_size: int = 50
    workers: int = 2

    def problems(self) -> list[str]:
        """Every invalid value, one sentence each."""
        return [
            *bounded("clips", self.clips, 1),
            *bounded("validation_clips", self.validation_clips, 1),
            *clip_length("seconds", self.seconds),
            *bounded("shard_size", self.shard_size, 1),
            *bounded("batch_size", self.batch_size, 1),
            *bounded("workers", self.workers, 0),
        ]


@dataclass(frozen=True)
class Shard:
    """Clips ``start`` … ``stop`` − 1 of a split: codes in ``<name>.safetensors``, captions in ``<name>.jsonl``."""

    split: str
    start: int
    stop: int

    @property
    def name(self) -> str:
        return f"{self.split}-{self.start:07d}"


class _Renderer(Dataset):
    """Item i: audio (clips, samples) and captions of the i-th slice of clips."""

    def __init__(self, slices: list[tuple[str, range]], seconds: float) -> None:
        self.slices, self.seconds = slices, seconds

    def __len__(self) -> int:
        return len(self.slices)

    def __getitem__(self, item: int) -> tuple[Tensor, list[str]]:
        split, indices = self.slices[item]
        clips = [clip(split, index, self.seconds) for index in indices]
        return torch.from_numpy(np.stack([np.asarray(c.audio, np.float32) for c in clips])), [c.caption for c in clips]


def run(config: TokensStageConfig, folder: Path, codec_folder: Path) -> Path:
    """Render and encode every clip that ``folder`` lacks; a killed run continues at the first missing shard.

    Args:
        config: which clips.
        folder: where the shards go.
        codec_folder: a ``FrameCodec`` as ``save_pretrained`` writes it.

    Returns:
        ``folder``.

    Raises:
        ConfigError: names every setting that is out of range.
        ValueError: if ``folder`` holds shards of another codec or of other settings.
    """
    if problems := config.problems():
        raise ConfigError(f"tokens.{problem}" for problem in problems)
    folder.mkdir(parents=True, exist_ok=True)
    _claim(folder, config, codec_folder)
    missing = [shard for shard in all_shards(config) if not _codes_path(folder, shard.name).exists()]
    if missing:
        codec = FrameCodec.from_pretrained(codec_folder).eval()
        encoded = _encode(codec, missing, config)
        for shard, codes, captions in track(encoded, description="encoding clips", total=len(missing)):
            _write(folder, shard, codes, captions)
    (folder / "README.md").write_text(_CARD.format(**asdict(config)), encoding="utf-8")
    return folder


def all_shards(config: TokensStageConfig) -> list[Shard]:
    """The shards of both splits, validation first: it is small, and a fault shows early."""
    splits = ((VALIDATION, config.validation_clips), (TRAINING, config.clips))
    return [
        Shard(split, start, min(start + config.shard_size, total))
        for split, total in splits
        for start in range(0, total, config.shard_size)
    ]


def read_tokens(folder: Path, split: str) -> tuple[Tensor, list[str]]:
    """Read the shards of one split, in the order of the clips.

    Returns:
        codes (clips, codebooks, frames) int16, and the captions.

    Raises:
        ValueError: if ``folder`` lacks shards of ``split``.
    """
    config = folder / _CONFIG
    made_of = json.loads(config.read_text()) if config.exists() else {}
    expected = made_of.get({TRAINING: "clips", VALIDATION: "validation_clips"}[split], 1)
    paths = sorted(folder.glob(f"{split}-*.safetensors"))
    shards = [load_file(path)["codes"] for path in paths]
    if (found := sum(map(len, shards))) != expected:
        raise ValueError(f"{folder} holds {found} clips of the split {split!r}, not all: run the stage 'tokens' first")
    codes = torch.cat(shards)
    captions = [
        json.loads(line)["caption"] for path in paths for line in path.with_suffix(".jsonl").open(encoding="utf-8")
    ]
    return codes, captions


def require_codec(folder: Path, codec_folder: Path) -> None:
    """Refuses tokens that another codec made: their codes mean nothing to this one.

    A folder without tokens passes; :func:`read_tokens` refuses that.

    Raises:
        ValueError: says so, and how to encode again.
    """
    path, given = folder / _CONFIG, _codec_hash(codec_folder)
    found = json.loads(path.read_text())["codec"] if path.exists() else given
    if found != given:
        raise ValueError(
            f"the tokens in {folder} were made by the codec {found[:12]}, not by {given[:12]}, which is in "
            f"{codec_folder}: remove {folder} and run the stage 'tokens' again, or give the codec that made them"
        )


def _encode(
    codec: FrameCodec, shards: list[Shard], config: TokensStageConfig
) -> Iterator[tuple[Shard, Tensor, list[str]]]:
    slices = [[(shard.split, indices) for indices in _slices(shard, config.batch_size)] for shard in shards]
    renderer = _Renderer([one for per_shard in slices for one in per_shard], config.seconds)
    rendered = iter(DataLoader(renderer, batch_size=None, num_workers=config.workers))
    for shard, per_shard in zip(shards, slices, strict=True):
        codes, captions = [], []
        for _ in per_shard:
            audio, texts = next(rendered)
            with torch.inference_mode():
                codes.append(codec.encode(audio).to(torch.int16))
            captions += texts
        yield shard, torch.cat(codes), captions


def _slices(shard: Shard, size: int) -> list[range]:
    return [range(start, min(start + size, shard.stop)) for start in range(shard.start, shard.stop, size)]


def _write(folder: Path, shard: Shard, codes: Tensor, captions: list[str]) -> None:
    """Captions first, and each file under its name only when whole: where the codes stand, the shard is complete."""
    indices = range(shard.start, shard.stop)
    lines = [json.dumps({"index": index, "caption": text}) for index, text in zip(indices, captions, strict=True)]
    path = _codes_path(folder, shard.name)
    with atomic_write(path.with_suffix(".jsonl")) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    with atomic_write(path) as temporary:
        save_file({"codes": codes}, temporary)


def _codes_path(folder: Path, name: str) -> Path:
    return folder / f"{name}.safetensors"


def _claim(folder: Path, config: TokensStageConfig, codec_folder: Path) -> None:
    """Refuse to mix shards of two codecs or of two settings in one folder."""
    made_of = {name: value for name, value in asdict(config).items() if name != "workers"}
    made_of["codec"] = _codec_hash(codec_folder)
    path = folder / _CONFIG
    found = json.loads(path.read_text()) if path.exists() else made_of
    if found != made_of:
        differ = ", ".join(sorted(name for name in made_of if found.get(name) != made_of[name]))
        raise ValueError(f"{folder} holds shards made with another {differ}: remove the folder to encode again")
    path.write_text(json.dumps(made_of, indent=2) + "\n")


def _codec_hash(codec_folder: Path) -> str:
    return hashlib.sha256((codec_folder / "model.safetensors").read_bytes()).hexdigest()
