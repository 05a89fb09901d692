"""Gathering over ranks, which is the identity where there is only one."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


def _ranks() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def gather_rows(tensor: Tensor) -> Tensor:
    """``(rows, …)`` of each rank → ``(ranks · rows, …)`` in the order of the ranks, on every rank; without gradient."""
    if _ranks() == 1:
        return tensor
    rows = [torch.empty_like(tensor) for _ in range(_ranks())]
    dist.all_gather(rows, tensor.detach().contiguous())
    return torch.cat(rows)
