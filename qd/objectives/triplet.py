"""Semi-hard triplet loss that trains the embedder (FaceNet, Schroff et al. 2015; paper, Appendix D.1)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

NEGATIVES = ("all", "closest")
FALLBACKS = ("none", "easiest")
BLOCK = 2**19
"""Distances in memory at once."""
FEW = 8
"""Largest number of positives for which a linear search is faster than a binary search."""


@dataclass(frozen=True)
class TripletResult:
    """The loss, and four scalars without gradient that describe how the training proceeds."""

    loss: Tensor
    active_share: Tensor
    """Share of the ordered positive pairs that are in a triplet; 0 if there is no positive pair."""
    positive_distance: Tensor
    """Mean squared distance of the positive pairs; 0 if there is none."""
    negative_distance: Tensor
    """Mean squared distance of the negative pairs; 0 if there is none."""
    hard_negative_distance: Tensor
    """Mean squared distance of each clip to its closest negative; 0 if there is none."""


def semi_hard_triplet(
    embeddings: Tensor,
    labels: Tensor,
    margin: float = 0.2,
    negatives: str = "all",
    fallback: str = "none",
) -> TripletResult:
    """Returns the mean of ``D_ap − D_an + margin`` over the semi-hard triplets: ``D_ap < D_an < D_ap + margin``.

    D is the squared Euclidean distance. Anchor a and positive p have the same label, negative n has another one. If
    there is no triplet, the loss and its gradient are 0.

    The loss is linear in the distances: the weight of a pair is the number of triplets that it is in. So loss and
    gradient accumulate over blocks of anchors, and a large batch needs no ``(batch, batch)`` tensor. Memory is
    O(batch · width) plus one block, whatever the labels. The forward pass computes the gradient, so the loss can be
    differentiated only once.

    Args:
        embeddings: Unit-norm embeddings, ``(batch, width)``. Half precision is computed in float32.
        labels: Integer label of each clip's recording, ``(batch,)``.
        margin: Margin of the squared distance, > 0.
        negatives: ``all`` negatives in the band of a positive pair, or the ``closest`` one.
        fallback: Treatment of a positive pair without a farther negative: ``none`` leaves it out, ``easiest``
            takes the farthest negative, whose term is then at least the margin.

    Returns:
        Loss and diagnostics, see :class:`TripletResult`.

    Raises:
        ValueError: If a shape is wrong, the margin is not positive, or an option is unknown.
    """
    _check(embeddings, labels, margin, negatives, fallback)
    # Half precision would round a distance by up to a tenth of the margin.
    embeddings = embeddings.to(torch.promote_types(embeddings.dtype, torch.float32))
    with torch.autocast(embeddings.device.type, enabled=False):
        return TripletResult(*_Triplets.apply(embeddings, labels, margin, negatives, fallback))


class _Triplets(torch.autograd.Function):
    """Computes the fields of :class:`TripletResult`. Only the loss has a gradient."""

    @staticmethod
    def forward(
        ctx: Any, embeddings: Tensor, labels: Tensor, margin: float, negatives: str, fallback: str
    ) -> tuple[Tensor, ...]:
        square = embeddings.square().sum(1)
        sums, numbers = square.new_zeros(4), torch.zeros(5, dtype=torch.long, device=square.device)
        degree, pulled = torch.zeros_like(square), torch.zeros_like(embeddings)
        for anchors, members in _blocks(labels):
            rows = embeddings[anchors]
            distance = torch.addmm(square[anchors, None] + square, rows, embeddings.T, alpha=-2)
            own = torch.arange(len(labels), device=labels.device)[anchors, None]
            weight, block_sums, block_numbers = _weigh(distance, members, own, margin, negatives, fallback)
            sums += block_sums
            numbers += block_numbers
            if ctx.needs_input_grad[0]:
                degree[anchors] += weight.sum(1)
                degree += weight.sum(0)
                pulled[anchors] += weight @ embeddings
                pulled.addmm_(weight.T, rows)
        triplets, pairs, active = numbers[0], numbers[1], numbers[4]
        # Σ w_ij ‖e_i − e_j‖² has the gradient 2 Σ_j (w_ij + w_ji) (e_i − e_j).
        ctx.save_for_backward(2 * (degree[:, None] * embeddings - pulled) / triplets.clamp_min(1))
        excess, *distances = sums / numbers[:4].clamp_min(1)
        diagnostics = (active / pairs.clamp_min(1), *distances)
        ctx.mark_non_differentiable(*diagnostics)
        return excess + margin * (triplets > 0).to(excess.dtype), *diagnostics

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        return grad_loss * ctx.saved_tensors[0], None, None, None, None


def _blocks(labels: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Yields blocks of anchors, with the columns of all clips of each anchor's label, ``(anchors, most)``.

    The anchor's own column is among them. If its label has fewer than ``most`` clips, the anchor's own column fills the
    rest.
    """
    batch = len(labels)
    columns = torch.arange(batch, device=labels.device)
    ordered, order = labels.sort(stable=True)
    first = torch.searchsorted(ordered, labels)
    size = torch.searchsorted(ordered, labels, right=True) - first
    slots, rows = columns[: int(size.max())], max(1, BLOCK // batch)
    for start in range(0, batch, rows):
        anchors = slice(start, start + rows)
        present = slots < size[anchors, None]
        position = torch.where(present, first[anchors, None] + slots, 0)
        yield anchors, torch.where(present, order[position], columns[anchors, None])


def _weigh(
    distance: Tensor, members: Tensor, own: Tensor, margin: float, negatives: str, fallback: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns what a block of anchors contributes to the loss, the gradient and the diagnostics.

    Args:
        distance: Squared distances, ``(anchors, batch)``.
        members: Columns of the clips of each anchor's label, ``(anchors, most)``, from :func:`_blocks`.
        own: Column of each anchor, ``(anchors, 1)``.
        margin: As in :func:`semi_hard_triplet`.
        negatives: As in :func:`semi_hard_triplet`.
        fallback: As in :func:`semi_hard_triplet`.

    Returns:
        Three tensors. First, the weight of each pair, ``(anchors, batch)``: the number of triplets with (a, p) as
        positive pair, or minus the number of those with (a, n) as negative pair. Second, sums of weight · distance and
        of the distances of positive pairs, negative pairs and closest negatives. Third, the numbers of triplets,
        positive pairs, negative pairs, anchors with a negative, and pairs in a triplet.
    """
    # All comparisons use the same rounded distances of a row, so the counts of positives and negatives agree exactly.
    # Both sides of a comparison are rounded numbers of the same row, so the counts agree to the last triplet.
    negative = distance.scatter(1, members, -torch.inf)
    positive, order = distance.gather(1, members).masked_fill(members == own, torch.inf).sort(dim=1)
    positive, members = positive[:, :-1].contiguous(), members.gather(1, order)[:, :-1]  # the last one is the anchor
    counts, weight = (_all_in_band if negatives == "all" else _closest_in_band)(positive, negative, margin)
    is_positive, is_negative = positive.isfinite(), negative.isfinite()
    if fallback == "easiest":
        farthest, column = negative.max(dim=1, keepdim=True)
        without_farther = is_positive & farthest.isfinite() & (positive >= farthest)
        counts = counts + without_farther
        weight.scatter_add_(1, column, -without_farther.sum(1, keepdim=True).to(weight.dtype))
    weight.scatter_add_(1, members, counts.to(weight.dtype))
    closest = negative.masked_fill(~is_negative, torch.inf).amin(dim=1)
    has_negative = closest.isfinite()
    terms = (
        weight * distance,
        positive.where(is_positive, 0),
        negative.where(is_negative, 0),
        closest.where(has_negative, 0),
    )
    numbers = (counts, is_positive, is_negative, has_negative, counts > 0)
    return weight, torch.stack([term.sum() for term in terms]), torch.stack([number.sum() for number in numbers])


def _all_in_band(positive: Tensor, negative: Tensor, margin: float) -> tuple[Tensor, Tensor]:
    """Returns the number of triplets of each positive pair, and minus that of each negative pair.

    A negative is in the band of every positive that is closer, except those that are closer by the margin or more. So
    two ranks among the sorted positives ``(anchors, positives)`` count and identify the bands of a negative.
    """
    closer = _rank(positive, negative)
    too_close = _rank(positive + margin, negative, right=True)
    counts = _above(closer, positive.shape[1]) - _above(too_close, positive.shape[1])
    return counts, (too_close - closer).to(negative.dtype)


def _rank(ordered: Tensor, values: Tensor, right: bool = False) -> Tensor:
    """Returns, for each value, how many numbers in its row of ``ordered`` are smaller, or with ``right`` not larger."""
    if ordered.shape[1] > FEW:
        return torch.searchsorted(ordered, values, right=right, out_int32=True)
    compare, rank = torch.ge if right else torch.gt, torch.zeros_like(values, dtype=torch.int32)
    for column in ordered.unbind(1):
        rank += compare(values, column[:, None])
    return rank


def _above(rank: Tensor, positives: int) -> Tensor:
    """Returns how many of an anchor's ranks are above 0, 1, …, positives − 1: ``(anchors, positives)``."""
    row = torch.arange(len(rank), dtype=rank.dtype, device=rank.device)[:, None] * (positives + 1)
    histogram = torch.bincount((row + rank).flatten(), minlength=len(rank) * (positives + 1)).view(len(rank), -1)
    return histogram.flip(1).cumsum(1).flip(1)[:, 1:]


def _closest_in_band(positive: Tensor, negative: Tensor, margin: float) -> tuple[Tensor, Tensor]:
    """Same as :func:`_all_in_band`, with at most one triplet for each positive pair: that of the closest negative."""
    ordered, order = negative.sort(dim=1)
    position = torch.searchsorted(ordered, positive, right=True)
    exists, position = position < ordered.shape[1], position.clamp_max(ordered.shape[1] - 1)
    counts = (exists & (ordered.gather(1, position) < positive + margin)).long()
    weight = torch.zeros_like(negative)
    return counts, weight.scatter_add_(1, order.gather(1, position), -counts.to(weight.dtype))


def _check(embeddings: Tensor, labels: Tensor, margin: float, negatives: str, fallback: str) -> None:
    if embeddings.ndim != 2 or labels.shape != embeddings.shape[:1]:
        raise ValueError(
            f"embeddings are {tuple(embeddings.shape)} and labels {tuple(labels.shape)}: expected (batch, width) and "
            "(batch,). Pass one label for each embedding."
        )
    if not margin > 0:
        raise ValueError(f"margin is {margin}: expected a positive number, such as 0.2.")
    if negatives not in NEGATIVES:
        raise ValueError(f"negatives is {negatives!r}: expected one of {', '.join(NEGATIVES)}.")
    if fallback not in FALLBACKS:
        raise ValueError(f"fallback is {fallback!r}: expected one of {', '.join(FALLBACKS)}.")
