"""One fault of the campaign: what is done to the program in real processes, and how its loss is noticed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Fault:
    """A fault.

    Attributes:
        kind: Row of the table, such as "kill −9 while a checkpoint is written".
        name: What is special about this one, for the report of a loss.
        check: Causes the fault in a new folder; returns None if nothing was lost, else what was.
        times: How often the check causes the fault; a loss counts for all of them.
    """

    kind: str
    name: str
    check: Callable[[Path], str | None]
    times: int = 1
