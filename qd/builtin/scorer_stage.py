"""Parts that the stages of both scorers share: clips, optimiser, fit, calibration and card."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import lightning.pytorch as pl
import torch

from qd.builtin.calibration import calibrate
from qd.builtin.clip_bank import ClipBank, Label, build_bank, shuffled_example
from qd.builtin.stage import fit_stage, stream_loader, write_asset
from qd.builtin.stage_config import ScorerStageConfig
from qd.models.codecs.codec import load_codec
from qd.modules.schedules import scheduled, warmup_cosine
from qd.scorers.adherence import AdherenceScorer
from qd.scorers.preference import PreferenceScorer

Scorer = AdherenceScorer | PreferenceScorer


class ScorerPretraining(pl.LightningModule):
    """Base module: a scorer trained by AdamW, with warm-up and cosine decay of the learning rate.

    Args:
        config: Config of the stage.
        scorer: Scorer to train.
    """

    name: ClassVar[str]
    """Name of the scorer and of its stage; also the split of its training clips."""

    def __init__(self, config: ScorerStageConfig, scorer: Scorer) -> None:
        super().__init__()
        self.config, self.scorer = config, scorer

    def configure_optimizers(self) -> dict[str, Any]:
        config = self.config
        optimizer = torch.optim.AdamW(
            self.scorer.parameters(), config.learning_rate, (0.9, 0.98), weight_decay=config.weight_decay
        )
        return scheduled(
            optimizer, partial(warmup_cosine, warmup_steps=config.warmup_steps, max_steps=config.max_steps)
        )


def run_scorer_stage(
    config: ScorerStageConfig,
    folder: Path,
    pretraining: type[ScorerPretraining],
    label: Label,
    measure: Callable[[Scorer, ClipBank], dict[str, float]],
    description: str,
) -> Path:
    """Trains a scorer or resumes its training, calibrates and measures it, and returns the asset's folder.

    Args:
        config: Config of the stage.
        folder: Working folder of the stage.
        pretraining: Module class; takes the config and the training clips.
        label: Returns the label of a clip.
        measure: Returns the metrics of a calibrated scorer on held-out clips.
        description: Description for the model card.
    """

    def bank(split: str, clips: int) -> ClipBank:
        codec = load_codec(config.codec)
        return build_bank(folder / "clips", split, clips, config.seconds, codec, label, config.workers, config.world)

    training_clips = bank(pretraining.name, config.clips)
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)  # this stage uses the global random state only for the initial weights
        module = pretraining(config, training_clips)
    example = partial(shuffled_example, bank=training_clips, seed=config.seed)
    seconds = fit_stage(
        module,
        lambda first_step: stream_loader(example, config.batch_size, first_step),
        folder,
        config.max_steps,
        config.checkpoint_every,
        config.precision,
        config.device,
        checkpoint_minutes=config.checkpoint_minutes,
    )
    scorer = module.scorer.cpu().eval()
    scale = calibrate(scorer, bank("calibration", config.calibration_clips))
    card = {
        "title": f"Built-in {scorer.name} scorer",
        "description": description,
        "command": f"qd base --stage {scorer.name}",
        "data": f"{config.clips} clips of {config.seconds:g} s of the built-in world, split {scorer.name}",
        "parameters": sum(parameter.numel() for parameter in scorer.parameters()),
        "steps": config.max_steps,
        "seconds": seconds,
        "config": asdict(config),
        "metrics": measure(scorer, bank("validation", config.validation_clips)) | scale,
    }
    return write_asset(folder / "asset", scorer, card)
