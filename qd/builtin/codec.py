"""Pretraining of the built-in codec on the built-in world."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor

from qd.builtin.codec_quality import measure
from qd.builtin.stage import Example, fit_stage, stream_loader, write_asset
from qd.builtin.stage_config import CLIP_LIMITS, StageConfig
from qd.data.world.composer import MINIMUM_SECONDS
from qd.data.world.timbres import SAMPLE_RATE
from qd.data.worlds import edition
from qd.models.codecs.codec import CodecConfig, FrameCodec
from qd.modules.schedules import scheduled, warmup_cosine
from qd.objectives.spectral import FFT_SIZES, multi_scale_spectral_loss
from qd.schema.checker import value_problems
from qd.schema.setting import setting


@dataclass
class CodecStageConfig(StageConfig):
    """The codec stage."""

    max_steps: int = 4500
    warmup_steps: int = 100
    seconds: float = setting(1.6, "Length of a training clip.", **CLIP_LIMITS)
    commitment_weight: float = setting(0.25, "Weight of the commitment loss.", ge=0)
    validation_clips: int = setting(32, "Number of held-out clips for the card's metrics.", ge=1)
    workers: int = setting(0, "Number of processes that render clips.", ge=0)
    codec: CodecConfig = field(default_factory=CodecConfig)

    def rules(self, prefix: str) -> Iterator[str]:
        yield from super().rules(prefix)
        if self.codec.sample_rate != SAMPLE_RATE:
            rate = self.codec.sample_rate
            yield f"{prefix}codec.sample_rate is {rate}; expected {SAMPLE_RATE}, the built-in world's"
        elif 0 < self.seconds <= MINIMUM_SECONDS and not any(value_problems(self.codec)):
            yield from self._too_short(prefix)

    def _too_short(self, prefix: str) -> Iterator[str]:
        """The loss pads half a window at either end, by reflection."""
        samples, least = int(self.seconds * self.codec.frame_rate) * self.codec.samples_per_frame, max(FFT_SIZES) // 2
        if samples <= least:
            yield f"{prefix}seconds is {self.seconds}, {samples} samples in whole frames; expected more than {least}"


class CodecPretraining(pl.LightningModule):
    """Minimises multi-scale spectral loss + commitment loss; the codebooks learn by moving averages."""

    def __init__(self, config: CodecStageConfig) -> None:
        super().__init__()
        self.config = config
        self.codec = FrameCodec(config.codec)

    def training_step(self, batch: dict[str, Tensor], batch_index: int) -> Tensor:
        output = self.codec(batch["audio"])
        spectral = multi_scale_spectral_loss(output.audio, batch["audio"])
        loss = spectral + self.config.commitment_weight * output.commitment_loss
        values = {"loss": loss, "spectral": spectral, "commitment": output.commitment_loss}
        self.log_dict(values, prog_bar=True)
        return loss

    def configure_optimizers(self) -> dict:
        optimizer = torch.optim.AdamW(
            self.codec.parameters(), self.config.learning_rate, betas=(0.9, 0.99), weight_decay=1e-3
        )
        return scheduled(
            optimizer, partial(warmup_cosine, warmup_steps=self.config.warmup_steps, max_steps=self.config.max_steps)
        )


def run(config: CodecStageConfig, folder: Path) -> Path:
    """Trains the codec or resumes its training in ``folder``, measures it, and returns the asset's folder."""
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)  # this stage uses the global random state only for the initial weights
        module = CodecPretraining(config)

    def make_loader(first_step: int):
        example = partial(training_example, seed=config.seed, seconds=_whole_frames(config), world=config.world)
        return stream_loader(example, config.batch_size, first_step, config.workers)

    seconds = fit_stage(
        module,
        make_loader,
        folder,
        config.max_steps,
        config.checkpoint_every,
        config.precision,
        config.device,
        checkpoint_minutes=config.checkpoint_minutes,
    )
    codec = module.codec.cpu().eval()
    card = {
        "title": "Built-in codec",
        "description": (
            f"Frame-level neural codec, {codec.sample_rate} Hz mono, {codec.frame_rate:g} frames a second, "
            f"{codec.codebooks} codebooks of {codec.codebook_size}. Measured on clips of held-out pieces. For "
            "comparison, `librosa_…` is librosa's inversion (non-negative least squares, then Griffin-Lim) of the "
            "codec's input, the unquantised mel spectrogram."
        ),
        "command": "qd base --stage codec",
        "data": f"{config.max_steps * config.batch_size} clips of {config.seconds:g} s, split codec of the world",
        "parameters": sum(parameter.numel() for parameter in codec.parameters()),
        "steps": config.max_steps,
        "seconds": seconds,
        "config": asdict(config),
        "metrics": measure(codec, config.validation_clips, world=config.world),
    }
    return write_asset(folder / "asset", codec, card)


def training_example(index: int, seed: int, seconds: float, world: int = 1) -> Example:
    """Returns clip ``index`` of the stage's stream; each seed has its own range of 2^32 clips."""
    return {"audio": np.ascontiguousarray(edition(world).clip("codec", (seed << 32) + index, seconds).audio)}


def _whole_frames(config: CodecStageConfig) -> float:
    """Returns the clip length in seconds, cut to whole frames of codes: the length of the reconstruction."""
    frames = int(config.seconds * config.codec.frame_rate)
    if frames < 1:
        raise ValueError(f"seconds={config.seconds} is shorter than one frame of codes: use 1 s or more")
    return frames / config.codec.frame_rate
