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


def other_process() -> str | None:
    """Returns why this process must not do work that is not shared; None if it is the first or the only one."""
    if first_process():
        return None
    name = next(name for name in RANKS if os.environ.get(name))
    return (
        f"it is the work of one process, and {name}={os.environ[name]} in the environment says that this is not the "
        f"first one; start it without torchrun or srun; if {name} is left over from another command: unset {name}"
    )


def first_process() -> bool:
    """Whether this process is the first of its run; only this one writes files and messages."""
    return rank_number() == "0"


def first_of_machine() -> bool:
    """Whether this process is the first of its run on this machine."""
    return os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", "0")) == "0"
