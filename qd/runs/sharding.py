"""Weights that are sharded over ranks (torch's FSDP): gathers them where they are used or saved."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor


@contextmanager
def gathered(module: nn.Module) -> Iterator[None]:
    """Makes the weights of the module whole on every rank inside the context; all ranks must enter it.

    Weights that are whole already, as in an outer context, stay as they are. Reading the module's ``state_dict``
    shards the weights again; see :func:`whole_state`.
    """
    if not any(isinstance(weight, DTensor) for weight in module.parameters()):
        yield
        return
    parts = [part for part in module.modules() if isinstance(part, FSDPModule)]
    for part in parts:
        part.unshard()
    try:
        yield
    finally:
        for part in parts:
            part.reshard()


def whole(tensor: Tensor) -> Tensor:
    """Returns the whole tensor on every rank; all ranks must call this."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def whole_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns a state dict with whole tensors on the first rank, which writes it; all ranks must call this.

    On the other ranks it is empty, which saves memory. Sharded tensors are moved to the CPU, one by one.
    """
    if not any(isinstance(value, DTensor) for value in state.values()):
        return dict(state)
    gathered_state = {}
    for name, value in state.items():
        full = whole(value)
        if dist.get_rank() == 0:
            gathered_state[name] = full.cpu() if isinstance(value, DTensor) else full
    return gathered_state


def shared_like(tensor: Tensor, like: Tensor) -> Tensor:
    """Returns this rank's shard of a whole tensor, with the layout of ``like``."""
    if not isinstance(like, DTensor):
        return tensor
    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements, src_data_rank=None)
