"""``make train-embedder``: from a config to a run folder that holds a finished embedder."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import ModelCheckpoint, Timer

from qd.callbacks.embedder_log import EmbedderLog
from qd.callbacks.last_checkpoint import GracefulInterrupt, fit_until_stopped
from qd.callbacks.progress import EmbedderProgress
from qd.callbacks.validated_checkpoint import ValidatedCheckpoint
from qd.commands.resume_point import set_aside
from qd.config.embedder import EmbedderTrainConfig
from qd.config.loading import ConfigError
from qd.config.resume import save_config
from qd.data.recordings import BuiltinRecordings, Recordings, RecordingsDataModule, SequentialRecordings
from qd.data.world.world import BUILTIN
from qd.models.codecs.codec import load_codec
from qd.models.embedders.audio_vit import AudioViT
from qd.modules.embedder import CodecRoundTrip, EmbedderModule
from qd.report.cards.embedder import write_card
from qd.runs.atomic import atomic_folder
from qd.runs.checkpoints import (
    DamagedCheckpointError,
    check_checkpoint,
    checkpoint_step,
    newest_checkpoint,
)
from qd.runs.devices import fast_precision, resolve_device
from qd.runs.folders import CHECKPOINT, CONFIG, RUN_FOLDER, new_folder, place_problems
from qd.runs.lock import exclusive_lock
from qd.runs.loggers import build_loggers
from qd.runs.process_rank import first_process
from qd.runs.ranks import trainer_devices, trainer_places, training_group

BEST = "best.ckpt"
"""Checkpoint of the step with the best held-out recall@1; like ``last.ckpt``, it has the whole state."""
ASSET = "embedder"
"""Folder of the finished embedder, in the run folder."""
SKIPPED = "skipped.jsonl"
"""File with the list of unusable recordings, in the run folder."""


def train_embedder(config: EmbedderTrainConfig, resume: str | Path | None = None, recover: bool = False) -> Path:
    """Trains an embedder, or resumes its training, and writes the step with the best held-out recall@1.

    Args:
        config: Config of the run.
        resume: Folder of the run to resume from its ``last.ckpt``, or from step 0 if it has none; ``config`` is then
            the config of that run.
        recover: Whether to resume from ``best.ckpt`` if ``last.ckpt`` is damaged.

    Returns:
        ``<runs>/<name>/embedder``: config.json, model.safetensors, metrics.json and README.md (the card).

    Raises:
        ConfigError: The config has problems, or the run exists; the message lists all.
        ValueError: The checkpoint is damaged, the recordings cannot be used, or another process writes the run.
        FloatingPointError: The loss was not finite.
        CollapseError: All embeddings became equal.
        KeyboardInterrupt: A signal stopped the run; the message says what was saved and how to continue.
    """
    with training_group(config.trainer.device, config.trainer.devices):
        return _train(config, resume, recover)


def _train(config: EmbedderTrainConfig, resume: str | Path | None, recover: bool) -> Path:
    if problems := [*config.problems(), *place_problems(config.trainer.runs, config.name, resume)]:
        raise ConfigError(problems)
    device = resolve_device(config.trainer.device)
    module = _module(config)
    checkpoint = _checkpoint(Path(resume), module, recover) if resume else None
    folder = Path(resume) if resume else new_folder(config.trainer.runs, config.name, "embedder")
    os.environ[RUN_FOLDER] = str(folder)
    with exclusive_lock(folder):
        config = replace(config, name=folder.name)
        if first_process():
            save_config(config, folder)
            if checkpoint and checkpoint.name == BEST:
                set_aside(folder / CHECKPOINT)
        data = _open_data(config, folder)
        resumed_at = (checkpoint_step(checkpoint) if checkpoint else 0) if resume else None
        if first_process():
            resumed = "" if resumed_at is None else f", from step {resumed_at} to {config.trainer.max_steps}"
            print(f"run folder: {folder}{resumed}", flush=True)
        interrupt, timer = GracefulInterrupt(), Timer()
        trainer = _trainer(config, device, folder, [interrupt, timer, EmbedderLog(data.validation)], resumed_at)
        fit_until_stopped(trainer, module, data, checkpoint, interrupt, f"make train-embedder RESUME={folder}")
        seconds = timer.time_elapsed("train")  # the best checkpoint below overwrites the timer
        _write_best(trainer, module, data, config, folder, seconds)
    return folder / ASSET


def _write_best(
    trainer: pl.Trainer,
    module: EmbedderModule,
    data: RecordingsDataModule,
    config: EmbedderTrainConfig,
    folder: Path,
    seconds: float,
) -> None:
    """Validates the best checkpoint once more, and writes it as an embedder with its card."""
    best = folder / BEST
    trainer.limit_val_batches = 1.0  # Ctrl-C in the last step has switched validation off
    metrics = trainer.validate(module, datamodule=data, ckpt_path=best, weights_only=True, verbose=False)[0]
    if first_process():
        parameters = sum(weight.numel() for weight in module.model.parameters())
        with atomic_folder(folder / ASSET, replace=True) as asset:
            module.model.save_pretrained(asset, half=True)
            write_card(asset, config, data.held_out, parameters, checkpoint_step(best), seconds, metrics)


def _checkpoint(run: Path, module: EmbedderModule, recover: bool) -> Path | None:
    """Returns the checkpoint to resume from; None for step 0, if the run was killed before it wrote one.

    Raises:
        ValueError: The checkpoint is damaged; the message says how to go on.
    """
    last, best = newest_checkpoint(run), run / BEST
    if last is None and not best.exists():
        return None
    try:
        check_checkpoint(run / CHECKPOINT, module)
        return last
    except DamagedCheckpointError as damage:
        try:
            step = check_checkpoint(best, module)
        except DamagedCheckpointError:
            anew = f"remove {last} to start the run again from step 0" if last else "start a new run"
            raise ValueError(f"{damage}, and {BEST} cannot replace it; {anew}") from damage
        if not recover:
            raise ValueError(
                f"{damage}; to go on from {BEST}, which has step {step}: add --recover (RECOVER=1 in make)"
            ) from damage
        return best


def _module(config: EmbedderTrainConfig) -> EmbedderModule:
    """Builds the model to train."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = AudioViT(config.model)
    if config.trainer.compile:
        model.compile()  # in place, so that the weights keep their names
    codec = config.codec.model
    return EmbedderModule(model, config, CodecRoundTrip(load_codec(codec)) if codec else None)


