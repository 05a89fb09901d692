"""``make train``: from a config to a run folder with points, weights and a checkpoint."""

from __future__ import annotations

import os
from dataclasses import asdict, replace
from pathlib import Path

import lightning.pytorch as pl

from qd.callbacks.audio_log import AudioLog
from qd.callbacks.beta_schedule import BetaSchedule
from qd.callbacks.guards import CollapseWarning, NonFiniteGuard
from qd.callbacks.last_checkpoint import GracefulInterrupt, LastCheckpoint, fit_until_stopped
from qd.callbacks.pareto_log import ParetoLog
from qd.callbacks.progress import StepProgress
from qd.callbacks.start_at import StartAt
from qd.callbacks.step_folders import StepFolders
from qd.commands.resume_point import set_aside
from qd.commands.train_preflight import CheckedRun, preflight, prompt_lists
from qd.config.loading import to_yaml
from qd.config.resume import save_config
from qd.config.train import TrainConfig
from qd.data.prompt_lengths import prompt_report
from qd.evaluation.points import FILE
from qd.models.checkpoints.resolver import SHIPPED, hub_name, resolve_model
from qd.modules.budget.estimate import estimate
from qd.runs.devices import resolve_device
from qd.runs.folders import CHECKPOINT, RUN_FOLDER, new_folder
from qd.runs.lock import exclusive_lock
from qd.runs.loggers import build_loggers
from qd.runs.printable import printable
from qd.runs.process_rank import first_process
from qd.runs.ranks import trainer_devices, trainer_places, training_group


def train(
    config: TrainConfig, resume: str | Path | None = None, dry_run: bool = False, recover: bool = False
) -> Path | None:
    """Trains a model, or resumes its training.

    Args:
        config: Config of the run.
        resume: Folder of the run to resume from its ``last.ckpt``, or from step 0 if it has none; ``config`` is then
            the config of that run.
        dry_run: Whether to only print the config, and the time, memory and disk space that the run still needs.
        recover: Whether to resume from the newest good step folder if ``last.ckpt`` is damaged.

    Returns:
        The run folder; None for a dry run.

    Raises:
        ConfigError: The config has problems, the run exists, or prompts are too long; the message lists all.
        ValueError: Memory or disk space is too small, the checkpoint is damaged, a resumed run would not be the same
            run, or another process writes it.
        NonFiniteError: The loss, a reward or a gradient was not finite.
        KeyboardInterrupt: A signal stopped the run; the message says what was saved and how to continue.
    """
    if not dry_run:
        with training_group(config.trainer.device, config.trainer.ranks):
            return _train(preflight(config, resume, recover=recover))
    run = preflight(config, resume, dry_run, recover)
    if first_process():
        print(printable(_needs(run)))
    return None


def _train(run: CheckedRun) -> Path:
    folder = run.folder or new_folder(run.config.trainer.runs, run.config.name, f"beta{run.config.beta:g}")
    os.environ[RUN_FOLDER] = str(folder)
    config = pin_revisions(run.config, folder, run.module.music.revision)
    with exclusive_lock(folder), exclusive_lock(folder / FILE):
        if first_process():
            save_config(config, folder)
            where = run.start.describe(folder, config.trainer.max_steps) if run.folder else f"run folder: {folder}"
            print(printable(f"{prompt_report(prompt_lists(config))}{where}"), flush=True)
            if run.start.weights:
                set_aside(folder / CHECKPOINT)
        interrupt = GracefulInterrupt()
        trainer = _trainer(run, config, folder, interrupt)
        fit_until_stopped(trainer, run.module, run.data, run.start.checkpoint, interrupt, f"make train RESUME={folder}")
    if first_process():
        print(f"finished: see {folder / 'pareto.png'} and `make tensorboard`; `make sample MODEL={folder} PROMPT=…`")
    return folder


def _needs(run: CheckedRun) -> str:
    """The report of a dry run: config, prompts, time, memory and disk space."""
    accumulation = run.data.accumulation(run.config.trainer.ranks)
    needs = estimate(run.module, run.config, accumulation, run.device, run.folder, run.start.step)
    return f"{to_yaml(run.config)}\n{prompt_report(prompt_lists(run.config))}{needs}"


def pin_revisions(config: TrainConfig, folder: Path, revision: str | None) -> TrainConfig:
    """Returns the config with resolved names, so that a resumed run has the same teacher."""
    resolved = config.model.name if config.model.name in SHIPPED else resolve_model(config.model.name)
    resolved = hub_name(resolved)[0] if revision else resolved
    return replace(config, name=folder.name, model=replace(config.model, name=resolved, revision=revision))


def _trainer(run: CheckedRun, config: TrainConfig, folder: Path, interrupt: GracefulInterrupt) -> pl.Trainer:
    settings = config.trainer
    saving = [interrupt, LastCheckpoint(folder, settings.checkpoint_every, settings.checkpoint_minutes)]
    starting = [StartAt(run.start.step)] if run.start.weights else []
    resumed_at = run.start.step if run.folder else None
    return pl.Trainer(
        **trainer_devices(resolve_device(settings.device), settings.devices, settings.num_nodes, settings.sharded),
        precision=settings.precision,
        max_steps=settings.max_steps,
        max_epochs=-1,
        accumulate_grad_batches=run.data.accumulation(settings.ranks),
        gradient_clip_val=config.optimizer.gradient_clip or None,
        logger=build_loggers(settings.loggers, settings.logger_options, folder, resumed_at),
        callbacks=[*starting, *_callbacks(run, config, folder), *saving],
        **trainer_places(folder),
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def _callbacks(run: CheckedRun, config: TrainConfig, folder: Path) -> list[pl.Callback]:
    """The callbacks in their order at the end of a step: check, measure, save."""
    settings, guidance = config.trainer, config.guidance
    recipe = {"run": folder.name, "config": asdict(config)}
    return [
        BetaSchedule(config.beta, config.objective.beta_ramp_steps),
        NonFiniteGuard(folder, settings.precision),
        CollapseWarning(),
        StepProgress(settings.log_every),
        ParetoLog(
            folder,
            run.evaluator,
            every=config.evaluation.every,
            guidance_scale=guidance.scale,
            negative=guidance.negative_prompt,
            base=config.model.name,
            beta=config.beta,
            siblings=config.evaluation.siblings,
            hparams=asdict(config),
        ),
        AudioLog(),
        StepFolders(folder, settings.save_weights_every, settings.keep_weights, recipe),
    ]
