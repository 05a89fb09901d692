"""Finds the other processes of a command, which torchrun or srun started with this one.

The environment says how many there are. If its variables are left over from another command, nobody will come. So the
wait is short, says which variable asked for it, and can be stopped.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from dataclasses import dataclass
from datetime import timedelta

from lightning.pytorch.plugins.environments import SLURMEnvironment
from torch.distributed import DistError, Store, TCPStore
from torch.distributed.constants import default_pg_timeout

from qd.runs.folders import RUN_FOLDER
from qd.runs.process_rank import RANKS, rank_number

WAIT = 120.0  # seconds; torchrun and srun start all processes at the same time
ANNOUNCE = 2.0  # seconds
SIZES = ("WORLD_SIZE", "SLURM_STEP_NUM_TASKS")
"""Environment variables with the number of processes, set by torchrun and by srun.

For srun, the tasks of the step count, not those of the job: a command in a batch script without srun is one process,
however many the job has.
"""


@dataclass(frozen=True)
class Launch:
    """How this process was started.

    Attributes:
        ranks: Number of processes.
        rank: Index of this process.
        size: The variable that gives their number: ``WORLD_SIZE=2``; empty if none is set.
        variables: All variables that say so.
    """

    ranks: int
    rank: int
    size: str
    variables: tuple[str, ...]

    @property
    def external(self) -> bool:
        """Whether a variable says that torchrun or srun started this process; Lightning's own processes know it."""
        names = set(self.variables) - {"SLURM_PROCID", "SLURM_STEP_NUM_TASKS"}  # a job of one task has these too
        return RUN_FOLDER not in os.environ and (self.ranks > 1 or bool(names))

    @property
    def leave(self) -> str:
        """How to get rid of the variables."""
        return f"if these variables are left over from another command: unset {' '.join(self.variables)}"


def read_launch() -> Launch:
    """Returns what the environment says about this process.

    Raises:
        ValueError: The variables contradict each other, or are no numbers.
    """
    size = next((name for name in SIZES if os.environ.get(name)), None)
    variables = tuple(name for name in (*RANKS, *SIZES) if os.environ.get(name))
    ranks, rank = _number(size) if size else 1, int(rank_number()) if rank_number().isdigit() else -1
    launch = Launch(ranks, rank, f"{size}={ranks}" if size else "", variables)
    said = ", ".join(f"{name}={os.environ[name]}" for name in variables)
    if not 0 <= rank < ranks:
        raise ValueError(
            f"the environment has {said}, but {ranks} processes have the ranks 0 to {ranks - 1}; {launch.leave}"
        )
    if ranks > 1 and not set(variables) & set(RANKS):
        raise ValueError(
            f"{launch.size} in the environment asks for {ranks} processes, but no variable gives the rank of this one: "
            f"start it by torchrun or srun; {launch.leave}"
        )
    return launch


def check_ranks(launch: Launch, ranks: int) -> None:
    """Checks that a training run has as many processes as torchrun or srun started.

    Raises:
        ValueError: The numbers differ: the run would wait for processes that nobody starts, or several would write it.
    """
    if launch.external and launch.ranks != ranks:
        said = ", ".join(f"{name}={os.environ[name]}" for name in launch.variables)
        raise ValueError(
            f"the environment has {said}, so this is one of {launch.ranks} processes, but trainer.devices × "
            f"trainer.num_nodes is {ranks}; make them equal; {launch.leave}"
        )


def meet(launch: Launch) -> Store:
    """Waits for the other processes, and returns a store that all of them use.

    Raises:
        ValueError: They did not come in time, or their address is unknown.
    """
    host, port = _address(launch)
    asked = f"{launch.size} in the environment asks for {launch.ranks} processes that meet at {host}:{port}"
    start, announced, store, here = time.monotonic(), False, None, 0
    while time.monotonic() - start < WAIT:
        store = store or _store(launch, host, port)
        if store is not None:
            here = here or _arrive(store)
            here = store.add(_key(), 0)
            if here >= launch.ranks:
                store.set_timeout(default_pg_timeout)
                return store
        if not announced and time.monotonic() - start > ANNOUNCE:
            announced = True
            others = launch.ranks - max(1, here)
            print(
                f"waiting for {others} of {launch.ranks} processes, at most {WAIT:.0f} s: {asked}; "
                f"this is rank {launch.rank}; {launch.leave}",
                file=sys.stderr,
                flush=True,
            )
        time.sleep(0.1)
    raise ValueError(
        f"{asked}, and {max(1, here)} came within {WAIT:.0f} s: start all of them by torchrun or srun; {launch.leave}"
    )


def _arrive(store: Store) -> int:
    return store.add(_key(), 1)


def _key() -> str:
    return f"qd/arrived/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}"


def _store(launch: Launch, host: str, port: int) -> Store | None:
    """Returns the store, which the first process or torchrun holds; None if it is not there yet."""
    holds = launch.rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    if not holds and not _answers(host, port):
        return None
    timeout = timedelta(seconds=10)
    try:
        return TCPStore(host, port, None, holds, timeout, wait_for_workers=False, multi_tenant=True)
    except DistError as error:
        if holds:
            raise ValueError(f"MASTER_PORT: {host}:{port} cannot be opened ({error}); {launch.leave}") from error
        return None


def _answers(host: str, port: int) -> bool:
    """Whether a program listens there. torch itself would wait without a word, and without hearing a signal."""
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:
        return False
    return True


def _address(launch: Launch) -> tuple[str, int]:
    """The host and port of the store. srun sets none, so all tasks derive the same from the job."""
    host, port = os.environ.get("MASTER_ADDR"), os.environ.get("MASTER_PORT")
    if launch.size.startswith("SLURM"):
        host = host or SLURMEnvironment.resolve_root_node_address(os.environ["SLURM_STEP_NODELIST"])
        job = _number("SLURM_JOB_ID") + _number("SLURM_STEP_ID")
        return host, int(port) if port else 15_000 + job % 10_000
    if missing := [name for name in ("MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)]:
        raise ValueError(
            f"{launch.size} in the environment asks for {launch.ranks} processes, but {' and '.join(missing)} is not "
            f"set: start the command by torchrun; {launch.leave}"
        )
    return host, _number("MASTER_PORT")


def _number(variable: str) -> int:
    text = os.environ.get(variable, "")
    if not text.isdigit():
        raise ValueError(f"{variable} in the environment is {text!r}; expected a number")
    return int(text)
