"""A run of a few milliseconds, without models."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from qd.modules.rollout import RolloutStats

NAN = float("nan")


class Prompts(IterableDataset):
    def __iter__(self) -> Iterator[list[str]]:
        while True:
            yield ["calm piano", "fast drums"]


class Policy(pl.LightningModule):
    """Records two prompts with two samples in each step. One value is not finite at ``bad_step``."""

    def __init__(self, spoil: str | None = None, bad_step: int = 3) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))
        self.spoil, self.bad_step = spoil, bad_step
        self.metrics = {"entropy": 1.0, "reward": 0.3}

    def training_step(self, batch: list[str], batch_idx: int) -> Tensor:
        bad = self.spoil if self.global_step == self.bad_step else None
        rewards, kl = torch.full((2, 2), 0.3), torch.full((2, 2), 9.0)
        if bad in ("reward", "KL"):
            {"reward": rewards, "KL": kl}[bad][1, 0] = NAN
        self.latest = RolloutStats(batch, kl, rewards)
        loss = self.weight.square().sum()
        if bad == "gradient":
            return loss + (self.weight[0] - self.weight[0].detach()).abs().sqrt()
        return loss * float("inf") if bad == "loss" else loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Data(pl.LightningDataModule):
    def train_dataloader(self) -> DataLoader:
        return DataLoader(Prompts(), batch_size=None)


def build_trainer(*callbacks: pl.Callback, steps: int = 6) -> pl.Trainer:
    return pl.Trainer(
        accelerator="cpu", max_steps=steps, callbacks=list(callbacks), logger=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip


def fit(module: Policy, *callbacks: pl.Callback, steps: int = 6) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*(many workers|checkpoint).*")
        build_trainer(*callbacks, steps=steps).fit(module, datamodule=Data())
