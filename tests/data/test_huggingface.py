"""Datasets of the Hugging Face library, created by the tests; nothing is downloaded."""

from __future__ import annotations

import importlib.util
import io
import sys
from pathlib import Path

import numpy as np
import pytest

from qd.data.library import held_out_score, open_recordings
from tests.data.sounds import RATE, cut, library, sound, write


def opened(source: str, split: str = "all", **changes):
    settings = {"sample_rate": RATE, "seconds": 0.25, "seed": 0, "validation_share": 0.5} | changes
    return open_recordings(source, split=split, **settings)


def test_missing_library_names_the_extra(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ValueError, match=r"pip install -e '\.\[datasets\]'"):
        opened("datasets:somebody/music")


@pytest.fixture
def saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that ``save_to_disk`` wrote: 12 recordings of two genres."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    paths = sorted(map(str, library(tmp_path / "music", 12, ending=".flac").rglob("*.flac")))
    datasets.disable_progress_bars()
    rows = datasets.Dataset.from_dict({"audio": paths, "genre": [number % 2 for number in range(12)]})
    rows = rows.cast_column("genre", datasets.ClassLabel(names=["jazz", "rock"]))
    rows.cast_column("audio", datasets.Audio()).save_to_disk(tmp_path / "saved")
    return tmp_path / "saved"


def test_rows_give_the_pairs_of_their_files(saved: Path):
    recordings, files = opened(f"datasets:{saved}"), opened(str(saved.parent / "music"))
    assert recordings.size == 12 and {recordings.identity(index) for index in range(12)} == set(range(12))
    by_file = {files.identity(index): files.pair(index) for index in range(12)}
    for index in range(12):
        number = recordings.identity(index)
        np.testing.assert_array_equal(recordings.pair(index), by_file[number])  # both lists are sorted by path
        assert recordings.genre(index) == ["jazz", "rock"][number % 2]


def test_rows_are_held_out_by_name(saved: Path):
    train, held_out = opened(f"datasets:{saved}", "train"), opened(f"datasets:{saved}", "validation")
    names = held_out.collection.names
    assert sorted(names) == sorted(f"{number:03d}.flac" for number in range(12))
    held_out_names = {names[held_out.identity(index)] for index in range(held_out.size)}
    assert held_out_names == {name for name in names if held_out_score(name) < 0.5}
    assert held_out_names.isdisjoint(names[train.identity(index)] for index in range(3 * train.size))


def test_bad_rows_are_skipped(saved: Path, tmp_path: Path):
    datasets = pytest.importorskip("datasets")
    paths = sorted(map(str, (tmp_path / "music").rglob("*.flac")))
    paths += [
        str(cut(write(tmp_path / "cut.flac", sound(0, 3.0)), 0.5)),
        str(write(tmp_path / "s.wav", np.zeros(RATE))),
    ]
    rows = datasets.Dataset.from_dict({"sound": paths}).cast_column("sound", datasets.Audio())
    rows.save_to_disk(tmp_path / "bad")
    recordings = opened(f"datasets:{tmp_path / 'bad'}", skipped=tmp_path / "skipped.jsonl")
    assert recordings.size == 12 and recordings.genre(0) is None
    listed = (tmp_path / "skipped.jsonl").read_text()
    assert "truncated" in listed and "silent" in listed and len(listed.splitlines()) == 2


def test_a_folder_of_parquet_files_is_a_dataset(saved: Path, tmp_path: Path):
    datasets = pytest.importorskip("datasets")
    datasets.load_from_disk(str(saved)).to_parquet(tmp_path / "parquet" / "train.parquet")
    recordings, same = opened(f"datasets:{tmp_path / 'parquet'}"), opened(f"datasets:{saved}")
    assert recordings.collection.names == same.collection.names
    np.testing.assert_array_equal(recordings.pair(7), same.pair(7))


def test_a_folder_of_audio_as_a_dataset_names_the_alternative(saved: Path):
    if importlib.util.find_spec("torchcodec"):
        pytest.skip("torchcodec makes a dataset of it")
    with pytest.raises(ValueError, match="cannot be opened: .*torchcodec.*data.source=<folder>"):
        opened(f"datasets:{saved.parent / 'music'}")


def test_split_is_selected(saved: Path, tmp_path: Path):
    datasets = pytest.importorskip("datasets")
    rows = datasets.load_from_disk(str(saved))
    datasets.DatasetDict({"small": rows.select(range(5)), "large": rows}).save_to_disk(tmp_path / "two")
    assert opened(f"datasets:{tmp_path / 'two'}:small").size == 5
    assert opened(f"datasets:{tmp_path / 'two'}:large").size == 12
    with pytest.raises(ValueError, match="has no split 'train'; present: small, large"):
        opened(f"datasets:{tmp_path / 'two'}")


def test_dataset_without_audio_is_refused(saved: Path, tmp_path: Path):
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_dict({"text": ["a"], "genre": ["b"]}).save_to_disk(tmp_path / "text")
    with pytest.raises(ValueError, match="0 audio columns among text, genre"):
        opened(f"datasets:{tmp_path / 'text'}")
    with pytest.raises(ValueError, match="expected datasets:"):
        opened("datasets:")


def test_a_missing_dataset_is_reported(saved: Path, monkeypatch: pytest.MonkeyPatch):
    datasets = pytest.importorskip("datasets")

    def load_dataset(name: str, **_: object) -> None:
        raise FileNotFoundError(f"Dataset {name!r} doesn't exist on the Hub")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(ValueError, match="'datasets:no/body' cannot be opened: Dataset 'no/body' doesn't exist"):
        opened("datasets:no/body")


def test_code_of_a_data_set_is_never_run(tmp_path, monkeypatch):
    pytest.importorskip("datasets")
    folder = tmp_path / "strange"
    folder.mkdir()
    (folder / "strange.py").write_text(f"from pathlib import Path\nPath({str(tmp_path / 'executed')!r}).touch()\n")
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    with pytest.raises(ValueError, match="strange"):
        opened(f"datasets:{folder}")
    assert not (tmp_path / "executed").exists() and sys.stdin.read() == "y\n"
