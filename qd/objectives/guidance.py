"""Classifier-free guidance (CFG): the strategy that is distilled."""

from __future__ import annotations

import math

from torch import Tensor


def apply_guidance(conditional: Tensor, negative: Tensor, scale: float) -> Tensor:
    """Extrapolate from the negative prompt's prediction through the prompt's own (paper, Eq. 1).

    ``γ · conditional + (1 − γ) · negative``: γ = 1 is the plain conditional model, γ > 1 extrapolates. The
    language-model heads are linear without bias, so guiding the hidden states and applying the heads once gives
    the same logits as guiding two sets of logits.

    Args:
        conditional: logits or hidden states under the prompt, any shape.
        negative: the same under the negative prompt or the null condition, same shape.
        scale: the guidance scale γ.

    Raises:
        ValueError: if the shapes differ or the scale is not finite.

    Example:
        >>> import torch
        >>> apply_guidance(torch.tensor([1.0, 2.0]), torch.tensor([0.0, 3.0]), scale=3.0)
        tensor([3., 0.])
    """
    if conditional.shape != negative.shape:
        raise ValueError(
            f"conditional is {tuple(conditional.shape)} and negative {tuple(negative.shape)}: expected one shape. "
            "Give one negative row for each conditional row."
        )
    if not math.isfinite(scale):
        raise ValueError(f"guidance scale is {scale}: expected a finite number, such as 3.0.")
    return scale * conditional + (1 - scale) * negative
