"""The semi-hard triplet loss that trains the embedder (FaceNet, Schroff et al. 2015; paper, Appendix D.1)."""

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
"""Distances that are held at once."""
FEW = 8
"""Up to so many numbers are compared one after the other faster than a binary search finds a place among them."""


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
    backpropagates zeros. The loss is linear in the distances, with the whole number of triplets that a pair is in as
    its weight. So loss and gradient are added up over blocks of anchors, and beyond a batch whose distances fit into
    one block no ``(batch, batch)`` tensor exists: memory is O(batch · width) and a block's, whatever the labels. The
    gradient is found with the loss, which can be differentiated only once.

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
    # Half precision would round a distance by as much as a tenth of the margin.
    embeddings = embeddings.to(torch.promote_types(embeddings.dtype, torch.float32))
    with torch.autocast(embeddings.device.type, enabled=False):
        return TripletResult(*_Triplets.apply(embeddings, labels, margin, negatives, fallback))


class _Triplets(torch.autograd.Function):
    """The fields of :class:`TripletResult`, of which the loss has a gradient."""

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
    def backward(ctx: Any, of_loss: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        return of_loss * ctx.saved_tensors[0], None, None, None, None


def _blocks(labels: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Anchors, and the columns ``(anchors, most)`` of the clips of their labels, themselves among them.

    Anchors of a label that has fewer clips than another are repeated up to ``most``.
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
        place = torch.where(present, first[anchors, None] + slots, 0)
        yield anchors, torch.where(present, order[place], columns[anchors, None])


def _weigh(
    distance: Tensor, members: Tensor, own: Tensor, margin: float, negatives: str, fallback: str
) -> tuple[Tensor, Tensor, Tensor]:
    """What a block of anchors adds.

    Args:
        distance: ``(anchors, batch)``.
        members: ``(anchors, most)``, of :func:`_blocks`.
        own: ``(anchors, 1)``, columns of the anchors themselves.
        margin, negatives, fallback: of :func:`semi_hard_triplet`.

    Returns:
        ``(anchors, batch)``, how many triplets (a, p) is the positive pair of, or minus how many (a, n) the negative;
        the sums of weight · distance, and of the distances of positive pairs, negative pairs and closest negatives;
        the numbers of triplets, positive pairs, negative pairs, anchors with a negative, and pairs in a triplet.
    """
    # Both sides of a comparison are rounded numbers of the same row, so the counts agree to the last triplet.
    negative = distance.scatter(1, members, -torch.inf)
    positive, order = distance.gather(1, members).masked_fill(members == own, torch.inf).sort(dim=1)
    positive, members = positive[:, :-1].contiguous(), members.gather(1, order)[:, :-1]  # the last is the anchor
    counts, weight = (_all_in_band if negatives == "all" else _closest_in_band)(positive, negative, margin)
    paired, apart = positive.isfinite(), negative.isfinite()
    if fallback == "easiest":
        farthest, column = negative.max(dim=1, keepdim=True)
        stranded = paired & farthest.isfinite() & (positive >= farthest)
        counts = counts + stranded
        weight.scatter_add_(1, column, -stranded.sum(1, keepdim=True).to(weight.dtype))
    weight.scatter_add_(1, members, counts.to(weight.dtype))
    closest = negative.masked_fill(~apart, torch.inf).amin(dim=1)
    near = closest.isfinite()
    terms = (weight * distance, positive.where(paired, 0), negative.where(apart, 0), closest.where(near, 0))
    numbers = (counts, paired, apart, near, counts > 0)
    return weight, torch.stack([term.sum() for term in terms]), torch.stack([number.sum() for number in numbers])


def _all_in_band(positive: Tensor, negative: Tensor, margin: float) -> tuple[Tensor, Tensor]:
    """Triplets of each positive pair, and minus those of each negative pair.

    A negative is in the bands of the positives that are closer, but for those that are closer by the margin: sorted
    positives ``(anchors, positives)`` tell how many these are, and so which.
    """
    closer = _rank(positive, negative)
    too_close = _rank(positive + margin, negative, right=True)
    counts = _above(closer, positive.shape[1]) - _above(too_close, positive.shape[1])
    return counts, (too_close - closer).to(negative.dtype)


def _rank(ordered: Tensor, values: Tensor, right: bool = False) -> Tensor:
    """For each value, how many numbers of its row of ``ordered`` are less, or with ``right`` not greater."""
    if ordered.shape[1] > FEW:
        return torch.searchsorted(ordered, values, right=right, out_int32=True)
    compare, rank = torch.ge if right else torch.gt, torch.zeros_like(values, dtype=torch.int32)
    for column in ordered.unbind(1):
        rank += compare(values, column[:, None])
    return rank


def _above(rank: Tensor, positives: int) -> Tensor:
    """``(anchors, positives)``: how many of an anchor's ranks are above 0, 1, …, positives − 1."""
    row = torch.arange(len(rank), dtype=rank.dtype, device=rank.device)[:, None] * (positives + 1)
    histogram = torch.bincount((row + rank).flatten(), minlength=len(rank) * (positives + 1)).view(len(rank), -1)
    return histogram.flip(1).cumsum(1).flip(1)[:, 1:]


def _closest_in_band(positive: Tensor, negative: Tensor, margin: float) -> tuple[Tensor, Tensor]:
    """As :func:`_all_in_band`, of the one triplet that each positive pair is in at most."""
    ordered, order = negative.sort(dim=1)
    place = torch.searchsorted(ordered, positive, right=True)
    exists, place = place < ordered.shape[1], place.clamp_max(ordered.shape[1] - 1)
    counts = (exists & (ordered.gather(1, place) < positive + margin)).long()
    weight = torch.zeros_like(negative)
    return counts, weight.scatter_add_(1, order.gather(1, place), -counts.to(weight.dtype))


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
