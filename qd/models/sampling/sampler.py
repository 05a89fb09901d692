"""Samples codes from a language model, with or without classifier-free guidance, from given uniforms.

Randomness is a function, not a state: ``counter_uniforms`` draws the uniforms of a row from (seed, step, row) alone,
and the inverse CDF turns them into tokens, so a sample does not depend on its batch, its rank or what was sampled
before.
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
    """What one call of the sampler drew.

    Attributes:
        codes: ``(batch, codebooks, frames)``.
        log_probs: ``(batch, codebooks, steps)``, of each token under the distribution that it was drawn from (guidance,
            temperature and truncation included), in delayed steps; 0 where there is padding.
        entropy: ``(batch,)``, of those distributions, mean over the real tokens, in nats.
    """

    codes: Tensor
    log_probs: Tensor
    entropy: Tensor


def _merged(method: Callable[..., Sampled]) -> Callable[..., Sampled]:
    """Runs the method on a model of plain layers, into which the adapters of a LoRA are merged meanwhile."""

    @wraps(method)
    def run(self: Sampler, *arguments, **options) -> Sampled:
        with self.lm.merged() as lm:
            return method(Sampler(lm), *arguments, **options)

    return run


class Sampler:
    """Autoregressive sampling from a language model whose weights may change between calls.

    Each call reads the weights anew. Guidance (Eq. 1) runs conditional and negative rows in one batch and mixes their
    hidden states, ``scale * conditional + (1 - scale) * negative``: the heads are linear without bias, so this is the
    guidance of the logits at half the cost of the heads.
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
            condition: B rows; repeat a prompt's row for several samples of it.
            frames: codec frames T to draw.
            temperature: divides the logits, after guidance; one number, or one a row ``(batch,)``.
            uniforms: gives for each delayed step the uniforms ``(batch, codebooks)`` in [0, 1) that pick the tokens;
                not needed if ``greedy``.
            guidance_scale: 0 or more; 1 is no guidance, 0 the negative prompt alone.
            negative: negative prompt of the guidance, one row for all or B rows; None is unconditional.
            top_k: keep only the k likeliest tokens. Like ``top_p`` no part of the policy that is trained.
            top_p: keep the likeliest tokens up to this total probability.
            greedy: take the likeliest token.

        Raises:
            ValueError: if an argument is out of its range.
        """
        if problems := sampling_problems(temperature, guidance_scale, top_k, top_p):
            raise ValueError("\n".join(problems))
        if not greedy and uniforms is None:
            raise ValueError("uniforms are needed unless greedy; pass e.g. columns of counter_uniforms.")
        lm, batch, device = self.lm, len(condition), condition.states.device
        mask = delay_mask(lm.codebooks, frames, lm.channels, device)
        guided = guidance_scale != 1.0
        inverse_temperature = _inverse(temperature, batch, device)
        draw = Draw(inverse_temperature, uniforms, guided, guidance_scale, top_k, top_p, greedy)
        rows = _with_negative(condition, negative) if guided else condition
        delayed, log_probs, entropy = _loop(lm, device)(lm, rows, mask, draw)
        return Sampled(undelay(delayed, frames, lm.channels), log_probs, entropy / mask.sum())


def counter_uniforms(seed: int, step: int, rows: Iterable[int], codebooks: int, steps: int) -> Tensor:
    """Uniforms ``(rows, codebooks, steps)`` in [0, 1), float32: a pure function of (seed, step, row).

    Philox4x64 (Salmon et al. 2011) keyed by the seed, its counter starting at (0, 0, row, step): a row's numbers are
    the same whichever rows are drawn with it. Each is a multiple of 2^-24.

    Args:
        seed: non-negative, below 2^64.
        step: training step, or 0; non-negative.
        rows: global row numbers, over all ranks and micro-batches; non-negative.

    Raises:
        ValueError: if a number is negative.
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
    """One sentence for each argument of :meth:`Sampler.sample` that is out of its range, whatever the model."""
    found = []
    values = torch.as_tensor(temperature, dtype=torch.float32).flatten()
    if not bool((values.isfinite() & (values > 0)).all()):
        shown = temperature if isinstance(temperature, float | int) else values.tolist()
        found.append(f"temperature must be finite and above 0, got {shown}; for the likeliest use greedy.")
    if not 0 <= guidance_scale < math.inf:  # below 0 the prompt itself would be avoided
        found.append(f"guidance_scale must be finite and 0 or more, got {guidance_scale}; 1 is no guidance.")
    if top_k is not None and top_k < 1:
        found.append(f"top_k must be at least 1, got {top_k}; leave it out to keep all tokens.")
    if top_p is not None and not 0 < top_p <= 1:
        found.append(f"top_p must be in (0, 1], got {top_p}; leave it out to keep all tokens.")
    return found


def _loop(lm: LanguageModel, device: torch.device) -> Callable[..., tuple[Tensor, Tensor, Tensor]]:
    """The fastest there is; all compute the same."""
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
        raise ValueError(f"negative must have 1 row or {batch} (one for each of condition), got {len(negative)}.")
    return condition.cat(negative)


def _inverse(temperature: float | Tensor, batch: int, device: torch.device) -> Tensor:
    """1 / temperature, ``(1, 1, 1)`` or ``(batch, 1, 1)``."""
    values = torch.as_tensor(temperature, dtype=torch.float32).flatten()
    if len(values) not in (1, batch):
        raise ValueError(f"temperature must be one number or one for each of {batch} rows, got {len(values)}.")
    return values.reciprocal()[:, None, None].to(device, non_blocking=True)
