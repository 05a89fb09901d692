"""The editions of the built-in world. The shipped models are of the first; the second is being prepared."""

from __future__ import annotations

from types import ModuleType

from qd.data.world import world as first
from qd.data.world2 import world as second

EDITIONS = {1: first, 2: second}
"""Modules with the functions ``clip``, ``chunks`` and ``change_drums``, by number."""


def edition(number: int) -> ModuleType:
    """Returns an edition of the world."""
    return EDITIONS[number]
