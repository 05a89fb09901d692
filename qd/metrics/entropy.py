"""Entropy per token of the policy (paper, Appendix D.2: a proxy of diversity, and a poor one)."""

from __future__ import annotations

from torch import Tensor

from qd.metrics.per_prompt import PerPrompt
from qd.objectives.distillation import entropy


def entropy_per_token(logits: Tensor, mask: Tensor, temperature: float) -> Tensor:
    """Mean entropy, in nats, of the sampling distribution over the real tokens of each sequence, `(batch,)`.

    Args:
        logits: `(batch, codebooks, steps, vocabulary)`.
        mask: `(codebooks, steps)`, true where a real token stands.
        temperature: of the sampling.

    Raises:
        ValueError: if the shapes disagree or the temperature is not a positive finite number.

    Example:
        >>> import torch
        >>> mask = torch.tensor([[True, True, False], [False, True, True]])
        >>> entropy_per_token(torch.zeros(1, 2, 3, 4), mask, temperature=0.99)  # log 4
        tensor([1.3863])
    """
    return entropy(logits, mask, temperature).sum((1, 2)) / mask.sum()


class Entropy(PerPrompt):
    """`entropy_per_token`, averaged over the samples of each prompt, then over prompts.

    Example:
        >>> import torch
        >>> metric = Entropy()
        >>> metric.update(torch.tensor([[1.0, 2.0], [3.0, 5.0]]))
        >>> metric.compute(), metric.per_prompt()
        (tensor(2.7500), tensor([1.5000, 4.0000]))
    """

    def update(self, entropies: Tensor) -> None:
        """Add prompts: `(prompts, samples)`, the mean entropy per token of each sample.

        Raises:
            ValueError: for another number of dimensions.
        """
        if entropies.ndim != 2:
            raise ValueError(
                f"entropies are {tuple(entropies.shape)}: expected (prompts, samples). "
                "Reshape the prompt-major rows with view(prompts, samples)."
            )
        self.values.append(entropies.mean(1))
