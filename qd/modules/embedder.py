"""Trains an embedder to distinguish recordings (paper, Appendix D.1): semi-hard triplets over pairs of clips.

One step: a random share of the clips passes through the codec, all clips are augmented, the audio transformer embeds
them, the ranks gather their embeddings, and the triplet loss moves clips of one recording closer together.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
import torch.nn.functional as F
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from qd.audio.chunks import map_chunks
from qd.config.embedder import EmbedderTrainConfig
from qd.data.augmentation import Augmentation
from qd.data.recordings import PairBatch
from qd.metrics.retrieval import PairRetrieval
from qd.models.embedders.audio_vit import AudioViT
from qd.modules.cached_gradients import embed_with_cached_gradients
from qd.modules.schedules import scheduled, warmup_cosine
from qd.objectives.triplet import semi_hard_triplet
from qd.runs.collective import gather_rows, gather_rows_with_gradient

COLLAPSE_COSINE = 0.999
COLLAPSE_STEPS = 50
STEP = "step"
"""Name of the metric that Lightning uses as the step of the others. Lightning's own count is one lower. A resumed run
hides the logs of a killed run by the number of steps done (:func:`qd.runs.loggers.build_loggers`)."""


class CollapseError(RuntimeError):
    """All embeddings have become equal, so training cannot recover."""


class CodecRoundTrip:
    """Passes audio through a codec, ``decode(encode(audio))``, so that it sounds like the audio of a policy.

    It is no ``nn.Module``, so that the frozen codec is not in the checkpoint.

    Args:
        codec: The codec. It is frozen.
    """

    def __init__(self, codec: torch.nn.Module) -> None:
        self.codec = codec.eval().requires_grad_(False)

    @torch.no_grad()
    def __call__(self, audio: Tensor) -> Tensor:
        """Maps ``(batch, samples)`` to the same shape, in float32."""
        if len(audio) == 0:
            return audio
        self.codec.to(audio.device)
        decoded = self.codec.decode(self.codec.encode(audio)).float()[:, : audio.shape[1]]
        return F.pad(decoded, (0, audio.shape[1] - decoded.shape[1]))


class EmbedderModule(pl.LightningModule):
    """Connects the model with codec round trip, augmentation, loss and retrieval metrics.

    Args:
        model: The model to train.
        config: The configuration of the run.
        round_trip: Passes raw audio through the codec. None trains and validates on raw audio only.
    """

    def __init__(
        self, model: AudioViT, config: EmbedderTrainConfig, round_trip: Callable[[Tensor], Tensor] | None = None
    ) -> None:
        super().__init__()
        self.model, self.config, self.round_trip = model, config, round_trip
        self.augmentation = Augmentation(config.augmentation, config.model.sample_rate, config.data.world)
        self.retrieval = torch.nn.ModuleDict({"raw": PairRetrieval()})
        if round_trip is not None:
            self.retrieval["codec"] = PairRetrieval()
        # A buffer, so that a resumed run continues the count.
        self.register_buffer("collapsed_steps", torch.zeros((), dtype=torch.long))

    def forward(self, audio: Tensor) -> Tensor:
        """Maps audio ``(batch, samples)`` to unit-norm embeddings ``(batch, embedding_width)``."""
        return self.model(audio)

    def training_step(self, batch: PairBatch, batch_index: int) -> Tensor:
        """Returns the loss of one batch, over the clips of all ranks with ``objective.gather``, else of this rank."""
        objective, generator = self.config.objective, self._generator()
        audio = self._through_codec(batch.audio.flatten(0, 1), generator)
        audio = self._augment(audio, generator)  # before both passes of cached gradients, which need the same clips
        own = embed_with_cached_gradients(self.model, audio, objective.chunk_clips)
        embeddings, labels = own, batch.labels.repeat_interleave(2)
        if objective.gather:
            embeddings, labels = gather_rows_with_gradient(own), gather_rows(labels)
        result = semi_hard_triplet(embeddings, labels, objective.margin, objective.negatives, objective.fallback)
        self._guard(result.loss, gather_rows(own.detach()))
        self.log(STEP, self.global_step + 1.0)
        self.log("train/loss", result.loss, prog_bar=True)
        self.log("train/active_share", result.active_share, prog_bar=True)
        self.log("train/positive_distance", result.positive_distance)
        self.log("train/negative_distance", result.negative_distance)
        self.log("train/hard_negative_distance", result.hard_negative_distance)
        self.log("train/learning_rate", self.lr_schedulers().get_last_lr()[0])
        return result.loss

    def validation_step(self, batch: PairBatch, batch_index: int) -> dict[str, Tensor]:
        """Returns embeddings ``(pairs, 2, embedding_width)`` of held-out pairs, for raw audio and after the codec."""
        pairs, clips, _ = batch.audio.shape
        embeddings = {}
        for variant, metric in self.retrieval.items():
            audio = batch.audio.flatten(0, 1)
            audio = self._codec_audio(audio) if variant == "codec" else audio
            embeddings[variant] = self._in_chunks(self.model, audio).unflatten(0, (pairs, clips))
            metric.update(embeddings[variant])
        return embeddings

    def on_validation_epoch_end(self) -> None:
        """Logs the metrics for raw and codec audio, and the mean recall@1 that selects the best step."""
        recalls = []
        if self.trainer.state.fn == TrainerFn.FITTING:
            self.log(STEP, float(self.global_step), sync_dist=True)
        for variant, metric in self.retrieval.items():
            values = metric.compute()
            metric.reset()
            recalls.append(values["recall@1"])
            self.log_dict({f"validation/{variant}/{name}": value for name, value in values.items()}, sync_dist=True)
        self.log("validation/recall@1", torch.stack(recalls).mean(), prog_bar=True, sync_dist=True)

    def configure_optimizers(self) -> dict[str, Any]:
        """Returns AdamW with the schedule :func:`qd.modules.schedules.warmup_cosine`."""
        settings, max_steps = self.config.optimizer, self.config.trainer.max_steps
        optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        return scheduled(optimizer, lambda step: warmup_cosine(step, settings.warmup_steps, max_steps))

    def _generator(self) -> torch.Generator:
        """Returns a generator seeded with (seed, step, rank), so that a resumed run draws the same numbers."""
        words = np.random.SeedSequence([self.config.seed, self.global_step, self.global_rank])
        return torch.Generator(self.device).manual_seed(int(words.generate_state(1, np.uint64)[0]))

    def _through_codec(self, audio: Tensor, generator: torch.Generator) -> Tensor:
        """Passes a random share of the clips through the codec."""
        if self.round_trip is None:
            return audio
        count = round(self.config.codec.share * len(audio))
        chosen = torch.randperm(len(audio), generator=generator, device=audio.device)[:count]
        return audio.index_copy(0, chosen, self._codec_audio(audio[chosen]))

    def _codec_audio(self, audio: Tensor) -> Tensor:
        """Passes clips through the codec, in float32 even in mixed precision: it ends in an inverse transform."""
        with torch.autocast(audio.device.type, enabled=False):
            return self._in_chunks(self.round_trip, audio)

    def _augment(self, audio: Tensor, generator: torch.Generator) -> Tensor:
        """Augments training clips, which are longer than the model's clips, and returns clips of the model's length."""
        with torch.autocast(audio.device.type, enabled=False):
            return self.augmentation(audio, self.config.model.clip_samples, generator)

    def _in_chunks(self, function: Callable[[Tensor], Tensor], audio: Tensor) -> Tensor:
        """Applies a function without gradient in chunks too, because the whole batch may not fit into memory."""
        return map_chunks(function, audio, self.config.objective.chunk_clips)

    def _guard(self, loss: Tensor, embeddings: Tensor) -> None:
        """Stops a run that can no longer learn.

        Raises:
            FloatingPointError: If the loss is not finite.
            CollapseError: If the mean cosine similarity of different clips was above 0.999 for 50 steps.
        """
        if not torch.isfinite(gather_rows(loss.detach()[None])).all():  # gathered, so that all ranks stop together
            raise FloatingPointError(
                f"loss is {loss.item()} at step {self.global_step}: lower optimizer.learning_rate, or use "
                "trainer.precision=32-true. The last checkpoint is still finite."
            )
        cosine = mean_pairwise_cosine(embeddings)
        self.log("train/mean_cosine", cosine)
        self.collapsed_steps = torch.where(cosine > COLLAPSE_COSINE, self.collapsed_steps + 1, 0)
        if self.collapsed_steps >= COLLAPSE_STEPS:
            raise CollapseError(
                f"all embeddings are equal: their mean pairwise cosine was above {COLLAPSE_COSINE} for "
                f"{COLLAPSE_STEPS} steps and is {cosine.item():.4f} at step {self.global_step}. Lower "
                "optimizer.learning_rate, or set objective.fallback=none."
            )


def mean_pairwise_cosine(embeddings: Tensor) -> Tensor:
    """Returns the mean of e_i · e_j over i ≠ j, as (‖Σ e‖² − n) / (n (n − 1)).

    Args:
        embeddings: Unit-norm embeddings e, ``(n, width)``.
    """
    n = len(embeddings)
    return (embeddings.sum(dim=0).square().sum() - n) / (n * (n - 1))
