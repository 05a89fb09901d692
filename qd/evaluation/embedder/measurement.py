"""Measures an embedder: retrieval of recordings, sensitivity to alterations, and distances between pieces of music."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from qd.audio.resample import resample
from qd.evaluation.embedder.heldout import HeldOut
from qd.evaluation.embedder.invariance import ALTERATIONS, alterations
from qd.metrics.bootstrap import Interval, bootstrap_interval
from qd.metrics.retrieval import PairRetrieval, recall_at
from qd.models.embedders.loading import Embedder

BATCH = 16
"""Recordings in memory at once; each is embedded about twenty times."""
SAME, DIFFERENT = "another clip of the same recording", "a different recording"
SAME_RECORDING, SAME_GENRE, OTHER_GENRE = "same recording", "same genre", "different genre"
ANY_GENRE = "different recording"


class Spread(NamedTuple):
    """Distribution of 1 − cosine over pairs of one kind."""

    mean: Interval
    """Mean with a 95 % bootstrap interval over the recordings."""
    low: float
    """5 % quantile of the pairs."""
    high: float
    """95 % quantile of the pairs."""
    pairs: int


class Query(NamedTuple):
    """Embeddings ``(clips, width)`` of altered clips, and the numbers of their recordings ``(clips,)``."""

    embeddings: Tensor
    recordings: Tensor


@dataclass(frozen=True)
class EmbedderMeasurement:
    """The measurement of one embedder on n recordings.

    Attributes:
        retrieval: ``recall@1``, ``recall@5`` and ``auc``: each first clip is matched with all second clips.
        same: Cosines of the two clips of each recording, ``(n,)``.
        different: Cosines of first clips with the second clips of other recordings, ``(n, n − 1)``.
        invariance: Mean cosine of a clip with its altered version, by alteration, in the order of the report.
        altered_clips: Number of clips of each of these means.
        altered_recall: recall@1 with the altered first clips as queries, by alteration; without those whose clips may
            overlap with the second clips.
        calibration: 1 − cosine of two clips, by what they have in common.
    """

    retrieval: dict[str, float]
    same: np.ndarray
    different: np.ndarray
    invariance: dict[str, Interval]
    altered_clips: dict[str, int]
    altered_recall: dict[str, float]
    calibration: dict[str, Spread]

    def references(self) -> dict[str, Interval]:
        """Returns the reference cosines: with another clip of the same recording, and with other recordings."""
        return {SAME: bootstrap_interval(self.same), DIFFERENT: bootstrap_interval(self.different.mean(axis=1))}

    def relative(self, cosine: float) -> float:
        """Scales a cosine so that a different recording is 0 and the clip itself is 1.

        These values are comparable between embedders; cosines are not.
        """
        apart = float(self.different.mean())
        return (cosine - apart) / max(1.0 - apart, 1e-9)


def measure(
    embedders: Mapping[str, Embedder],
    heldout: HeldOut,
    round_trip: Callable[[Tensor], Tensor],
    device: torch.device,
    seed: int = 0,
) -> dict[str, EmbedderMeasurement]:
    """Measures all embedders on the same audio.

    Args:
        embedders: Embedders by their names in the report.
        heldout: Held-out recordings.
        round_trip: Encoding and decoding by a codec, at the rate of the recordings.
        device: Device of the embedders.
        seed: Seed for the noise.
    """
    generator = torch.Generator().manual_seed(seed)
    pairs: dict[str, list[Tensor]] = {name: [] for name in embedders}
    cosines: dict[str, dict[str, list[Tensor]]] = {name: defaultdict(list) for name in embedders}
    queries: dict[str, dict[str, list[Query]]] = {name: defaultdict(list) for name in embedders}
    genres: list[str | None] = []
    embed, starts = _EmbedAll(embedders, heldout.sample_rate, device), range(0, len(heldout), BATCH)
    for start in track(starts, "measuring", console=Console(stderr=True), transient=True):
        batch = heldout.batch(range(start, min(start + BATCH, len(heldout))))
        genres += batch.genres
        first, second = embed(batch.pairs[:, 0]), embed(batch.pairs[:, 1])
        for name in embedders:
            pairs[name].append(torch.stack([first[name], second[name]], dim=1))
        for alteration, original, changed, rows in alterations(batch, heldout.sample_rate, round_trip, generator):
            before, after = first if original is None else embed(original), embed(changed)
            for name in embedders:
                cosines[name][alteration].append((before[name] * after[name]).sum(dim=1))
                if rows is not None:
                    queries[name][alteration].append(Query(after[name], start + rows))
    known = genres if None not in genres else None
    return {name: _summary(torch.cat(pairs[name]), cosines[name], queries[name], known) for name in embedders}


def calibrate(cosines: np.ndarray, genres: list[str] | None) -> dict[str, Spread]:
    """Returns 1 − cosine of pairs from one recording, from one genre, and from different genres.

    A kind without pairs is left out.

    Args:
        cosines: Cosines of first with second clips, ``(n, n)``; the diagonal has the pairs of one recording.
        genres: Genre of each recording; None makes all other recordings one kind.
    """
    itself = np.eye(len(cosines), dtype=bool)
    kinds = {SAME_RECORDING: itself}
    if genres is None:
        kinds[ANY_GENRE] = ~itself
    else:
        names = np.array(genres)
        alike = names[:, None] == names[None, :]
        kinds |= {SAME_GENRE: alike & ~itself, OTHER_GENRE: ~alike}
    return {kind: _spread(1.0 - cosines, of_kind) for kind, of_kind in kinds.items() if of_kind.any(1).sum() > 1}


class _EmbedAll:
    """Embeds the same audio with all embedders, each at its own rate."""

    def __init__(self, embedders: Mapping[str, Embedder], sample_rate: int, device: torch.device) -> None:
        self.embedders, self.sample_rate, self.device = embedders, sample_rate, device

    @torch.inference_mode()
    def __call__(self, audio: Tensor) -> dict[str, Tensor]:
        """``(clips, samples)`` → unit-norm ``(clips, width)`` on the CPU, by embedder."""
        return {
            name: embedder(
                resample(audio, self.sample_rate, embedder.sample_rate).to(self.device), embedder.sample_rate
            ).cpu()
            for name, embedder in self.embedders.items()
        }


def _summary(
    pairs: Tensor,
    cosines: Mapping[str, list[Tensor]],
    queries: Mapping[str, list[Query]],
    genres: list[str] | None,
) -> EmbedderMeasurement:
    retrieval = PairRetrieval()
    retrieval.update(pairs)
    similarity = (pairs[:, 0] @ pairs[:, 1].T).double().numpy()
    altered = {name: torch.cat(cosines[name]).double().numpy() for name in ALTERATIONS if name in cosines}
    altered = {name: values for name, values in altered.items() if len(values) > 1}
    n = len(similarity)
    return EmbedderMeasurement(
        retrieval={name: float(value) for name, value in retrieval.compute().items()},
        same=similarity.diagonal().copy(),
        different=similarity[~np.eye(n, dtype=bool)].reshape(n, n - 1),
        invariance={name: bootstrap_interval(values) for name, values in altered.items()},
        altered_clips={name: len(values) for name, values in altered.items()},
        altered_recall={name: _recall(queries[name], pairs[:, 1]) for name in altered if name in queries},
        calibration=calibrate(similarity, genres),
    )


def _recall(queries: list[Query], candidates: Tensor) -> float:
    """Returns recall@1 of altered clips among the second clips of all recordings."""
    embeddings, recordings = (torch.cat(parts) for parts in zip(*queries, strict=True))
    return float(recall_at(embeddings @ candidates.T, 1, recordings))


def _spread(dissimilarity: np.ndarray, of_kind: np.ndarray) -> Spread:
    low, high = np.quantile(dissimilarity[of_kind], [0.05, 0.95])
    each = [row[chosen].mean() for row, chosen in zip(dissimilarity, of_kind, strict=True) if chosen.any()]
    return Spread(bootstrap_interval(each), float(low), float(high), int(of_kind.sum()))
