"""A run with several processes ("ranks"), each with its own device.

The processes are started by Lightning (``trainer.devices=4`` on one machine), by torchrun, or by SLURM's srun.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch.plugins.environments import LightningEnvironment, SLURMEnvironment, TorchElasticEnvironment
from lightning.pytorch.strategies import DDPStrategy

from qd.runs.checkpoints import AtomicCheckpoints
from qd.runs.devices import resolve_device, trainer_device
from qd.runs.meeting import Launch, check_ranks, meet, read_launch
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
    launch = read_launch()
    if launch.ranks == 1:
        yield device
        return
    with _joined(launch, device) as own:
        yield own


@contextmanager
def training_group(device: str, ranks: int) -> Iterator[None]:
    """Joins the processes of a training run, if torchrun or srun started them; Lightning joins those it starts itself.

    Args:
        device: Name of the device.
        ranks: Number of processes of the run.

    Raises:
        ValueError: The environment asks for another number of processes, or they did not come in time.
    """
    launch = read_launch()
    check_ranks(launch, ranks)
    with _joined(launch, resolve_device(device)) if launch.external and ranks > 1 else nullcontext():
        yield


@contextmanager
def _joined(launch: Launch, device: torch.device) -> Iterator[torch.device]:
    own = local_device(device, launch.ranks)
    store = meet(launch)
    if own.type == "cuda":
        torch.cuda.set_device(own)
    backend = "nccl" if own.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=launch.rank, world_size=launch.ranks)
    try:
        yield own
    finally:
        dist.destroy_process_group()


def trainer_places(folder: Path) -> dict[str, Any]:
    """Returns the arguments of every Lightning Trainer that say where it writes and who starts its processes.

    Args:
        folder: Folder of the run.
    """
    plugins: list[Any] = [AtomicCheckpoints()]
    if SLURMEnvironment.detect() and not TorchElasticEnvironment.detect():
        # The variables of a job without srun are not enough: Lightning would wait for tasks that nobody starts.
        tasks = read_launch().ranks
        plugins.append(SLURMEnvironment(auto_requeue=False) if tasks > 1 else LightningEnvironment())
    return {"default_root_dir": folder, "plugins": plugins}


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
