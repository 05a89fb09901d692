"""Recordings of a collection by index: in a new order each epoch for training, or fixed.

Which recording an index stands for, and where its clips lie, follows from the seed, the index and the audio alone.
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

ORDER, POSITION, STAND_IN = 1, 2, 3  # each its own random numbers from one seed


class Collection(Protocol):
    """Recordings with names, of which the audio can be had one by one."""

    names: Sequence[str]
    labels: Sequence[str]
    """What the list of skipped recordings calls them: their full paths, if they have any."""

    def audio(self, number: int) -> Path | bytes:
        """The encoded recording ``number``, or the path of its file."""

    def genre(self, number: int) -> str | None:
        """None if unknown."""


class FileCollection:
    """Files, as :func:`qd.data.manifest.list_recordings` finds them."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.names = [entry.name for entry in entries]
        self.labels = [str(entry.path) for entry in entries]
        self._genres = [entry.genre for entry in entries]

    def audio(self, number: int) -> Path:
        return Path(self.labels[number])

    def genre(self, number: int) -> str | None:
        return self._genres[number]


class _Found(NamedTuple):
    index: int
    number: int
    pair: np.ndarray


class _Library:
    """What both kinds of library share: the last index that was asked for is remembered."""

    def __init__(self, collection: Collection, numbers: np.ndarray, shape: ClipShape, seed: int) -> None:
        self.collection, self.numbers, self.shape, self.seed = collection, numbers, shape, seed
        self.size = len(numbers)
        self._last: _Found | None = None

    def __len__(self) -> int:
        return self.size

    def pair(self, index: int) -> np.ndarray:
        return self._at(index).pair

    def identity(self, index: int) -> int:
        return self._at(index).number

    def genre(self, index: int) -> str | None:
        return self.collection.genre(self._at(index).number)

    def _at(self, index: int) -> _Found:
        if self._last is None or self._last.index != index:
            self._last = self._find(index)
        return self._last

    def _find(self, index: int) -> _Found:
        raise NotImplementedError

    def read(self, number: int, *position: int) -> np.ndarray:
        """The pair of one recording at the positions that ``position`` stands for.

        Raises:
            BadAudioError: it cannot be used.
        """
        generator = np.random.default_rng([POSITION, self.seed, number, *position])
        return read_pair(self.collection.audio(number), self.shape, generator)


class TrainingLibrary(_Library):
    """Endless: each epoch goes through all recordings in an order of its own. Another one, drawn at random, stands in
    for a recording that turns out to be bad when it is decoded.

    Args:
        collection: the recordings.
        numbers: those of them that may be used.
        shape: of a clip.
        seed: of the order and the positions.
        skipped: told what is bad.
    """

    def __init__(
        self, collection: Collection, numbers: np.ndarray, shape: ClipShape, seed: int, skipped: SkippedFiles
    ) -> None:
        super().__init__(collection, numbers, shape, seed)
        self.skipped = skipped
        self._epoch: tuple[int, np.ndarray] | None = None

    def _find(self, index: int) -> _Found:
        for number in chain([self._planned(index)], self._stand_ins(index)):
            label = self.collection.labels[number]
            try:
                pair = self.read(number, index)
            except BadAudioError as error:
                self.skipped.looked_at([label], {label: error})
            else:
                self.skipped.looked_at([label], {})
                return _Found(index, number, pair)
        raise RecordingsError(f"none of {self.size} recordings can be used: {self.skipped.summary()}")

    def _planned(self, index: int) -> int:
        epoch, place = divmod(index, self.size)
        if self._epoch is None or self._epoch[0] != epoch:
            order = np.random.default_rng([ORDER, self.seed, epoch]).permutation(self.numbers)
            self._epoch = epoch, order
        return int(self._epoch[1][place])

    def _stand_ins(self, index: int) -> Iterator[int]:
        for number in np.random.default_rng([STAND_IN, self.seed, index]).permutation(self.numbers):
            if number != self._planned(index):
                yield int(number)


class FixedLibrary(_Library):
    """Index i is one recording and two positions in it, always; after ``size`` it begins again. As none may occur
    twice in a fixed set, nothing could stand in for a bad recording: each must have passed ``read``."""

    def _find(self, index: int) -> _Found:
        number = int(self.numbers[index % self.size])
        try:
            return _Found(index, number, self.read(number))
        except BadAudioError as error:
            raise RecordingsError(f"{self.collection.labels[number]} was good at the start, now {error}") from error
