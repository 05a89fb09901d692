"""One rank of a data-parallel step on the CPU, as a separate process: ``two_ranks.py RANK RANKS FOLDER``.

Writes the results of each scenario on this rank to ``FOLDER/rank<RANK>.pt``.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from qd.modules.cached_gradients import embed_with_cached_gradients
from qd.objectives.triplet import semi_hard_triplet
from qd.runs.collective import gather_rows, gather_rows_with_gradient

CLIPS = 16  # over all ranks
CHUNKS = {"direct": None, "chunked": 3, "even chunks": 4}


class Embedder(nn.Module):
    """A small model that treats each clip separately."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 4)).double()

    def forward(self, clips: Tensor) -> Tensor:
        return F.normalize(self.layers(clips), dim=1)


class Step(nn.Module):
    """The loss of a training step, over the embeddings of all ranks."""

    def __init__(self, chunk_clips: int | None) -> None:
        super().__init__()
        self.model, self.chunk_clips = Embedder(), chunk_clips

    def forward(self, clips: Tensor, labels: Tensor) -> Tensor:
        embeddings = embed_with_cached_gradients(self.model, clips, self.chunk_clips)
        return semi_hard_triplet(gather_rows_with_gradient(embeddings), gather_rows(labels), margin=0.5).loss


def whole_batch() -> tuple[Tensor, Tensor]:
    """Returns the clips of all ranks and the labels of their recordings."""
    clips = torch.randn(CLIPS, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return clips, torch.arange(CLIPS // 2).repeat_interleave(2)


def gradients_of(module: nn.Module) -> dict[str, Tensor]:
    return {name.removeprefix("module."): p.grad.clone() for name, p in module.named_parameters()}


def data_parallel_step(chunk_clips: int | None, clips: Tensor, labels: Tensor) -> dict[str, Any]:
    """Returns the loss, the gradients averaged over ranks, and how many times parameters were synchronised."""
    synchronised = []

    def count(state, bucket):  # without annotations, which torch checks and which are strings here
        synchronised.extend(bucket.parameters())
        mean = bucket.buffer() / dist.get_world_size()
        return dist.all_reduce(mean, async_op=True).get_future().then(lambda future: future.value()[0])

    step = DistributedDataParallel(Step(chunk_clips))
    step.register_comm_hook(None, count)
    loss = step(clips, labels)
    loss.backward()
    return {"loss": loss.detach(), "gradients": gradients_of(step), "synchronised": len(synchronised)}


def unequal_losses(rank: int) -> Tensor:
    """Returns the gradient of this rank's rows if rank r has the loss (r + 1) · Σ w · rows, with w = 0, 1, 2, …"""
    rows = torch.full((2, 3), float(rank), requires_grad=True)
    gathered = gather_rows_with_gradient(rows)
    weights = torch.arange(gathered.numel(), dtype=gathered.dtype).view_as(gathered)
    ((rank + 1) * (weights * gathered).sum()).backward()
    return rows.grad


def main(rank: int, ranks: int, folder: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=ranks)
    clips, labels = (part.chunk(ranks)[rank] for part in whole_batch())
    results: dict[str, Any] = {name: data_parallel_step(chunk, clips, labels) for name, chunk in CHUNKS.items()}
    results["unequal"] = unequal_losses(rank)
    results["gathered"] = gather_rows(torch.tensor([[rank], [10 + rank]]))
    torch.save(results, folder / f"rank{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
