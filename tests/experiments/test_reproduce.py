"""The command line of the reproduction: how it stops."""

from __future__ import annotations

import signal

import pytest

from experiments import reproduce


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_sets_the_status(monkeypatch, capsys, name):
    monkeypatch.setattr("sys.argv", ["reproduce", "--only", "runs"])
    monkeypatch.setattr(reproduce, "reproduce", lambda *_: signal.raise_signal(signal.Signals[name]))
    assert reproduce.main() == 128 + signal.Signals[name]
    assert "run the same command again to resume" in capsys.readouterr().err


def test_another_process_refuses_the_work(monkeypatch, capsys):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr("sys.argv", ["reproduce", "--only", "runs"])
    assert reproduce.main() == 2
    assert "unset RANK" in capsys.readouterr().err
