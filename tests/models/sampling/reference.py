"""Reference sampling with full forward passes of the library's model."""

from __future__ import annotations

import torch

from qd.models.delay import delay_mask, undelay


def naive_logits(lm, delayed, condition):
    """A full forward pass of the library's model, over the pad and all steps except the last one."""
    inputs = torch.cat([torch.full_like(delayed[..., :1], lm.pad), delayed[..., :-1]], dim=-1)
    states = lm.projection(condition.states) * condition.mask[..., None]
    outputs = lm.decoder(
        inputs.flatten(0, 1), encoder_hidden_states=states, encoder_attention_mask=condition.mask.long()
    )
    return outputs.logits.reshape(*delayed.shape, -1)


def guided_logits(lm, delayed, condition, scale, negative):
    """Logits with classifier-free guidance."""
    if scale == 1:
        return naive_logits(lm, delayed, condition)
    return scale * naive_logits(lm, delayed, condition) + (1 - scale) * naive_logits(lm, delayed, negative)


def naive_greedy(lm, condition, frames, scale, negative):
    """Greedy codes, with a full forward pass for each step."""
    mask = delay_mask(lm.codebooks, frames, lm.channels)
    delayed = torch.full((len(condition), lm.codebooks, mask.shape[1]), lm.pad)
    for step in range(mask.shape[1]):
        best = guided_logits(lm, delayed, condition, scale, negative)[:, :, step].argmax(dim=-1)
        delayed[..., step] = best.where(mask[:, step], lm.pad)
    return undelay(delayed, frames, lm.channels)
