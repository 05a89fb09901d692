"""Runs of the command line: resumed runs, errors, exit statuses and ranks."""

from __future__ import annotations

import errno
import signal
import sys

import pytest

from qd.callbacks.guards import NonFiniteError
from qd.cli import main as cli
from qd.config.resume import save_config
from qd.modules.embedder import CollapseError
from tests.cli.conftest import Schema


@pytest.mark.parametrize("command", ["train", "train-embedder"])
def test_a_resumed_run_keeps_its_config(calls, command, tmp_path):
    run = tmp_path / "mine"
    run.mkdir()
    save_config(Schema(beta=3.0), run)
    assert cli.main([command, "--resume", str(run), "--name=mine", "--seed=0", "beta=3", "trainer.log_every=9"]) == 0
    ((_, (config,), options),) = calls
    assert options["resume"] == str(run)
    assert (config.beta, config.name, config.trainer.runs, config.trainer.log_every) == (3.0, "mine", str(tmp_path), 9)


def test_changes_that_make_a_resumed_run_another_one_are_reported_together(calls, tmp_path, capsys):
    run = tmp_path / "mine"
    run.mkdir()
    save_config(Schema(beta=3.0), run)
    other = ["--beta=4", "--seed=1", "--name=yours", "--config=quick", "--prompts=p.txt", "--embedder=e"]
    assert cli.main(["train", "--resume", str(run), *other, "trainer.max_steps=9"]) == 2
    error = capsys.readouterr().err
    assert "6 problems" in error and not calls
    assert "config is 'quick'" in error and "remove CONFIG" in error
    assert "beta is 4.0, and this run has 3.0" in error
    assert all(f"• {key} is" in error for key in ("seed", "name", "data.prompts", "reward.embedder"))
    assert cli.main(["train-embedder", "--resume", str(run), "trainer.max_steps=9"]) == 2
    assert "trainer.max_steps is 9, and this run has 1" in capsys.readouterr().err


