"""One run as several processes ("ranks"), each with a device of its own: who writes, and where each one works.

The processes are started by Lightning (``trainer.devices=4`` on one machine), by torchrun, or by SLURM's srun.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch.plugins.environments import SLURMEnvironment
from lightning.pytorch.strategies import DDPStrategy

from qd.runs.devices import trainer_device
from qd.runs.sharded_strategy import FullySharded


def local_device(device: torch.device, ranks: int) -> torch.device:
    """The device of this process, where the run has ``ranks`` processes and ``device`` tells their kind."""
    if ranks == 1 or device.type != "cuda":
        return device
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", 0))))


@contextmanager
def process_group(device: torch.device) -> Iterator[torch.device]:
    """The device of this process, which while the context lasts hears of the others that torchrun or srun started, if
    any.

    For commands that train nothing; in training Lightning does this.
    """
    group = _started_together()
    if group["world_size"] == 1:
        yield device
        return
    own = local_device(device, group["world_size"])
    if own.type == "cuda":
        torch.cuda.set_device(own)
    dist.init_process_group("nccl" if own.type == "cuda" else "gloo", **group)
    try:
        yield own
    finally:
        dist.destroy_process_group()


def _started_together() -> dict[str, Any]:
    """How many processes were started as one command, which of them this is, and where they meet.

    Of srun the tasks of its step are counted, not those of the job: a command of a batch script that srun does not
    start is one process, whatever the job has asked for.
    """
    if "WORLD_SIZE" in os.environ or int(os.environ.get("SLURM_STEP_NUM_TASKS", 1)) == 1:
        return {"world_size": int(os.environ.get("WORLD_SIZE", 1))}  # torch asks torchrun's environment for the rest
    first = SLURMEnvironment.resolve_root_node_address(os.environ["SLURM_STEP_NODELIST"])
    port = 15_000 + (int(os.environ["SLURM_JOB_ID"]) + int(os.environ["SLURM_STEP_ID"])) % 10_000
    return {
        "world_size": int(os.environ["SLURM_STEP_NUM_TASKS"]),
        "rank": int(os.environ["SLURM_PROCID"]),
        "init_method": f"tcp://{os.environ.get('MASTER_ADDR', first)}:{os.environ.get('MASTER_PORT', port)}",
    }


def trainer_devices(device: torch.device, devices: int, nodes: int = 1, sharded: bool = False) -> dict[str, Any]:
    """What a Lightning Trainer is to be told to run on ``devices`` devices on each of ``nodes`` machines.

    Where ``sharded``, they share out the weights that the module's ``configure_model`` shares (FSDP); else each has all
    (DDP).
    """
    one = trainer_device(device)
    if devices * nodes == 1:
        return one
    if sharded:
        return one | {"devices": devices, "num_nodes": nodes, "strategy": FullySharded(devices * nodes)}
    # Buffers are constants, or, in the baselines, changed alike on every rank: there is nothing to send round.
    return one | {"devices": devices, "num_nodes": nodes, "strategy": DDPStrategy(broadcast_buffers=False)}


def check_nodes(nodes: int) -> None:
    """Refuses to wait for processes that nobody starts: Lightning starts those of its own machine alone.

    Raises:
        ValueError: several machines, and neither torchrun nor srun has started this process.
    """
    if nodes > 1 and not {"RANK", "SLURM_PROCID"} & os.environ.keys():
        raise ValueError(
            f"trainer.num_nodes is {nodes}, and this process was started by hand; start the command on every machine "
            "by torchrun or srun (docs/training.md), or set trainer.num_nodes=1"
        )
