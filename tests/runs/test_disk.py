from __future__ import annotations

import errno
import os
from collections import namedtuple
from pathlib import Path

import pytest

from qd.runs.disk import FULL, LOGS_BYTES, check_disk, disk_needed, disk_problem, try_writing


def test_disk_needed_counts_every_copy_of_the_weights():
    added = disk_needed(1000, 10, step_folders=3) - LOGS_BYTES
    assert added == 4 * (1010 * 4) + 2 * (3 * 1000 * 4)  # step folders and one being written; resume file, old and new


def test_a_full_disk_is_an_error_before_the_folder_exists(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda folder: usage(100, 0, 2**30))
    check_disk(tmp_path / "not" / "yet", 2**30)
    with pytest.raises(ValueError, match="needs 2.00 GiB .* 1.00 GiB free"):
        check_disk(tmp_path / "not" / "yet", 2**31)


def test_a_resumed_run_needs_only_the_rest_of_its_bytes(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda folder: usage(100, 0, 100))
    (tmp_path / "mine" / "step-000001").mkdir(parents=True)
    (tmp_path / "mine" / "last.ckpt").write_bytes(bytes(30))
    (tmp_path / "mine" / "step-000001" / "model.safetensors").write_bytes(bytes(20))
    check_disk(tmp_path, 150, tmp_path / "mine")
    for run in (tmp_path / "mine", None):
        with pytest.raises(ValueError, match="the rest of the run" if run else "the run needs"):
            check_disk(tmp_path, 151, run)


def test_a_folder_is_tried_and_left_as_it_was(tmp_path):
    try_writing(tmp_path / "not" / "yet")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    for place in (tmp_path / "file", tmp_path / "file" / "a", tmp_path / ("n" * 256), Path("/proc/qd/a")):
        with pytest.raises(OSError) as caught:  # noqa: PT011
            try_writing(place)
        assert caught.value.filename == str(place)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_an_error(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError, match="a"):
        try_writing(tmp_path / "a")
    tmp_path.chmod(0o700)


def test_an_error_of_the_disk_says_which_file_which_disk_and_how_to_go_on(tmp_path):
    def problem(number: int, *file: str, place: str | None = None) -> str:
        return disk_problem(OSError(number, "?", *file), "resume: RESUME=runs/x", place)

    for number in FULL:
        text = problem(number, str(tmp_path / "a" / "last.ckpt"))
        assert f"'{tmp_path / 'a' / 'last.ckpt'}' cannot be written" in text and f"disk of '{tmp_path}'" in text
        assert "GiB free" in text and "finished before are complete" in text and text.endswith("RESUME=runs/x")
        assert os.strerror(number).lower() in text and "\n" not in text
    assert "'runs/x' cannot be written" in problem(errno.ENOSPC, place="runs/x")
    assert "a file cannot be written" in problem(errno.ENOSPC)
    assert problem(errno.EACCES, "a") == "'a': permission denied; choose another place, or change its permissions"
    assert disk_problem(OSError("no network"), "") == "no network"
    (tmp_path / "file").touch()
    assert f"'{tmp_path / 'file'}' is a file" in problem(errno.ENOTDIR, str(tmp_path / "file" / "a"))
