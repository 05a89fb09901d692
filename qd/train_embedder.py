"""``make train-embedder``: from a config to a run folder that holds a finished embedder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import ModelCheckpoint, Timer
from lightning.pytorch.loggers import TensorBoardLogger

from qd.callbacks.embedder_progress import EmbedderProgress
from qd.callbacks.last_checkpoint import GracefulInterrupt, fit_until_stopped
from qd.callbacks.validated_checkpoint import ValidatedCheckpoint
from qd.config import ConfigError
from qd.data.recordings import BuiltinRecordings, RecordingsDataModule
from qd.devices import fast_precision, resolve_device, trainer_device
from qd.embedder_card import write_card
from qd.models.audio_vit import AudioViT
from qd.models.codec import load_codec
from qd.modules.embedder import CodecRoundTrip, EmbedderModule
from qd.modules.embedder_config import EmbedderTrainConfig
from qd.runs import create_run, newest_checkpoint, save_config, taken

ASSET = "embedder"
"""Folder inside the run's that holds the finished embedder."""


def train_embedder(config: EmbedderTrainConfig, resume: str | Path | None = None) -> Path:
    """Trains, or goes on training, and writes the step of best held-out recall@1 as an embedder.

    Args:
        config: of the run.
        resume: folder of the run to go on with, from its ``last.ckpt``; ``config`` is then that run's.

    Returns:
        ``<runs>/<name>/embedder``: config.json, model.safetensors, metrics.json and README.md (the card).

    Raises:
        ConfigError: the config has problems, or the run exists; all are named.
        ValueError: there is nothing to resume.
        FloatingPointError, CollapseError: the loss was not finite, or all embeddings became equal.
        KeyboardInterrupt: Ctrl-C; the step was finished and saved, the message says how to go on.
    """
    if problems := [*config.problems(), *([] if resume else taken(config.trainer.runs, config.name))]:
        raise ConfigError(problems)
    device = resolve_device(config.trainer.device)
    checkpoint = newest_checkpoint(Path(resume)) if resume else None
    module, data = _build(config)
    folder = Path(resume) if resume else create_run(config.trainer.runs, config.name, "embedder")
    config = replace(config, name=folder.name)
    save_config(config, folder)
    print(f"run folder: {folder}", flush=True)

    interrupt, timer = GracefulInterrupt(), Timer()
    trainer = _trainer(config, device, folder, [interrupt, timer])
    fit_until_stopped(trainer, module, data, checkpoint, interrupt, f"make train-embedder RESUME={folder}")
    seconds = timer.time_elapsed("train")  # before the best checkpoint gives the timer its own earlier count
    best = folder / "best.ckpt"
    metrics = trainer.validate(module, datamodule=data, ckpt_path=best, weights_only=True, verbose=False)[0]
    module.model.save_pretrained(folder / ASSET, half=True)
    write_card(folder / ASSET, config, _step_of(best), seconds, metrics)
    return folder / ASSET


def _build(config: EmbedderTrainConfig) -> tuple[EmbedderModule, RecordingsDataModule]:
    """Everything that is trained, and what it is trained on."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = AudioViT(config.model)
    codec = config.codec.model
    module = EmbedderModule(model, config, CodecRoundTrip(load_codec(codec)) if codec else None)
    seconds = config.model.clip_seconds
    data = RecordingsDataModule(
        train=BuiltinRecordings(config.data.train_split, config.seed, seconds),
        validation=BuiltinRecordings(config.data.validation_split, 0, seconds),
        batch_pairs=config.data.batch_pairs,
        validation_pairs=config.data.validation_pairs,
        workers=config.data.workers,
    )
    return module, data


def _trainer(
    config: EmbedderTrainConfig, device: torch.device, folder: Path, callbacks: list[pl.Callback]
) -> pl.Trainer:
    settings = config.trainer
    validate_every = max(1, settings.max_steps // settings.validations)
    best = ModelCheckpoint(folder, "best", "validation/recall@1", mode="max", enable_version_counter=False)
    last = ValidatedCheckpoint(folder, settings.checkpoint_every, validate_every)
    return pl.Trainer(
        **trainer_device(device),
        precision=fast_precision(device) if settings.precision == "auto" else settings.precision,
        max_steps=settings.max_steps,
        max_epochs=-1,
        val_check_interval=validate_every,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        log_every_n_steps=settings.log_every,
        gradient_clip_val=config.optimizer.gradient_clip,
        logger=TensorBoardLogger(folder, name="", version=""),
        callbacks=[*callbacks, EmbedderProgress(settings.log_every), best, last],
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def _step_of(checkpoint: Path) -> int:
    return torch.load(checkpoint, weights_only=True)["global_step"]
