"""Baselines for REINFORCE: estimates of a prompt's expected reward.

A baseline keeps the gradient unbiased only if it does not depend on the samples whose log-probabilities it multiplies.
The mean over the N samples of the same prompt does depend on them; with the shared reward it even equals the reward. So
every baseline here uses other data: other prompts, earlier steps, or the text of the prompt.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BASELINES = ("none", "other_prompts", "moving_average", "prompt_moving_average", "value_head")

Gather = Callable[[Tensor], Tensor]
"""Concatenates a tensor over all ranks along its first dimension."""


def this_rank(values: Tensor) -> Tensor:
    """Returns the values of a single process: the ``Gather`` of a run without other ranks."""
    return values


class Baseline(nn.Module):
    """The interface of all baselines, and the baseline 0.

    A training step calls ``forward``, computes the policy gradient with ``rewards − baseline``, then calls ``update``.
    All rewards have the shape ``(prompts, samples)`` and carry no gradient.
    """

    def forward(
        self, rewards: Tensor, prompts: Sequence[str], features: Tensor | None = None, gather: Gather = this_rank
    ) -> Tensor:
        """Returns the baseline of each sample, independent of the rewards of the sample's own prompt in this step.

        Args:
            rewards: Rewards of this step, ``(prompts, samples)``.
            prompts: Texts of the prompts.
            features: Features of the prompts, ``(prompts, width)``. Only the value head reads them.
            gather: Concatenation over ranks.

        Returns:
            Baselines, ``(prompts, samples)``, equal for all samples of a prompt.
        """
        return torch.zeros_like(rewards)

    @torch.no_grad()
    def update(self, rewards: Tensor, prompts: Sequence[str], gather: Gather = this_rank) -> None:
        """Learns from the rewards of this step, with the same result on every rank. Only moving averages do so.

        Args:
            rewards: Rewards of this step, ``(prompts, samples)``.
            prompts: Texts of the prompts.
            gather: Concatenation over ranks.
        """

    def loss(self, rewards: Tensor, features: Tensor | None = None) -> Tensor:
        """Returns a scalar to add to the training loss. It is 0 for all baselines but the value head.

        Args:
            rewards: Rewards of this step, ``(prompts, samples)``.
            features: Features of the prompts, ``(prompts, width)``.
        """
        return rewards.new_zeros(())


class OtherPrompts(Baseline):
    """The mean reward of all other prompts in the micro-batches of all ranks: unbiased and without state."""

    def forward(
        self, rewards: Tensor, prompts: Sequence[str], features: Tensor | None = None, gather: Gather = this_rank
    ) -> Tensor:
        """See the base class. Raises ``ValueError`` if there is no other prompt."""
        own = rewards.mean(1, keepdim=True)
        everyone = gather(own)
        if len(everyone) < 2:
            raise ValueError(
                "baseline is 'other_prompts' with 1 prompt in the micro-batch on all ranks: expected 2 or more. Raise "
                "micro_batch_size, or choose the baseline 'moving_average'."
            )
        return ((everyone.sum() - own) / (len(everyone) - 1)).expand_as(rewards)


class MovingAverage(Baseline):
    """An exponential moving average of the mean reward of earlier steps, without start-up bias. It is 0 at first.

    With decay d the average after t steps is ``Σ_k d^(t−k) r_k / Σ_k d^(t−k)``.

    Args:
        decay: Decay d of each step, in [0, 1).

    Raises:
        ValueError: If ``decay`` is not in [0, 1).
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
        """Average of the steps so far, a scalar."""
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
    """The moving average over all prompts plus a moving average of each prompt's difference from it.

    It averages differences, not rewards: the reward of all prompts drifts during training, so the reward of a prompt
    that last occurred long ago is out of date, while its difference still holds. A new prompt has the difference 0.

    The prompts share a table of fixed size, indexed by a hash of their text, so that the state stays small on an
    endless stream. Two prompts in one slot share a value; the gradient stays unbiased.

    Args:
        decay: Decay of each step, in [0, 1).

    Raises:
        ValueError: If ``decay`` is not in [0, 1).
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
        difference = _ratio(self.prompt_total[slots], self.prompt_weight[slots])
        return (self.average + difference).to(rewards.dtype)[:, None].expand_as(rewards)

    @torch.no_grad()
    def update(self, rewards: Tensor, prompts: Sequence[str], gather: Gather = this_rank) -> None:
        super().update(rewards, prompts, gather)
        difference = gather(rewards.mean(1)).to(self.total.dtype) - self.average
        slots = gather(self._slots(prompts))
        # Updates the whole table, though few slots change: to list these, the program would have to wait for the GPU.
        count = torch.zeros_like(self.prompt_weight).index_add_(0, slots, torch.ones_like(difference))
        mean = _ratio(torch.zeros_like(self.prompt_total).index_add_(0, slots, difference), count)
        share = (1 - self.decay) * (count > 0)
        self.prompt_total.lerp_(mean, share)
        self.prompt_weight.lerp_(torch.ones_like(mean), share)

    def _slots(self, prompts: Sequence[str]) -> Tensor:
        slots = [zlib.crc32(prompt.encode()) % self.SLOTS for prompt in prompts]
        return torch.tensor(slots).to(self.prompt_total.device, non_blocking=True)


class ValueHead(Baseline):
    """A linear function of the prompt's features, learned from the rewards of earlier steps. It is 0 at first.

    Args:
        feature_width: Width of the features.
    """

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
        """Returns the mean squared error against each prompt's mean reward. Its gradient reaches only the head."""
        value = self._value(features)
        return F.mse_loss(value, rewards.detach().mean(1).to(value.dtype))

    def _value(self, features: Tensor | None) -> Tensor:
        if features is None:
            raise ValueError("the baseline 'value_head' needs features: expected (prompts, width), got None.")
        return self.head(features.detach())[:, 0]


def build_baseline(name: str, *, decay: float, feature_width: int) -> Baseline:
    """Returns the baseline with the given name.

    Args:
        name: One of ``BASELINES``.
        decay: Decay of the two moving averages, in [0, 1).
        feature_width: Width of the prompt features that the value head reads.

    Raises:
        ValueError: If the name is unknown, or the decay out of range.
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
    """Returns total / weight, or 0 where the weight is 0."""
    return total / weight.masked_fill(weight == 0, 1.0)
