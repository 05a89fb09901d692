"""Pairs of clips of one recording: what the embedder learns from, streamed by step.

Which recordings a step holds is a function of (seed, step, rank), never a state: the stream is the same for any number
of loader workers, and a resumed run asks for the step at which it stopped.
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

from qd.data.world import world


class PairBatch(NamedTuple):
    """Two clips that do not overlap of each of ``pairs`` recordings."""

    audio: Tensor
    """(pairs, 2, samples) float32."""
    labels: Tensor
    """(pairs,) int64: which recording; equal for clips of the same recording only."""


class RecordingsError(ValueError):
    """The recordings cannot be used, for a reason that the message tells in full: a loader's worker hands it to the
    training process as it is, without the worker's traceback."""


class Recordings(Protocol):
    """Recordings by index, each giving a pair of clips. All methods are pure functions of the index."""

    size: int | None
    """Indices from 0 on that give different recordings for certain; None if all do."""

    def pair(self, index: int) -> np.ndarray:
        """Two clips of recording ``index`` that do not overlap: ``(2, samples)`` float32.

        Raises:
            RecordingsError: there is no usable recording, or too many were not.
        """

    def identity(self, index: int) -> int:
        """Which recording ``pair(index)`` is of: equal for two indices of the same one. Free after ``pair(index)``,
        else it may have to decode."""

    def genre(self, index: int) -> str | None:
        """Of the recording that ``pair(index)`` is of; None if unknown. Free after ``pair(index)``."""


@runtime_checkable
class SequentialRecordings(Protocol):
    """Recordings that can only be gone through in order, as a stream has them."""

    def pairs(self, shard: int, shards: int, skip: int) -> Iterator[tuple[np.ndarray, int]]:
        """Endless pairs and identities of part ``shard`` of ``shards``, from its pair ``skip`` on."""


class BuiltinRecordings:
    """Recordings of the built-in world: endless, no two seeds share one."""

    size = None

    def __init__(self, split: str, seed: int, seconds: float) -> None:
        if split not in world.SPLITS:
            raise ValueError(f"split={split!r}: expected one of {', '.join(world.SPLITS)}")
        self.split, self.seed, self.seconds = split, seed, seconds

    def pair(self, index: int) -> np.ndarray:
        clips = world.chunks(self.split, self._number(index), 2, self.seconds)
        return np.stack([clip.audio for clip in clips])

    def identity(self, index: int) -> int:
        return index

    def genre(self, index: int) -> str:
        # The piece does not depend on the windows asked for, and a short one is cheap to render.
        return world.chunks(self.split, self._number(index), 1, seconds=0.05)[0].piece.genre

    def _number(self, index: int) -> int:
        return (self.seed << 32) + index


class PairStream(IterableDataset[PairBatch]):
    """The batches of one rank from ``first_step`` on. Step s of all ranks holds the recordings s·G … s·G + G − 1,
    G = ``pairs`` · ``ranks``, each rank its own run of them; worker w of W loads every W-th step, and the loader takes
    turns, so steps arrive in order.

    Recordings that can only be gone through in order are dealt to ranks · W shards instead: those of the steps that are
    w modulo W come from shard rank · W + w, one after the other. So what a step holds depends on the number of ranks
    and workers too, and a resumed run has to keep both.

    Args:
        recordings: where clips come from.
        pairs: pairs in a batch of this rank.
        first_step: the step of the first batch.
        total: stop after so many recordings over all ranks (the last batch may be smaller); None never stops.
        rank: of this process.
        ranks: number of processes.
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
        """Recordings of this rank at this step."""
        start = (step * self.ranks + self.rank) * self.pairs
        stop = start + self.pairs
        return range(start, stop) if self.total is None else range(start, min(stop, self.total))

    def __iter__(self) -> Iterator[PairBatch]:
        """Batches. In a worker a ``RecordingsError`` is not raised but the last item: :class:`PairLoader` raises it."""
        worker = get_worker_info()
        first, workers = (self.first_step + worker.id, worker.num_workers) if worker else (self.first_step, 1)
        sequential = isinstance(self.recordings, SequentialRecordings)
        try:
            yield from self._dealt_batches(first, workers) if sequential else self._indexed_batches(first, workers)
        except RecordingsError as error:
            if worker is None:
                raise
            yield error

    def _indexed_batches(self, first: int, workers: int) -> Iterator[PairBatch]:
        for step in count(first, workers):
            if not (indices := self.indices(step)):
                return
            yield _batch((self.recordings.pair(index), self.recordings.identity(index)) for index in indices)

    def _dealt_batches(self, first: int, workers: int) -> Iterator[PairBatch]:
        shard = self.rank * workers + first % workers
        pairs = self.recordings.pairs(shard, self.ranks * workers, skip=first // workers * self.pairs)
        while True:
            yield _batch(islice(pairs, self.pairs))


def _batch(pairs: Iterable[tuple[np.ndarray, int]]) -> PairBatch:
    audio, identities = zip(*pairs, strict=True)
    return PairBatch(torch.from_numpy(np.stack(audio).astype(np.float32)), torch.tensor(identities))


class PairLoader(DataLoader[PairBatch]):
    """A loader that raises in the training process what a worker has found wrong with the recordings."""

    def __iter__(self) -> Iterator[PairBatch]:
        for batch in super().__iter__():
            if isinstance(batch, RecordingsError):
                raise batch
            yield batch


class RecordingsDataModule(pl.LightningDataModule):
    """Endless training pairs that start at the trainer's ``global_step``, and a fixed set of held-out pairs.

    Args:
        train: recordings for training.
        validation: other recordings.
        batch_pairs: pairs an optimiser step, over all ranks.
        validation_pairs: held-out pairs at most; if there are fewer held-out recordings, one of each.
        workers: loader processes; 0 loads in the training process.
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
        """Lightning asks for it after it has restored the checkpoint, so the step is the one to do next."""
        return self._loader(self.train, self.trainer.global_step, None)

    @property
    def held_out(self) -> int:
        """Size of the held-out set."""
        return min(self.validation_pairs, self.validation.size or self.validation_pairs)

    def val_dataloader(self) -> DataLoader[PairBatch]:
        """The same pairs at every call."""
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
        # A batch is tens of megabytes of shared memory: one waits in each worker, not two.
        prefetch = 1 if self.workers else None
        return PairLoader(stream, batch_size=None, num_workers=self.workers, prefetch_factor=prefetch)
