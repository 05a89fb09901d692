"""Libraries created by the tests: training and held-out recordings, and messages about bad files."""

from __future__ import annotations

import json
from collections import Counter
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from qd.data.audio_files import ClipShape, check
from qd.data.library import held_out_score, open_recordings
from qd.data.recordings import PairLoader, PairStream, RecordingsError
from tests.data.sounds import RATE, cut, library, sound, write

SECONDS = 0.25


def open_split(source: Path, split: str, share: float = 0.5, **changes):
    settings = {"sample_rate": RATE, "seconds": SECONDS, "seed": 0, "validation_share": share} | changes
    return open_recordings(str(source), split=split, **settings)


def names(recordings, indices: range) -> list[str]:
    return [recordings.collection.names[recordings.identity(index)] for index in indices]


def test_every_epoch_has_each_recording_once_in_a_new_order(tmp_path: Path):
    recordings = open_split(library(tmp_path, 12), "train")
    size = recordings.size
    epochs = [names(recordings, range(epoch * size, (epoch + 1) * size)) for epoch in range(3)]
    held_out = {name for name in recordings.collection.names if held_out_score(name) < 0.5}
    assert 2 <= len(held_out) <= 10 and size == 12 - len(held_out)
    for epoch in epochs:
        assert len(set(epoch)) == size and not set(epoch) & held_out
    assert epochs[0] != epochs[1] != epochs[2]
    fixed = open_split(tmp_path, "validation")
    assert set(names(fixed, range(fixed.size))) == held_out
    everything = open_split(tmp_path, "all", share=0.0)
    assert sorted(names(everything, range(12))) == sorted(recordings.collection.names)


def test_pairs_are_a_function_of_seed_and_index(tmp_path: Path):
    recordings, again = (open_split(library(tmp_path, 12), "train") for _ in range(2))
    other_seed = open_split(tmp_path, "train", seed=1)
    pairs = [recordings.pair(index) for index in range(9)]
    for index in reversed(range(9)):
        np.testing.assert_array_equal(again.pair(index), pairs[index])
        assert not np.array_equal(other_seed.pair(index), pairs[index])
    size = recordings.size
    first, later = (
        {recordings.identity(index): recordings.pair(index) for index in range(start, start + size)}
        for start in (0, size)
    )
    assert all(not np.array_equal(first[number], later[number]) for number in first)  # new positions each epoch
    fixed = open_split(tmp_path, "validation")
    np.testing.assert_array_equal(fixed.pair(1), fixed.pair(1 + fixed.size))


def test_held_out_recordings_stay_held_out_when_others_are_added(tmp_path: Path):
    def sides() -> dict[str, str]:
        return {
            name: split
            for split in ("train", "validation")
            for recordings in [open_split(tmp_path, split)]
            for name in names(recordings, range(recordings.size))
        }

    before = sides() if library(tmp_path, 12) else {}
    for number in range(6):
        write(tmp_path / "0" / f"{number}.flac", sound(50 + number, 1.0))
    after = sides()
    assert len(after) == 18 and before.items() <= after.items()


def test_held_out_share_is_the_requested_one():
    scores = [held_out_score(f"folder/{number}.mp3") for number in range(4_000)]
    assert abs(np.mean(np.array(scores) < 0.05) - 0.05) < 0.012


def test_formats_and_rates_can_be_mixed(tmp_path: Path):
    for number, (ending, rate) in enumerate([(".mp3", 44_100), (".flac", 8_000), (".ogg", 22_050), (".wav", 48_000)]):
        audio = np.stack([sound(number, 1.0, rate)] * (1 + number), axis=1) if number < 2 else sound(number, 1.0, rate)
        write(tmp_path / f"{number}{ending}", audio, rate)
    recordings = open_split(tmp_path, "all")
    for index in range(4):
        pair = recordings.pair(index)
        assert pair.shape == (2, SECONDS * RATE) and 0.4 < np.abs(pair).max() < 0.6


def bad_library(folder: Path, good: int) -> Path:
    """Writes ``good`` good recordings and one bad recording for each cause."""
    library(folder, good)
    write(folder / "short.ogg", sound(0, 0.3))
    cut(write(folder / "cut.flac", sound(0, 3.0)), 0.5)
    (folder / "text.mp3").write_text("no audio " * 500)
    write(folder / "silent.wav", np.zeros(RATE))
    write(folder / "broken.wav", np.full(RATE, np.nan))
    return folder


CAUSES = {"short.ogg": "too short", "cut.flac": "truncated", "text.mp3": "unreadable"}
CAUSES_DECODED = {"silent.wav": "silent", "broken.wav": "corrupt"}


def listed(path: Path) -> dict[str, str]:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert len({line["path"] for line in lines}) == len(lines)
    return {Path(line["path"]).name: line["cause"] for line in lines}


@pytest.mark.parametrize("workers", [0, 3])
def test_bad_files_are_skipped_and_listed_once(workers: int, tmp_path: Path):
    folder, path = bad_library(tmp_path / "music", 24), tmp_path / "skipped.jsonl"
    # Hold out only good recordings.
    share = min(0.9, np.sort([held_out_score(name) for name in (f"a/{n:03d}.wav" for n in range(0, 24, 2))])[3])
    recordings = open_split(folder, "train", share=share, max_bad_share=0.9, skipped=path)
    expected = {name: cause for name, cause in CAUSES.items() if held_out_score(name) >= share}
    assert listed(path) == expected
    loader = PairLoader(PairStream(recordings, 8), batch_size=None, num_workers=workers)
    batches = list(islice(loader, 6))
    decoded = {name: cause for name, cause in CAUSES_DECODED.items() if held_out_score(name) >= share}
    assert expected and decoded and listed(path) == expected | decoded
    again = open_split(folder, "train", share=share, max_bad_share=0.9)
    for step, batch in enumerate(batches):  # the same replacements, with or without workers, in any order
        for row in reversed(range(8)):
            np.testing.assert_array_equal(batch.audio[row].numpy(), again.pair(8 * step + row))
            assert batch.labels[row] == again.identity(8 * step + row)
            assert again.collection.names[again.identity(8 * step + row)][0] in "ab"