def test_other_ranks_accept_an_existing_run_folder(calls, tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.yaml").touch()
    arguments = ["train-embedder", "--name", "mine", f"trainer.runs={tmp_path}"]
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert cli.main(arguments) == 2
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert cli.main(arguments) == 0


def test_bad_input_is_one_message_and_status_2(calls, capsys):
    assert cli.main(["train", "--beta", "loud", "trainer.max_step=1"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("qd train: 2 problems in the configuration:")
    assert "Traceback" not in error and not calls


@pytest.mark.parametrize(
    ("started", "config_reported", "other_error"),
    [
        ({}, True, "qd train: no such model\n"),
        ({"RANK": "0", "LOCAL_RANK": "0"}, True, "qd train: no such model\n"),
        ({"RANK": "1", "LOCAL_RANK": "1"}, False, "qd train: rank 1: no such model\n"),
        ({"LOCAL_RANK": "1"}, False, "qd train: rank 1: no such model\n"),
        ({"RANK": "8", "LOCAL_RANK": "0"}, True, "qd train: rank 8: no such model\n"),
        ({"SLURM_PROCID": "9", "SLURM_LOCALID": "1"}, False, "qd train: rank 9: no such model\n"),
    ],
)
def test_a_bad_config_is_reported_once_a_machine_and_any_other_error_by_each_rank(
    calls, monkeypatch, capsys, started, config_reported, other_error
):
    for name, value in started.items():
        monkeypatch.setenv(name, value)

    def missing(*args, **kwargs):
        raise ValueError("no such model")

    monkeypatch.setattr(sys.modules["qd.commands.train"], "train", missing)
    assert cli.main(["train", "trainer.max_step=1"]) == 2
    assert ("unknown key" in capsys.readouterr().err) is config_reported
    assert cli.main(["train", "--name=x"]) == 2
    assert capsys.readouterr().err == other_error


def test_problems_of_config_machine_and_folder_are_reported_together(tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.yaml").touch()
    places = ["--name", "mine", f"trainer.runs={tmp_path}", "--device", "cuda:99"]
    assert cli.main(["train", "--beta", "-1", *places]) == 2
    error = capsys.readouterr().err
    assert "3 problems" in error
    assert all(text in error for text in ("beta is -1.0", "'cuda:99' is not on this machine", "exists already"))


def test_a_loss_that_is_not_finite_is_one_message(calls, monkeypatch):
    def broken(config, **kwargs):
        raise NonFiniteError("the loss is nan at step 3")

    monkeypatch.setattr(sys.modules["qd.commands.train"], "train", broken)
    with pytest.raises(SystemExit) as stopped:
        cli.main(["train"])
    assert stopped.value.code == "qd train: the loss is nan at step 3"


def test_a_collapsed_embedder_is_one_message(calls, monkeypatch):
    def collapsed(config, **kwargs):
        raise CollapseError("all embeddings are equal")

    monkeypatch.setattr(sys.modules["qd.commands.train_embedder"], "train_embedder", collapsed)
    with pytest.raises(SystemExit) as stopped:
        cli.main(["train-embedder"])
    assert stopped.value.code == "qd train-embedder: all embeddings are equal"


@pytest.mark.parametrize("started_by", ["RANK", "LOCAL_RANK", "SLURM_PROCID"])
def test_another_process_refuses_work_that_is_not_shared(calls, monkeypatch, capsys, started_by):
    work = {
        "fad": ["--audio=x"], "scorer-ranges": [], "sample": ["--prompt=x"], "merge": ["--a=x", "--b=y"],
        "embedder-report": [], "train-preference": ["--data=x"], "base": [],
    }  # fmt: skip
    monkeypatch.setenv(started_by, "1")
    for command, arguments in work.items():
        assert cli.main([command, *arguments]) == 2  # not 0 without a file
        message = capsys.readouterr().err
        assert message.startswith(f"qd {command}: ") and f"unset {started_by}" in message
    assert calls == []
    assert cli.main(["train", "--name=x"]) == 0 and calls.pop()[0] == "train"
    for number in ("0", ""):  # empty is not set
        monkeypatch.setenv(started_by, number)
        for command, arguments in work.items():
            assert cli.main([command, *arguments]) == 0
        assert len(calls) == len(work)
        calls.clear()


def test_ctrl_c_is_status_130(calls, monkeypatch, capsys):
    def interrupted(**kwargs):
        raise KeyboardInterrupt("saved step 3")

    monkeypatch.setattr(sys.modules["qd.commands.sample"], "sample", interrupted)
    assert cli.main(["sample", "--prompt", "x"]) == 130
    assert capsys.readouterr().err == "qd sample: stopped by Ctrl-C; saved step 3\n"


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGUSR1"])
def test_another_signal_is_handled_like_ctrl_c(calls, monkeypatch, capsys, name):
    def stopped(**kwargs):
        signal.raise_signal(signal.Signals[name])

    before = signal.getsignal(signal.Signals[name])
    monkeypatch.setattr(sys.modules["qd.commands.sample"], "sample", stopped)
    assert cli.main(["sample", "--prompt", "x"]) == 128 + signal.Signals[name]
    assert capsys.readouterr().err == f"qd sample: stopped by {name}\n"
    assert signal.getsignal(signal.Signals[name]) == before


def test_a_hangup_that_nohup_ignores_stays_ignored(calls, monkeypatch):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        monkeypatch.setattr(sys.modules["qd.commands.sample"], "sample", lambda **_: signal.raise_signal(signal.SIGHUP))
        assert cli.main(["sample", "--prompt", "x"]) == 0
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(
    ("error", "facts"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "/a/b.wav"), ["'/a/b.wav'", "permission denied"]),
        (
            OSError(errno.ENOSPC, "No space left on device", "/a/b.wav"),
            ["'/a/b.wav'", "GiB free", "same command again"],
        ),
        (OSError(errno.ENOSPC, "No space left on device"), ["a file cannot be written", "no space left"]),
        (OSError(errno.EIO, "Input/output error", "/a/b.wav"), ["'/a/b.wav'", "damaged or was removed"]),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "/a/b.wav"), ["'/a/b.wav'", "no such file"]),
    ],
)
def test_an_error_of_the_disk_is_one_line_and_status_2(calls, monkeypatch, capsys, error, facts):
    def failing(**options):
        raise error

    monkeypatch.setattr(sys.modules["qd.commands.sample"], "sample", failing)
    assert cli.main(["sample", "--prompt", "calm"]) == 2
    text = capsys.readouterr().err
    assert text.startswith("qd sample: ") and text.count("\n") == 1 and all(fact in text for fact in facts)
