"""Pretraining of the adherence scorer by a symmetric InfoNCE loss between clips and their descriptions.

Time on 2 cores: 40 s to render 11,264 clips and 75 s to pass half of them through the codec. A step of 128 clips needs
3 · 2 · 101 frames · 0.54 M weights · 128 = 42 GFLOP for the audio and a tenth of that for the texts, measured at 1.3 s
of one core, so 560 steps take 6 minutes. bfloat16 is not faster at these widths.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from qd.builtin.clip_bank import ClipBank
from qd.builtin.scorer_stage import ScorerPretraining, run_scorer_stage
from qd.builtin.stage_config import ScorerStageConfig, divisor_problems, vocabulary_problems
from qd.builtin.tokenizer import train_tokenizer
from qd.data.world import world
from qd.metrics.retrieval import recall_at
from qd.schema.setting import setting
from qd.scorers.adherence import AdherenceConfig, AdherenceScorer

DESCRIPTION = """Two-tower contrastive model of audio and text, in the role of MuLan; score = scale · cosine + offset.
For evaluation only: never trained on a policy's output, never used in policy training. Half of the clips for training
and for measurement passed through the codec. Scale and offset were set on real held-out clips (split calibration), each
with its own description: mean 0, standard deviation 1/5."""

CANDIDATES = 64
"""Number of candidates in a retrieval."""

MAX_LOGIT_SCALE = 100.0


@dataclass
class AdherenceStageConfig(ScorerStageConfig):
    """The adherence stage."""

    clips: int = 9_216
    validation_clips: int = setting(
        1_024, 'Number of clips of the split "validation", for the retrieval metrics.', ge=2 * CANDIDATES
    )
    batch_size: int = setting(128, "Clips per optimiser step.", unit="clips", ge=2)
    max_steps: int = 560
    model: AdherenceConfig = field(default_factory=AdherenceConfig)

    def rules(self, prefix: str) -> Iterator[str]:
        yield from super().rules(prefix)
        path, text, audio = f"{prefix}model.text", self.model.text, self.model.audio
        yield from vocabulary_problems(f"{path}.vocabulary", text.vocabulary)
        yield from divisor_problems(f"{path}.heads", text.heads, f"{path}.width", text.width)
        if text.embedding_width != audio.embedding_width:
            yield (
                f"{path}.embedding_width is {text.embedding_width}; expected that of {prefix}model.audio, "
                f"{audio.embedding_width}"
            )


class AdherencePretraining(ScorerPretraining):
    """Trains both towers and the temperature."""

    name = AdherenceScorer.name

    def __init__(self, config: AdherenceStageConfig, bank: ClipBank) -> None:
        descriptions = [label["description"] for label in bank.labels]
        tokenizer = train_tokenizer(descriptions, config.model.text.vocabulary).backend_tokenizer
        super().__init__(config, AdherenceScorer(config.model, tokenizer))
        self.descriptions = descriptions

    def training_step(self, batch: dict[str, Tensor], batch_index: int) -> Tensor:
        texts = self.scorer.text([self.descriptions[clip] for clip in batch["clip"].tolist()])
        loss = info_nce(self.scorer.audio(batch["audio"]), texts, self.scorer.log_temperature)
        self.log_dict({"loss": loss, "temperature": self.scorer.log_temperature.exp()}, prog_bar=True)
        return loss


def info_nce(audio: Tensor, text: Tensor, log_temperature: Tensor) -> Tensor:
    """½ · (CE of each clip choosing its text + CE of each text choosing its clip), logits cos / τ (CLIP's loss).

    Args:
        audio, text: Unit-norm embeddings ``(batch, width)``; row i of ``audio`` matches row i of ``text``.
        log_temperature: log τ; 1/τ is limited to 100.
    """
    scale = (-log_temperature).clamp(max=math.log(MAX_LOGIT_SCALE)).exp()
    logits = scale * audio @ text.T
    own = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


@torch.no_grad()
def retrieval(scorer: AdherenceScorer, bank: ClipBank) -> dict[str, float]:
    """Recall@1 among 64 held-out clips, raw and codec, of a clip's text and of a text's clip; also for each stratum."""
    if len(bank) < 2 * CANDIDATES:
        raise ValueError(
            f"{len(bank)} clips; retrieval among {CANDIDATES} needs {2 * CANDIDATES}: raise validation_clips"
        )
    metrics, strata = {}, np.array([label["stratum"] for label in bank.labels])
    chosen = dict(bank.halves)
    for processing, rows in bank.halves.items():
        chosen |= {f"{processing}, {name}": rows[strata[rows] == name] for name in sorted(set(strata) - {world.ANY})}
    for kind, rows in chosen.items():
        groups = [rows[first : first + CANDIDATES] for first in range(0, len(rows) - CANDIDATES + 1, CANDIDATES)]
        if not groups:
            continue  # too few clips of this stratum
        similarities = []
        for group in groups:
            texts = scorer.text([bank.labels[clip]["description"] for clip in group])
            similarities.append(scorer.audio(bank.audio(group), world.SAMPLE_RATE) @ texts.T)
        for name, matrices in {"text": similarities, "clip": [s.T for s in similarities]}.items():
            recall = torch.stack([recall_at(similarity, 1) for similarity in matrices]).mean()
            metrics[f"recall@1 of {CANDIDATES}, {name} found, {kind}"] = float(recall)
    return metrics


def run(config: AdherenceStageConfig, folder: Path) -> Path:
    """Trains the scorer or resumes its training in ``folder``, and returns the asset's folder."""
    return run_scorer_stage(config, folder, AdherencePretraining, _label, retrieval, DESCRIPTION)


def _label(clip: world.Clip) -> dict[str, str]:
    return {"description": clip.description, "stratum": clip.stratum}
