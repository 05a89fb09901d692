"""Where a run resumes: its checkpoint, its config if it was killed before the first one, or a step folder."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError

from qd.models.checkpoints.resolver import step_folders
from qd.models.language_model import LanguageModel
from qd.models.lora import ADAPTER, AdaptedLanguageModel
from qd.models.musicgen import MusicGen
from qd.modules.distillation import DiversityDistillation
from qd.runs.checkpoints import DamagedCheckpointError, check_checkpoint, newest_checkpoint
from qd.runs.folders import CHECKPOINT

ASIDE = ".damaged"
"""Ending of a damaged checkpoint that a recovered run has replaced."""


@dataclass(frozen=True)
class ResumePoint:
    """What a run starts from: by default step 0 of its config.

    Attributes:
        step: Optimiser steps done.
        checkpoint: Checkpoint with the whole state; None without one.
        weights: Step folder whose weights replace a damaged checkpoint; their optimiser starts anew. None without one.
    """

    step: int = 0
    checkpoint: Path | None = None
    weights: Path | None = None

    def describe(self, run: Path, max_steps: int) -> str:
        """The line that tells from where a resumed run goes on."""
        lost = (
            f" (only the weights, from {self.weights.name}: optimiser and baseline start anew)" if self.weights else ""
        )
        return f"run folder: {run}, from step {self.step}{lost} to {max_steps}"


def resume_point(run: Path, module: DiversityDistillation, recover: bool = False) -> ResumePoint:
    """Finds where a run resumes, and checks all that it needs.

    Without a checkpoint, a run starts from step 0: it was killed before it wrote one. If the checkpoint is damaged, or
    missing next to step folders, ``recover`` loads the weights of the newest good step folder into the module.

    Args:
        run: Folder of the run.
        module: Module of the run, as its config builds it.
        recover: Whether to use a step folder if the checkpoint is damaged.

    Raises:
        ValueError: The checkpoint is damaged; the message says how to go on.
    """
    checkpoint = newest_checkpoint(run)
    if checkpoint is None and not step_folders(run):
        return ResumePoint()
    try:
        return ResumePoint(check_checkpoint(run / CHECKPOINT, module), run / CHECKPOINT)
    except DamagedCheckpointError as damage:
        weights = next((folder for folder in reversed(step_folders(run)) if _load_weights(folder, module)), None)
        if weights is None:
            anew = f"remove {checkpoint} to start the run again from step 0" if checkpoint else "start a new run"
            raise ValueError(f"{damage}, and no step folder of the run can replace it; {anew}") from damage
        if not recover:
            raise ValueError(
                f"{damage}; to go on from the weights of {weights.name}, without the state of optimiser and baseline: "
                f"add --recover (RECOVER=1 in make)"
            ) from damage
        return ResumePoint(int(weights.name.removeprefix("step-")), weights=weights)


def set_aside(checkpoint: Path) -> None:
    """Renames a damaged checkpoint, so that the run can write a new one and the old one is not lost."""
    target, number = checkpoint.with_name(checkpoint.name + ASIDE), 1
    while os.path.lexists(target):
        number += 1
        target = target.with_name(f"{checkpoint.name}{ASIDE}-{number}")
    if os.path.lexists(checkpoint):
        checkpoint.rename(target)


def _load_weights(folder: Path, module: DiversityDistillation) -> bool:
    """Loads the trained weights of a step folder; returns whether they are complete and finite."""
    lm = module.music.lm
    try:
        if isinstance(lm, AdaptedLanguageModel):
            lm.load_adapter(folder / ADAPTER)
        else:
            lm.load_state_dict(_saved(folder).state_dict())
    except (ValueError, OSError, KeyError, RuntimeError, SafetensorError):  # what damaged files raise
        return False
    return all(bool(torch.isfinite(weight).all()) for weight in lm.parameters())


def _saved(folder: Path) -> LanguageModel:
    return MusicGen.load(str(folder)).lm
