"""Gathering over ranks, which is the identity where there is only one."""

from __future__ import annotations

from typing import Any

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


def gather_rows_with_gradient(tensor: Tensor) -> Tensor:
    """:func:`gather_rows`, through which the loss of every rank reaches the rows of every other.

    The gradient of a rank's rows is the sum over the ranks' losses. Where all ranks compute the same loss of all rows
    that is ``ranks`` times the loss's, and the mean over ranks that data-parallel training takes of the parameters'
    gradients gives back the gradient of one process that holds all rows.
    """
    return tensor if _ranks() == 1 else _GatherRows.apply(tensor)


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        return gather_rows(tensor)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        # A sum over all rows, of which one's own are kept: every backend has it, and the rows are a few megabytes.
        gradient = gradient.contiguous().clone()
        dist.all_reduce(gradient)
        return gradient.chunk(_ranks())[dist.get_rank()]
