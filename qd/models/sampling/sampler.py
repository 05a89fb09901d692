"""Samples codes from a language model, with or without classifier-free guidance, from given uniforms.

Randomness is a function, not a state: ``counter_uniforms`` computes the uniforms of a row from (seed, step, row), and
the inverse CDF turns them into tokens. So a sample does not depend on its batch, its rank or earlier samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import wraps

import numpy as np
import torch
from torch import Tensor

from qd.models.condition import Condition
from qd.models.delay import delay_mask, undelay
from qd.models.language_model import LanguageModel
from qd.models.sampling.graphed_loop import draw_graphed, runs_graphed
from qd.models.sampling.stepwise_loop import draw_stepwise
from qd.models.sampling.token_loop import Draw, draw_compiled, runs_compiled


@dataclass(frozen=True)
class Sampled:
    """Result of one call of the sampler.

    Attributes:
        codes: Sampled codes ``(batch, codebooks, frames)``.
        log_probs: Log-probability of each token under the distribution that it was drawn from, after guidance,
            temperature and truncation, in delayed steps ``(batch, codebooks, steps)``; 0 for padding.
        entropy: Mean entropy of these distributions over the real tokens, in nats, ``(batch,)``.
    """

    codes: Tensor
    log_probs: Tensor
    entropy: Tensor


def _merged(method: Callable[..., Sampled]) -> Callable[..., Sampled]:
    """Runs the method on a model of plain layers, with any LoRA adapters merged into the weights."""

    @wraps(method)
    def run(self: Sampler, *arguments, **options) -> Sampled:
        with self.lm.merged() as lm:
            return method(Sampler(lm), *arguments, **options)

    return run


class Sampler:
    """Autoregressive sampling from a language model whose weights may change between calls.

    Each call reads the current weights. Guidance (Eq. 1) runs conditional and negative rows in one batch and mixes
    their hidden states, ``scale * conditional + (1 - scale) * negative``. The heads are linear without bias, so this
    equals guidance of the logits and halves the cost of the heads.
    """

    def __init__(self, lm: LanguageModel):
        self.lm = lm

    @torch.no_grad()
    @_merged
    def sample(
        self,
        condition: Condition,
        frames: int,
        *,
        temperature: float | Tensor = 1.0,
        uniforms: Callable[[int], Tensor] | None = None,
        guidance_scale: float = 1.0,
        negative: Condition | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        greedy: bool = False,
    ) -> Sampled:
        """Draws one sequence of codes for each row of ``condition``.

        Args:
            condition: B rows; several samples of a prompt need repeated rows.
            frames: Number of codec frames T.
            temperature: Divisor of the guided logits; one number, or one per row ``(batch,)``.
            uniforms: Function from a delayed step to its uniforms ``(batch, codebooks)`` in [0, 1), which select the
                tokens; not needed if ``greedy``.
            guidance_scale: γ, 0 or more; 1 is no guidance, 0 uses only the negative prompt.
            negative: Negative prompt of the guidance, one row for all or B rows; None is unconditional.
            top_k: Number of likeliest tokens that can be drawn. Like ``top_p``, it is not part of the trained policy.
            top_p: Total probability of the likeliest tokens that can be drawn.
            greedy: Whether to take the likeliest token.

        Raises:
            ValueError: an argument is out of its range.
        """
        if problems := sampling_problems(temperature, guidance_scale, top_k, top_p):
            raise ValueError("\n".join(problems))
        if not greedy and uniforms is None:
            raise ValueError("uniforms are needed unless greedy; pass, for example, columns of counter_uniforms.")
        lm, batch, device = self.lm, len(condition), condition.states.device
        mask = delay_mask(lm.codebooks, frames, lm.channels, device)
        guided = guidance_scale != 1.0
        inverse_temperature = _inverse(temperature, batch, device)
        draw = Draw(inverse_temperature, uniforms, guided, guidance_scale, top_k, top_p, greedy)
        rows = _with_negative(condition, negative) if guided else condition
        delayed, log_probs, entropy = _loop(lm, device)(lm, rows, mask, draw)
        return Sampled(undelay(delayed, frames, lm.channels), log_probs, entropy / mask.sum())


def counter_uniforms(seed: int, step: int, rows: Iterable[int], codebooks: int, steps: int) -> Tensor:
    """Returns float32 uniforms ``(rows, codebooks, steps)`` in [0, 1): a pure function of (seed, step, row).

    The generator is Philox4x64 (Salmon et al. 2011) with the seed as key and a counter that starts at
    (0, 0, row, step). So the numbers of a row do not depend on the other rows. Each is a multiple of 2^-24.

    Args:
        seed: Seed, non-negative and below 2^64.
        step: Training step, or 0; non-negative.
        rows: Global row numbers over all ranks and micro-batches; non-negative.
        codebooks: Number of codebooks.
        steps: Number of delayed steps.

    Raises:
        ValueError: a number is negative.
    """
    rows = [int(row) for row in rows]
    if min([seed, step, *rows]) < 0:
        raise ValueError(f"seed, step and rows must be non-negative, got seed={seed}, step={step}, rows={rows}.")
    raw = np.empty((len(rows), codebooks * steps), dtype=np.uint64)
    for index, row in enumerate(rows):
        raw[index] = np.random.Philox(counter=[0, 0, row, step], key=[seed, 0]).random_raw(codebooks * steps)
    uniforms = (raw >> np.uint64(40)).astype(np.float32) * np.float32(2**-24)
    return torch.from_numpy(uniforms).reshape(len(rows), codebooks, steps)


def sampling_problems(
    temperature: float | Tensor, guidance_scale: float, top_k: int | None, top_p: float | None
) -> list[str]:
    """Returns one sentence for each argument of :meth:`Sampler.sample` that is out of its range for any model."""
    problems = []
    values = torch.as_tensor(temperature, dtype=torch.float32).flatten()
    if not bool((values.isfinite() & (values > 0)).all()):
        value = temperature if isinstance(temperature, float | int) else values.tolist()
        problems.append(f"temperature must be finite and above 0, got {value}; for the likeliest tokens use greedy.")
    if not 0 <= guidance_scale < math.inf:  # a negative scale would avoid the prompt
        problems.append(f"guidance_scale must be finite and 0 or more, got {guidance_scale}; 1 is no guidance.")
    if top_k is not None and top_k < 1:
        problems.append(f"top_k must be at least 1, got {top_k}; omit it to keep all tokens.")
    if top_p is not None and not 0 < top_p <= 1:
        problems.append(f"top_p must be in (0, 1], got {top_p}; omit it to keep all tokens.")
    return problems


def _loop(lm: LanguageModel, device: torch.device) -> Callable[..., tuple[Tensor, Tensor, Tensor]]:
    """Returns the fastest available loop; all loops draw from the same distribution."""
    if runs_graphed(device):
        return draw_graphed
    return draw_compiled if runs_compiled(lm) else draw_stepwise


def _with_negative(condition: Condition, negative: Condition | None) -> Condition:
    batch, states = len(condition), condition.states
    if negative is None:
        negative = Condition.null(batch, states.shape[-1], states.device, states.dtype)
    elif len(negative) == 1:
        negative = negative.repeat_interleave(batch)
    if len(negative) != batch:
        raise ValueError(f"negative must have 1 row or {batch} (one per row of condition), got {len(negative)}.")
    return condition.cat(negative)


def _inverse(temperature: float | Tensor, batch: int, device: torch.device) -> Tensor:
    """Returns 1 / temperature, ``(1, 1, 1)`` or ``(batch, 1, 1)``."""
    values = torch.as_tensor(temperature, dtype=torch.float32).flatten()
    if len(values) not in (1, batch):
        raise ValueError(f"temperature must be one number or one for each of {batch} rows, got {len(values)}.")
    return values.reciprocal()[:, None, None].to(device, non_blocking=True)
