"""Clips for the scorers, rendered once and stored on disk; every second clip passes through the codec."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import track
from torch.utils.data import DataLoader

from qd.builtin.stage import Example, IndexedStream
from qd.data.world.timbres import SAMPLE_RATE
from qd.data.world.world import Clip
from qd.data.worlds import edition
from qd.models.codecs.codec import FrameCodec
from qd.modules.embedder import CodecRoundTrip
from qd.runs.atomic import atomic_write

FULL_SCALE = 32_767
_CHUNK = 32  # clips per pass through the codec

Label = Callable[[Clip], dict[str, Any]]


@dataclass(frozen=True)
class ClipBank:
    """Audio and labels of clips; clips with an odd number passed through the codec.

    Attributes:
        pcm: Samples, int16 ``(clips, samples)``, memory-mapped.
        labels: One JSON object per clip.
    """

    pcm: np.ndarray
    labels: list[dict[str, Any]]

    def __len__(self) -> int:
        return len(self.labels)

    def audio(self, rows: np.ndarray | slice | int) -> torch.Tensor:
        """Returns the audio of clips, float32 in [−1, 1]."""
        return torch.from_numpy(self.pcm[rows].astype(np.float32)) / FULL_SCALE

    @property
    def halves(self) -> dict[str, np.ndarray]:
        """Numbers of the clips by processing: ``"raw"`` and ``"codec"``."""
        return {"raw": np.arange(0, len(self), 2), "codec": np.arange(1, len(self), 2)}


def shuffled_example(index: int, bank: ClipBank, seed: int) -> Example:
    """Returns item ``index`` of an endless stream that visits the bank in a new order each epoch."""
    epoch, position = divmod(index, len(bank))
    clip = int(_order(len(bank), seed, epoch)[position])
    return {"audio": bank.audio(clip).numpy(), "clip": np.int64(clip)}


def build_bank(
    folder: Path,
    split: str,
    clips: int,
    seconds: float,
    codec: FrameCodec,
    label: Label,
    workers: int = 2,
    world: int = 1,
) -> ClipBank:
    """Renders clips ``0 … clips − 1`` of a split, or reuses an existing file; its name is a hash of the settings.

    Args:
        folder: Folder of the files; a clip of 4 s takes 128 kB.
        split: Split of the built-in world.
        clips: Number of clips.
        seconds: Length of a clip.
        codec: Codec for every second clip.
        label: Returns the label of a clip.
        workers: Processes that render.
        world: Edition of the built-in world.
    """
    weights = b"".join(tensor.numpy().tobytes() for tensor in codec.state_dict().values())
    made_by = f"{world} {split} {clips} {seconds} {hashlib.sha256(weights).hexdigest()}"
    path = folder / f"{split}-{hashlib.sha256(made_by.encode()).hexdigest()[:12]}.npy"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        stream = IndexedStream(partial(_chunk, split=split, clips=clips, seconds=seconds, label=label, world=world))
        chunks = -(-clips // _CHUNK)
        loader = DataLoader(stream, batch_size=None, sampler=range(chunks), num_workers=workers)
        _write(path, track(loader, f"rendering {split}", total=chunks), (clips, _samples(seconds)), codec)
    return ClipBank(np.load(path, mmap_mode="r"), json.loads(path.with_suffix(".json").read_text(encoding="utf-8")))


def _chunk(number: int, split: str, clips: int, seconds: float, label: Label, world: int) -> dict[str, Any]:
    numbers = range(number * _CHUNK, min((number + 1) * _CHUNK, clips))
    rendered = [edition(world).clip(split, index, seconds) for index in numbers]
    return {"audio": np.stack([clip.audio for clip in rendered]), "labels": [label(clip) for clip in rendered]}


def _write(path: Path, chunks: Any, shape: tuple[int, int], codec: FrameCodec) -> None:
    """Writes the labels and then renames the audio, so a bank with an audio file is complete."""
    round_trip, labels = CodecRoundTrip(codec), []
    with atomic_write(path) as temporary:
        pcm = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.int16, shape=shape)
        for chunk in chunks:
            audio = torch.as_tensor(chunk["audio"])
            audio[1::2] = round_trip(audio[1::2])
            first = len(labels)
            labels += chunk["labels"]
            pcm[first : len(labels)] = (audio.clamp(-1, 1) * FULL_SCALE).round().numpy().astype(np.int16)
        pcm.flush()
        path.with_suffix(".json").write_text(json.dumps(labels), encoding="utf-8")


def _samples(seconds: float) -> int:
    return round(seconds * SAMPLE_RATE)


@lru_cache(maxsize=2)
def _order(clips: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(clips)
