from __future__ import annotations

from collections import namedtuple

import pytest

from qd.runs.disk import LOGS_BYTES, check_disk, disk_needed


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
