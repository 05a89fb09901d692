"""Measures how well embeddings distinguish clips of one recording from clips of different recordings."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional.classification import binary_auroc
from torchmetrics.utilities import dim_zero_cat


def recall_at(similarity: Tensor, k: int, partners: Tensor | None = None) -> Tensor:
    """Returns recall@k: the share of queries whose partner is among the ``k`` most similar candidates.

    A candidate that is as similar as the partner ranks before it, so that equal embeddings have recall 0.

    Args:
        similarity: Similarities, ``(queries, candidates)``.
        k: Number of candidates to consider.
        partners: The partner of each query among the candidates, ``(queries,)``; None: candidate i is that of query i,
            and there are as many of both.

    Returns:
        A scalar in [0, 1].
    """
    partner = similarity.diagonal()[:, None] if partners is None else similarity.gather(1, partners[:, None])
    ahead = (similarity >= partner).sum(dim=1) - 1
    return (ahead < k).float().mean()


def same_different_auc(similarity: Tensor) -> Tensor:
    """Returns the area under the ROC curve of "same recording" against "different recordings", by similarity.

    It is the probability that a pair of one recording is more similar than a pair of two recordings. Ties count ½.

    Args:
        similarity: Similarities in [−1, 1], ``(n, n)``. Pairs of one recording are on the diagonal, pairs of two
            recordings off the diagonal.

    Returns:
        A scalar in [0, 1].
    """
    same = torch.eye(len(similarity), dtype=torch.long, device=similarity.device)
    # torchmetrics applies a sigmoid to scores outside [0, 1], and that rounds; so pass scores in [0, 1].
    return binary_auroc(((similarity + 1) / 2).clamp(0, 1).flatten(), same.flatten())


class PairRetrieval(Metric):
    """Computes recall@1, recall@5 and the ROC-AUC of same against different recordings.

    The first clip of each recording is the query for its second clip, among the second clips of all recordings over
    all batches and ranks.
    """

    full_state_update = False
    first: list[Tensor]
    second: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("first", default=[], dist_reduce_fx="cat")
        self.add_state("second", default=[], dist_reduce_fx="cat")

    def update(self, embeddings: Tensor) -> None:
        """Adds a batch of pairs of clips.

        Args:
            embeddings: Unit-norm embeddings, ``(pairs, 2, width)``.
        """
        self.first.append(embeddings[:, 0])
        self.second.append(embeddings[:, 1])

    def compute(self) -> dict[str, Tensor]:
        """Returns the scalars ``recall@1``, ``recall@5`` and ``auc``."""
        similarity = dim_zero_cat(self.first) @ dim_zero_cat(self.second).T
        return {
            "recall@1": recall_at(similarity, 1),
            "recall@5": recall_at(similarity, 5),
            "auc": same_different_auc(similarity),
        }
