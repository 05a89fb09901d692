"""What one micro-batch of training passes from the sampler to the objectives."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from qd.models.condition import Condition


@dataclass(frozen=True)
class Rollout:
    """Sequences that the student sampled, N for each of P prompts, prompt-major (rows i·N … i·N+N−1 are prompt i's).

    Attributes:
        prompts: the P texts.
        features: ``(prompts, text_width)``, mean text-encoder state of each prompt: what a value head sees.
        condition: one row for each of the B = P·N sequences.
        codes: ``(batch, codebooks, frames)``, the sampled tokens.
        delayed: ``(batch, codebooks, steps)``, the same in the order in which they were decoded.
        mask: ``(codebooks, steps)``, True where ``delayed`` holds a real token.
        log_probs: ``(batch, codebooks, steps)``, of the sampled tokens under the policy that sampled them.
        entropy: ``(batch,)``, of that policy, mean over the tokens, in nats.
    """

    prompts: list[str]
    features: Tensor
    condition: Condition
    codes: Tensor
    delayed: Tensor
    mask: Tensor
    log_probs: Tensor
    entropy: Tensor

    @property
    def tokens(self) -> int:
        """Tokens of one sequence, Q·T."""
        return self.codes.shape[1] * self.codes.shape[2]


@dataclass(frozen=True)
class RolloutStats:
    """How the sequences of one micro-batch were judged; kept for the guards, all detached.

    Attributes:
        prompts: the P texts.
        kl: ``(prompts, samples)``, KL(student ‖ guided teacher) summed over a sequence's tokens, in nats.
        rewards: ``(prompts, samples)``.
    """

    prompts: list[str]
    kl: Tensor
    rewards: Tensor
