"""Records of one micro-batch: what the sampler hands to the objectives, and what the guards check."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from qd.models.condition import Condition


@dataclass(frozen=True)
class Rollout:
    """Sequences sampled from the student, N for each of P prompts: rows i·N … i·N+N−1 belong to prompt i.

    Attributes:
        prompts: Texts of the P prompts.
        features: Mean text-encoder state of each prompt, for a value head, ``(prompts, text_width)``.
        condition: Text condition of each of the B = P·N sequences.
        codes: Sampled tokens, ``(batch, codebooks, frames)``.
        delayed: Sampled tokens in decoding order, ``(batch, codebooks, steps)``.
        mask: True where ``delayed`` has a real token, ``(codebooks, steps)``.
        log_probs: Log-probabilities of the tokens under the policy that sampled them, ``(batch, codebooks, steps)``.
        entropy: Entropy of that policy in nats, mean over the tokens, ``(batch,)``.
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
        """Number of tokens of a sequence, Q·T."""
        return self.codes.shape[1] * self.codes.shape[2]


@dataclass(frozen=True)
class RolloutStats:
    """KL and rewards of the sequences of one micro-batch, without gradient.

    Attributes:
        prompts: Texts of the P prompts.
        kl: KL(student ‖ guided teacher) in nats, summed over a sequence's tokens, ``(prompts, samples)``.
        rewards: Diversity rewards, ``(prompts, samples)``.
    """

    prompts: list[str]
    kl: Tensor
    rewards: Tensor
