"""The rank of this process, whether it was started directly or by Lightning, torchrun or srun.

A separate module, because the command line needs it too, and the import of Lightning is slow.
"""

from __future__ import annotations

import os

RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID")
"""Environment variables with the rank, set by torchrun, Lightning and SLURM, in the order that Lightning uses."""


def rank_number() -> str:
    """Returns the rank of this process as text."""
    return next((os.environ[name] for name in RANKS if os.environ.get(name)), "0")


def first_process() -> bool:
    """Whether this process is the first of its run; only this one writes files and messages."""
    return rank_number() == "0"


def first_of_machine() -> bool:
    """Whether this process is the first of its run on this machine."""
    return os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", "0")) == "0"
