from __future__ import annotations

import numpy as np
import pytest
import torch

from qd.evaluation.embedder.heldout import ClipBatch, DrumBatch
from qd.evaluation.embedder.measurement import ANY_GENRE, OTHER_GENRE, SAME_GENRE, SAME_RECORDING, calibrate, measure

N = 20


class FirstSamples:
    """An embedder that returns the first samples of a clip."""

    sample_rate, embedding_width = 16_000, 3

    def __call__(self, audio: torch.Tensor, sample_rate: int | None = None) -> torch.Tensor:
        return torch.nn.functional.normalize(audio[:, :3], dim=1)


class Recordings:
    """Recording i is a point on the circle; its second clip is off the circle. Even ones have drums."""

    description, notes, sample_rate = "points", [], 16_000

    def __len__(self) -> int:
        return N

    def vector(self, index: int, lift: float) -> torch.Tensor:
        angle = torch.tensor(2 * np.pi * index / N)
        return torch.cat([torch.stack([angle.cos(), angle.sin(), torch.tensor(lift)]), torch.zeros(3997)])

    def batch(self, indices: range) -> ClipBatch:
        pairs = torch.stack([torch.stack([self.vector(i, 0.0), self.vector(i, 0.1)]) for i in indices])
        changed = torch.stack([self.vector(i, 1.0 if i % 2 else 2.0) for i in indices])
        drums = DrumBatch(pairs[:, 0], changed, torch.tensor([i % 2 == 1 for i in indices]))
        return ClipBatch(pairs, None, drums, ["a" if i < N // 2 else "b" for i in indices])

    def training_clips(self) -> torch.Tensor:
        raise AssertionError("not needed")


@pytest.fixture(scope="module")
def measured():
    return measure({"first": FirstSamples()}, Recordings(), lambda audio: -audio, torch.device("cpu"))["first"]


def test_retrieval_and_references_follow_from_the_vectors(measured):
    assert measured.retrieval == pytest.approx({"recall@1": 1.0, "recall@5": 1.0, "auc": 1.0})
    close = 1 / 1.01**0.5
    np.testing.assert_allclose(measured.same, close, rtol=1e-5)
    assert measured.different.shape == (N, N - 1)
    # The cosines of a point with all points of the circle add up to 0: those with the others, to minus the first.
    np.testing.assert_allclose(measured.different.mean(1), -close / (N - 1), rtol=1e-4)
    same, different = measured.references().values()
    assert same.mean == pytest.approx(close) and different.mean == pytest.approx(-close / (N - 1), rel=1e-4)
    assert measured.relative(1.0) == pytest.approx(1.0) and measured.relative(different.mean) == pytest.approx(0.0)


def test_alterations_are_means_over_their_own_clips(measured):
    assert "tempo + 20 %" not in measured.invariance
    assert measured.invariance["codec round trip"].mean == pytest.approx(-1.0)
    assert measured.invariance["drums added"].mean == pytest.approx(1 / 2**0.5)
    assert measured.invariance["drums removed"].mean == pytest.approx(1 / 5**0.5)
    assert measured.altered_clips["drums added"] == measured.altered_clips["drums removed"] == N // 2
    assert measured.altered_clips["codec round trip"] == N


def test_altered_clips_search_their_own_second_clip_among_all(measured):
    # The codec turns a point to the opposite one; drums only lift it from the circle.
    assert measured.altered_recall["codec round trip"] == 0.0
    assert measured.altered_recall["drums added"] == measured.altered_recall["drums removed"] == 1.0
    assert measured.altered_recall.keys() == measured.invariance.keys()


def test_genres_count_pairs_of_recordings(measured):
    assert [spread.pairs for spread in measured.calibration.values()] == [N, N * (N // 2 - 1), N * N // 2]


def test_calibration_equals_a_naive_loop_over_pairs():
    rng = np.random.default_rng(0)
    cosines, genres = rng.uniform(-1, 1, (7, 7)), list("aabbbca")
    spreads = calibrate(cosines, genres)
    same_genre = [1 - cosines[i, j] for i in range(7) for j in range(7) if i != j and genres[i] == genres[j]]
    other = [1 - cosines[i, j] for i in range(7) for j in range(7) if genres[i] != genres[j]]
    assert spreads[SAME_RECORDING].mean.mean == pytest.approx(np.mean([1 - cosines[i, i] for i in range(7)]))
    assert (spreads[SAME_GENRE].pairs, spreads[OTHER_GENRE].pairs) == (len(same_genre), len(other))
    assert spreads[OTHER_GENRE].low == pytest.approx(np.quantile(other, 0.05))
    assert spreads[SAME_GENRE].high == pytest.approx(np.quantile(same_genre, 0.95))
    per_clip = [np.mean([1 - cosines[i, j] for j in range(7) if genres[i] != genres[j]]) for i in range(7)]
    assert spreads[OTHER_GENRE].mean.mean == pytest.approx(np.mean(per_clip))
    assert spreads[OTHER_GENRE].mean.lo < spreads[OTHER_GENRE].mean.mean < spreads[OTHER_GENRE].mean.hi


def test_without_genres_all_others_are_one_kind():
    assert set(calibrate(np.eye(4), None)) == {SAME_RECORDING, ANY_GENRE}
    assert set(calibrate(np.eye(4), ["a"] * 4)) == {SAME_RECORDING, SAME_GENRE}
    assert set(calibrate(np.eye(4), list("abcd"))) == {SAME_RECORDING, OTHER_GENRE}
