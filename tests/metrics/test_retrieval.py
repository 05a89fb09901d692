"""Retrieval metrics against naive loops."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from qd.metrics.retrieval import PairRetrieval, recall_at, same_different_auc


def naive_recall(similarity: list[list[float]], k: int) -> float:
    hits = 0
    for i, row in enumerate(similarity):
        ranking = sorted(range(len(row)), key=lambda j: (-row[j], j == i))  # the partner is last among equals
        hits += i in ranking[:k]
    return hits / len(similarity)


def naive_auc(similarity: list[list[float]]) -> float:
    n = len(similarity)
    same = [similarity[i][i] for i in range(n)]
    different = [similarity[i][j] for i in range(n) for j in range(n) if i != j]
    wins = sum((s > d) + 0.5 * (s == d) for s in same for d in different)
    return wins / (len(same) * len(different))


@settings(max_examples=40, deadline=None)
@given(n=st.integers(2, 9), seed=st.integers(0, 999), levels=st.sampled_from([3, 100]))
def test_both_metrics_equal_naive_loops_also_with_ties(n: int, seed: int, levels: int):
    generator = torch.Generator().manual_seed(seed)
    similarity = torch.randint(-levels, levels + 1, (n, n), generator=generator) / levels
    for k in (1, 5):
        torch.testing.assert_close(recall_at(similarity, k).item(), naive_recall(similarity.tolist(), k))
    torch.testing.assert_close(same_different_auc(similarity).item(), naive_auc(similarity.tolist()), rtol=0, atol=1e-6)


def test_the_metric_accumulates_batches():
    pairs = F.normalize(torch.randn(11, 2, 4, generator=torch.Generator().manual_seed(0)), dim=-1)
    metric = PairRetrieval()
    for part in pairs.split(4):
        metric.update(part)
    similarity = pairs[:, 0] @ pairs[:, 1].T
    values = metric.compute()
    assert values["recall@1"] == naive_recall(similarity.tolist(), 1)
    assert values["recall@5"] == naive_recall(similarity.tolist(), 5)
    torch.testing.assert_close(values["auc"].item(), naive_auc(similarity.tolist()), rtol=0, atol=1e-6)


def test_equal_embeddings_have_recall_zero():
    values = PairRetrieval()(F.normalize(torch.ones(8, 2, 3), dim=-1))
    assert values["recall@1"] == values["recall@5"] == 0
    assert values["auc"] == 0.5
