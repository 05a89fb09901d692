"""Pairs of clips of one recording: what the embedder learns from, streamed by step.

Which recordings a step holds is a function of (seed, step, rank), never a state: the stream is the same for any number
of loader workers, and a resumed run asks for the step at which it stopped.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count, islice
from typing import NamedTuple, Protocol

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from qd.builtin import world


class PairBatch(NamedTuple):
    """Two clips that do not overlap of each of ``pairs`` recordings."""

    audio: Tensor
    """(pairs, 2, samples) float32."""
    labels: Tensor
    """(pairs,) int64: which recording; equal for clips of the same recording only."""


class Recordings(Protocol):
    """Recordings by index, each giving a pair of clips."""

    def pair(self, index: int) -> np.ndarray:
        """Two clips of recording ``index`` that do not overlap: ``(2, samples)`` float32, a pure function."""


class BuiltinRecordings:
    """Recordings of the built-in world: endless, no two seeds share one."""

    def __init__(self, split: str, seed: int, seconds: float) -> None:
        if split not in world.SPLITS:
            raise ValueError(f"split={split!r}: expected one of {', '.join(world.SPLITS)}")
        self.split, self.seed, self.seconds = split, seed, seconds

    def pair(self, index: int) -> np.ndarray:
        clips = world.chunks(self.split, (self.seed << 32) + index, 2, self.seconds)
        return np.stack([clip.audio for clip in clips])


class PairStream(IterableDataset[PairBatch]):
    """The batches of one rank from ``first_step`` on. Step s of all ranks holds the recordings s·G … s·G + G − 1,
    G = ``pairs`` · ``ranks``, each rank its own run of them; worker w of W loads every W-th step, and the loader takes
    turns, so steps arrive in order.

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
        recordings: Recordings,
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
        worker = get_worker_info()
        offset, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        for step in islice(count(self.first_step), offset, None, workers):
            if not (indices := self.indices(step)):
                return
            audio = np.stack([self.recordings.pair(index) for index in indices])
            yield PairBatch(torch.from_numpy(audio.astype(np.float32)), torch.tensor(indices))


class RecordingsDataModule(pl.LightningDataModule):
    """Endless training pairs that start at the trainer's ``global_step``, and a fixed set of held-out pairs.

    Args:
        train: recordings for training.
        validation: other recordings.
        batch_pairs: pairs an optimiser step, over all ranks.
        validation_pairs: size of the held-out set.
        workers: loader processes; 0 loads in the training process.
    """

    def __init__(
        self, train: Recordings, validation: Recordings, batch_pairs: int, validation_pairs: int, workers: int
    ) -> None:
        super().__init__()
        self.train, self.validation = train, validation
        self.batch_pairs, self.validation_pairs, self.workers = batch_pairs, validation_pairs, workers

    def train_dataloader(self) -> DataLoader[PairBatch]:
        """Lightning asks for it after it has restored the checkpoint, so the step is the one to do next."""
        return self._loader(self.train, self.trainer.global_step, None)

    def val_dataloader(self) -> DataLoader[PairBatch]:
        """The same pairs at every call."""
        return self._loader(self.validation, 0, self.validation_pairs)

    def _loader(self, recordings: Recordings, first_step: int, total: int | None) -> DataLoader[PairBatch]:
        ranks = self.trainer.world_size
        if self.batch_pairs % ranks:
            raise ValueError(f"batch_pairs={self.batch_pairs}: expected a multiple of the {ranks} ranks")
        stream = PairStream(
            recordings, self.batch_pairs // ranks, first_step, total, rank=self.trainer.global_rank, ranks=ranks
        )
        # A batch is tens of megabytes of shared memory: one waits in each worker, not two.
        prefetch = 1 if self.workers else None
        return DataLoader(stream, batch_size=None, num_workers=self.workers, prefetch_factor=prefetch)
