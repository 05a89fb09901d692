"""Recordings that an embedder was not trained on, by index: of the built-in world, or of somebody's library."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from qd.data.recordings import BuiltinRecordings, Recordings
from qd.data.world import world
from qd.data.world.world import BUILTIN

LONGER = 1.25
"""How much more of a recording a change of tempo may need, as a multiple of a clip."""
DRUMS_DB = 6.0
"""How far drums that are layered on a library's clips lie below the music, as a ratio of mean powers."""
LONGEST_BUILTIN = 8.0
"""Seconds of a clip of which a built-in piece of 16 s holds two."""
SPLIT, TRAINING_SPLIT = "validation", "embedder"

_DRUMS = (
    "Drums: the same window of the same piece rendered anew, without its drums where it has some, else with a drum "
    "part of its genre (or of one of its metre): the two rows are of different recordings."
)
_LIBRARY_DRUMS = (
    f"Drums added are excerpts of built-in drum loops, {DRUMS_DB:g} dB below the music. Drums removed is left out: "
    "nobody has the recordings without their drums."
)


class DrumBatch(NamedTuple):
    """Clips, and the same clips with their drums changed, ``(recordings, samples)`` each."""

    original: Tensor
    changed: Tensor
    added: Tensor
    """(recordings,) bool: drums were added; else removed."""


class ClipBatch(NamedTuple):
    """A few recordings, heard."""

    pairs: Tensor
    """(recordings, 2, samples): two clips of each recording that do not overlap."""
    longer: Tensor | None
    """(some recordings, LONGER · samples): one longer clip of each; None where the recordings are too short."""
    drums: DrumBatch | None
    """None where nobody knows the drums of a recording."""
    genres: list[str | None]
    """Of each recording, where it is known."""


class HeldOut(Protocol):
    """Held-out recordings.

    Attributes:
        description: one line for the reader of a report. notes: what to know about them, what was left out.
        sample_rate: of the clips, in Hz.
    """

    description: str
    notes: list[str]
    sample_rate: int

    def __len__(self) -> int:
        """How many recordings."""

    def batch(self, indices: range) -> ClipBatch:
        """The clips of some of them."""

    def training_clips(self) -> Tensor:
        """As many clips of other recordings, ``(clips, samples)``: what the baselines are fitted to."""


class BuiltinHeldOut:
    """The first recordings of the built-in world's validation split, raw: those of an embedder's card.

    Args:
        n: how many.
        seconds: length of a clip.

    Raises:
        ValueError: two clips of ``seconds`` do not fit into a piece.
    """

    def __init__(self, n: int, seconds: float) -> None:
        self.n, self.seconds = n, seconds
        self.recordings = BuiltinRecordings(SPLIT, 0, seconds)
        self.recordings.pair(0)
        self.longer = BuiltinRecordings(SPLIT, 0, seconds * LONGER) if LONGER * seconds <= LONGEST_BUILTIN else None
        self.sample_rate = world.SAMPLE_RATE
        self.description = f"built-in world, split `{SPLIT}`, {n} recordings"
        self.notes = [_DRUMS, *([] if self.longer else [_no_tempo(seconds)])]

    def __len__(self) -> int:
        return self.n

    def batch(self, indices: range) -> ClipBatch:
        changes = [world.change_drums(SPLIT, index, 2, self.seconds) for index in indices]
        original, changed, added = zip(*changes, strict=True)
        drums = DrumBatch(_stack(original), _stack(changed), torch.tensor(added))
        return _batch(self.recordings, self.longer, indices, drums)

    def training_clips(self) -> Tensor:
        training = BuiltinRecordings(TRAINING_SPLIT, 0, self.seconds)
        return _stack([training.pair(index)[0] for index in range(self.n)])


class LibraryHeldOut:
    """The held-out share of a folder, a manifest or a data set.

    Args:
        source: as ``qd.data.library.open_recordings`` takes it.
        n: how many recordings at most.
        sample_rate: at which they are heard, in Hz.
        seconds: length of a clip.
        validation_share: of the recordings, held out by a hash of their names; the embedder's training must have held
            out as many or more.

    Raises:
        ValueError: there is nothing to hear, or too little.
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
            self.notes.append(f"{n} recordings were asked for; the held-out share has {self.n}.")
        try:
            self.longer = self._open(seconds=LONGER * seconds, split="validation", pairs=n)
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


def open_heldout(source: str, n: int, sample_rate: int, seconds: float, validation_share: float) -> HeldOut:
    """``builtin``, or what ``qd.data.library.open_recordings`` knows; see the two classes."""
    if source == BUILTIN:
        return BuiltinHeldOut(n, seconds)
    return LibraryHeldOut(source, n, sample_rate, seconds, validation_share)


def _batch(recordings: Recordings, longer: Recordings | None, indices: range, drums: DrumBatch | None) -> ClipBatch:
    pairs, genres = zip(*((recordings.pair(index), recordings.genre(index)) for index in indices), strict=True)
    extended = [longer.pair(i)[0] for i in indices if longer.size is None or i < longer.size] if longer else []
    return ClipBatch(_stack(pairs), _stack(extended) if extended else None, drums, list(genres))


def _stack(clips: list[np.ndarray] | tuple[np.ndarray, ...]) -> Tensor:
    return torch.from_numpy(np.stack(clips).astype(np.float32))


def _no_tempo(seconds: float) -> str:
    return f"Tempo is left out: recordings hold no two clips of {LONGER * seconds:g} s, which a faster clip is made of."
