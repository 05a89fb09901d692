from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import MusicgenDecoderConfig, MusicgenForCausalLM

from qd.models.delay import delay, delay_mask, undelay

PAD = 99


@settings(deadline=None, max_examples=40)
@given(batch=st.integers(1, 3), pairs=st.integers(1, 4), frames=st.integers(1, 7), channels=st.integers(1, 2))
def test_equals_a_naive_loop_and_can_be_undone(batch, pairs, frames, channels):
    codebooks = pairs * channels
    codes = torch.arange(batch * codebooks * frames).reshape(batch, codebooks, frames)
    delayed, mask = delay(codes, -1, channels)
    steps = frames + pairs - 1
    assert delayed.shape == (batch, codebooks, steps) and mask.shape == (codebooks, steps)
    for b in range(batch):
        for q in range(codebooks):
            for s in range(steps):
                frame = s - q // channels
                real = 0 <= frame < frames
                assert mask[q, s] == real
                assert delayed[b, q, s] == (codes[b, q, frame] if real else -1)
    assert torch.equal(undelay(delayed, frames, channels), codes)


@pytest.mark.parametrize(("codebooks", "channels", "frames"), [(4, 1, 6), (1, 1, 3), (3, 1, 4), (4, 2, 5), (8, 2, 6)])
def test_equals_the_library(codebooks, channels, frames):
    """The library's pattern starts with a column of pads, the decoder's first input; ours starts one step later."""
    config = MusicgenDecoderConfig(
        vocab_size=PAD, pad_token_id=PAD, bos_token_id=PAD, hidden_size=8, num_hidden_layers=1, ffn_dim=8,
        num_attention_heads=1, num_codebooks=codebooks, audio_channels=channels,
    )  # fmt: skip
    decoder = MusicgenForCausalLM(config)
    codes = torch.randint(PAD, (2, codebooks, frames), generator=torch.Generator().manual_seed(0))
    start = torch.full((2 * codebooks, 1), PAD)
    _, pattern = decoder.build_delay_pattern_mask(start, PAD, max_length=frames + codebooks // channels)
    delayed, mask = delay(codes, PAD, channels)
    pattern = pattern.reshape(2, codebooks, -1)
    assert torch.equal(pattern[0] == -1, torch.cat([torch.zeros(codebooks, 1, dtype=torch.bool), mask], dim=1))
    inputs = torch.cat([torch.full((2, codebooks, 1), PAD), delayed], dim=-1)
    assert torch.equal(decoder.apply_delay_pattern_mask(inputs, pattern), inputs)


def test_bad_sizes_are_named():
    with pytest.raises(ValueError, match="frames .*got 0"):
        delay_mask(4, 0)
    with pytest.raises(ValueError, match="multiple of channels=2, got 3"):
        delay_mask(3, 5, channels=2)
    with pytest.raises(ValueError, match="take 8 delayed steps, got 7"):
        undelay(torch.zeros(1, 4, 7), 5)
