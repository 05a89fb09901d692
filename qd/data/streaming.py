"""Recordings of a Hugging Face dataset that is read in order and not stored.

The position of a run depends only on its step: a resumed run skips the rows before its step, which downloads them
again but does not decode them. The library divides the rows among ranks and workers: by files, if the number of files
is a multiple of the number of workers, otherwise row by row, and then each worker downloads all rows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from itertools import count, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from qd.data.audio_files import BadAudioError, ClipShape, read_pair
from qd.data.collection import POSITION
from qd.data.huggingface import AudioDataset, encoded, open_dataset
from qd.data.recordings import RecordingsError
from qd.data.skipped import SkippedFiles

BUFFER = 128
"""Size of the shuffle buffer in rows; small, because a row is a whole encoded recording. Files are shuffled too."""
HELD_OUT_PAIRS = 256
IDENTIFYING_BYTES = 1 << 16
MAX_BAD_RUN = 64
"""Number of consecutive unusable rows that stops the run."""


class _Row(NamedTuple):
    audio: Path | bytes
    identity: int
    """53 bits of a hash of the recording's path, length and first bytes."""
    label: str
    genre: str | None

    def held_out(self, validation_share: float) -> bool:
        return self.identity < validation_share * 2**53


class StreamedTraining:
    """Endless rows that are not held out, reshuffled each epoch: a ``SequentialRecordings``.

    Pair p of a shard comes from its first usable row at or after p, so the row after a bad one is used for both.

    Args:
        dataset: Rows of the dataset.
        shape: Shape of a clip.
        seed: Seed for the order and the positions.
        validation_share: Share of held-out rows, which are left out.
        skipped: Receives the bad recordings.
    """

    def __init__(
        self, dataset: AudioDataset, shape: ClipShape, seed: int, validation_share: float, skipped: SkippedFiles
    ) -> None:
        self.dataset, self.shape, self.seed = dataset, shape, seed
        self.validation_share, self.skipped = validation_share, skipped

    def pairs(self, shard: int, shards: int, skip: int) -> Iterator[tuple[np.ndarray, int]]:
        waiting: dict[int, tuple[np.ndarray, int] | None] = {}
        rows = islice(enumerate(self._rows(shard, shards)), skip, None)
        for number, row in rows:
            waiting[number] = None
            for pair, served in waiting.items():
                if served is None:
                    waiting[pair] = self._read(row, shard, pair)
            if len(waiting) > MAX_BAD_RUN:
                raise RecordingsError(
                    f"{MAX_BAD_RUN} consecutive rows of the stream cannot be used: {self.skipped.summary()}"
                )
            while waiting and (served := next(iter(waiting.values()))) is not None:
                yield served
                del waiting[next(iter(waiting))]

    def _read(self, row: _Row, shard: int, pair: int) -> tuple[np.ndarray, int] | None:
        try:
            audio = read_pair(row.audio, self.shape, np.random.default_rng([POSITION, self.seed, shard, pair]))
        except BadAudioError as error:
            self.skipped.record([row.label], {row.label: error})
            return None
        self.skipped.record([row.label], {})
        return audio, row.identity

    def _rows(self, shard: int, shards: int) -> Iterator[_Row]:
        """Yields the rows of a shard, epoch after epoch."""
        from datasets.distributed import split_dataset_by_node

        shuffled = self.dataset.rows.shuffle(seed=self.seed, buffer_size=BUFFER)
        part = split_dataset_by_node(shuffled, rank=shard, world_size=shards)
        for epoch in count():
            part.set_epoch(epoch)
            usable = False
            for row in _read_rows(self.dataset._replace(rows=part)):
                if not row.held_out(self.validation_share):
                    usable = True
                    yield row
            if not usable:
                raise RecordingsError(
                    f"part {shard + 1} of {shards} of the stream has no training recording; lower data.workers, "
                    "devices or data.validation_share"
                )


class StreamedHeldOut:
    """The first usable held-out rows of a stream, stored as clips; index i is always the same pair.

    Args:
        dataset: Rows of the dataset.
        shape, seed, validation_share, skipped: As in :class:`StreamedTraining`.
        most: Most rows to store.
    """

    def __init__(
        self,
        dataset: AudioDataset,
        shape: ClipShape,
        seed: int,
        validation_share: float,
        skipped: SkippedFiles,
        most: int,
    ) -> None:
        self._clips: dict[int, tuple[np.ndarray, str | None]] = {}
        for row in _read_rows(dataset):
            if len(self._clips) == most:
                break
            if row.identity in self._clips or not row.held_out(validation_share):
                continue
            try:
                pair = read_pair(row.audio, shape, np.random.default_rng([POSITION, seed, row.identity]))
            except BadAudioError as error:
                skipped.record([row.label], {row.label: error})
            else:
                skipped.record([row.label], {})
                self._clips[row.identity] = pair, row.genre
        self.size = len(self._clips)
        self._identities = list(self._clips)

    def __len__(self) -> int:
        return self.size

    def pair(self, index: int) -> np.ndarray:
        return self._clips[self.identity(index)][0]

    def identity(self, index: int) -> int:
        return self._identities[index % self.size]

    def genre(self, index: int) -> str | None:
        return self._clips[self.identity(index)][1]


def open_stream(
    spec: str,
    shape: ClipShape,
    seed: int,
    split: str,
    validation_share: float,
    max_bad_share: float,
    skipped: Path | None,
    pairs: int | None,
) -> StreamedTraining | StreamedHeldOut:
    """Opens the stream for :func:`qd.data.library.open_recordings`, with the same arguments.

    Raises:
        ValueError: As there.
    """
    dataset = open_dataset(spec, streaming=True)
    bad_files = SkippedFiles(skipped, max_bad_share)
    if split == "train":
        return StreamedTraining(dataset, shape, seed, validation_share, bad_files)
    share = 1.0 if split == "all" else validation_share
    held_out = StreamedHeldOut(dataset, shape, seed, share, bad_files, pairs or HELD_OUT_PAIRS)
    if held_out.size < 2:
        raise RecordingsError(
            f"recordings 'datasets:{spec}': {held_out.size} held-out recordings can be used, at least 2 are needed; "
            f"raise data.validation_share={validation_share}; bad recordings: {bad_files.summary()}"
        )
    return held_out


def _read_rows(dataset: AudioDataset) -> Iterator[_Row]:
    # In a loader's worker, plain iteration would divide the rows among the workers again; iter() does not.
    for batch in dataset.rows.iter(batch_size=1):
        row: Mapping[str, Any] = {name: values[0] for name, values in batch.items()}
        audio = encoded(row[dataset.column])
        path = row[dataset.column]["path"]
        identity = _identity(path, audio)
        yield _Row(audio, identity, path or f"row {identity:014x}", dataset.genre(row))


def _identity(path: str | None, audio: Path | bytes) -> int:
    size, start = 0, b""
    if isinstance(audio, bytes):
        size, start = len(audio), audio[:IDENTIFYING_BYTES]
    digest = hashlib.blake2b(f"{path} {size} ".encode(errors="surrogateescape") + start, digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 11
