"""Signals that stop a command: Ctrl-C, and those of batch systems, containers and closed terminals.

One rule for every command:

- The first signal stops the command. By default it raises ``KeyboardInterrupt``; training finishes its step and saves.
- Later signals have no effect, because a closing terminal or a batch system sends several. Only Ctrl-C speeds up.
- The exit status is 128 + the number of the first signal.
- A signal that this process was started to ignore, as ``nohup`` does with SIGHUP, stays ignored. SIGINT is different: a
  script's ``&`` makes a program ignore it, and ``kill -INT`` must still stop that program.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

STOP_SIGNALS = (
    signal.SIGINT,
    signal.SIGTERM,  # docker stop, systemd, scancel, kill
    signal.SIGHUP,  # a closed terminal or connection
    signal.SIGUSR1,  # sbatch --signal=USR1@…, before the time limit
    signal.SIGUSR2,  # LSF, before the time limit
    signal.SIGXCPU,  # a limit of processor time
)


@dataclass
class _Process:
    """Handlers belong to the whole process, so this does too.

    Attributes:
        contexts: Number of active :func:`stop_signals`.
        first: The first signal since the outermost one began.
    """

    contexts: int = 0
    first: int | None = None


_process = _Process()


def stop_signal() -> int | None:
    """Returns the signal that stopped the command; None if there was none."""
    return _process.first


def signal_name(number: int) -> str:
    """Returns ``Ctrl-C`` for SIGINT, and the name of any other signal."""
    return "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name


def stop_cause() -> str:
    """Returns the name of the signal that stopped the command; without a signal, that of Ctrl-C."""
    return signal_name(_process.first or signal.SIGINT)


def stop_status() -> int:
    """Returns the exit status of a stopped command; without a signal, that of Ctrl-C."""
    return 128 + (_process.first or signal.SIGINT)


def raise_interrupt(number: int) -> None:
    """Raises ``KeyboardInterrupt``."""
    raise KeyboardInterrupt


@contextmanager
def stop_signals(on_stop: Callable[[int], None] = raise_interrupt) -> Iterator[None]:
    """Calls ``on_stop`` with the number of each signal that counts; at the end restores the former handlers.

    Contexts can be nested, and the inner one then decides what happens. Other threads may not set handlers: in them
    this context does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    if _process.contexts == 0:
        _process.first = None
    owner = os.getpid()

    def handle(number: int, frame: FrameType | None) -> None:
        if os.getpid() != owner:  # a forked worker inherits the handler; its parent ends it
            if number == signal.SIGTERM:
                os._exit(128 + number)
            return
        first = _process.first is None
        _process.first = _process.first or number
        if first or number == signal.SIGINT:
            on_stop(number)

    former = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    former = {n: handler for n, handler in former.items() if handler is not signal.SIG_IGN or n == signal.SIGINT}
    _process.contexts += 1
    try:
        for number in former:
            signal.signal(number, handle)
        yield
    finally:
        _process.contexts -= 1
        for number, handler in former.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
