"""Bradley–Terry loss: fits logits to the comparisons of listeners."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def bradley_terry_loss(first: Tensor, second: Tensor, preferred: Tensor, weight: Tensor | None = None) -> Tensor:
    """Returns the mean negative log-likelihood of comparisons under P(first ≻ second) = σ(first − second).

    ``Σ w · [−p · log σ(d) − (1 − p) · log σ(−d)] / Σ w`` with d = first − second, in nats. A tie, p = ½, counts as half
    a win for each side. Without knowledge, at d = 0, the loss is log 2.

    Args:
        first: Logits of the first clips, ``(comparisons,)``.
        second: Logits of the second clips, ``(comparisons,)``.
        preferred: p, 1 or True where the first clip was preferred, 0 where the second, ½ for a tie, ``(comparisons,)``.
        weight: w ≥ 0, the number of times that each comparison counts, ``(comparisons,)``. None: 1 for all.

    Returns:
        A scalar ≥ 0.

    Raises:
        ValueError: If the shapes differ, there is no comparison, or all weights are 0.

    Example:
        >>> import torch
        >>> bradley_terry_loss(torch.tensor([2.0, 1.0]), torch.tensor([0.0, 1.0]), torch.tensor([1.0, 0.5]))
        tensor(0.4100)
    """
    shapes = [tuple(t.shape) for t in (first, second, preferred, weight) if t is not None]
    if len(set(shapes)) > 1 or first.ndim != 1 or len(first) == 0:
        raise ValueError(f"shapes are {', '.join(map(str, shapes))}: expected (comparisons,) for all, 1 or more.")
    losses = F.binary_cross_entropy_with_logits(first - second, preferred.to(first.dtype), reduction="none")
    if weight is None:
        return losses.mean()
    if not (total := weight.sum()) > 0:
        raise ValueError(f"the weights sum to {float(total):g}: expected at least one weight above 0.")
    return (weight * losses).sum() / total
