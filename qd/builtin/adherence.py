"""Pretraining of the adherence scorer: clips and their descriptions, drawn together by a symmetric InfoNCE loss.

The sum, on 2 cores: rendering 11,264 clips 40 s, the codec on half of them 75 s; a step of 128 clips is 3 · 2 · 101
frames · 0.54 M weights · 128 = 42 GFLOP for the audio and a tenth of that for the texts, measured at 1.3 s of one core,
so that 560 steps take 6 minutes. bfloat16 is no faster at these widths.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from torch import Tensor

from qd.builtin.calibration import calibrate
from qd.builtin.clip_bank import ClipBank, build_bank, shuffled_example
from qd.builtin.stage import fit_stage, stream_loader, write_asset
from qd.builtin.stage_config import ScorerStageConfig, divisor_problems, vocabulary_problems
from qd.builtin.tokenizer import train_tokenizer
from qd.config.schema.setting import setting
from qd.data.world import world
from qd.metrics.retrieval import recall_at
from qd.models.codecs.codec import load_codec
from qd.modules.schedules import scheduled, warmup_cosine
from qd.scorers.adherence import AdherenceConfig, AdherenceScorer

DESCRIPTION = """Two-tower contrastive model of audio and text, in the role of MuLan: scale · cosine + offset. For
evaluation only: never trained on a policy's output, never used in policy training. Half of the clips that it was
trained and is measured on went through the codec. The scale was set on real held-out clips (split calibration), each
with its own description: mean 0, standard deviation 1/5."""

CANDIDATES = 64
"""Size of the sets in which retrieval is measured."""

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


class AdherencePretraining(pl.LightningModule):
    """Trains both towers and the temperature."""

    def __init__(self, config: AdherenceStageConfig, bank: ClipBank) -> None:
        super().__init__()
        self.config, self.descriptions = config, [label["description"] for label in bank.labels]
        tokenizer = train_tokenizer(self.descriptions, config.model.text.vocabulary).backend_tokenizer
        self.scorer = AdherenceScorer(config.model, tokenizer)

    def training_step(self, batch: dict[str, Tensor], batch_index: int) -> Tensor:
        texts = self.scorer.text([self.descriptions[clip] for clip in batch["clip"].tolist()])
        loss = info_nce(self.scorer.audio(batch["audio"]), texts, self.scorer.log_temperature)
        self.log_dict({"loss": loss, "temperature": self.scorer.log_temperature.exp()}, prog_bar=True)
        return loss

    def configure_optimizers(self) -> dict[str, Any]:
        config = self.config
        optimizer = torch.optim.AdamW(
            self.scorer.parameters(), config.learning_rate, (0.9, 0.98), weight_decay=config.weight_decay
        )
        return scheduled(
            optimizer, partial(warmup_cosine, warmup_steps=config.warmup_steps, max_steps=config.max_steps)
        )


def info_nce(audio: Tensor, text: Tensor, log_temperature: Tensor) -> Tensor:
    """½ · (CE of each clip choosing its text + CE of each text choosing its clip), logits cos / τ (CLIP's loss).

    Args:
        audio, text: unit-norm embeddings ``(batch, width)``; row i of one belongs to row i of the other.
        log_temperature: log τ; 1/τ is held at 100 or below.
    """
    scale = (-log_temperature).clamp(max=math.log(MAX_LOGIT_SCALE)).exp()
    logits = scale * audio @ text.T
    own = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


@torch.no_grad()
def retrieval(scorer: AdherenceScorer, bank: ClipBank) -> dict[str, float]:
    """Recall@1 among 64 on held-out clips, raw and codec: the clip's own text found, and the text's own clip."""
    found = {}
    for heard, rows in bank.halves.items():
        groups = [rows[first : first + CANDIDATES] for first in range(0, len(rows) - CANDIDATES + 1, CANDIDATES)]
        if not groups:
            raise ValueError(f"{len(bank)} clips; retrieval among {CANDIDATES} needs {2 * CANDIDATES} or more")
        similarities = []
        for group in groups:
            texts = scorer.text([bank.labels[clip]["description"] for clip in group])
            similarities.append(scorer.audio(bank.audio(group), world.SAMPLE_RATE) @ texts.T)
        for name, matrices in {"text": similarities, "clip": [s.T for s in similarities]}.items():
            recall = torch.stack([recall_at(similarity, 1) for similarity in matrices]).mean()
            found[f"recall@1 of {CANDIDATES}, {name} found, {heard}"] = float(recall)
    return found


def run(config: AdherenceStageConfig, folder: Path) -> Path:
    """Trains (or goes on training) in ``folder``, measures, calibrates, and returns the asset's folder."""
    bank = _bank(config, folder, "adherence", config.clips)
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)  # the initial weights are all that this stage draws from torch
        module = AdherencePretraining(config, bank)

    def make_loader(first_step: int):
        return stream_loader(partial(shuffled_example, bank=bank, seed=config.seed), config.batch_size, first_step)

    seconds = fit_stage(
        module, make_loader, folder, config.max_steps, config.checkpoint_every, config.precision, config.device
    )
    scorer = module.scorer.cpu().eval()
    scale = calibrate(scorer, _bank(config, folder, "calibration", config.calibration_clips))
    card = {
        "title": "Built-in adherence scorer",
        "description": DESCRIPTION,
        "command": "qd base --stage adherence",
        "data": f"{config.clips} clips of {config.seconds:g} s of the built-in world, split adherence",
        "parameters": sum(parameter.numel() for parameter in scorer.parameters()),
        "steps": config.max_steps,
        "seconds": seconds,
        "config": asdict(config),
        "metrics": retrieval(scorer, _bank(config, folder, "validation", config.validation_clips)) | scale,
    }
    return write_asset(folder / "asset", scorer, card)


def _bank(config: AdherenceStageConfig, folder: Path, split: str, clips: int) -> ClipBank:
    codec = load_codec(config.codec)
    return build_bank(folder / "clips", split, clips, config.seconds, codec, _label, config.workers)


def _label(clip: world.Clip) -> dict[str, str]:
    return {"description": clip.description}
