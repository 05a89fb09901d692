"""Gathers values over ranks; with one rank, returns them unchanged."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.utils import get_total_norm

from qd.runs.sharding import whole

T = TypeVar("T")


def ranks() -> int:
    """Number of processes of this run."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Index of this process among them."""
    return dist.get_rank() if ranks() > 1 else 0


def gather_objects(value: T) -> list[T]:
    """Returns the small, picklable ``value`` of each rank in the order of the ranks, on every rank."""
    values = [value] * ranks()
    if ranks() > 1:
        dist.all_gather_object(values, value)
    return values


def gather_rows(tensor: Tensor) -> Tensor:
    """``(rows, …)`` of each rank → ``(ranks · rows, …)`` in the order of the ranks, on every rank; without gradient."""
    if ranks() == 1:
        return tensor
    rows = [torch.empty_like(tensor, memory_format=torch.contiguous_format) for _ in range(ranks())]
    dist.all_gather(rows, tensor.detach().contiguous())
    return torch.cat(rows)


def gradient_norm(parameters: Iterable[Tensor]) -> Tensor:
    """Returns the L2 norm of all gradients together, a scalar, also for parameters that are sharded over ranks."""
    return whole(get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None]))


def gather_rows_with_gradient(tensor: Tensor) -> Tensor:
    """:func:`gather_rows` with gradient: the loss of every rank reaches the rows of all ranks.

    The gradient of the rows of a rank is the sum over the losses of all ranks. If all ranks compute the same loss of
    all rows, this is ``ranks`` times the gradient of the loss, and the mean over ranks in data-parallel training gives
    the gradient of one process that holds all rows.
    """
    return tensor if ranks() == 1 else _GatherRows.apply(tensor)


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        return gather_rows(tensor)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        # All rows are summed and this rank's are returned: every backend can do this, and the rows are a few megabytes.
        gradient = gradient.contiguous().clone()
        dist.all_reduce(gradient)
        return gradient.chunk(ranks())[dist.get_rank()]
