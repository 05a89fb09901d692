"""Lightning's strategy for torch's FSDP, with the resume file of a single process."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor
from torch.optim import Optimizer

from qd.runs.sharding import shared_like, whole_state


class FullySharded(ModelParallelStrategy):
    """FSDP over all ranks; the module's ``configure_model`` shards its weights.

    Lightning's own resume file names the optimiser states by the parameters of the whole module, and cannot be read
    without the frozen parts. This class writes the file of every other strategy: whole tensors, by name and by the
    optimiser's numbers, so that a run can resume with any strategy and any number of devices.

    Args:
        ranks: Number of processes of the run.
    """

    def __init__(self, ranks: int) -> None:
        super().__init__(data_parallel_size=ranks, tensor_parallel_size=1, save_distributed_checkpoint=False)

    @property
    def lightning_restore_optimizer(self) -> bool:
        return True

    def lightning_module_state_dict(self) -> dict[str, Tensor]:
        return whole_state(self.lightning_module.state_dict())

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        shares = getattr(optimizer, "optimizer", optimizer).state_dict()
        return shares | {"state": {number: whole_state(state) for number, state in shares["state"].items()}}

    def load_checkpoint(self, checkpoint_path: str | Path, weights_only: bool | None = None) -> dict[str, Any]:
        # Memory-mapped: a rank reads its shard of each tensor, and the ranks of a machine share the pages of the file.
        return torch.load(self.broadcast(checkpoint_path), map_location="cpu", mmap=True, weights_only=weights_only)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        own = self.lightning_module.state_dict()
        saved = {k: shared_like(v, own[k]) if k in own else v for k, v in checkpoint["state_dict"].items()}
        self.lightning_module.load_state_dict(saved, strict=strict)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        for optimizer, saved in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            numbers = [number for group in saved["param_groups"] for number in group["params"]]
            shares = {
                number: {k: shared_like(v, parameter) if v.ndim else v for k, v in saved["state"][number].items()}
                for number, parameter in zip(numbers, parameters, strict=True)
                if number in saved["state"]
            }
            optimizer.load_state_dict(saved | {"state": shares})
