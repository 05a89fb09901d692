"""Baselines for REINFORCE: what a prompt's reward was expected to be.

A baseline leaves the gradient unbiased only if it does not depend on the samples whose log-probability it weighs.
The mean over the N samples of *one* prompt does (with the shared reward it even equals it), so every baseline here
comes from elsewhere: other prompts, earlier steps, or the prompt's text.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BASELINES = ("none", "other_prompts", "moving_average", "prompt_moving_average", "value_head")

Gather = Callable[[Tensor], Tensor]
"""Concatenates a tensor over all ranks, along its first dimension."""


def this_rank(values: Tensor) -> Tensor:
    """The ``Gather`` of a single process."""
    return values


class Baseline(nn.Module):
    """No baseline, and the interface of the others.

    In a training step: ``forward``, then the policy gradient with ``rewards − baseline``, then ``update``.
    All rewards are ``(prompts, samples)`` and constants.
    """

    def forward(
        self, rewards: Tensor, prompts: Sequence[str], features: Tensor | None = None, gather: Gather = this_rank
    ) -> Tensor:
        """The baseline of each sample, ``(prompts, samples)``, which no reward of this step's own samples has entered.

        Args:
            rewards: ``(prompts, samples)`` of this step.
            prompts: their texts.
            features: ``(prompts, width)`` of the prompts' encoding; only the value head reads it.
            gather: concatenation over ranks.
        """
        return torch.zeros_like(rewards)

    @torch.no_grad()
    def update(self, rewards: Tensor, prompts: Sequence[str], gather: Gather = this_rank) -> None:
        """Learn from this step's rewards, alike on every rank. Only the moving averages do."""

    def loss(self, rewards: Tensor, features: Tensor | None = None) -> Tensor:
        """What to add to the training loss: a scalar, 0 for all but the value head."""
        return rewards.new_zeros(())


class OtherPrompts(Baseline):
    """The mean reward of all other prompts of the micro-batch, on all ranks: unbiased, and without a state."""

    def forward(
        self, rewards: Tensor, prompts: Sequence[str], features: Tensor | None = None, gather: Gather = this_rank
    ) -> Tensor:
        """As the base class says; raises ``ValueError`` if there is no other prompt."""
        own = rewards.mean(1, keepdim=True)
        everyone = gather(own)
        if len(everyone) < 2:
            raise ValueError(
                "baseline is 'other_prompts' with 1 prompt in the micro-batch on all ranks: expected 2 or more. Raise "
                "micro_batch_size, or choose the baseline 'moving_average'."
            )
        return ((everyone.sum() - own) / (len(everyone) - 1)).expand_as(rewards)


class MovingAverage(Baseline):
    """An exponential moving average of the mean reward of the earlier steps, without start-up bias; 0 at the first.

    Raises:
        ValueError: if ``decay`` is not in [0, 1).
    """

    def __init__(self, decay: float) -> None:
        super().__init__()
        if not 0 <= decay < 1:
            raise ValueError(f"baseline decay is {decay}: expected 0 ≤ decay < 1, such as 0.9.")
        self.decay = decay
        self.register_buffer("total", torch.zeros(()))
        self.register_buffer("weight", torch.zeros(()))

    @property
    def average(self) -> Tensor:
        """The average so far, a scalar."""
        return _ratio(self.total, self.weight)

    def forward(
        self, rewards: Tensor, prompts: Sequence[str], features: Tensor | None = None, gather: Gather = this_rank
    ) -> Tensor:
        return self.average.to(rewards.dtype).expand_as(rewards)

    @torch.no_grad()
    def update(self, rewards: Tensor, prompts: Sequence[str], gather: Gather = this_rank) -> None:
        self.total.lerp_(gather(rewards).mean().to(self.total.dtype), 1 - self.decay)
        self.weight.lerp_(torch.ones_like(self.weight), 1 - self.decay)


