"""Silences expected messages of the libraries."""

from __future__ import annotations

import logging
import threading
import warnings
from typing import Any

import lightning.pytorch  # noqa: F401 - it sets its log level when it is imported, so that comes first
import transformers

from qd.runs.printable import printable

_format_warning = warnings.formatwarning


def _printable_warning(*arguments: Any, **options: Any) -> str:
    return printable(_format_warning(*arguments, **options))


def _print_thread_error(arguments: threading.ExceptHookArgs) -> None:
    """Prints the traceback of a thread, except of TensorBoard's writer, whose error the next logged value raises."""
    written = type(arguments.thread).__name__ == "_AsyncWriterThread" and isinstance(arguments.exc_value, OSError)
    if not written:
        threading.__excepthook__(arguments)


def quieten_libraries() -> None:
    """Silences progress bars and warnings of the libraries about intended behaviour.

    The command line calls it. Python code that calls ``train`` or ``evaluate`` itself decides what it wants to see.
    """
    warnings.formatwarning = _printable_warning
    threading.excepthook = _print_thread_error
    transformers.utils.logging.disable_progress_bar()
    # Missing weights and foreign types are errors of this program, with one line instead of the library's report.
    transformers.utils.logging.set_verbosity_error()
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*in eval mode at the start of training.*")
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")
    # The run folder of a new run already holds its config.
    warnings.filterwarnings("ignore", message="Checkpoint directory .* exists and is not empty")
