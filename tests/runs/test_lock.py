"""Two processes and one locked path."""

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
from tests.locking_process import ROOT, locked_by_another


def refused(place: Path) -> str:
    """The error of a second lock."""
    with pytest.raises(ValueError) as caught, exclusive_lock(place):
        pass
    return str(caught.value)


@pytest.mark.parametrize("name", ["x", "results/points.jsonl"])
def test_the_error_names_the_other_process_until_it_ends(tmp_path, name):
    place = tmp_path / name
    with locked_by_another(place) as other:
        message = refused(place)
        assert message.startswith(f"{place} is being written by process {other.pid} ") and "wait" in message
        assert "-c" in message  # its command line
        other.communicate("\n")
    assert other.returncode == 0 and list(place.parent.iterdir()) == []
    with exclusive_lock(place):
        assert f"process {os.getpid()} of " in next(place.parent.iterdir()).read_text()
    assert list(place.parent.iterdir()) == []


def test_a_killed_process_holds_nothing(tmp_path):
    with locked_by_another(tmp_path / "x") as other:
        other.kill()
        other.wait()
        assert [path.name for path in tmp_path.iterdir()] == [".x.lock"]
        with exclusive_lock(tmp_path / "x"):
            pass
    assert list(tmp_path.iterdir()) == []


def test_forked_workers_of_a_killed_process_hold_nothing(tmp_path):
    with locked_by_another(tmp_path / "x", "forks") as other:
        worker = other.number
        assert worker != other.pid
        other.kill()
        other.wait()
        os.kill(worker, 0)  # still running
        with exclusive_lock(tmp_path / "x"):
            os.kill(worker, signal.SIGKILL)


def test_a_folder_has_one_lock_for_all_its_paths(tmp_path, monkeypatch):
    (tmp_path / "x").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "x")
    monkeypatch.chdir(tmp_path)
    with locked_by_another(tmp_path / "x"):
        assert all(name in refused(Path(name)) for name in ("x", "link", "x/../x"))


def test_only_the_first_rank_locks(tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    with exclusive_lock(tmp_path / "x"):
        assert list(tmp_path.iterdir()) == []


def test_a_lock_file_that_was_just_removed_is_made_again(tmp_path, monkeypatch):
    """Its holder ends between opening and locking."""
    lock, removed, lockf = tmp_path / ".x.lock", [], fcntl.lockf

    def late(file: int, how: int) -> None:
        if not removed:
            removed.append(lock.unlink())
        lockf(file, how)

    monkeypatch.setattr(fcntl, "lockf", late)
    with exclusive_lock(tmp_path / "x"):
        assert removed and f"process {os.getpid()} of " in lock.read_text()


def test_a_lock_works_on_a_full_disk(tmp_path, monkeypatch):
    def full(file: int, content: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with exclusive_lock(tmp_path / "x"):
        code = "import sys; from qd.runs.lock import exclusive_lock\nwith exclusive_lock(sys.argv[1]): pass"
        other = [sys.executable, "-c", code, str(tmp_path / "x")]
        errors = subprocess.run(other, cwd=ROOT, capture_output=True, text=True, check=False).stderr
    assert "x is being written by another process" in errors
    assert list(tmp_path.iterdir()) == []


def test_a_holder_that_ends_before_it_is_named_is_an_error_too(tmp_path, monkeypatch):
    def gone(self: Path, **_: object) -> str:
        raise FileNotFoundError(self)

    monkeypatch.setattr(Path, "read_text", gone)
    with locked_by_another(tmp_path / "x"):
        assert "is being written by another process" in refused(tmp_path / "x")


def test_without_file_locks_there_is_a_warning(tmp_path, monkeypatch):
    def none(file: int, how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", none)
    with (
        pytest.warns(UserWarning, match="x.lock cannot be locked .*No locks available"),
        exclusive_lock(tmp_path / "x"),
    ):
        pass
