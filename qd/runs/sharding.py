"""Weights of which each rank of a run holds its share alone (torch's FSDP): made whole where they are used or saved."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor


@contextmanager
def gathered(module: nn.Module) -> Iterator[None]:
    """Until the context ends the module's weights are whole on every rank, all of which must enter it.

    Where they are whole already, as in an outer context, nothing is done. Reading the module's ``state_dict`` ends the
    state early: torch gives the shares out again, see :func:`whole_state`.
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
    """The tensor of which a rank may hold a share, on every rank; all of them must ask."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def whole_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict with whole tensors, for the first rank to write: of the others, whose memory it is to spare, it is
    empty; all of them must ask. What is shared out comes to the CPU, tensor by tensor."""
    if not any(isinstance(value, DTensor) for value in state.values()):
        return dict(state)
    kept = {}
    for name, value in state.items():
        full = whole(value)
        if dist.get_rank() == 0:
            kept[name] = full.cpu() if isinstance(value, DTensor) else full
    return kept


def shared_like(tensor: Tensor, like: Tensor) -> Tensor:
    """This rank's share of a whole tensor that every rank has, cut as ``like`` is."""
    if not isinstance(like, DTensor):
        return tensor
    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements, src_data_rank=None)
