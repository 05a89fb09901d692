"""The plain token loop for any device and precision, and the drawing of one step's tokens."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from qd.models.condition import Condition
from qd.models.language_model import LanguageModel
from qd.models.sampling.cached_decoder import CachedDecoder
from qd.models.sampling.token_loop import Draw
from qd.objectives.guidance import apply_guidance


def draw_stepwise(lm: LanguageModel, condition: Condition, mask: Tensor, draw: Draw) -> tuple[Tensor, Tensor, Tensor]:
    """Draws a batch with plain PyTorch operations.

    Args:
        lm: Language model.
        condition: One row per sequence; with guidance, followed by one negative row per sequence.
        mask: Delayed positions that hold a real token, ``(codebooks, steps)``.
        draw: How tokens are drawn.

    Returns:
        Delayed tokens and log-probabilities ``(batch, codebooks, steps)``; entropies ``(batch,)``, summed over tokens.
    """
    batch, device = len(condition) // (2 if draw.guided else 1), condition.states.device
    decoder = CachedDecoder(lm, condition, mask.shape[1])
    delayed = torch.full((batch, *mask.shape), lm.pad, device=device)
    log_probs = torch.zeros(batch, *mask.shape, device=device)
    entropy = torch.zeros(batch, lm.codebooks, device=device)
    tokens = delayed[..., 0]
    for step, real in enumerate(mask.T):
        hidden = guided_hidden(decoder.advance(both_halves(tokens, draw)), draw)
        uniforms = None if draw.uniforms is None else draw.uniforms(step)
        drawn, scores, entropies = draw_from(decoder.heads(hidden), draw, uniforms)
        tokens = drawn.where(real, lm.pad)
        delayed[..., step] = tokens
        log_probs[..., step] = scores.where(real, 0.0)
        entropy += entropies.where(real, 0.0)
    return delayed, log_probs, entropy.sum(dim=1)


def both_halves(tokens: Tensor, draw: Draw) -> Tensor:
    """Repeats the last tokens ``(batch, codebooks)`` for the negative rows if there is guidance."""
    return tokens.repeat(2, 1) if draw.guided else tokens


def guided_hidden(hidden: Tensor, draw: Draw) -> Tensor:
    """Returns the guided hidden states ``(batch, width)``; the conditional rows come before the negative rows."""
    return apply_guidance(*hidden.chunk(2), draw.guidance_scale) if draw.guided else hidden


def draw_from(logits: Tensor, draw: Draw, uniforms: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Draws the tokens of one step.

    Args:
        logits: Float32 logits ``(batch, codebooks, tokens)``.
        draw: How tokens are drawn.
        uniforms: Uniforms ``(batch, codebooks)``; None if ``draw.greedy``.

    Returns:
        Tokens, their log-probabilities and the entropies of their distributions, each ``(batch, codebooks)``.
    """
    scores = truncate(logits * draw.inverse_temperature, draw.top_k, draw.top_p).log_softmax(dim=-1)
    probs = scores.exp()
    drawn = scores.argmax(dim=-1) if draw.greedy else inverse_cdf(probs, uniforms)
    # 0 · log 0 is 0.
    entropy = -torch.linalg.vecdot(probs, scores.clamp_min(torch.finfo(scores.dtype).min))
    return drawn, scores.gather(-1, drawn[..., None])[..., 0], entropy


def inverse_cdf(probs: Tensor, uniforms: Tensor) -> Tensor:
    """Returns the first token at which the running sum of ``probs`` ``(..., tokens)`` reaches ``uniforms · total``.

    It never returns a token of probability 0, even if a uniform ``(...)`` is exactly 0.
    """
    cdf = probs.cumsum(dim=-1)
    threshold = (uniforms * cdf[..., -1]).clamp_min(torch.finfo(cdf.dtype).tiny)
    return (cdf < threshold[..., None]).sum(dim=-1)


def truncate(logits: Tensor, top_k: int | None = None, top_p: float | None = None) -> Tensor:
    """Sets logits outside the ``top_k`` likeliest tokens, then outside the top ``top_p`` of probability, to -inf."""
    if top_k is not None and top_k < logits.shape[-1]:
        smallest = logits.topk(top_k, dim=-1).values[..., -1:]
        logits = logits.masked_fill(logits < smallest, -math.inf)
    if top_p is not None and top_p < 1:
        ordered, order = logits.sort(dim=-1, descending=True)
        probs = ordered.softmax(dim=-1)
        # A token is removed if likelier tokens already reach top_p, so the likeliest token always stays.
        removed = probs.cumsum(dim=-1) - probs >= top_p
        logits = logits.masked_fill(removed.scatter(-1, order, removed), -math.inf)
    return logits
