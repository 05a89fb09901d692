"""Streams of pairs are the same for any number of ranks, workers and restarts."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count, islice
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from qd.data.recordings import BuiltinRecordings, PairLoader, PairStream, RecordingsDataModule, RecordingsError
from qd.data.world import world


class Numbered:
    """Recording i is the constants i and i + ½."""

    def __init__(self, size: int | None = None) -> None:
        self.size = size

    def pair(self, index: int) -> np.ndarray:
        return np.stack([np.full(3, index, np.float32), np.full(3, index + 0.5, np.float32)])

    def identity(self, index: int) -> int:
        return index if self.size is None else index % self.size

    def genre(self, index: int) -> None:
        return None


class Sequential:
    """Recordings in order: pair i of shard s is the constant s, labelled i."""

    def pairs(self, shard: int, shards: int, skip: int) -> Iterator[tuple[np.ndarray, int]]:
        for number in count(skip):
            yield np.full((2, 3), shard, np.float32), number


class Failing(Numbered):
    """Index 4 reports that the recordings are bad."""

    def pair(self, index: int) -> np.ndarray:
        if index == 4:
            raise RecordingsError("9 of 20 recordings are bad")
        return super().pair(index)


def labels(batches, count: int) -> list[list[int]]:
    return [batch.labels.tolist() for batch in islice(batches, count)]


def test_batches_have_pairs_and_their_labels():
    batch = next(iter(PairStream(Numbered(), 4, first_step=2)))
    assert batch.audio.shape == (4, 2, 3) and batch.audio.dtype == torch.float32
    assert batch.labels.tolist() == [8, 9, 10, 11]
    assert batch.audio[:, 0, 0].tolist() == [8, 9, 10, 11] and batch.audio[:, 1, 2].tolist() == [8.5, 9.5, 10.5, 11.5]


def test_ranks_share_a_step_without_overlap():
    alone = labels(PairStream(Numbered(), 6), 3)
    ranks = [labels(PairStream(Numbered(), 2, rank=rank, ranks=3), 3) for rank in range(3)]
    assert [sum(parts, []) for parts in zip(*ranks, strict=True)] == alone


@pytest.mark.parametrize("workers", [1, 3])
def test_workers_do_not_change_the_stream(workers: int):
    stream = PairStream(Numbered(), 2, first_step=1, total=13)
    loader = DataLoader(stream, batch_size=None, num_workers=workers)
    assert labels(loader, 99) == labels(stream, 99) == [[2 * i, 2 * i + 1] for i in range(1, 6)] + [[12]]


def test_labels_are_recordings_and_not_indices():
    assert labels(PairStream(Numbered(size=3), 4), 2) == [[0, 1, 2, 0], [1, 2, 0, 1]]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("first_step", [0, 3])
def test_sequential_recordings_are_split_among_ranks_and_workers(workers: int, first_step: int):
    shards = max(workers, 1)
    for rank in range(2):
        stream = PairStream(Sequential(), 5, first_step, rank=rank, ranks=2)
        loader = PairLoader(stream, batch_size=None, num_workers=workers)
        for step, batch in enumerate(islice(loader, 6), start=first_step):
            assert batch.audio.unique().tolist() == [rank * shards + step % shards]
            assert batch.labels.tolist() == list(range(step // shards * 5, step // shards * 5 + 5))


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_bad_recordings_are_reported_once_and_in_order(workers: int):
    batches = iter(PairLoader(PairStream(Failing(), 2), batch_size=None, num_workers=workers))
    assert labels(batches, 2) == [[0, 1], [2, 3]]
    with pytest.raises(RecordingsError) as error:
        next(batches)
    assert str(error.value) == "9 of 20 recordings are bad"


def data_module(step: int, ranks: int = 1, held_out: int | None = None) -> RecordingsDataModule:
    data = RecordingsDataModule(Numbered(), Numbered(held_out), batch_pairs=4, validation_pairs=6, workers=0)
    data.trainer = SimpleNamespace(global_step=step, global_rank=0, world_size=ranks)
    return data


def test_a_resumed_run_continues_where_it_stopped():
    whole = labels(data_module(0).train_dataloader(), 7)
    assert labels(data_module(3).train_dataloader(), 4) == whole[3:]


def test_held_out_pairs_are_fixed_and_finite():
    assert labels(data_module(0).val_dataloader(), 9) == labels(data_module(5).val_dataloader(), 9)
    assert labels(data_module(5).val_dataloader(), 9) == [[0, 1, 2, 3], [4, 5]]


def test_no_held_out_recording_is_repeated():
    assert labels(data_module(0, held_out=5).val_dataloader(), 9) == [[0, 1, 2, 3], [4]]


def test_a_batch_that_ranks_cannot_share_is_refused():
    with pytest.raises(ValueError, match="batch_pairs=4.*3 ranks"):
        data_module(0, ranks=3).train_dataloader()


def test_builtin_pairs_are_two_chunks_of_one_recording():
    recordings = BuiltinRecordings("embedder", 0, 1.0)
    pair = recordings.pair(5)
    expected = world.chunks("embedder", 5, 2, 1.0)
    assert pair.shape == (2, world.SAMPLE_RATE) and pair.dtype == np.float32
    np.testing.assert_array_equal(pair, np.stack([clip.audio for clip in expected]))
    assert recordings.genre(5) == expected[0].piece.genre and recordings.identity(5) == 5
    assert len({recordings.genre(index) for index in range(12)}) > 3
    assert not np.array_equal(pair, BuiltinRecordings("embedder", 1, 1.0).pair(5))
    assert not np.array_equal(pair, BuiltinRecordings("validation", 0, 1.0).pair(5))
    with pytest.raises(ValueError, match="'trian'.*embedder"):
        BuiltinRecordings("trian", 0, 1.0)
