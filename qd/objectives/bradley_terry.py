"""Bradley–Terry: what a listener's comparisons say of the logits of the things compared."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def bradley_terry_loss(first: Tensor, second: Tensor, preferred: Tensor, weight: Tensor | None = None) -> Tensor:
    """Negative log-likelihood a comparison of P(first ≻ second) = σ(first − second), the mean over comparisons.

    Σ w · [−p · log σ(d) − (1 − p) · log σ(−d)] / Σ w, with d = first − second. A tie, p = ½, counts as half a win for
    each. To know nothing, d = 0, costs log 2.

    Args:
        first, second: logits of the two clips, ``(comparisons,)``.
        preferred: p, 1 or True where the first was preferred, 0 where the second was, ½ for a tie, ``(comparisons,)``.
        weight: w ≥ 0, how many comparisons each counts for, ``(comparisons,)``; 1 if None.

    Raises:
        ValueError: the shapes differ, there is no comparison, or all weights are 0.

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
        raise ValueError(f"the weights sum to {float(total):g}: expected at least one above 0.")
    return (weight * losses).sum() / total
