"""Cosines and projector labels of the embedder log. Real runs are in tests/modules/test_embedder_runs.py."""

from __future__ import annotations

from types import SimpleNamespace

import torch
import torch.nn.functional as F
from lightning.pytorch.trainer.states import TrainerFn

from qd.callbacks.embedder_log import EmbedderLog, cosines
from qd.data.recordings import PairBatch


def unit_pairs(count: int) -> torch.Tensor:
    return F.normalize(torch.randn(count, 2, 4, generator=torch.Generator().manual_seed(0)), dim=-1)


def test_cosines_equal_a_loop():
    pairs = unit_pairs(5)
    same, different = cosines(pairs)
    torch.testing.assert_close(same, torch.stack([pairs[i, 0] @ pairs[i, 1] for i in range(5)]))
    expected = torch.stack([pairs[i, 0] @ pairs[j, 1] for i in range(5) for j in range(5) if i != j])
    torch.testing.assert_close(different, expected)
    assert [len(values) for values in cosines(unit_pairs(1))] == [1, 0]


class Writer:
    """Stores the arguments of ``add_embedding``."""

    def add_embedding(self, embeddings, rows, **options) -> None:
        self.embeddings, self.rows = embeddings, rows


def projected(log: EmbedderLog, batches: list[list[int]]) -> Writer:
    trainer, writer = SimpleNamespace(world_size=1, global_step=7), Writer()
    log.on_validation_start(trainer, None)
    for number, labels in enumerate(batches):
        batch = PairBatch(torch.zeros(len(labels), 2, 3), torch.tensor(labels))
        log.on_validation_batch_end(trainer, None, {"raw": unit_pairs(len(labels))}, batch, number)
    log._project(writer, "raw", torch.cat(log._embeddings["raw"])[:500], trainer)
    return writer


def test_without_genres_clips_are_labelled_by_recording():
    assert projected(EmbedderLog(object()), [[4, 2], [9]]).rows == [["unknown", n] for n in (4, 4, 2, 2, 9, 9)]


def test_genres_are_found_by_identity_and_may_be_missing():
    genres = {0: "jazz", 1: None, 2: "rock"}
    library = SimpleNamespace(size=3, genre=genres.get, identity=lambda index: 10 + index)
    rows = projected(EmbedderLog(library), [[10, 11, 12], [10, 11]]).rows
    assert [row[0] for row in rows[::2]] == ["jazz", "unknown", "rock", "jazz", "unknown"]


def test_at_most_a_thousand_clips_are_projected():
    writer = projected(EmbedderLog(object()), [list(range(300)), list(range(300, 600))])
    assert len(writer.rows) == len(writer.embeddings) == 1000


def test_only_the_first_rank_logs():
    trainer = SimpleNamespace(is_global_zero=False, loggers=[], state=SimpleNamespace(fn=TrainerFn.FITTING))
    log = EmbedderLog(object())
    log.on_validation_start(trainer, None)
    log.on_validation_end(trainer, None)
