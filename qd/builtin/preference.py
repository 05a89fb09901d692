"""Pretraining of the preference scorer: a Bradley–Terry model of the simulated rater's comparisons.

Time on 2 cores: 35 s to render 10,240 clips and 65 s to pass half of them through the codec. A step of 96 clips needs
3 · 2 · 101 frames · 0.41 M weights · 96 = 24 GFLOP, measured at 0.63 s of one core, so 1,000 steps take 5 to 6 minutes.
bfloat16 is not faster at these widths.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qd.builtin.calibration import scores
from qd.builtin.clip_bank import ClipBank
from qd.builtin.scorer_stage import ScorerPretraining, run_scorer_stage
from qd.builtin.stage_config import ScorerStageConfig
from qd.data.world import rater, world
from qd.objectives.bradley_terry import bradley_terry_loss
from qd.schema.setting import setting
from qd.scorers.preference import PreferenceConfig, PreferenceScorer

DESCRIPTION = """Bradley–Terry model over an audio tower, trained on comparisons by a simulated rater
(`qd/data/world/rater.py`) who dislikes degraded recordings, wrong notes and unsteady rhythm; score = scale · logit +
offset. For evaluation only: never trained on a policy's output, never used in policy training. Half of the clips for
training and for measurement passed through the codec. Scale and offset were set on real held-out clips (split
calibration): mean 0, standard deviation 1."""


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


class PreferencePretraining(ScorerPretraining):
    """Trains tower and head; the simulated rater compares the clips of each batch."""

    name = PreferenceScorer.name

    def __init__(self, config: PreferenceStageConfig, bank: ClipBank) -> None:
        super().__init__(config, PreferenceScorer(config.model))
        self.utilities = _utilities(bank)

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


def ring_pairs(clips: int, comparisons: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns pairs (i, i + k mod clips) for k = 1 … comparisons: equally many for each clip, and no pair twice.

    Raises:
        ValueError: There are too few clips.
    """
    if not 1 <= comparisons <= (clips - 1) // 2:
        raise ValueError(f"{comparisons} comparisons per clip among {clips} clips; expected 1 to {(clips - 1) // 2}")
    first = np.tile(np.arange(clips), comparisons)
    return first, (first + np.repeat(np.arange(1, comparisons + 1), clips)) % clips


def accuracies(logits: np.ndarray, bank: ClipBank, comparisons: int, seed: int = 0) -> dict[str, float]:
    """Held-out pairwise accuracy and Bayes accuracy, for raw and codec clips, for all and for clean recordings.

    Clean recordings differ only in wrong notes and unsteady rhythm, so the rater's choices are nearly random.
    """
    utilities, clean = _utilities(bank), np.array([label["degradation"] == "clean" for label in bank.labels])
    metrics = {}
    for processing, rows in bank.halves.items():
        for kind, chosen in {"all": rows, "clean": rows[clean[rows]]}.items():
            rng = np.random.default_rng(seed)
            first = rng.choice(chosen, comparisons)
            second = rng.choice(chosen, comparisons)
            first, second = first[first != second], second[first != second]
            preferred = rater.compare(utilities[first], utilities[second], rng)
            metrics[f"accuracy, {kind}, {processing}"] = float(((logits[first] > logits[second]) == preferred).mean())
            metrics[f"Bayes accuracy, {kind}, {processing}"] = rater.bayes_accuracy(utilities[first], utilities[second])
    return metrics


def run(config: PreferenceStageConfig, folder: Path) -> Path:
    """Trains the scorer or resumes its training in ``folder``, and returns the asset's folder."""

    def measure(scorer: PreferenceScorer, bank: ClipBank) -> dict[str, float]:
        return accuracies(scores(scorer, bank).numpy(), bank, config.validation_comparisons)

    return run_scorer_stage(config, folder, PreferencePretraining, _label, measure, DESCRIPTION)


def _utilities(bank: ClipBank) -> np.ndarray:
    return np.array([label["utility"] for label in bank.labels])


def _label(clip: world.Clip) -> dict[str, Any]:
    """Returns the description of a clip for calibration, and the degradation and utility for comparisons."""
    return {"description": clip.description, "degradation": clip.degradation, "utility": rater.utility(clip)}
