from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from qd.runs.atomic import atomic_folder, atomic_write

ROOT = Path(__file__).resolve().parents[2]
WRITER = """
import sys
from qd.runs.atomic import atomic_write
with atomic_write(sys.argv[1]) as temporary:
    temporary.write_text(sys.argv[2] * 100_000)
    print("written", flush=True)
    sys.stdin.readline()
"""


def writer(path: Path, letter: str) -> subprocess.Popen[str]:
    """A process that has written its temporary and waits for a line before it renames it."""
    command = [sys.executable, "-c", WRITER, str(path), letter]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, **pipes)
    assert process.stdout.readline() == "written\n"
    return process


def ended_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_written_and_replaced(tmp_path):
    path = tmp_path / "deep" / "points.jsonl"
    for text in ("old", "new"):
        with atomic_write(path) as temporary:
            temporary.write_text(text)
            assert temporary.parent == path.parent and temporary != path
        assert path.read_text() == text
    assert names(path.parent) == ["points.jsonl"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_leaves_the_old_file_and_no_temporary(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(error), atomic_write(path) as temporary:
        temporary.write_text("half")
        raise error
    assert path.read_text() == "old" and names(tmp_path) == ["a.txt"]


def test_a_killed_process_leaves_the_old_file_and_the_next_write_cleans_up(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    process = writer(path, "x")
    process.kill()
    process.communicate()
    assert path.read_text() == "old" and len(names(tmp_path)) == 2
    with atomic_write(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new" and names(tmp_path) == ["a.txt"]


def test_two_processes_write_one_file(tmp_path):
    path = tmp_path / "a.txt"
    first, second = writer(path, "x"), writer(path, "y")
    for process, letter in ((second, "y"), (first, "x")):  # each with its own temporary; the last one counts
        process.communicate("\n")
        assert process.returncode == 0 and path.read_text() == letter * 100_000
    assert names(tmp_path) == ["a.txt"]


def test_temporaries_of_other_machines_and_running_processes_stay(tmp_path):
    host = socket.gethostname()
    stay = {f".a.txt.{host}-{os.getppid()}.tmp", f".a.txt.other-{ended_process()}.tmp", f".b.txt.{host}-1.tmp"}
    for name in (*stay, f".a.txt.{host}-{ended_process()}.tmp"):
        (tmp_path / name).touch()
    with atomic_write(tmp_path / "a.txt") as temporary:
        temporary.touch()
    assert set(names(tmp_path)) == {"a.txt", *stay}


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "file").write_text("old")
    for write in (atomic_write, atomic_folder):
        with pytest.raises(OSError, match="file"), write(tmp_path / "file" / "a"):
            pass
    assert (tmp_path / "file").read_text() == "old"


def test_a_block_that_writes_nothing_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_write(tmp_path / "a.txt"):
        pass
    assert names(tmp_path) == []


def test_a_folder_appears_when_it_is_complete(tmp_path):
    with atomic_folder(tmp_path / "step") as temporary:
        (temporary / "decoder").mkdir()
        (temporary / "decoder" / "a").write_text("new")
        assert not (tmp_path / "step").exists()
    assert (tmp_path / "step" / "decoder" / "a").read_text() == "new" and names(tmp_path) == ["step"]


def test_an_existing_folder_is_replaced_only_on_request(tmp_path):
    (tmp_path / "step").mkdir()
    (tmp_path / "step" / "old").touch()
    with pytest.raises(OSError), atomic_folder(tmp_path / "step") as temporary:  # noqa: PT011
        (temporary / "new").touch()
    assert names(tmp_path / "step") == ["old"] and names(tmp_path) == ["step"]
    with atomic_folder(tmp_path / "step", replace=True) as temporary:
        (temporary / "new").touch()
    assert names(tmp_path / "step") == ["new"] and names(tmp_path) == ["step"]


def test_an_error_leaves_the_old_folder(tmp_path):
    (tmp_path / "step").mkdir()
    with pytest.raises(ValueError, match="broken"), atomic_folder(tmp_path / "step", replace=True):
        raise ValueError("broken")
    leftover = tmp_path / f".step.{socket.gethostname()}-{ended_process()}.tmp"
    leftover.mkdir()
    with atomic_folder(tmp_path / "step", replace=True):
        assert not leftover.exists()
    assert names(tmp_path) == ["step"]


def test_an_existing_folder_is_an_error_even_if_it_is_empty(tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(FileExistsError, match="out"), atomic_folder(tmp_path / "out") as temporary:
        (temporary / "a").touch()
    assert names(tmp_path) == ["out"] and names(tmp_path / "out") == []


def test_a_folder_whose_replacement_was_killed_is_put_back(tmp_path):
    old = tmp_path / f".out.{socket.gethostname()}-{ended_process()}.old"
    old.mkdir()
    (old / "a").touch()
    with pytest.raises(ValueError), atomic_folder(tmp_path / "out", replace=True):
        raise ValueError
    assert names(tmp_path) == ["out"] and names(tmp_path / "out") == ["a"]
    with atomic_folder(tmp_path / "out", replace=True) as temporary:
        (temporary / "b").touch()
    assert names(tmp_path) == ["out"] and names(tmp_path / "out") == ["b"]


def test_the_target_of_a_link_is_replaced(tmp_path):
    (tmp_path / "target").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with atomic_write(tmp_path / "link") as temporary:
        temporary.write_text("new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "target").read_text() == "new"


def test_a_name_of_255_bytes_can_be_written(tmp_path):
    with atomic_write(tmp_path / ("x" * 255)) as temporary:
        temporary.write_text("new")
    assert names(tmp_path) == ["x" * 255]
