"""Classifier-free guidance (CFG, Ho and Salimans 2022), which training distils into the model."""

from __future__ import annotations

import math

from torch import Tensor


def apply_guidance(conditional: Tensor, negative: Tensor, scale: float) -> Tensor:
    """Returns ``γ · conditional + (1 − γ) · negative``, the guided prediction (paper, Eq. 1).

    γ = 1 is the conditional model, γ > 1 extrapolates away from the negative prompt. The heads of the language model
    are linear without bias, so that guided hidden states, passed through the heads once, give the same logits as two
    guided sets of logits.

    Args:
        conditional: Logits or hidden states under the prompt, of any shape.
        negative: The same under the negative prompt or the null condition, of the same shape.
        scale: Guidance scale γ.

    Returns:
        Guided logits or hidden states, of the same shape.

    Raises:
        ValueError: If the shapes differ, or the scale is not finite.

    Example:
        >>> import torch
        >>> apply_guidance(torch.tensor([1.0, 2.0]), torch.tensor([0.0, 3.0]), scale=3.0)
        tensor([3., 0.])
    """
    if conditional.shape != negative.shape:
        raise ValueError(
            f"conditional is {tuple(conditional.shape)} and negative {tuple(negative.shape)}: expected equal shapes. "
            "Pass one negative row for each conditional row."
        )
    if not math.isfinite(scale):
        raise ValueError(f"guidance scale is {scale}: expected a finite number, such as 3.0.")
    return scale * conditional + (1 - scale) * negative
