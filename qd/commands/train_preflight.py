"""All checks of ``qd train``, before the run folder is made."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase

from qd.config.loading import ConfigError
from qd.config.train import TrainConfig
from qd.data.prompt_files import PromptFile, Prompts
from qd.data.prompt_lengths import unreadable_lists
from qd.data.prompts import PromptDataModule
from qd.evaluation.evaluator import Evaluator, build_evaluator, load_scorers
from qd.evaluation.measure import EvaluationModels
from qd.evaluation.points import FILE, PointsFile
from qd.models.condition import text_too_long
from qd.models.embedders.loading import load_embedder
from qd.modules.budget.estimate import disk_bytes
from qd.modules.budget.memory import check_memory
from qd.modules.distillation import DiversityDistillation
from qd.modules.policy import load_policy
from qd.objectives.baselines import build_baseline
from qd.runs.devices import fast_precision, resolve_device
from qd.runs.disk import check_disk
from qd.runs.folders import checkpoint_step, name_conflict, newest_checkpoint
from qd.runs.process_rank import first_process
from qd.runs.ranks import check_nodes, local_device


@dataclass(frozen=True)
class CheckedRun:
    """A run that can start.

    Attributes:
        config: Config with a resolved precision.
        device: Device of this process.
        module: Model to train.
        data: Prompts.
        evaluator: Evaluator of the points; None for a dry run.
        folder: Folder of the run to resume; None for a new run.
        checkpoint: Checkpoint to resume from; None for a new run.
        done: Number of optimiser steps done.
    """

    config: TrainConfig
    device: torch.device
    module: DiversityDistillation
    data: PromptDataModule
    evaluator: Evaluator | None = None
    folder: Path | None = None
    checkpoint: Path | None = None
    done: int = 0


def preflight(config: TrainConfig, resume: str | Path | None = None, dry_run: bool = False) -> CheckedRun:
    """Makes all checks that can stop a run, and loads the models that they need.

    Settings and run name come first, then resuming, prompt lengths and memory; a dry run skips the rest: scorers,
    comparable points, disk space and machines.

    Args:
        config: Config of the run.
        resume: Folder of the run to resume.
        dry_run: Whether the run only reports what it needs.

    Raises:
        ConfigError: The config has problems, the run exists, or prompts are too long.
        ValueError: Another check failed.
    """
    new = first_process() and not resume
    _raise_if([*config.problems(), *(name_conflict(config.trainer.runs, config.name) if new else [])])
    device = local_device(resolve_device(config.trainer.device), config.trainer.ranks)
    config = resolve_precision(config, device)  # now, so that a resumed run has the same precision
    folder = Path(resume) if resume else None
    checkpoint = newest_checkpoint(folder) if folder else None
    done = _steps_done(config, folder, checkpoint)
    module, data = build_module(config)
    _raise_if(length_problems(config, module.music.tokenizer))
    check_memory(module, config, device)
    run = CheckedRun(config, device, module, data, folder=folder, checkpoint=checkpoint, done=done)
    if dry_run:
        return run
    evaluator = _evaluator(module, config, device)
    if checkpoint:
        check_points(folder, done, evaluator)
    check_disk(config.trainer.runs, disk_bytes(module, config), folder)
    check_nodes(config.trainer.num_nodes)
    return replace(run, evaluator=evaluator)


def _raise_if(problems: list[str]) -> None:
    if problems:
        raise ConfigError(problems)


def resolve_precision(config: TrainConfig, device: torch.device) -> TrainConfig:
    """Returns the config with the precision that ``auto`` means on this device."""
    if config.trainer.precision != "auto":
        return config
    return replace(config, trainer=replace(config.trainer, precision=fast_precision(device)))


def _steps_done(config: TrainConfig, folder: Path | None, checkpoint: Path | None) -> int:
    """Optimiser steps of the checkpoint. Raises ``ValueError`` if the config has fewer steps."""
    done, steps = checkpoint_step(checkpoint) if checkpoint else 0, config.trainer.max_steps
    if done > steps:
        raise ValueError(f"trainer.max_steps is {steps}, and run '{folder}' has {done} steps; expected {done} or more")
    return done


def build_module(config: TrainConfig) -> tuple[DiversityDistillation, PromptDataModule]:
    """Builds the model to train, on the CPU, and its prompts."""
    music = load_policy(config.model, config.seed)
    music.frames(config.rollout.seconds)  # a clip without a frame is an error now, not during the run
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
    """Yields the prompt files of a run, with the path of the setting that names each."""
    for number, source in enumerate(config.data.prompts):
        if source.kind != "builtin":
            yield f"data.prompts[{number}]", source.file.read().first(source.size)
    if config.evaluation.prompts is not None:
        file = PromptFile.parse(config.evaluation.prompts)
        yield "evaluation.prompts", file.read().first(config.evaluation.n_prompts)


def length_problems(config: TrainConfig, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Returns one sentence for each prompt file, and for the negative prompt, that the text encoder cannot read."""
    lists = unreadable_lists(prompt_lists(config), tokenizer)
    negative = text_too_long(config.guidance.negative_prompt or "", tokenizer)
    return lists + ([f"guidance.negative_prompt has {negative}"] if negative else [])


def _evaluator(module: DiversityDistillation, config: TrainConfig, device: torch.device) -> Evaluator:
    """Loads scorers and embedders; a missing one is an error before the run takes its name."""
    eval_embedder = load_embedder(config.reward.eval_embedder).to(device)
    if not config.trainer.sharded:  # the whole model may not fit on one device
        module.to(device)
    scorers = load_scorers(config.evaluation, device)
    options = {"thresholds": config.evaluation.thresholds, "facets": config.evaluation.facets}
    return build_evaluator(
        config.evaluation,
        module.music,
        EvaluationModels(scorers, module.embedder, eval_embedder, **options),
        seconds=config.rollout.seconds,
        temperature=config.rollout.temperature,
        seed=config.seed,
    )


def check_points(folder: Path, step: int, evaluator: Evaluator) -> None:
    """Checks that the next points of a run are comparable with its existing ones.

    Raises:
        ValueError: The last point up to ``step``, where the run resumes, has another protocol or other scorers.
    """
    points = [point for point in PointsFile(folder / FILE).read() if point.step <= step]
    if not points:
        return
    now = {"protocol": evaluator.protocol.id, "scorers": evaluator.evaluation_models.description}
    before = {"protocol": points[-1].protocol, "scorers": points[-1].scorers}
    if changed := [f"{key} {before[key]!r}, now {now[key]!r}" for key in now if before[key] != now[key]]:
        raise ValueError(
            f"run {folder.name!r} was measured with {'; '.join(changed)}: its next points would not be comparable; "
            "restore the evaluation prompts, scorers and embedders of its start, or start a new run"
        )
