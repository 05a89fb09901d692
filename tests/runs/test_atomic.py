from __future__ import annotations

import errno
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from qd.runs.atomic import added_files, atomic_folder, atomic_write
from tests.runs.full_disk import full_disk

SIZE = 100_000
ROOT = Path(__file__).resolve().parents[2]
WRITER = """
import sys
from qd.runs.atomic import atomic_write
with atomic_write(sys.argv[1]) as temporary:
    temporary.write_text(sys.argv[2] * 100_000)
    print("written", flush=True)
    sys.stdin.readline()
"""


LARGE = Path(torch.__file__).with_name("functional.py")
"""A file of more than 50,000 bytes."""


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


WAYS_TO_WRITE = {
    "copy": lambda file: shutil.copyfile(LARGE, file),
    "bytes": lambda file: file.write_bytes(bytes(SIZE)),
    "torch": lambda file: torch.save({"a": torch.zeros(SIZE)}, file),
    "safetensors": lambda file: save_file({"a": torch.zeros(SIZE)}, file),
    "wav": lambda file: soundfile.write(file, np.zeros(SIZE), 16_000, format="WAV"),
}


@pytest.mark.parametrize("way", WAYS_TO_WRITE)
def test_a_full_disk_leaves_the_old_content_and_an_error_that_names_it(tmp_path, way):
    (tmp_path / "a").write_text("old")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "sample-1.wav").write_text("old")
    before = names(tmp_path)
    with full_disk(SIZE // 2):
        with pytest.raises(OSError, match="too large") as caught, atomic_write(tmp_path / "a") as temporary:
            WAYS_TO_WRITE[way](temporary)
        assert (caught.value.errno, caught.value.filename) == (errno.EFBIG, str(tmp_path / "a"))
        for write in (atomic_folder, added_files):
            with pytest.raises(OSError, match="too large") as caught, write(tmp_path / "new") as temporary:
                WAYS_TO_WRITE[way](temporary / "b")
            assert caught.value.filename == str(tmp_path / "new")
        with pytest.raises(OSError, match="too large"), added_files(tmp_path / "folder") as temporary:
            (temporary / "sample-1.wav").write_text("new")
            WAYS_TO_WRITE[way](temporary / "sample-2.wav")
    assert names(tmp_path) == before and names(tmp_path / "folder") == ["sample-1.wav"]
    assert (tmp_path / "a").read_text() == (tmp_path / "folder" / "sample-1.wav").read_text() == "old"


def test_an_error_of_a_library_on_a_disk_with_space_stays(tmp_path):
    with pytest.raises(SafetensorError, match="broken"), atomic_folder(tmp_path / "a"):
        raise SafetensorError("broken")
    assert names(tmp_path) == []


def test_files_are_added_to_a_folder(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "old").touch()
    with added_files(tmp_path / "a") as temporary:
        (temporary / "deep").mkdir()
        (temporary / "deep" / "new").touch()
        (temporary / "old").write_text("new")
    assert names(tmp_path / "a") == ["deep", "old"] and names(tmp_path / "a" / "deep") == ["new"]
    assert (tmp_path / "a" / "old").read_text() == "new"
