"""Streams of a dataset: shards, resumes and bad rows."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from qd.data.library import open_recordings
from qd.data.recordings import PairLoader, PairStream, RecordingsError
from tests.data.sounds import RATE, library, sound, write

datasets = pytest.importorskip("datasets")


def open_stream(source: Path, split: str, **changes):
    settings = {
        "sample_rate": RATE,
        "seconds": 0.25,
        "seed": 0,
        "validation_share": 0.3,
        "max_bad_share": 1.0,
    } | changes
    return open_recordings(f"datasets:{source}", split=split, streaming=True, **settings)


def save(paths: list[Path], folder: Path) -> Path:
    datasets.disable_progress_bars()
    rows = datasets.Dataset.from_dict({"audio": list(map(str, paths))}).cast_column("audio", datasets.Audio())
    rows.save_to_disk(folder)
    return folder


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A dataset of 16 recordings and 4 silent ones."""
    paths = sorted(library(tmp_path / "music", 16).rglob("*.wav"))
    silent = [write(tmp_path / "silent" / f"{number}.wav", np.zeros(RATE)) for number in range(4)]
    return save(paths + silent, tmp_path / "saved")


def steps(recordings, count: int, workers: int = 0, **place: int) -> list[tuple[list[int], bytes]]:
    loader = PairLoader(PairStream(recordings, 3, **place), batch_size=None, num_workers=workers)
    return [(batch.labels.tolist(), batch.audio.numpy().tobytes()) for batch in islice(loader, count)]


def test_held_out_rows_are_fixed_and_not_trained_on(saved: Path):
    held_out, train = open_stream(saved, "validation"), open_stream(saved, "train")
    identities = [held_out.identity(index) for index in range(held_out.size)]
    assert 2 <= held_out.size == len(set(identities)) < 12
    assert held_out.pair(0).shape == (2, RATE // 4)
    np.testing.assert_array_equal(held_out.pair(1), open_stream(saved, "validation").pair(1))
    everything = open_stream(saved, "all")
    seen = Counter(identity for labels, _ in steps(train, 30) for identity in labels)
    assert everything.size == 16 and set(seen) | set(identities) == {everything.identity(i) for i in range(16)}
    assert set(seen).isdisjoint(identities)
    assert open_stream(saved, "all", pairs=5).size == 5


@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_stream_continues_where_it_stopped(saved: Path, workers: int):
    recordings = open_stream(saved, "train")
    whole = steps(recordings, 12, workers)
    assert steps(open_stream(saved, "train"), 12, workers) == whole
    for first in (1, 4, 9):  # the second epoch begins at about step 5
        assert steps(recordings, 12 - first, workers, first_step=first) == whole[first:]
    assert steps(open_stream(saved, "train", seed=1), 12, workers) != whole


def test_ranks_and_workers_share_the_rows(saved: Path):
    recordings = open_stream(saved, "train")
    parts = [islice(recordings.pairs(shard, 2, 0), 3) for shard in range(2)]
    first, second = (Counter(identity for _, identity in part) for part in parts)
    assert not first.keys() & second.keys()


def test_a_stream_without_usable_rows_stops(tmp_path: Path):
    silent = [write(tmp_path / f"{number}.wav", np.zeros(RATE) + 1e-5 * number) for number in range(8)]
    folder = save(silent, tmp_path / "saved")
    with pytest.raises(RecordingsError, match="64 consecutive rows .* silent"):
        steps(open_stream(folder, "train"), 1)
    with pytest.raises(RecordingsError, match="0 held-out recordings"):
        open_stream(folder, "validation")
    few = save([write(tmp_path / "a" / "a.wav", sound(0, 1.0))], tmp_path / "few")
    with pytest.raises(RecordingsError, match="part 2 of 2 .*no training recording"):
        next(open_stream(few, "train", validation_share=0.0).pairs(1, 2, 0))
