"""Libraries: recordings of a collection by index, in a new order each epoch for training, or in a fixed order.

The recording of an index and the positions of its clips depend only on the seed, the index and the audio.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from qd.data.audio_files import BadAudioError, ClipShape, read_pair
from qd.data.manifest import Entry
from qd.data.recordings import RecordingsError
from qd.data.skipped import SkippedFiles

ORDER, POSITION, REPLACEMENT = 1, 2, 3  # separate random streams of one seed


class Collection(Protocol):
    """Named recordings with access to the audio of each."""

    names: Sequence[str]
    labels: Sequence[str]
    """Names in the list of skipped recordings: full paths, if they exist."""

    def audio(self, number: int) -> Path | bytes:
        """Returns the encoded recording ``number``, or the path of its file."""

    def genre(self, number: int) -> str | None:
        """Returns the genre of recording ``number``; None if unknown."""


class FileCollection:
    """Files listed by :func:`qd.data.manifest.list_recordings`."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.names = [entry.name for entry in entries]
        self.labels = [str(entry.path) for entry in entries]
        self._genres = [entry.genre for entry in entries]

    def audio(self, number: int) -> Path:
        return Path(self.labels[number])

    def genre(self, number: int) -> str | None:
        return self._genres[number]


class _Loaded(NamedTuple):
    index: int
    number: int
    pair: np.ndarray


class _Library:
    """Base of both kinds of library; caches the last requested index."""

    def __init__(self, collection: Collection, numbers: np.ndarray, shape: ClipShape, seed: int) -> None:
        self.collection, self.numbers, self.shape, self.seed = collection, numbers, shape, seed
        self.size = len(numbers)
        self._last: _Loaded | None = None

    def __len__(self) -> int:
        return self.size

    def pair(self, index: int) -> np.ndarray:
        return self._at(index).pair

    def identity(self, index: int) -> int:
        return self._at(index).number

    def genre(self, index: int) -> str | None:
        return self.collection.genre(self._at(index).number)

    def _at(self, index: int) -> _Loaded:
        if self._last is None or self._last.index != index:
            self._last = self._load(index)
        return self._last

    def _load(self, index: int) -> _Loaded:
        raise NotImplementedError

    def read(self, number: int, *position: int) -> np.ndarray:
        """Reads the pair of one recording at the positions that ``position`` seeds.

        Raises:
            BadAudioError: The recording cannot be used.
        """
        generator = np.random.default_rng([POSITION, self.seed, number, *position])
        return read_pair(self.collection.audio(number), self.shape, generator)


class TrainingLibrary(_Library):
    """Endless library: each epoch visits all recordings in a new order.

    If decoding shows that a recording is bad, another one, drawn at random, replaces it.

    Args:
        collection: The recordings.
        numbers: Numbers of the recordings that may be used.
        shape: Shape of a clip.
        seed: Seed for the order and the positions.
        skipped: Receives the bad recordings.
    """

    def __init__(
        self, collection: Collection, numbers: np.ndarray, shape: ClipShape, seed: int, skipped: SkippedFiles
    ) -> None:
        super().__init__(collection, numbers, shape, seed)
        self.skipped = skipped
        self._epoch: tuple[int, np.ndarray] | None = None

    def _load(self, index: int) -> _Loaded:
        for number in chain([self._planned(index)], self._replacements(index)):
            label = self.collection.labels[number]
            try:
                pair = self.read(number, index)
            except BadAudioError as error:
                self.skipped.record([label], {label: error})
            else:
                self.skipped.record([label], {})
                return _Loaded(index, number, pair)
        raise RecordingsError(f"none of {self.size} recordings can be used: {self.skipped.summary()}")

    def _planned(self, index: int) -> int:
        epoch, offset = divmod(index, self.size)
        if self._epoch is None or self._epoch[0] != epoch:
            order = np.random.default_rng([ORDER, self.seed, epoch]).permutation(self.numbers)
            self._epoch = epoch, order
        return int(self._epoch[1][offset])

    def _replacements(self, index: int) -> Iterator[int]:
        for number in np.random.default_rng([REPLACEMENT, self.seed, index]).permutation(self.numbers):
            if number != self._planned(index):
                yield int(number)


class FixedLibrary(_Library):
    """Fixed library: index i is always the same recording and the same two positions; it repeats after ``size``.

    A fixed set must not contain a recording twice, so a bad one has no replacement: each must have passed ``read``.
    """

    def _load(self, index: int) -> _Loaded:
        number = int(self.numbers[index % self.size])
        try:
            return _Loaded(index, number, self.read(number))
        except BadAudioError as error:
            raise RecordingsError(
                f"{self.collection.labels[number]} was readable at the start, now: {error}"
            ) from error
