"""Pretraining of the preference scorer: a Bradley–Terry model of the simulated rater's comparisons.

The sum, on 2 cores: rendering 10,240 clips 35 s, the codec on half of them 65 s; a step of 96 clips is 3 · 2 · 101
frames · 0.41 M weights · 96 = 24 GFLOP, measured at 0.63 s of one core, so that 1,000 steps take 5 to 6 minutes.
bfloat16 is no faster at these widths.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor

from qd.builtin.calibration import calibrate, scores
from qd.builtin.clip_bank import ClipBank, build_bank, shuffled_example
from qd.builtin.stage import fit_stage, stream_loader, write_asset
from qd.builtin.stage_config import ScorerStageConfig
from qd.config.schema.setting import setting
from qd.data.world import rater, world
from qd.models.codecs.codec import load_codec
from qd.modules.schedules import scheduled, warmup_cosine
from qd.objectives.bradley_terry import bradley_terry_loss
from qd.scorers.preference import PreferenceConfig, PreferenceScorer

DESCRIPTION = """Bradley–Terry model over an audio tower, trained on comparisons by a simulated rater
(`qd/data/world/rater.py`) who dislikes degraded recordings, wrong notes and unsteady rhythm: scale · logit + offset.
For evaluation only: never trained on a policy's output, never used in policy training. Half of the clips that it was
trained and is measured on went through the codec. The scale was set on real held-out clips (split calibration): mean 0,
standard deviation 1."""


@dataclass
class PreferenceStageConfig(ScorerStageConfig):
    """The preference stage."""

    comparisons: int = setting(4, "Comparisons of each clip with others of its batch.", ge=1)
    validation_comparisons: int = setting(8_192, "Number of held-out comparisons, raw and codec each.", ge=1)
    batch_size: int = setting(96, "Clips per optimiser step.", unit="clips", ge=3)
    model: PreferenceConfig = field(default_factory=PreferenceConfig)

    def rules(self, prefix: str) -> Iterator[str]:
        yield from super().rules(prefix)
        if self.model.audio is None or self.model.embedder is not None:
            yield f"{prefix}model.audio is null or {prefix}model.embedder is set; this stage trains its own embedder"
        most = max(1, (self.batch_size - 1) // 2)
        if self.comparisons > most:
            yield (
                f"{prefix}comparisons is {self.comparisons}; expected 1 to {most}, half of the other clips of a batch"
            )


class PreferencePretraining(pl.LightningModule):
    """Trains tower and head; each comparison is asked of the rater when it is met."""

    def __init__(self, config: PreferenceStageConfig, bank: ClipBank) -> None:
        super().__init__()
        self.config, self.utilities = config, _utilities(bank)
        self.scorer = PreferenceScorer(config.model)

    def training_step(self, batch: dict[str, Tensor], batch_index: int) -> Tensor:
        rng = np.random.default_rng([self.config.seed, self.global_step])
        logits = self.scorer.logit(batch["audio"], world.SAMPLE_RATE)
        first, second = ring_pairs(len(logits), self.config.comparisons)
        utilities = self.utilities[batch["clip"].cpu().numpy()]
        preferred = torch.from_numpy(rater.compare(utilities[first], utilities[second], rng)).to(logits.device)
        loss = bradley_terry_loss(logits[first], logits[second], preferred)
        right = ((logits[first] > logits[second]) == preferred).float().mean()
        self.log_dict({"loss": loss, "accuracy": right}, prog_bar=True)
        return loss

    def configure_optimizers(self) -> dict[str, Any]:
        config = self.config
        optimizer = torch.optim.AdamW(
            self.scorer.parameters(), config.learning_rate, (0.9, 0.98), weight_decay=config.weight_decay
        )
        return scheduled(
            optimizer, partial(warmup_cosine, warmup_steps=config.warmup_steps, max_steps=config.max_steps)
        )


def ring_pairs(clips: int, comparisons: int) -> tuple[np.ndarray, np.ndarray]:
    """Pairs (i, i + k mod clips) for k = 1 … comparisons: every clip is in as many, and meets nobody twice.

    Raises:
        ValueError: there are too few clips.
    """
    if not 1 <= comparisons <= (clips - 1) // 2:
        raise ValueError(f"{comparisons} comparisons a clip among {clips} clips; expected 1 to {(clips - 1) // 2}")
    first = np.tile(np.arange(clips), comparisons)
    return first, (first + np.repeat(np.arange(1, comparisons + 1), clips)) % clips


def accuracies(logits: np.ndarray, bank: ClipBank, comparisons: int, seed: int = 0) -> dict[str, float]:
    """Held-out pairwise accuracy beside the Bayes accuracy, raw and codec, of all clips and of clean recordings alone.

    Between clean recordings only wrong notes and unsteady time decide, so that the rater is nearly always in doubt.
    """
    utilities, clean = _utilities(bank), np.array([label["degradation"] == "clean" for label in bank.labels])
    found = {}
    for heard, rows in bank.halves.items():
        for kind, chosen in {"all": rows, "clean": rows[clean[rows]]}.items():
            rng = np.random.default_rng(seed)
            first = rng.choice(chosen, comparisons)
            second = rng.choice(chosen, comparisons)
            first, second = first[first != second], second[first != second]
            preferred = rater.compare(utilities[first], utilities[second], rng)
            found[f"accuracy, {kind}, {heard}"] = float(((logits[first] > logits[second]) == preferred).mean())
            found[f"Bayes accuracy, {kind}, {heard}"] = rater.bayes_accuracy(utilities[first], utilities[second])
    return found


def run(config: PreferenceStageConfig, folder: Path) -> Path:
    """Trains (or goes on training) in ``folder``, measures, calibrates, and returns the asset's folder."""
    bank = _bank(config, folder, "preference", config.clips)
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)  # the initial weights are all that this stage draws from torch
        module = PreferencePretraining(config, bank)

    def make_loader(first_step: int):
        return stream_loader(partial(shuffled_example, bank=bank, seed=config.seed), config.batch_size, first_step)

    seconds = fit_stage(
        module, make_loader, folder, config.max_steps, config.checkpoint_every, config.precision, config.device
    )
    scorer = module.scorer.cpu().eval()
    scale = calibrate(scorer, _bank(config, folder, "calibration", config.calibration_clips))
    held_out = _bank(config, folder, "validation", config.validation_clips)
    card = {
        "title": "Built-in preference scorer",
        "description": DESCRIPTION,
        "command": "qd base --stage preference",
        "data": f"{config.clips} clips of {config.seconds:g} s of the built-in world, split preference",
        "parameters": sum(parameter.numel() for parameter in scorer.parameters()),
        "steps": config.max_steps,
        "seconds": seconds,
        "config": asdict(config),
        "metrics": accuracies(scores(scorer, held_out).numpy(), held_out, config.validation_comparisons) | scale,
    }
    return write_asset(folder / "asset", scorer, card)


def _utilities(bank: ClipBank) -> np.ndarray:
    return np.array([label["utility"] for label in bank.labels])


def _bank(config: PreferenceStageConfig, folder: Path, split: str, clips: int) -> ClipBank:
    codec = load_codec(config.codec)
    return build_bank(folder / "clips", split, clips, config.seconds, codec, _label, config.workers)


def _label(clip: world.Clip) -> dict[str, Any]:
    """What is judged, and the description that a calibrated score is asked with."""
    return {"description": clip.description, "degradation": clip.degradation, "utility": rater.utility(clip)}