def test_held_out_set_contains_only_good_recordings(tmp_path: Path):
    folder, path = bad_library(tmp_path / "music", 24), tmp_path / "skipped.jsonl"
    recordings = open_split(folder, "all", max_bad_share=0.9, skipped=path)
    assert recordings.size == 24 and listed(path) == CAUSES | CAUSES_DECODED
    assert Counter(names(recordings, range(24))).most_common(1)[0][1] == 1
    few = open_split(folder, "all", max_bad_share=0.9, pairs=7)
    assert names(few, range(few.size)) == names(recordings, range(7))


def test_too_many_bad_files_stop_the_run_with_a_list(tmp_path: Path):
    folder, path = library(tmp_path / "music", 24), tmp_path / "skipped.jsonl"
    for number in range(6):
        (folder / f"bad{number}.wav").write_bytes(b"RIFF")
    with pytest.raises(
        RecordingsError, match=r"\d of \d+ checked recordings .*max_bad_share=0.1: \d unreadable .*skipped.jsonl"
    ):
        open_split(folder, "train", share=0.1, skipped=path)
    assert len(listed(path)) > 2


@pytest.mark.parametrize("workers", [0, 2])
def test_silent_library_stops_with_one_message(workers: int, tmp_path: Path):
    for number in range(60):
        write(tmp_path / f"{number}.wav", np.zeros(RATE))
    recordings = open_split(tmp_path, "train", skipped=tmp_path / "skipped.jsonl")
    loader = PairLoader(PairStream(recordings, 2), batch_size=None, num_workers=workers)
    with pytest.raises(
        RecordingsError, match=r"^\d of \d+ checked recordings are bad.* silent .*skipped.jsonl"
    ) as error:
        next(iter(loader))
    assert "Traceback" not in str(error.value)
    few = open_split(tmp_path, "train", max_bad_share=1.0)
    with pytest.raises(RecordingsError, match="none of .* recordings can be used: .* silent"):
        few.pair(0)


def test_too_few_recordings_are_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="is empty; .*.flac, .mp3"):
        open_split(tmp_path, "train")
    library(tmp_path, 1)
    with pytest.raises(ValueError, match="found 1; at least 4"):
        open_split(tmp_path, "train")
    library(tmp_path, 12)
    with pytest.raises(ValueError, match="validation_share=0.001 holds out 0 of 12") as error:
        open_split(tmp_path, "train", share=0.001)
    share = float(str(error.value).rpartition("=")[2])
    assert open_split(tmp_path, "validation", share=share).size == 2  # the suggested share works
    with pytest.raises(ValueError, match="holds out 1[12] of 12") as error:
        open_split(tmp_path, "train", share=0.999)
    assert open_split(tmp_path, "train", share=float(str(error.value).rpartition("=")[2])).size == 2
    with pytest.raises(ValueError, match="0 can be used.* too short .* too short: 1.00 s.* 40.00 s"):
        open_split(tmp_path, "train", seconds=20.0)
    with pytest.raises(ValueError, match="0 can be used.* too short"):
        open_split(tmp_path, "validation", seconds=20.0)


def test_invalid_settings_are_refused(tmp_path: Path):
    for change, message in [
        ({"split": "trian"}, "'trian'; expected one of train"),
        ({"split": "train", "share": 1.5}, "validation_share is 1.5"),
        ({"split": "train", "streaming": True}, "streaming is for datasets: "),
    ]:
        with pytest.raises(ValueError, match=message):
            open_split(tmp_path, **change)


def test_manifest_gives_names_and_genres(tmp_path: Path):
    library(tmp_path / "music", 12)
    paths = sorted((tmp_path / "music").rglob("*.wav"))
    rows = [f"{path.relative_to(tmp_path)},song {i},{'jazz' if i % 2 else ''}" for i, path in enumerate(paths)]
    (tmp_path / "m.csv").write_text("path,name,genre\n" + "\n".join(rows))
    recordings = open_split(tmp_path / "m.csv", "all")
    for index in range(12):
        number = recordings.identity(index)
        assert recordings.genre(index) == ("jazz" if number % 2 else None)
    held_out = open_split(tmp_path / "m.csv", "validation")
    assert set(names(held_out, range(held_out.size))) == {
        f"song {i}" for i in range(12) if held_out_score(f"song {i}") < 0.5
    }


def test_only_the_needed_part_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    library(tmp_path, 6, seconds=20.0, ending=".flac")
    recordings = open_split(tmp_path, "all")
    frames = []
    import soundfile

    read = soundfile.SoundFile.read
    monkeypatch.setattr(soundfile.SoundFile, "read", lambda self, n, **k: frames.append(n) or read(self, n, **k))
    recordings.pair(0)
    check(recordings.collection.audio(0), ClipShape(100, RATE))
    assert sum(frames) < 2 * RATE
