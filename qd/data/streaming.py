"""Recordings of a Hugging Face dataset that is not stored but gone through in order.

Where a run stands follows from its step alone: a resumed run goes through the rows before its step again, which costs
their download but not their decoding. The rows are dealt to ranks and workers by the library: by files, if their number
is a multiple of that of the workers, else row by row, in which case each worker downloads all of them.
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
"""Rows that are shuffled among each other, besides the order of the files: a row is a whole encoded recording."""
HELD_OUT_PAIRS = 256
IDENTIFYING_BYTES = 1 << 16
MOST_WAITING = 64
"""Rows one after the other that cannot be used, after which nobody waits for a good one."""


class _Row(NamedTuple):
    audio: Path | bytes
    identity: int
    """53 bits of a hash of the path, the length and the first bytes of the recording."""
    label: str
    genre: str | None

    def held_out(self, validation_share: float) -> bool:
        return self.identity < validation_share * 2**53


class StreamedTraining:
    """The rows that are not held out, endlessly, shuffled anew each epoch: a ``SequentialRecordings``.

    Pair p of a shard is of its first row from p on that can be used: the good row after a bad one serves for both.

    Args:
        dataset: the rows.
        shape: of a clip.
        seed: of the order and the positions.
        validation_share: of the rows, left out here.
        skipped: told what is bad.
    """

    def __init__(
        self, dataset: AudioDataset, shape: ClipShape, seed: int, validation_share: float, skipped: SkippedFiles
    ) -> None:
        self.dataset, self.shape, self.seed = dataset, shape, seed
        self.validation_share, self.skipped = validation_share, skipped

    def pairs(self, shard: int, shards: int, skip: int) -> Iterator[tuple[np.ndarray, int]]:
        waiting: dict[int, tuple[np.ndarray, int] | None] = {}
        rows = islice(enumerate(self._rows(shard, shards)), skip, None)
        for place, row in rows:
            waiting[place] = None
            for pair, served in waiting.items():
                if served is None:
                    waiting[pair] = self._read(row, shard, pair)
            if len(waiting) > MOST_WAITING:
                raise RecordingsError(
                    f"{MOST_WAITING} rows of the stream, one after the other, cannot be used: {self.skipped.summary()}"
                )
            while waiting and (served := next(iter(waiting.values()))) is not None:
                yield served
                del waiting[next(iter(waiting))]

    def _read(self, row: _Row, shard: int, pair: int) -> tuple[np.ndarray, int] | None:
        try:
            audio = read_pair(row.audio, self.shape, np.random.default_rng([POSITION, self.seed, shard, pair]))
        except BadAudioError as error:
            self.skipped.looked_at([row.label], {row.label: error})
            return None
        self.skipped.looked_at([row.label], {})
        return audio, row.identity

    def _rows(self, shard: int, shards: int) -> Iterator[_Row]:
        """Of all epochs."""
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
                    f"part {shard + 1} of {shards} of the stream has no recording to train on; lower data.workers, "
                    "devices or data.validation_share"
                )


class StreamedHeldOut:
    """The first held-out rows of a stream that can be used, kept as clips; index i is always the same pair.

    Args:
        dataset: the rows.
        shape, seed, validation_share, skipped: as of :class:`StreamedTraining`.
        most: rows that are enough.
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
        self._kept: dict[int, tuple[np.ndarray, str | None]] = {}
        for row in _read_rows(dataset):
            if len(self._kept) == most:
                break
            if row.identity in self._kept or not row.held_out(validation_share):
                continue
            try:
                pair = read_pair(row.audio, shape, np.random.default_rng([POSITION, seed, row.identity]))
            except BadAudioError as error:
                skipped.looked_at([row.label], {row.label: error})
            else:
                skipped.looked_at([row.label], {})
                self._kept[row.identity] = pair, row.genre
        self.size = len(self._kept)
        self._identities = list(self._kept)

    def __len__(self) -> int:
        return self.size

    def pair(self, index: int) -> np.ndarray:
        return self._kept[self.identity(index)][0]

    def identity(self, index: int) -> int:
        return self._identities[index % self.size]

    def genre(self, index: int) -> str | None:
        return self._kept[self.identity(index)][1]


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
    """The stream of ``qd.data.library.open_recordings``, with its arguments.

    Raises:
        ValueError: as there.
    """
    dataset = open_dataset(spec, streaming=True)
    found = SkippedFiles(skipped, max_bad_share)
    if split == "train":
        return StreamedTraining(dataset, shape, seed, validation_share, found)
    share = 1.0 if split == "all" else validation_share
    held_out = StreamedHeldOut(dataset, shape, seed, share, found, pairs or HELD_OUT_PAIRS)
    if held_out.size < 2:
        raise RecordingsError(
            f"recordings 'datasets:{spec}': {held_out.size} held-out ones can be used, at least 2 are needed; raise "
            f"data.validation_share={validation_share}; of the others: {found.summary()}"
        )
    return held_out


def _read_rows(dataset: AudioDataset) -> Iterator[_Row]:
    # In a loader's worker, plain iteration would deal the rows to the workers once more; by batches it does not.
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
