"""The semi-hard triplet loss that trains the embedder (FaceNet, Schroff et al. 2015; paper, Appendix D.1)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

NEGATIVES = ("all", "closest")
FALLBACKS = ("none", "easiest")


@dataclass(frozen=True)
class TripletResult:
    """The loss, and four scalars without gradient that tell how the training goes."""

    loss: Tensor
    active_share: Tensor
    """Share of the ordered positive pairs that are in a triplet; 0 if there are none."""
    positive_distance: Tensor
    """Mean squared distance of the positive pairs; 0 if there are none."""
    negative_distance: Tensor
    """Mean squared distance of the negative pairs; 0 if there are none."""
    hard_negative_distance: Tensor
    """Mean squared distance of each clip's closest negative; 0 if there are none."""


def semi_hard_triplet(
    embeddings: Tensor,
    labels: Tensor,
    margin: float = 0.2,
    negatives: str = "all",
    fallback: str = "none",
) -> TripletResult:
    """Mean of ``D_ap − D_an + margin`` over the semi-hard triplets of a batch: ``D_ap < D_an < D_ap + margin``.

    D is the squared Euclidean distance; a and p share a label, n has another. Without a triplet the loss is 0, and
    backpropagates zeros. Memory is O(batch²): the loss is linear in the distances, with the whole number of triplets
    that a pair is in as its weight, and sorted rows count those without listing them.

    Args:
        embeddings: ``(batch, width)``, unit norm.
        labels: ``(batch,)`` integers, one for each recording.
        margin: of the squared distance.
        negatives: ``all`` in the band of a positive pair, or its ``closest`` one.
        fallback: what to do with a positive pair that has no negative farther away: leave it out (``none``), or
            take the farthest negative (``easiest``), whose term is then at least the margin.

    Raises:
        ValueError: for wrong shapes, a margin that is not positive, or an unknown option.
    """
    _check(embeddings, labels, margin, negatives, fallback)
    same = labels[:, None] == labels[None, :]
    positive = same & ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    distance = _squared_distances(embeddings)
    weight = _triplet_counts(distance.detach(), positive, ~same, margin, negatives, fallback)
    triplets = weight.clamp_min(0).sum()
    loss = ((weight * distance).sum() + margin * triplets) / triplets.clamp_min(1)
    return TripletResult(
        loss,
        active_share=(weight > 0).sum() / positive.sum().clamp_min(1),
        positive_distance=_mean_where(distance.detach(), positive),
        negative_distance=_mean_where(distance.detach(), ~same),
        hard_negative_distance=_closest_mean(distance.detach(), same),
    )


def _triplet_counts(
    distance: Tensor, positive: Tensor, negative: Tensor, margin: float, negatives: str, fallback: str
) -> Tensor:
    """``(batch, batch)``: how many triplets (a, p) is the positive pair of, or minus how many (a, n) the negative."""
    # Both sides of a triplet compare the same two rounded numbers, so the counts agree to the last triplet.
    sorted_negatives, order = distance.masked_fill(~negative, torch.inf).sort(dim=1)
    nearer = torch.searchsorted(sorted_negatives, distance, right=True, out_int32=True)
    in_band = torch.searchsorted(sorted_negatives, distance + margin, out_int32=True) - nearer
    if negatives == "all":
        sorted_positives = distance.masked_fill(~positive, torch.inf).sort(dim=1).values
        closer = torch.searchsorted(sorted_positives, distance, out_int32=True)
        too_close = torch.searchsorted(sorted_positives + margin, distance, right=True, out_int32=True)
        counts = (in_band * positive - (closer - too_close) * negative).to(distance.dtype)
    else:
        counts = (positive & (in_band > 0)).to(distance.dtype)
        closest = order.gather(1, nearer.clamp_max(len(order) - 1).long())
        counts.scatter_add_(1, closest, -counts)
    if fallback == "easiest":
        number = negative.sum(1, keepdim=True)
        stranded = (positive & (nearer == number) & (number > 0)).to(distance.dtype)
        farthest = order.gather(1, (number - 1).clamp_min(0))
        counts = (counts + stranded).scatter_add_(1, farthest, -stranded.sum(1, keepdim=True))
    return counts


def _squared_distances(embeddings: Tensor) -> Tensor:
    # Half precision would round a distance by as much as a tenth of the margin.
    with torch.autocast(embeddings.device.type, enabled=False):
        embeddings = embeddings.to(torch.promote_types(embeddings.dtype, torch.float32))
        square = embeddings.square().sum(1)
        return square[:, None] + square[None, :] - 2 * embeddings @ embeddings.T


def _mean_where(values: Tensor, mask: Tensor) -> Tensor:
    return values.where(mask, 0.0).sum() / mask.sum().clamp_min(1)


def _closest_mean(distance: Tensor, same: Tensor) -> Tensor:
    closest = distance.masked_fill(same, torch.inf).amin(1)
    return _mean_where(closest, closest.isfinite())


def _check(embeddings: Tensor, labels: Tensor, margin: float, negatives: str, fallback: str) -> None:
    if embeddings.ndim != 2 or labels.shape != embeddings.shape[:1]:
        raise ValueError(
            f"embeddings are {tuple(embeddings.shape)} and labels {tuple(labels.shape)}: expected (batch, width) and "
            "(batch,). Give one label for each embedding."
        )
    if not margin > 0:
        raise ValueError(f"margin is {margin}: expected a positive number, such as 0.2.")
    if negatives not in NEGATIVES:
        raise ValueError(f"negatives is {negatives!r}: expected one of {', '.join(NEGATIVES)}.")
    if fallback not in FALLBACKS:
        raise ValueError(f"fallback is {fallback!r}: expected one of {', '.join(FALLBACKS)}.")
