from __future__ import annotations

from datetime import datetime

import pytest

from qd.runs import folders as runs


def test_a_default_name_has_label_and_start_time():
    assert runs.run_name("beta15", datetime(2026, 1, 2, 15, 30)) == "beta15-20260102-1530"


def test_a_named_run_is_made_once(tmp_path):
    folder = runs.create_run(tmp_path / "runs", "first", "beta0")
    assert folder.is_dir() and folder.name == "first"
    (folder / "config.yaml").touch()
    assert runs.place_problems(tmp_path / "runs", "first")
    with pytest.raises(ValueError, match=f"exists already.*RESUME={folder}"):
        runs.create_run(tmp_path / "runs", "first", "beta0")


def test_default_names_never_collide(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "run_name", lambda label: f"{label}-20260102-1530")
    names = [runs.create_run(tmp_path, None, "beta0").name for _ in range(3)]
    assert names == ["beta0-20260102-1530", "beta0-20260102-1530-2", "beta0-20260102-1530-3"]


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="cannot be made"):
        runs.create_run(tmp_path / "file", "x", "beta0")


def test_a_run_is_found_by_folder_or_name(tmp_path):
    run = runs.create_run(tmp_path, "mine", "beta0")
    with pytest.raises(ValueError, match="config.yaml is missing"):
        runs.find_run(run)
    (run / runs.CONFIG).write_text("beta: 0.5\n")
    assert runs.find_run(run) == runs.find_run("mine", tmp_path) == run
    with pytest.raises(ValueError, match="no run 'mime'.*: mine"):
        runs.find_run("mime", tmp_path)
    with pytest.raises(ValueError, match="none"):
        runs.find_run("x", tmp_path / "nothing")


def test_a_run_that_was_killed_before_it_saved_its_config_does_not_keep_its_name(tmp_path):
    folder = runs.create_run(tmp_path, "first", "beta0")
    (folder / ".config.yaml.host-1.tmp").touch()
    assert runs.place_problems(tmp_path, "first") == []
    assert runs.create_run(tmp_path, "first", "beta0") == folder
