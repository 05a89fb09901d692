"""Trains an embedder to tell recordings apart (Appendix D.1): semi-hard triplets over pairs of clips.

One step, top to bottom: a seeded half of the clips passes through the codec, the sound is changed, the audio
transformer embeds all clips, the ranks share their embeddings, and the triplet loss draws clips of one recording
together.
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
"""Lightning logs the other metrics at this one. Its own count is one lower, and what a resumed run hides of a killed
one goes by the steps that are done (:func:`qd.runs.loggers.build_loggers`)."""


class CollapseError(RuntimeError):
    """All embeddings have become equal: training cannot recover."""


class CodecRoundTrip:
    """Audio as a policy would utter it: ``decode(encode(audio))``, of the same shape. No module, so that the frozen
    codec does not enter the checkpoint."""

    def __init__(self, codec: torch.nn.Module) -> None:
        self.codec = codec.eval().requires_grad_(False)

    @torch.no_grad()
    def __call__(self, audio: Tensor) -> Tensor:
        """``(batch, samples)`` → the same shape, float32."""
        if len(audio) == 0:
            return audio
        self.codec.to(audio.device)
        decoded = self.codec.decode(self.codec.encode(audio)).float()[:, : audio.shape[1]]
        return F.pad(decoded, (0, audio.shape[1] - decoded.shape[1]))


class EmbedderModule(pl.LightningModule):
    """Wires model, codec round trip, augmentation, loss and retrieval metrics.

    Args:
        model: what is trained.
        config: the run's.
        round_trip: makes codec audio of raw audio; None trains and validates on raw audio alone.
    """

    def __init__(
        self, model: AudioViT, config: EmbedderTrainConfig, round_trip: Callable[[Tensor], Tensor] | None = None
    ) -> None:
        super().__init__()
        self.model, self.config, self.round_trip = model, config, round_trip
        self.augmentation = Augmentation(config.augmentation, config.model.sample_rate)
        self.retrieval = torch.nn.ModuleDict({"raw": PairRetrieval()})
        if round_trip is not None:
            self.retrieval["codec"] = PairRetrieval()
        # A buffer, so that a resumed run goes on counting.
        self.register_buffer("collapsed_steps", torch.zeros((), dtype=torch.long))

    def forward(self, audio: Tensor) -> Tensor:
        """``(batch, samples)`` → unit-norm ``(batch, embedding_width)``."""
        return self.model(audio)

    def training_step(self, batch: PairBatch, batch_index: int) -> Tensor:
        """Loss of one batch: of all ranks' clips, or of this rank's."""
        objective, generator = self.config.objective, self._generator()
        audio = self._through_codec(batch.audio.flatten(0, 1), generator)
        audio = self._augment(audio, generator)  # once, so that both passes of cached gradients hear the same
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
        """Embeddings ``(pairs, 2, embedding_width)`` of held-out pairs, raw and after the codec."""
        pairs, clips, _ = batch.audio.shape
        embeddings = {}
        for variant, metric in self.retrieval.items():
            audio = batch.audio.flatten(0, 1)
            audio = self._codec_audio(audio) if variant == "codec" else audio
            embeddings[variant] = self._in_chunks(self.model, audio).unflatten(0, (pairs, clips))
            metric.update(embeddings[variant])
        return embeddings

    def on_validation_epoch_end(self) -> None:
        """Logs each variant's metrics, and the mean recall@1 over the variants by which the best step is chosen."""
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
        """AdamW under :func:`qd.modules.schedules.warmup_cosine`."""
        settings, max_steps = self.config.optimizer, self.config.trainer.max_steps
        optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        return scheduled(optimizer, lambda step: warmup_cosine(step, settings.warmup_steps, max_steps))

    def _generator(self) -> torch.Generator:
        """The step's random numbers: a function of (seed, step, rank), so that a resumed run draws the same."""
        words = np.random.SeedSequence([self.config.seed, self.global_step, self.global_rank])
        return torch.Generator(self.device).manual_seed(int(words.generate_state(1, np.uint64)[0]))

    def _through_codec(self, audio: Tensor, generator: torch.Generator) -> Tensor:
        """Replaces a random share of the clips by what the codec makes of them."""
        if self.round_trip is None:
            return audio
        count = round(self.config.codec.share * len(audio))
        chosen = torch.randperm(len(audio), generator=generator, device=audio.device)[:count]
        return audio.index_copy(0, chosen, self._codec_audio(audio[chosen]))

    def _codec_audio(self, audio: Tensor) -> Tensor:
        """In float32 whatever the precision of training: the codec ends in an inverse transform."""
        with torch.autocast(audio.device.type, enabled=False):
            return self._in_chunks(self.round_trip, audio)

    def _augment(self, audio: Tensor, generator: torch.Generator) -> Tensor:
        """Training clips, which are longer, → clips of the model's length."""
        with torch.autocast(audio.device.type, enabled=False):
            return self.augmentation(audio, self.config.model.clip_samples, generator)

    def _in_chunks(self, function: Callable[[Tensor], Tensor], audio: Tensor) -> Tensor:
        """What does not fit into memory with gradients may not fit without, either."""
        return map_chunks(function, audio, self.config.objective.chunk_clips)

    def _guard(self, loss: Tensor, embeddings: Tensor) -> None:
        """Stops a run that has nothing left to learn from.

        Raises:
            FloatingPointError: the loss is not finite.
            CollapseError: the mean cosine of different clips stayed above 0.999 for 50 steps.
        """
        if not torch.isfinite(gather_rows(loss.detach()[None])).all():  # all ranks stop, or none
            raise FloatingPointError(
                f"loss is {loss.item()} at step {self.global_step}: lower optimizer.learning_rate, or use "
                "trainer.precision=32-true; the last checkpoint is good"
            )
        cosine = mean_pairwise_cosine(embeddings)
        self.log("train/mean_cosine", cosine)
        self.collapsed_steps = torch.where(cosine > COLLAPSE_COSINE, self.collapsed_steps + 1, 0)
        if self.collapsed_steps >= COLLAPSE_STEPS:
            raise CollapseError(
                f"all embeddings are equal (mean pairwise cosine {cosine.item():.4f} > {COLLAPSE_COSINE} for "
                f"{COLLAPSE_STEPS} steps, now step {self.global_step}): lower optimizer.learning_rate, or set "
                "objective.fallback=none"
            )


def mean_pairwise_cosine(embeddings: Tensor) -> Tensor:
    """Mean of e_i · e_j over i ≠ j of unit vectors ``(n, width)``, by (‖Σ e‖² − n) / (n (n − 1))."""
    n = len(embeddings)
    return (embeddings.sum(dim=0).square().sum() - n) / (n * (n - 1))
