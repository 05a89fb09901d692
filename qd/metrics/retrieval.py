"""Does an embedding tell whether two clips are of the same recording?"""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional.classification import binary_auroc
from torchmetrics.utilities import dim_zero_cat


def recall_at(similarity: Tensor, k: int) -> Tensor:
    """Share of queries whose own partner is among the ``k`` most similar candidates.

    A candidate as similar as the partner counts as ahead of it, so that equal embeddings do not score.

    Args:
        similarity: ``(queries, candidates)``, square; the partner of query i is candidate i.
        k: how many candidates are looked at.

    Returns:
        A scalar in [0, 1].
    """
    partner = similarity.diagonal()[:, None]
    ahead = (similarity >= partner).sum(dim=1) - 1
    return (ahead < k).float().mean()


def same_different_auc(similarity: Tensor) -> Tensor:
    """Area under the ROC curve of "same recording" against "different", by similarity.

    The probability that a pair of one recording is more alike than a pair of two; ties count one half.

    Args:
        similarity: ``(n, n)``; the diagonal holds the pairs of one recording, all the rest are of two.
    """
    same = torch.eye(len(similarity), dtype=torch.long, device=similarity.device)
    # Without thresholds torchmetrics squeezes scores outside [0, 1] by a sigmoid, which rounds: hand it [0, 1].
    return binary_auroc(((similarity + 1) / 2).clamp(0, 1).flatten(), same.flatten())


class PairRetrieval(Metric):
    """Retrieval among pairs of clips: recall@1, recall@5 and the ROC-AUC of same against different.

    Each recording's first clip looks for its second among all second clips, over all batches and ranks.
    """

    full_state_update = False
    first: list[Tensor]
    second: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("first", default=[], dist_reduce_fx="cat")
        self.add_state("second", default=[], dist_reduce_fx="cat")

    def update(self, embeddings: Tensor) -> None:
        """Adds unit-norm embeddings ``(pairs, 2, width)``."""
        self.first.append(embeddings[:, 0])
        self.second.append(embeddings[:, 1])

    def compute(self) -> dict[str, Tensor]:
        """``recall@1``, ``recall@5`` and ``auc``."""
        similarity = dim_zero_cat(self.first) @ dim_zero_cat(self.second).T
        return {
            "recall@1": recall_at(similarity, 1),
            "recall@5": recall_at(similarity, 5),
            "auc": same_different_auc(similarity),
        }
