"""Two processes and one place."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from qd.runs.lock import exclusive_lock
from tests.held_place import ROOT, written_by_another


def refused(place: Path) -> str:
    with pytest.raises(ValueError) as told, exclusive_lock(place):
        pass
    return str(told.value)


@pytest.mark.parametrize("name", ["x", "results/points.jsonl"])
def test_the_other_process_is_told_until_it_ends(tmp_path, name):
    place = tmp_path / name
    with written_by_another(place) as other:
        told = refused(place)
        assert told.startswith(f"{place} is being written by process {other.pid} of ") and "wait until it ends" in told
        assert "-c" in told  # how it was started
        other.communicate("\n")
    assert other.returncode == 0 and list(place.parent.iterdir()) == []
    with exclusive_lock(place):
        assert f"process {os.getpid()} of " in next(place.parent.iterdir()).read_text()
    assert list(place.parent.iterdir()) == []


def test_a_killed_process_holds_nothing(tmp_path):
    with written_by_another(tmp_path / "x") as other:
        other.kill()
        other.wait()
        assert [path.name for path in tmp_path.iterdir()] == [".x.lock"]
        with exclusive_lock(tmp_path / "x"):
            pass
    assert list(tmp_path.iterdir()) == []


def test_nor_do_the_workers_that_it_has_forked(tmp_path):
    with written_by_another(tmp_path / "x", "forks") as other:
        worker = other.said
        assert worker != other.pid
        other.kill()
        other.wait()
        os.kill(worker, 0)  # still there
        with exclusive_lock(tmp_path / "x"):
            os.kill(worker, signal.SIGKILL)


def test_a_folder_is_one_place_by_all_its_names(tmp_path, monkeypatch):
    (tmp_path / "x").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "x")
    monkeypatch.chdir(tmp_path)
    with written_by_another(tmp_path / "x"):
        assert all(name in refused(Path(name)) for name in ("x", "link", "x/../x"))


def test_the_first_rank_alone_holds_it(tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    with exclusive_lock(tmp_path / "x"):
        assert list(tmp_path.iterdir()) == []


def test_a_file_that_was_removed_meanwhile_is_not_held(tmp_path, monkeypatch):
    """Its former holder has ended between opening and locking."""
    lock, removed, lockf = tmp_path / ".x.lock", [], fcntl.lockf

    def late(file: int, how: int) -> None:
        if not removed:
            removed.append(lock.unlink())
        lockf(file, how)

    monkeypatch.setattr(fcntl, "lockf", late)
    with exclusive_lock(tmp_path / "x"):
        assert removed and f"process {os.getpid()} of " in lock.read_text()


def test_a_full_disk_locks_all_the_same(tmp_path, monkeypatch):
    def full(file: int, content: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with exclusive_lock(tmp_path / "x"):
        code = "import sys; from qd.runs.lock import exclusive_lock\nwith exclusive_lock(sys.argv[1]): pass"
        other = [sys.executable, "-c", code, str(tmp_path / "x")]
        told = subprocess.run(other, cwd=ROOT, capture_output=True, text=True, check=False).stderr
    assert "x is being written by another process; wait until it ends" in told
    assert list(tmp_path.iterdir()) == []


def test_a_holder_that_ends_before_it_is_named_is_told_all_the_same(tmp_path, monkeypatch):
    def gone(self: Path, **_: object) -> str:
        raise FileNotFoundError(self)

    monkeypatch.setattr(Path, "read_text", gone)
    with written_by_another(tmp_path / "x"):
        assert "is being written by another process" in refused(tmp_path / "x")


def test_where_files_cannot_be_locked_it_is_said(tmp_path, monkeypatch):
    def none(file: int, how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", none)
    told = "x.lock cannot be locked .*No locks available.*one process alone writes"
    with pytest.warns(UserWarning, match=told), exclusive_lock(tmp_path / "x"):
        pass
