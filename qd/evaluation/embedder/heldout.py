"""Recordings that an embedder was not trained on, by index: from the built-in world, or from a library."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from qd.data.recordings import BuiltinRecordings, Recordings
from qd.data.world.world import BUILTIN, SAMPLE_RATE
from qd.data.worlds import edition

LONGER = 1.25
"""Length of recording that a change of tempo needs, in clips."""
DRUMS_DB = 6.0
"""Level of the drums added to clips of a library, in dB below the music (ratio of mean powers)."""
LONGEST_BUILTIN = 8.0
"""Longest clip, in seconds, that fits twice into a built-in piece of 16 s."""
SPLIT, TRAINING_SPLIT = "validation", "embedder"

_DRUMS = (
    "Drums: the same window of the same piece rendered again, without its drums if it has some, else with a drum "
    "part of its genre (or of another genre with its metre): the two rows have different recordings."
)
_MODE = (
    "Minor for major: the same window with the same rhythm and sounds, every note in the other mode. A cosine near 1 "
    "means that the embedder does not react to harmony."
)
_LIBRARY_DRUMS = (
    f"Drums added are excerpts of built-in drum loops, {DRUMS_DB:g} dB below the music. Drums removed is left out: "
    "the recordings without their drums are not available."
)


class DrumBatch(NamedTuple):
    """Clips, and the same clips with changed drums, ``(recordings, samples)`` each."""

    original: Tensor
    changed: Tensor
    added: Tensor
    """``(recordings,)`` boolean: True where drums were added, False where they were removed."""


class ClipBatch(NamedTuple):
    """Clips of a few recordings."""

    pairs: Tensor
    """``(recordings, 2, samples)``: two clips of each recording that do not overlap."""
    longer: Tensor | None
    """``(some recordings, LONGER · samples)``: one longer clip of each; None if the recordings are too short."""
    drums: DrumBatch | None
    """None if the drums of the recordings are unknown."""
    genres: list[str | None]
    """Genre of each recording, if known."""
    other_mode: Tensor | None = None
    """``(recordings, samples)``: the first clips in another mode; None if their notes are unknown."""


class HeldOut(Protocol):
    """Held-out recordings.

    Attributes:
        description: One line for the reader of a report.
        notes: Facts about the recordings, and measurements that are left out.
        sample_rate: Sample rate of the clips, in Hz.
    """

    description: str
    notes: list[str]
    sample_rate: int

    def __len__(self) -> int:
        """Number of recordings."""

    def batch(self, indices: range) -> ClipBatch:
        """Returns the clips of some recordings."""

    def training_clips(self) -> Tensor:
        """Returns the same number of clips of other recordings, ``(clips, samples)``, to fit the baselines."""


class BuiltinHeldOut:
    """The first recordings of the validation split of the built-in world, which an embedder's card uses too.

    Args:
        n: Number of recordings.
        seconds: Length of a clip.
        world: Edition of the world.

    Raises:
        ValueError: Two clips of ``seconds`` do not fit into a piece.
    """

    def __init__(self, n: int, seconds: float, world: int = 1) -> None:
        self.n, self.seconds, self.world = n, seconds, world
        self.recordings = self._open(SPLIT, seconds)
        self.recordings.pair(0)
        self.longer = self._open(SPLIT, seconds * LONGER) if LONGER * seconds <= LONGEST_BUILTIN else None
        self.sample_rate = SAMPLE_RATE
        self.description = f"built-in world, edition {world}, split `{SPLIT}`, {n} recordings"
        self.notes = [_DRUMS, _MODE, *([] if self.longer else [_no_tempo(seconds)])]

    def __len__(self) -> int:
        return self.n

    def batch(self, indices: range) -> ClipBatch:
        world = edition(self.world)
        changes = [world.change_drums(SPLIT, index, 2, self.seconds) for index in indices]
        original, changed, added = zip(*changes, strict=True)
        drums = DrumBatch(_stack(original), _stack(changed), torch.tensor(added))
        moved = _stack([world.change_mode(SPLIT, index, 2, self.seconds)[1] for index in indices])
        return _batch(self.recordings, self.longer, indices, drums)._replace(other_mode=moved)

    def training_clips(self) -> Tensor:
        training = self._open(TRAINING_SPLIT, self.seconds)
        return _stack([training.pair(index)[0] for index in range(self.n)])

    def _open(self, split: str, seconds: float) -> BuiltinRecordings:
        return BuiltinRecordings(split, 0, seconds, self.world)


class LibraryHeldOut:
    """The held-out share of a folder, a manifest or a data set.

    Args:
        source: Source for ``qd.data.library.open_recordings``.
        n: Largest number of recordings.
        sample_rate: Sample rate of the clips, in Hz.
        seconds: Length of a clip.
        validation_share: Share of the recordings that is held out, by a hash of their names; the training of the
            embedder must have held out at least this share.

    Raises:
        ValueError: There are too few recordings.
    """

    def __init__(self, source: str, n: int, sample_rate: int, seconds: float, validation_share: float) -> None:
        from qd.data.library import open_recordings

        self.sample_rate = sample_rate
        self._open = partial(
            open_recordings, source, sample_rate=sample_rate, seed=0, validation_share=validation_share
        )
        self.seconds, self.recordings = seconds, self._open(seconds=seconds, split="validation", pairs=n)
        self.n = min(n, self.recordings.size)
        self.description = f"`{source}`, held-out share {validation_share:g}, {self.n} recordings"
        self.notes = [_LIBRARY_DRUMS]
        if self.n < n:
            self.notes.append(f"{n} recordings were requested; the held-out share has {self.n}.")
        try:
            self.longer = self._open(seconds=LONGER * seconds, split="validation", pairs=n, quiet=True)
        except ValueError:
            self.longer = None
            self.notes.append(_no_tempo(seconds))

    def __len__(self) -> int:
        return self.n

    def batch(self, indices: range) -> ClipBatch:
        return _batch(self.recordings, self.longer, indices, None)

    def training_clips(self) -> Tensor:
        training = self._open(seconds=self.seconds, split="train")
        return _stack([training.pair(index)[0] for index in range(self.n)])


def open_heldout(
    source: str, n: int, sample_rate: int, seconds: float, validation_share: float, world: int = 1
) -> HeldOut:
    """Opens ``builtin``, of an edition of the world, or a source for ``qd.data.library.open_recordings``."""
    if source == BUILTIN:
        return BuiltinHeldOut(n, seconds, world)
    return LibraryHeldOut(source, n, sample_rate, seconds, validation_share)


def _batch(recordings: Recordings, longer: Recordings | None, indices: range, drums: DrumBatch | None) -> ClipBatch:
    pairs, genres = zip(*((recordings.pair(index), recordings.genre(index)) for index in indices), strict=True)
    extended = [longer.pair(i)[0] for i in indices if longer.size is None or i < longer.size] if longer else []
    return ClipBatch(_stack(pairs), _stack(extended) if extended else None, drums, list(genres))


def _stack(clips: list[np.ndarray] | tuple[np.ndarray, ...]) -> Tensor:
    return torch.from_numpy(np.stack(clips).astype(np.float32))


def _no_tempo(seconds: float) -> str:
    return f"Tempo is left out: the recordings are too short for two clips of {LONGER * seconds:g} s, which it needs."
