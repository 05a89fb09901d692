"""A run with several processes ("ranks"), each with its own device.

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
    """Returns the device of this process in a run of ``ranks`` processes on devices of one kind."""
    if ranks == 1 or device.type != "cuda":
        return device
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", 0))))


@contextmanager
def process_group(device: torch.device) -> Iterator[torch.device]:
    """Joins the processes that torchrun or srun started, if any, and yields the device of this process.

    For commands without training; in training, Lightning does this.
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
    """Returns the arguments of the process group: number of processes, rank and address.

    For srun, the tasks of the step count, not those of the job: a command in a batch script without srun is one
    process, however many the job has.
    """
    if "WORLD_SIZE" in os.environ or int(os.environ.get("SLURM_STEP_NUM_TASKS", 1)) == 1:
        return {
            "world_size": int(os.environ.get("WORLD_SIZE", 1))
        }  # torch reads the rest from the environment of torchrun
    first = SLURMEnvironment.resolve_root_node_address(os.environ["SLURM_STEP_NODELIST"])
    port = 15_000 + (int(os.environ["SLURM_JOB_ID"]) + int(os.environ["SLURM_STEP_ID"])) % 10_000
    return {
        "world_size": int(os.environ["SLURM_STEP_NUM_TASKS"]),
        "rank": int(os.environ["SLURM_PROCID"]),
        "init_method": f"tcp://{os.environ.get('MASTER_ADDR', first)}:{os.environ.get('MASTER_PORT', port)}",
    }


def trainer_devices(device: torch.device, devices: int, nodes: int = 1, sharded: bool = False) -> dict[str, Any]:
    """Returns the arguments of a Lightning Trainer for several devices.

    Args:
        device: Kind of the devices.
        devices: Devices of each machine.
        nodes: Number of machines.
        sharded: Whether the weights are sharded by the module's ``configure_model`` (FSDP); else each device has all
            weights (DDP).
    """
    one = trainer_device(device)
    if devices * nodes == 1:
        return one
    if sharded:
        return one | {"devices": devices, "num_nodes": nodes, "strategy": FullySharded(devices * nodes)}
    # Buffers are constants or, in the baselines, change equally on every rank: they need no broadcast.
    return one | {"devices": devices, "num_nodes": nodes, "strategy": DDPStrategy(broadcast_buffers=False)}


def check_nodes(nodes: int) -> None:
    """Checks that a run on several machines was started by torchrun or srun.

    Lightning starts only the processes of its own machine, and would wait for the others forever.

    Raises:
        ValueError: There are several machines, and neither torchrun nor srun started this process.
    """
    if nodes > 1 and not {"RANK", "SLURM_PROCID"} & os.environ.keys():
        raise ValueError(
            f"trainer.num_nodes is {nodes}, and this process was not started by torchrun or srun; start the command by "
            "one of them on every machine (docs/training.md), or set trainer.num_nodes=1"
        )
