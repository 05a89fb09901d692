"""As what this process was started: alone, or as one of several ("ranks") by Lightning, torchrun or srun.

In a file of its own: the command line asks too, and importing Lightning takes long.
"""

from __future__ import annotations

import os

RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID")
"""Where torchrun, Lightning and SLURM tell a process its number, in the order in which Lightning looks there."""


def rank_number() -> str:
    """Of this process, as it was started."""
    return next((os.environ[name] for name in RANKS if os.environ.get(name)), "0")


def first_process() -> bool:
    """Whether this process is the first of its run, which alone writes and speaks."""
    return rank_number() == "0"


def first_of_machine() -> bool:
    """Whether this process is the first of its run on this machine."""
    return os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", "0")) == "0"
