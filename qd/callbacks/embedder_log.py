"""TensorBoard histograms and projections of an embedder's similarities."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from qd.data.recordings import PairBatch, Recordings

PROJECTED_CLIPS = 1000


class EmbedderLog(pl.Callback):
    """Logs cosine similarities of held-out clips, and the clips themselves in the TensorBoard projector.

    Each validation during a fit logs two histograms: clips of the same recording, and clips of different recordings.
    The validation after a fit, of the best weights, logs the projector, with the genres of the clips. With several
    ranks, the first one logs its own share of the held-out pairs.

    Args:
        recordings: Validation recordings. Their genres are shown if they have any.
    """

    def __init__(self, recordings: Recordings) -> None:
        self.recordings = recordings

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._embeddings: dict[str, list[Tensor]] = defaultdict(list)
        self._labels: list[Tensor] = []

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Mapping[str, Tensor],
        batch: PairBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        for variant, embeddings in outputs.items():
            self._embeddings[variant].append(embeddings.float().cpu())
        self._labels.append(batch.labels.cpu())

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        writers = [logger.experiment for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
        if not trainer.is_global_zero or not writers:
            return
        for variant, parts in self._embeddings.items():
            pairs = torch.cat(parts)
            if trainer.state.fn == TrainerFn.FITTING:
                _add_histograms(writers[0], variant, pairs, trainer.global_step)
            else:
                self._project(writers[0], variant, pairs[: PROJECTED_CLIPS // 2], trainer)

    def _project(self, writer: SummaryWriter, variant: str, pairs: Tensor, trainer: pl.Trainer) -> None:
        labels = torch.cat(self._labels)[: len(pairs)].tolist()
        genres = _genres(self.recordings, len(pairs) * trainer.world_size)
        rows = [[genres.get(label, "unknown"), label] for label in labels for _ in range(2)]
        writer.add_embedding(
            pairs.flatten(0, 1),
            rows,
            global_step=trainer.global_step,
            tag=variant,
            metadata_header=["genre", "recording"],
        )


def cosines(pairs: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the cosine similarities of clips of the same and of different recordings.

    Args:
        pairs: Unit-norm embeddings of two clips of each recording, ``(n, 2, width)``.

    Returns:
        First and second clip of each recording, ``(n,)``; first clips and second clips of others, ``(n² − n,)``.
    """
    similarity = pairs[:, 0] @ pairs[:, 1].T
    return similarity.diagonal(), similarity[~torch.eye(len(pairs), dtype=torch.bool, device=pairs.device)]


def _add_histograms(writer: SummaryWriter, variant: str, pairs: Tensor, step: int) -> None:
    for name, values in zip(("same", "different"), cosines(pairs), strict=True):
        if len(values):
            writer.add_histogram(f"cosine_{variant}/{name}_recording", values, step)


def _genres(recordings: Any, count: int) -> dict[int, str]:
    """Returns the genres of the first ``count`` recordings that have one, by the label that batches use."""
    if not hasattr(recordings, "genre"):
        return {}
    identity = getattr(recordings, "identity", lambda index: index)
    count = min(count, getattr(recordings, "size", None) or count)
    genres = {identity(index): recordings.genre(index) for index in range(count)}
    return {label: genre for label, genre in genres.items() if genre}