class PromptMovingAverage(MovingAverage):
    """The moving average of all rewards, plus one of each prompt's own distance from it.

    Distances, not rewards: when the reward of all prompts drifts in training, a prompt last met long ago has a stale
    reward, but still the right distance. A prompt never met has the average of all. Prompts share a table of fixed
    size by a hash of their text, so that the state stays small on an endless stream; two that meet in one slot
    blur each other's value and leave the gradient unbiased.

    Raises:
        ValueError: if ``decay`` is not in [0, 1).
    """

    SLOTS = 1 << 16

    def __init__(self, decay: float) -> None:
        super().__init__(decay)
        self.register_buffer("prompt_total", torch.zeros(self.SLOTS))
        self.register_buffer("prompt_weight", torch.zeros(self.SLOTS))

    def forward(
        self, rewards: Tensor, prompts: Sequence[str], features: Tensor | None = None, gather: Gather = this_rank
    ) -> Tensor:
        slots = self._slots(prompts)
        distance = _ratio(self.prompt_total[slots], self.prompt_weight[slots])
        return (self.average + distance).to(rewards.dtype)[:, None].expand_as(rewards)

    @torch.no_grad()
    def update(self, rewards: Tensor, prompts: Sequence[str], gather: Gather = this_rank) -> None:
        super().update(rewards, prompts, gather)
        distance = gather(rewards.mean(1)).to(self.total.dtype) - self.average
        slots = gather(self._slots(prompts))
        # Over the whole table, of which nearly all stays: to list the few others a GPU would have to be waited for.
        met = torch.zeros_like(self.prompt_weight).index_add_(0, slots, torch.ones_like(distance))
        mean = _ratio(torch.zeros_like(self.prompt_total).index_add_(0, slots, distance), met)
        share = (1 - self.decay) * (met > 0)
        self.prompt_total.lerp_(mean, share)
        self.prompt_weight.lerp_(torch.ones_like(mean), share)

    def _slots(self, prompts: Sequence[str]) -> Tensor:
        slots = [zlib.crc32(prompt.encode()) % self.SLOTS for prompt in prompts]
        return torch.tensor(slots).to(self.prompt_total.device, non_blocking=True)


class ValueHead(Baseline):
    """A linear function of the prompt's features, learned from the rewards of the earlier steps; 0 at the first."""

    def __init__(self, feature_width: int) -> None:
        super().__init__()
        self.head = nn.Linear(feature_width, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(
        self, rewards: Tensor, prompts: Sequence[str], features: Tensor | None = None, gather: Gather = this_rank
    ) -> Tensor:
        return self._value(features).detach().to(rewards.dtype)[:, None].expand_as(rewards)

    def loss(self, rewards: Tensor, features: Tensor | None = None) -> Tensor:
        """Mean squared error against each prompt's mean reward; its gradient reaches the head alone."""
        value = self._value(features)
        return F.mse_loss(value, rewards.detach().mean(1).to(value.dtype))

    def _value(self, features: Tensor | None) -> Tensor:
        if features is None:
            raise ValueError("the baseline 'value_head' got no features: expected (prompts, width). Pass them.")
        return self.head(features.detach())[:, 0]


def build_baseline(name: str, *, decay: float, feature_width: int) -> Baseline:
    """The baseline of that name.

    Args:
        name: one of ``BASELINES``.
        decay: of the two moving averages, in [0, 1).
        feature_width: of the prompt features that the value head reads.

    Raises:
        ValueError: if the name is unknown or the decay out of range.
    """
    builders: dict[str, Callable[[], Baseline]] = {
        "none": Baseline,
        "other_prompts": OtherPrompts,
        "moving_average": lambda: MovingAverage(decay),
        "prompt_moving_average": lambda: PromptMovingAverage(decay),
        "value_head": lambda: ValueHead(feature_width),
    }
    if name not in builders:
        raise ValueError(f"baseline is {name!r}: expected one of {', '.join(BASELINES)}.")
    return builders[name]()


def _ratio(total: Tensor, weight: Tensor) -> Tensor:
    """total / weight, 0 where nothing has been weighed yet."""
    return total / weight.masked_fill(weight == 0, 1.0)