def _open_data(config: EmbedderTrainConfig, folder: Path) -> RecordingsDataModule:
    """Opens the recordings; on an error, removes the new run folder if it only has its config."""
    try:
        data = RecordingsDataModule(
            train=_recordings(config, folder, "train"),
            validation=_recordings(config, folder, "validation"),
            batch_pairs=config.data.batch_pairs,
            validation_pairs=config.data.validation_pairs,
            workers=config.data.workers,
        )
        _check_ranks(config, data.held_out)
        return data
    except ValueError:
        if first_process() and [path.name for path in folder.iterdir()] == [CONFIG]:
            shutil.rmtree(folder)
        raise


def _check_ranks(config: EmbedderTrainConfig, held_out: int) -> None:
    """Raises an error if a rank would get no held-out recording: the others would wait for it forever."""
    pairs, devices = config.data.batch_pairs, config.trainer.devices
    others = pairs // devices * (devices - 1)
    if held_out <= others:
        raise ValueError(
            f"{held_out} held-out recordings are too few for trainer.devices={devices} with {pairs // devices} each; "
            f"expected more than {others}: raise data.validation_pairs or data.validation_share, or lower "
            "trainer.devices"
        )


def _recordings(config: EmbedderTrainConfig, folder: Path, split: str) -> Recordings | SequentialRecordings:
    """Opens the recordings of the split ``train`` or ``validation``; the latter do not depend on the seed."""
    settings, training = config.data, split == "train"
    rate, seed = config.model.sample_rate, config.seed if training else 0
    seconds = (config.train_samples if training else config.model.clip_samples) / rate
    if settings.source == BUILTIN:
        return BuiltinRecordings(
            settings.train_split if training else settings.validation_split, seed, seconds, settings.world
        )
    from qd.data.library import open_recordings

    return open_recordings(
        settings.source,
        sample_rate=rate,
        seconds=seconds,
        seed=seed,
        split=split,
        validation_share=settings.validation_share,
        max_bad_share=settings.max_bad_share,
        skipped=folder / SKIPPED,
        pairs=None if training else settings.validation_pairs,
        streaming=settings.streaming,
    )


def _trainer(
    config: EmbedderTrainConfig,
    device: torch.device,
    folder: Path,
    callbacks: list[pl.Callback],
    resumed_at: int | None,
) -> pl.Trainer:
    settings = config.trainer
    validate_every = max(1, settings.max_steps // settings.validations)
    best = ModelCheckpoint(folder, "best", "validation/recall@1", mode="max", enable_version_counter=False)
    last = ValidatedCheckpoint(folder, settings.checkpoint_every, settings.checkpoint_minutes, validate_every)
    return pl.Trainer(
        **trainer_devices(device, settings.devices),
        precision=fast_precision(device) if settings.precision == "auto" else settings.precision,
        max_steps=settings.max_steps,
        max_epochs=-1,
        val_check_interval=validate_every,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        log_every_n_steps=settings.log_every,
        gradient_clip_val=config.optimizer.gradient_clip,
        logger=build_loggers(settings.loggers, settings.logger_options, folder, resumed_at),
        callbacks=[*callbacks, EmbedderProgress(settings.log_every), best, last],
        **trainer_places(folder),
        enable_progress_bar=False,
        enable_model_summary=False,
    )
