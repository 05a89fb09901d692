"""The list of bad recordings, and the limit of their share."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path

import pytest

from qd.data.audio_files import BadAudioError
from qd.data.recordings import RecordingsError
from qd.data.skipped import SkippedFiles, append_skipped

SILENT = BadAudioError("silent", "below -60 dB")


def listed(path: Path) -> list[str]:
    return [json.loads(line)["path"] for line in path.read_text().splitlines()]


def test_each_recording_is_listed_once(tmp_path: Path):
    path = tmp_path / "runs" / "skipped.jsonl"
    first, second = SkippedFiles(path, 1.0), SkippedFiles(path, 1.0)
    first.record(["a", "b"], {"b": SILENT})
    first.record(["b"], {"b": SILENT})
    second.record(["b", "c"], {"b": SILENT, "c": BadAudioError("truncated", "ends early")})
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"path": "b", "cause": "silent", "detail": "below -60 dB"},
        {"path": "c", "cause": "truncated", "detail": "ends early"},
    ]


def report(path: Path, worker: int) -> None:
    for number in range(20):
        append_skipped(path, {f"{(number * (worker + 1)) % 23}": SILENT})


def test_concurrent_processes_list_each_recording_once(tmp_path: Path):
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=report, args=(tmp_path / "skipped.jsonl", worker)) for worker in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    expected = {f"{(number * (worker + 1)) % 23}" for number in range(20) for worker in range(3)}
    assert sorted(listed(tmp_path / "skipped.jsonl")) == sorted(expected)


@pytest.mark.parametrize(
    ("checked", "bad", "total", "stops"),
    [
        (200, 20, 200, False),
        (200, 21, 200, True),
        (19, 19, 19, False),  # too few for a share
        (30, 3, 30, False),
        (30, 4, 30, True),
        (30, 10, 1000, False),  # at the start of a large library
        (30, 11, 1000, True),
        (30, 11, None, True),
    ],
)
def test_too_large_share_stops(checked: int, bad: int, total: int | None, stops: bool, tmp_path: Path):
    path = tmp_path / "skipped.jsonl"
    skipped = SkippedFiles(path, 0.1, total)
    names = [str(number) for number in range(checked)]
    errors = {name: SILENT if name != "3" else BadAudioError("truncated", "") for name in names[:bad]}
    if stops:
        message = (
            f"{bad} of {checked} checked recordings .*max_bad_share=0.1: {bad - 1} silent, 1 truncated .*skipped.jsonl"
        )
        with pytest.raises(RecordingsError, match=message):
            skipped.record(names, errors)
    else:
        skipped.record(names, errors)
    assert listed(path) == names[:bad]
