"""Codes and captions of the base model's training clips, encoded once and stored in shards on disk."""

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

from qd.builtin.stage_config import CLIP_LIMITS
from qd.config.loading import ConfigError
from qd.data.worlds import EDITIONS, edition
from qd.models.codecs.codec import FrameCodec
from qd.runs.atomic import atomic_write
from qd.schema.checker import Settings
from qd.schema.setting import setting

TRAINING, VALIDATION = "base", "validation"
_CONFIG = "config.json"
_CARD = """# Codes and captions

{clips} clips of {seconds:g} s of the built-in world's split base and {validation_clips} of its split validation, by
`qd base --stage tokens`. `config.json` names the codec by the hash of its weights.
"""


@dataclass
class TokensStageConfig(Settings):
    """The clips to encode. The shards are a pure function of these values, except ``workers``, and of the codec."""

    clips: int = setting(75_000, 'Number of clips of the split "base", each from another piece.', ge=1)
    validation_clips: int = setting(512, 'Number of clips of the split "validation", for the held-out loss.', ge=1)
    seconds: float = setting(4.0, "Length of a clip.", **CLIP_LIMITS)
    shard_size: int = setting(1_500, "Clips in a shard, the most that a killed run loses.", unit="clips", ge=1)
    batch_size: int = setting(
        50,
        "Clips encoded at once; it may change the last bits of sums and so a code.",
        unit="clips",
        ge=1,
    )
    workers: int = setting(2, "Number of processes that render clips; the main process encodes.", ge=0)
    world: int = setting(1, "Edition of the built-in world; `world` of the build replaces it.", ge=1, le=len(EDITIONS))


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
    """Dataset whose item i is the audio (clips, samples) and the captions of the i-th slice of clips."""

    def __init__(self, slices: list[tuple[str, range]], seconds: float, world: int) -> None:
        self.slices, self.seconds, self.world = slices, seconds, world

    def __len__(self) -> int:
        return len(self.slices)

    def __getitem__(self, item: int) -> tuple[Tensor, list[str]]:
        split, indices = self.slices[item]
        clips = [edition(self.world).clip(split, index, self.seconds) for index in indices]
        return torch.from_numpy(np.stack([np.asarray(c.audio, np.float32) for c in clips])), [c.caption for c in clips]


def run(config: TokensStageConfig, folder: Path, codec_folder: Path) -> Path:
    """Renders and encodes the clips that ``folder`` lacks; a killed run resumes at the first missing shard.

    Args:
        config: Selects the clips.
        folder: Output folder of the shards.
        codec_folder: Folder of a ``FrameCodec``, from ``save_pretrained``.

    Returns:
        ``folder``.

    Raises:
        ConfigError: Settings are out of range; the message lists all of them.
        ValueError: ``folder`` contains shards of another codec or of other settings.
    """
    if problems := config.problems("tokens."):
        raise ConfigError(problems)
    folder.mkdir(parents=True, exist_ok=True)
    _check_settings(folder, config, codec_folder)
    missing = [shard for shard in all_shards(config) if not _codes_path(folder, shard.name).exists()]
    if missing:
        codec = FrameCodec.from_pretrained(codec_folder).eval()
        encoded = _encode(codec, missing, config)
        for shard, codes, captions in track(encoded, description="encoding clips", total=len(missing)):
            _write(folder, shard, codes, captions)
    (folder / "README.md").write_text(_CARD.format(**asdict(config)), encoding="utf-8")
    return folder


def all_shards(config: TokensStageConfig) -> list[Shard]:
    """Returns the shards of both splits, validation first: it is small, so errors appear early."""
    splits = ((VALIDATION, config.validation_clips), (TRAINING, config.clips))
    return [
        Shard(split, start, min(start + config.shard_size, total))
        for split, total in splits
        for start in range(0, total, config.shard_size)
    ]


def read_tokens(folder: Path, split: str) -> tuple[Tensor, list[str]]:
    """Reads the shards of one split, in the order of the clips.

    Returns:
        Codes (clips, codebooks, frames) int16, and the captions.

    Raises:
        ValueError: ``folder`` lacks shards of ``split``.
    """
    config = folder / _CONFIG
    settings = json.loads(config.read_text(encoding="utf-8")) if config.exists() else {}
    expected = settings.get({TRAINING: "clips", VALIDATION: "validation_clips"}[split], 1)
    paths = sorted(folder.glob(f"{split}-*.safetensors"))
    shards = [load_file(path)["codes"] for path in paths]
    if (clips := sum(map(len, shards))) != expected:
        raise ValueError(f"{folder} has {clips} clips of the split {split!r}, not all: run the stage 'tokens' first")
    codes = torch.cat(shards)
    captions = [
        json.loads(line)["caption"] for path in paths for line in path.with_suffix(".jsonl").open(encoding="utf-8")
    ]
    return codes, captions


def require_codec(folder: Path, codec_folder: Path) -> None:
    """Refuses tokens of another codec, because this one cannot decode them.

    A folder without tokens passes; :func:`read_tokens` refuses it.

    Raises:
        ValueError: The tokens come from another codec; the message explains how to encode again.
    """
    path, expected = folder / _CONFIG, _codec_hash(codec_folder)
    actual = json.loads(path.read_text(encoding="utf-8"))["codec"] if path.exists() else expected
    if actual != expected:
        raise ValueError(
            f"the tokens in {folder} come from the codec {actual[:12]}, not from {expected[:12]} in {codec_folder}: "
            f"remove {folder} and run the stage 'tokens' again, or use the codec that made them"
        )


def _encode(
    codec: FrameCodec, shards: list[Shard], config: TokensStageConfig
) -> Iterator[tuple[Shard, Tensor, list[str]]]:
    slices = [[(shard.split, indices) for indices in _slices(shard, config.batch_size)] for shard in shards]
    renderer = _Renderer([one for per_shard in slices for one in per_shard], config.seconds, config.world)
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
    """Writes the captions before the codes, both atomically, so a shard with a codes file is complete."""
    indices = range(shard.start, shard.stop)
    lines = [json.dumps({"index": index, "caption": text}) for index, text in zip(indices, captions, strict=True)]
    path = _codes_path(folder, shard.name)
    with atomic_write(path.with_suffix(".jsonl")) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    with atomic_write(path) as temporary:
        save_file({"codes": codes}, temporary)


def _codes_path(folder: Path, name: str) -> Path:
    return folder / f"{name}.safetensors"


def _check_settings(folder: Path, config: TokensStageConfig, codec_folder: Path) -> None:
    """Writes the settings to the folder, or refuses a folder with shards of another codec or of other settings."""
    settings = {name: value for name, value in asdict(config).items() if name != "workers"}
    settings["codec"] = _codec_hash(codec_folder)
    path = folder / _CONFIG
    existing = json.loads(path.read_text(encoding="utf-8")) if path.exists() else settings
    if existing != settings:
        names = ", ".join(sorted(name for name in settings if existing.get(name) != settings[name]))
        raise ValueError(f"{folder} has shards with another {names}: remove the folder to encode again")
    path.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def _codec_hash(codec_folder: Path) -> str:
    return hashlib.sha256((codec_folder / "model.safetensors").read_bytes()).hexdigest()
