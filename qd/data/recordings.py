"""Streams training data of the embedder by step: pairs of clips of one recording.

The recordings of a step are a function of (seed, step, rank), without state: the stream is the same for any number of
loader workers, and a resumed run starts at the step where it stopped.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import count, islice
from typing import NamedTuple, Protocol, runtime_checkable

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from qd.data.world.world import SPLITS
from qd.data.worlds import edition


class PairBatch(NamedTuple):
    """Two clips that do not overlap, of each of ``pairs`` recordings."""

    audio: Tensor
    """(pairs, 2, samples) float32."""
    labels: Tensor
    """(pairs,) int64: number of the recording; equal only for pairs of the same recording."""


class RecordingsError(ValueError):
    """The recordings cannot be used.

    The message is complete: a loader's worker passes it to the training process without the worker's traceback.
    """


class Recordings(Protocol):
    """Pairs of clips by index. All methods are pure functions of the index."""

    size: int | None
    """Number of indices, from 0 on, with different recordings; None if all indices differ."""

    def pair(self, index: int) -> np.ndarray:
        """Returns two clips of recording ``index`` that do not overlap: ``(2, samples)`` float32.

        Raises:
            RecordingsError: No recording is usable, or too many are bad.
        """

    def identity(self, index: int) -> int:
        """Returns the number of the recording of ``pair(index)``.

        This is free after ``pair(index)``; otherwise it may decode the recording.
        """

    def genre(self, index: int) -> str | None:
        """Returns the genre of the recording of ``pair(index)``, None if unknown; free after ``pair(index)``."""


@runtime_checkable
class SequentialRecordings(Protocol):
    """Recordings that can only be read in order, such as a stream."""

    def pairs(self, shard: int, shards: int, skip: int) -> Iterator[tuple[np.ndarray, int]]:
        """Yields endless pairs and identities of part ``shard`` of ``shards``, from its pair ``skip`` on."""


class BuiltinRecordings:
    """Endless recordings of the built-in world; different seeds share none."""

    size = None

    def __init__(self, split: str, seed: int, seconds: float, world: int = 1) -> None:
        if split not in SPLITS:
            raise ValueError(f"split={split!r}: expected one of {', '.join(SPLITS)}")
        self.split, self.seed, self.seconds = split, seed, seconds
        self.world = edition(world)

    def pair(self, index: int) -> np.ndarray:
        clips = self.world.chunks(self.split, self._number(index), 2, self.seconds)
        return np.stack([clip.audio for clip in clips])

    def identity(self, index: int) -> int:
        return index

    def genre(self, index: int) -> str:
        # The piece does not depend on the windows, and a short window is cheap to render.
        return self.world.chunks(self.split, self._number(index), 1, seconds=0.05)[0].piece.genre

    def _number(self, index: int) -> int:
        return (self.seed << 32) + index


class PairStream(IterableDataset[PairBatch]):
    """Batches of one rank from ``first_step`` on.

    Step s of all ranks contains the recordings s·G … s·G + G − 1, G = ``pairs`` · ``ranks``, a contiguous part for each
    rank. Worker w of W loads every W-th step, and the loader alternates between workers, so steps arrive in order.

    Sequential recordings are split into ranks · W shards instead: steps equal to w modulo W read shard rank · W + w in
    order. Their steps therefore depend on the number of ranks and workers too, and a resumed run must keep both.

    Args:
        recordings: Source of the clips.
        pairs: Pairs in a batch of this rank.
        first_step: Step of the first batch.
        total: Number of recordings over all ranks (the last batch can be smaller); None is endless.
        rank: Rank of this process.
        ranks: Number of processes.
    """

    def __init__(
        self,
        recordings: Recordings | SequentialRecordings,
        pairs: int,
        first_step: int = 0,
        total: int | None = None,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        super().__init__()
        self.recordings, self.pairs, self.first_step, self.total = recordings, pairs, first_step, total
        self.rank, self.ranks = rank, ranks

    def indices(self, step: int) -> range:
        """Returns the indices of this rank's recordings at a step."""
        start = (step * self.ranks + self.rank) * self.pairs
        stop = start + self.pairs
        return range(start, stop) if self.total is None else range(start, min(stop, self.total))

    def __iter__(self) -> Iterator[PairBatch]:
        """Yields batches; a worker yields a ``RecordingsError`` as its last item, and :class:`PairLoader` raises it."""
        worker = get_worker_info()
        first, workers = (self.first_step + worker.id, worker.num_workers) if worker else (self.first_step, 1)
        sequential = isinstance(self.recordings, SequentialRecordings)
        try:
            yield from self._sequential_batches(first, workers) if sequential else self._indexed_batches(first, workers)
        except RecordingsError as error:
            if worker is None:
                raise
            yield error

    def _indexed_batches(self, first: int, workers: int) -> Iterator[PairBatch]:
        for step in count(first, workers):
            if not (indices := self.indices(step)):
                return
            yield _batch((self.recordings.pair(index), self.recordings.identity(index)) for index in indices)

    def _sequential_batches(self, first: int, workers: int) -> Iterator[PairBatch]:
        shard = self.rank * workers + first % workers
        pairs = self.recordings.pairs(shard, self.ranks * workers, skip=first // workers * self.pairs)
        while True:
            yield _batch(islice(pairs, self.pairs))


def _batch(pairs: Iterable[tuple[np.ndarray, int]]) -> PairBatch:
    audio, identities = zip(*pairs, strict=True)
    return PairBatch(torch.from_numpy(np.stack(audio).astype(np.float32)), torch.tensor(identities))


class PairLoader(DataLoader[PairBatch]):
    """A loader that raises a worker's ``RecordingsError`` in the training process."""

    def __iter__(self) -> Iterator[PairBatch]:
        for batch in super().__iter__():
            if isinstance(batch, RecordingsError):
                raise batch
            yield batch


class RecordingsDataModule(pl.LightningDataModule):
    """Endless training pairs that start at the trainer's ``global_step``, and a fixed set of held-out pairs.

    Args:
        train: Recordings for training.
        validation: Held-out recordings.
        batch_pairs: Pairs per optimiser step, over all ranks.
        validation_pairs: Most held-out pairs; fewer held-out recordings give one pair each.
        workers: Loader processes; 0 loads in the training process.
    """

    def __init__(
        self,
        train: Recordings | SequentialRecordings,
        validation: Recordings,
        batch_pairs: int,
        validation_pairs: int,
        workers: int,
    ) -> None:
        super().__init__()
        self.train, self.validation = train, validation
        self.batch_pairs, self.validation_pairs, self.workers = batch_pairs, validation_pairs, workers

    def train_dataloader(self) -> DataLoader[PairBatch]:
        """Returns pairs from the next step on: Lightning calls this after it has restored the checkpoint."""
        return self._loader(self.train, self.trainer.global_step, None)

    @property
    def held_out(self) -> int:
        """Number of held-out pairs."""
        return min(self.validation_pairs, self.validation.size or self.validation_pairs)

    def val_dataloader(self) -> DataLoader[PairBatch]:
        """Returns the held-out pairs, the same in every call."""
        return self._loader(self.validation, 0, self.held_out)

    def _loader(
        self, recordings: Recordings | SequentialRecordings, first_step: int, total: int | None
    ) -> DataLoader[PairBatch]:
        ranks = self.trainer.world_size
        if self.batch_pairs % ranks:
            raise ValueError(f"batch_pairs={self.batch_pairs}: expected a multiple of the {ranks} ranks")
        stream = PairStream(
            recordings, self.batch_pairs // ranks, first_step, total, rank=self.trainer.global_rank, ranks=ranks
        )
        # A batch needs tens of megabytes of shared memory, so each worker prefetches one, not two.
        prefetch = 1 if self.workers else None
        return PairLoader(stream, batch_size=None, num_workers=self.workers, prefetch_factor=prefetch)
