"""Builds and trains the distillation module of tiny models."""

from __future__ import annotations

import warnings

import lightning.pytorch as pl

from qd.config.train import TrainConfig
from qd.data.prompts import PromptDataModule
from qd.models.embedders.loading import load_embedder
from qd.modules.distillation import DiversityDistillation
from qd.modules.policy import load_policy
from qd.objectives.baselines import build_baseline


def build(config: TrainConfig) -> DiversityDistillation:
    """Returns the module that ``qd train`` would train."""
    music = load_policy(config.model)
    width = music.text_encoder.config.hidden_size
    baseline = build_baseline(config.objective.baseline, decay=0.9, feature_width=width)
    return DiversityDistillation(music, load_embedder(config.reward.embedder), baseline, config)


def fit(module: DiversityDistillation, config: TrainConfig, *callbacks: pl.Callback, steps: int) -> None:
    """Trains the module on the CPU, without logs and checkpoints."""
    data = PromptDataModule(
        config.data.prompts,
        batch_size=config.data.batch_size,
        micro_batch_size=config.data.micro_batch_size,
        samples_per_prompt=config.rollout.samples_per_prompt,
        seed=config.seed,
    )
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=steps,
        accumulate_grad_batches=data.accumulation(1),
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(module, datamodule=data)
