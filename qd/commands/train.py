"""``make train``: from a config to a run folder with points, weights and a checkpoint to go on from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import lightning.pytorch as pl
import torch
from transformers import PreTrainedTokenizerBase

from qd.callbacks.audio_log import AudioLog
from qd.callbacks.beta_schedule import BetaSchedule
from qd.callbacks.guards import CollapseWarning, NonFiniteGuard
from qd.callbacks.last_checkpoint import GracefulInterrupt, LastCheckpoint, fit_until_stopped
from qd.callbacks.pareto_log import ParetoLog
from qd.callbacks.progress import StepProgress
from qd.callbacks.step_folders import StepFolders
from qd.config.loading import ConfigError, to_yaml
from qd.config.resume import save_config
from qd.config.train import TrainConfig
from qd.data.prompt_files import PromptFile, Prompts
from qd.data.prompt_lengths import prompt_report, unreadable_lists
from qd.data.prompts import PromptDataModule
from qd.evaluation.evaluator import Evaluator, build_evaluator, load_scorers
from qd.evaluation.measure import EvaluationModels
from qd.evaluation.points import FILE, PointsFile
from qd.models.checkpoints.resolver import SHIPPED, hub_name, resolve_model
from qd.models.condition import text_too_long
from qd.models.embedders.loading import load_embedder
from qd.modules.budget.estimate import disk_bytes, estimate
from qd.modules.budget.memory import check_memory
from qd.modules.distillation import DiversityDistillation
from qd.modules.policy import load_policy
from qd.objectives.baselines import build_baseline
from qd.runs.devices import fast_precision, resolve_device
from qd.runs.disk import check_disk
from qd.runs.folders import checkpoint_step, name_conflict, new_folder, newest_checkpoint
from qd.runs.lock import exclusive_lock
from qd.runs.loggers import build_loggers
from qd.runs.process_rank import first_process
from qd.runs.ranks import check_nodes, local_device, trainer_devices


def train(config: TrainConfig, resume: str | Path | None = None, dry_run: bool = False) -> Path | None:
    """Trains a model, or goes on training one.

    Args:
        config: of the run.
        resume: folder of the run to go on with, from its ``last.ckpt``; ``config`` is then that run's.
        dry_run: print the config and the time, memory and disk that the run, or what is left of it, needs, and write
            nothing.

    Returns:
        The run folder; None from a dry run.

    Raises:
        ConfigError: the config has problems, or the run exists; all are named.
        ValueError: the disk is too small, there is nothing to resume, a resumed run would not be the same one, or
            another process is writing it.
        NonFiniteError: the loss, a reward or a gradient was not finite.
        KeyboardInterrupt: Ctrl-C; the message says what was saved and how to go on.
    """
    new = first_process() and not resume
    if problems := [*config.problems(), *(name_conflict(config.trainer.runs, config.name) if new else [])]:
        raise ConfigError(problems)
    ranks = config.trainer.ranks
    device = local_device(resolve_device(config.trainer.device), ranks)
    config = resolve_precision(config, device)  # now: a run that is resumed keeps it
    folder = Path(resume) if resume else None
    checkpoint = newest_checkpoint(folder) if folder else None
    done, steps = checkpoint_step(checkpoint) if checkpoint else 0, config.trainer.max_steps
    if done > steps:
        raise ValueError(
            f"trainer.max_steps is {steps}, and run '{folder}' has made {done} steps; expected {done} or more"
        )
    module, data = _build(config)
    check_memory(module, config, device)
    if dry_run:
        if first_process():
            needs = estimate(module, config, data.accumulation(ranks), device, folder, done)
            print(f"{to_yaml(config)}\n{prompt_report(prompt_lists(config))}{needs}")
        return None
    # Before the folder: what cannot be measured must not take the run's name.
    heldout = load_embedder(config.reward.eval_embedder).to(device)
    if not config.trainer.sharded:  # else the whole of it may not fit there
        module.to(device)
    evaluator = build_evaluator(
        config.evaluation,
        module.music,
        EvaluationModels(load_scorers(config.evaluation, device), module.embedder, heldout),
        seconds=config.rollout.seconds,
        temperature=config.rollout.temperature,
        seed=config.seed,
    )
    if checkpoint:
        _check_points(folder, done, evaluator)
    check_disk(config.trainer.runs, disk_bytes(module, config), folder)
    check_nodes(config.trainer.num_nodes)
    folder = folder or new_folder(config.trainer.runs, config.name, f"beta{config.beta:g}")
    config = _pin_revisions(config, folder, module.music.revision)
    with exclusive_lock(folder), exclusive_lock(folder / FILE):
        if first_process():
            save_config(config, folder)
            going_on = f", from step {done} to {steps}" if checkpoint else ""
            print(f"{prompt_report(prompt_lists(config))}run folder: {folder}{going_on}", flush=True)
        _fit(module, data, evaluator, config, folder, checkpoint)
    if first_process():
        print(
            f"finished: look at {folder / 'pareto.png'} and `make tensorboard`; `make sample MODEL={folder} PROMPT=…`"
        )
    return folder


def resolve_precision(config: TrainConfig, device: torch.device) -> TrainConfig:
    """The config with the precision that ``auto`` stands for on this device."""
    if config.trainer.precision != "auto":
        return config
    return replace(config, trainer=replace(config.trainer, precision=fast_precision(device)))


def _build(config: TrainConfig) -> tuple[DiversityDistillation, PromptDataModule]:
    """What is trained, and what it is trained on."""
    music = load_policy(config.model, config.seed)
    music.frames(config.rollout.seconds)  # a clip of no frame is an error now, not in the run
    if problems := length_problems(config, music.tokenizer):
        raise ConfigError(problems)
    objective = config.objective
    width = music.text_encoder.config.hidden_size
    baseline = build_baseline(objective.baseline, decay=objective.baseline_decay, feature_width=width)
    data = PromptDataModule(
        config.data.prompts,
        batch_size=config.data.batch_size,
        micro_batch_size=config.data.micro_batch_size,
        samples_per_prompt=config.rollout.samples_per_prompt,
        seed=config.seed,
    )
    return DiversityDistillation(music, load_embedder(config.reward.embedder), baseline, config), data


def prompt_lists(config: TrainConfig) -> Iterator[tuple[str, Prompts]]:
    """The lists of prompts that a run reads, by the path of the setting that names them."""
    for number, source in enumerate(config.data.prompts):
        if source.kind != "builtin":
            yield f"data.prompts[{number}]", source.file.read().first(source.size)
    if config.evaluation.prompts is not None:
        yield (
            "evaluation.prompts",
            PromptFile.parse(config.evaluation.prompts).read().first(config.evaluation.n_prompts),
        )


def length_problems(config: TrainConfig, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """One sentence for each list with prompts that are longer than the text encoder reads, their lines named, and for
    such a negative prompt."""
    lists = unreadable_lists(prompt_lists(config), tokenizer)
    negative = text_too_long(config.guidance.negative_prompt or "", tokenizer)
    return lists + ([f"guidance.negative_prompt has {negative}"] if negative else [])


def _check_points(folder: Path, step: int, evaluator: Evaluator) -> None:
    """Refuses to add points to a run that could not be drawn beside those that it has.

    Raises:
        ValueError: the last point up to ``step``, where the run goes on, has another protocol or other scorers.
    """
    kept = [point for point in PointsFile(folder / FILE).read() if point.step <= step]
    if not kept:
        return
    now = {"protocol": evaluator.protocol.id, "scorers": evaluator.evaluation_models.description}
    then = {"protocol": kept[-1].protocol, "scorers": kept[-1].scorers}
    if changed := [f"{key} {then[key]!r}, now {now[key]!r}" for key in now if then[key] != now[key]]:
        raise ValueError(
            f"run {folder.name!r} was measured by {'; '.join(changed)}: its next points could not be compared; put "
            "back the evaluation prompts, scorers and embedders that it began with, or start a new run"
        )


def _pin_revisions(config: TrainConfig, folder: Path, revision: str | None) -> TrainConfig:
    """The config with what its names stand for now: the teacher stays the same when a run it names goes on."""
    resolved = config.model.name if config.model.name in SHIPPED else resolve_model(config.model.name)
    resolved = hub_name(resolved)[0] if revision else resolved
    return replace(config, name=folder.name, model=replace(config.model, name=resolved, revision=revision))


def _fit(
    module: DiversityDistillation,
    data: PromptDataModule,
    evaluator: Evaluator,
    config: TrainConfig,
    folder: Path,
    checkpoint: Path | None,
) -> None:
    interrupt = GracefulInterrupt()
    saving = [interrupt, LastCheckpoint(folder, config.trainer.checkpoint_every)]
    callbacks = [*_callbacks(evaluator, config, folder), *saving]
    trainer = _trainer(config, folder, callbacks, checkpoint, data.accumulation(config.trainer.ranks))
    fit_until_stopped(trainer, module, data, checkpoint, interrupt, f"make train RESUME={folder}")


def _callbacks(evaluator: Evaluator, config: TrainConfig, folder: Path) -> list[pl.Callback]:
    """In the order in which they act at the end of a step: look, measure, save."""
    settings, guidance = config.trainer, config.guidance
    recipe = {"run": folder.name, "config": asdict(config)}
    return [
        BetaSchedule(config.beta, config.objective.beta_ramp_steps),
        NonFiniteGuard(folder, settings.precision),
        CollapseWarning(),
        StepProgress(settings.log_every),
        ParetoLog(
            folder,
            evaluator,
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


def _trainer(
    config: TrainConfig, folder: Path, callbacks: list[pl.Callback], checkpoint: Path | None, accumulation: int
) -> pl.Trainer:
    resumed_at = checkpoint_step(checkpoint) if checkpoint else None
    settings = config.trainer
    return pl.Trainer(
        **trainer_devices(resolve_device(settings.device), settings.devices, settings.num_nodes, settings.sharded),
        precision=settings.precision,
        max_steps=settings.max_steps,
        max_epochs=-1,
        accumulate_grad_batches=accumulation,
        gradient_clip_val=config.optimizer.gradient_clip or None,
        logger=build_loggers(settings.loggers, settings.logger_options, folder, resumed_at),
        callbacks=callbacks,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
