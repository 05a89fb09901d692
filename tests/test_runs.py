from __future__ import annotations

from collections import namedtuple
from dataclasses import dataclass
from datetime import datetime

import pytest

from qd import runs
from qd.config import load_config


@dataclass
class Settings:
    beta: float = 15.0


def test_a_name_is_what_the_run_is_and_when_it_began():
    assert runs.run_name("beta15", datetime(2026, 1, 2, 15, 30)) == "beta15-20260102-1530"


def test_a_named_run_is_made_once(tmp_path):
    folder = runs.create_run(tmp_path / "runs", "first", "beta0")
    assert folder.is_dir() and folder.name == "first"
    with pytest.raises(ValueError, match=f"exists already.*RESUME={folder}"):
        runs.create_run(tmp_path / "runs", "first", "beta0")


def test_default_names_never_collide(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "run_name", lambda label: f"{label}-20260102-1530")
    names = [runs.create_run(tmp_path, None, "beta0").name for _ in range(3)]
    assert names == ["beta0-20260102-1530", "beta0-20260102-1530-2", "beta0-20260102-1530-3"]


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="cannot be made"):
        runs.create_run(tmp_path / "file", "x", "beta0")


def test_a_run_is_found_by_folder_or_name(tmp_path):
    run = runs.create_run(tmp_path, "mine", "beta0")
    with pytest.raises(ValueError, match="config.yaml is missing"):
        runs.find_run(run)
    runs.save_config(Settings(beta=0.5), run)
    assert runs.find_run(run) == runs.find_run("mine", tmp_path) == run
    with pytest.raises(ValueError, match="no run 'mime'.*: mine"):
        runs.find_run("mime", tmp_path)
    with pytest.raises(ValueError, match="none"):
        runs.find_run("x", tmp_path / "nothing")


def test_a_saved_config_loads_again(tmp_path):
    runs.save_config(Settings(beta=0.5), tmp_path)
    assert load_config(Settings, "none", str(tmp_path / runs.CONFIG)) == Settings(beta=0.5)


def test_the_checkpoint_is_found_or_asked_for(tmp_path):
    with pytest.raises(ValueError, match="last.ckpt"):
        runs.newest_checkpoint(tmp_path)
    (tmp_path / "last.ckpt").write_bytes(b"")
    assert runs.newest_checkpoint(tmp_path) == tmp_path / "last.ckpt"


def test_disk_needed_counts_every_copy_of_the_weights():
    added = runs.disk_needed(1000, 10, step_folders=3) - runs.LOGS_BYTES
    assert added == 4 * (1010 * 4) + 2 * (3 * 1000 * 4)  # step folders and one being written; resume file, old and new


def test_a_full_disk_is_refused_before_the_folder_is_there(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(runs.shutil, "disk_usage", lambda folder: usage(100, 0, 2**30))
    runs.check_disk(tmp_path / "not" / "yet", 2**30)
    with pytest.raises(ValueError, match="needs 2.0 GiB and .* has 1.0 GiB free"):
        runs.check_disk(tmp_path / "not" / "yet", 2**31)
