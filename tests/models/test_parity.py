"""Comparison with the library on checkpoints with its classes and config values: scores, guidance, greedy codes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoProcessor, MusicgenForConditionalGeneration

from qd.models.codecs import encodec
from qd.models.delay import delay
from qd.models.musicgen import MusicGen
from qd.models.sampling.sampler import Sampler

PROMPTS = ["a slow jazz tune with a trumpet", "fast drums"]
FRAMES = 9


@pytest.fixture(scope="module")
def ours(real_checkpoint: Path) -> MusicGen:
    return MusicGen.load(real_checkpoint)


@pytest.fixture(scope="module")
def library(real_checkpoint: Path) -> MusicgenForConditionalGeneration:
    model = MusicgenForConditionalGeneration.from_pretrained(real_checkpoint, dtype=torch.float32).eval()
    model.set_attn_implementation({"decoder": "sdpa"})
    return model


@pytest.fixture(scope="module")
def inputs(real_checkpoint: Path) -> dict[str, Tensor]:
    return dict(AutoProcessor.from_pretrained(real_checkpoint)(text=PROMPTS, padding=True, return_tensors="pt"))


def delayed_by_the_library(model: MusicgenForConditionalGeneration, codes: Tensor) -> Tensor:
    """Delays codes ``(batch, codebooks, frames)`` with the library; returns its ``(batch · codebooks, steps)``."""
    batch, codebooks, frames = codes.shape
    start = torch.full((batch * codebooks, 1), 2048)
    length = frames + codebooks // model.decoder.config.audio_channels
    _, pattern = model.decoder.build_delay_pattern_mask(start, 2048, length)
    decoder_ids = start
    for step in range(1, length):
        decoder_ids = torch.cat([decoder_ids, torch.zeros_like(start)], dim=1)
        position = step - 1 - torch.arange(codebooks) // model.decoder.config.audio_channels
        real = codes[:, torch.arange(codebooks), position.clamp(0, frames - 1)].flatten()
        decoder_ids[:, -1] = real
    return model.decoder.apply_delay_pattern_mask(decoder_ids, pattern)


def codes_for(music: MusicGen) -> Tensor:
    return torch.randint(2048, (2, music.lm.codebooks, FRAMES), generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_scores_equal_the_librarys_forward_with_its_delay(ours, library, inputs) -> None:
    codes = codes_for(ours)
    ids = delayed_by_the_library(library, codes)
    delayed, _ = delay(codes, ours.lm.pad, ours.lm.channels)
    assert torch.equal(ids.view(2, ours.lm.codebooks, -1)[..., 1:], delayed)  # without the first column of pads
    expected = library(**inputs, decoder_input_ids=ids[:, :-1]).logits.view(2, ours.lm.codebooks, -1, 2048)
    logits = ours.lm.logits(delayed, ours.condition(PROMPTS))
    torch.testing.assert_close(logits, expected, atol=2e-4, rtol=1e-4)
    assert (logits[0] - logits[1]).abs().max() > 0.1  # the text has an effect


@torch.no_grad()
def test_guided_scores_equal_the_librarys_unconditional_branch(ours, library, inputs) -> None:
    """The library's rows are encoder states, then zeros with a zero mask, which means "unconditional"."""
    codes = codes_for(ours)
    ids = delayed_by_the_library(library, codes)[:, :-1]
    states = library.text_encoder(**inputs).last_hidden_state
    both = torch.cat([states, torch.zeros_like(states)])
    mask = torch.cat([inputs["attention_mask"], torch.zeros_like(inputs["attention_mask"])])
    doubled = library(encoder_outputs=(both,), attention_mask=mask, decoder_input_ids=ids.repeat(2, 1)).logits
    conditional, null = doubled.view(4, ours.lm.codebooks, -1, 2048).chunk(2)
    expected = null + 3.0 * (conditional - null)
    delayed, _ = delay(codes, ours.lm.pad, ours.lm.channels)
    conditions = ours.condition(PROMPTS), ours.null_condition(2)
    hidden = [ours.lm.hidden_states(delayed, condition) for condition in conditions]
    logits = ours.lm.heads(3.0 * hidden[0] - 2.0 * hidden[1])
    torch.testing.assert_close(logits, expected, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("scale", [1.0, 3.0])
@torch.no_grad()
def test_greedy_codes_equal_generates(ours, library, inputs, scale: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """``generate`` only returns audio, so the test intercepts the codes that it passes to the codec."""
    decoded: list[Tensor] = []
    decode = library.audio_encoder.decode

    def spy(codes: Tensor, **options):
        decoded.append(codes[0])
        return decode(codes, **options)

    monkeypatch.setattr(library.audio_encoder, "decode", spy)
    length = FRAMES + ours.lm.codebooks // ours.lm.channels
    audio = library.generate(**inputs, do_sample=False, max_length=length, guidance_scale=scale)
    expected = torch.stack(decoded, dim=2).flatten(1, 2)
    sampled = Sampler(ours.lm).sample(ours.condition(PROMPTS), FRAMES, greedy=True, guidance_scale=scale)
    assert torch.equal(sampled.codes, expected)
    assert len(expected.unique()) > 10
    decoded_audio = ours.decode(sampled.codes)
    torch.testing.assert_close(decoded_audio, audio.mean(dim=1), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(ours.decode_channels(sampled.codes), audio, atol=1e-4, rtol=1e-4)
    monkeypatch.setattr(encodec, "SAMPLES_AT_ONCE", 1)  # one clip at a time
    torch.testing.assert_close(ours.decode_channels(sampled.codes), audio, atol=1e-4, rtol=1e-4)
    assert decoded_audio.shape == (2, FRAMES * 640) and ours.sample_rate == 32_000
