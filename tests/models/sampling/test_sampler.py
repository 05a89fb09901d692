"""The sampler, compared with the library: greedy codes, log-probabilities, and independence of rows."""

from __future__ import annotations

import random
from collections import Counter

import pytest
import torch

from qd.models.condition import Condition
from qd.models.delay import delay
from qd.models.language_model import LanguageModel
from qd.models.sampling import sampler
from qd.models.sampling.cached_decoder import CachedDecoder, shared_rows
from qd.models.sampling.compiled import load_library
from qd.models.sampling.sampler import Sampler, counter_uniforms
from tests.models.sampling.reference import guided_logits, naive_greedy, naive_logits

CONFIGS = [
    {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_codebooks": 4},
    {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 3, "num_codebooks": 1, "vocab_size": 11},
    {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 1, "num_codebooks": 3, "ffn_dim": 20},
    {"hidden_size": 32, "num_attention_heads": 8, "num_codebooks": 2, "activation_function": "relu"},
    {"hidden_size": 20, "num_attention_heads": 2, "num_codebooks": 5, "scale_embedding": True},
    {"hidden_size": 16, "num_attention_heads": 2, "num_codebooks": 4, "audio_channels": 2},
    {"hidden_size": 16, "num_attention_heads": 2, "num_codebooks": 4, "max_position_embeddings": 5},
]


@pytest.mark.parametrize("scale", [1.0, 3.0])
@pytest.mark.parametrize("index", range(len(CONFIGS)))
@torch.no_grad()
def test_greedy_codes_equal_a_naive_loop_over_the_library(index, scale, make_lm, make_condition):
    lm = make_lm(seed=index, text_width=10 if index % 2 else None, **CONFIGS[index])
    batch, width = 1 + index % 3, 10 if index % 2 else CONFIGS[index]["hidden_size"]
    condition = make_condition(batch, 1 + index, width, seed=index)
    negative = make_condition(batch, 3, width, seed=100 + index)
    expected = naive_greedy(lm, condition, 5 + index, scale, negative)
    sampled = Sampler(lm).sample(condition, 5 + index, greedy=True, guidance_scale=scale, negative=negative)
    assert torch.equal(sampled.codes, expected)
    assert len(expected.unique()) > 1


def random_config(seed: int) -> tuple[dict[str, object], int, int, int, int]:
    """Sizes of a decoder; prompts, samples per prompt, text length and frames. The C++ loop does not support every
    fifth configuration."""
    rng = random.Random(seed)
    heads, channels = rng.choice([1, 2, 4, 5]), rng.choice([1, 2])
    sizes = {
        "hidden_size": heads * rng.choice([4, 6, 8, 16]), "num_attention_heads": heads, "audio_channels": channels,
        "num_hidden_layers": rng.randint(1, 4), "num_codebooks": channels * rng.randint(1, 4),
        "ffn_dim": rng.choice([12, 33, 64]), "vocab_size": rng.choice([5, 16, 40]),
        "activation_function": "gelu" if seed % 5 else rng.choice(["relu", "gelu_new"]),
    }  # fmt: skip
    return sizes, rng.randint(1, 4), rng.randint(1, 3), rng.randint(1, 9), rng.randint(1, 14)


RANDOM_SEEDS = range(26)


def test_the_random_configurations_are_mono_and_stereo_for_either_loop():
    drawn = [random_config(seed)[0] for seed in RANDOM_SEEDS]
    count = Counter((sizes["activation_function"] == "gelu", sizes["audio_channels"]) for sizes in drawn)
    assert count[True, 1] + count[True, 2] >= 20 and min(count[True, 1], count[True, 2]) >= 8
    assert min(count[False, 1], count[False, 2]) >= 2


@pytest.mark.parametrize("seed", RANDOM_SEEDS)
@torch.no_grad()
def test_greedy_codes_and_logits_equal_the_librarys_in_random_configurations(
    seed, make_lm, make_condition, monkeypatch
):
    """Several samples of a prompt share its text keys; the logits of every step are compared along the drawn codes."""
    used = []
    for loop in (sampler.draw_compiled, sampler.draw_stepwise):
        monkeypatch.setattr(sampler, loop.__name__, lambda *args, loop=loop: used.append(loop.__name__) or loop(*args))
    sizes, prompts, samples, length, frames = random_config(seed)
    lm = make_lm(seed=seed, **sizes)
    condition = make_condition(prompts, length, sizes["hidden_size"], seed=seed).repeat_interleave(samples)
    negative = make_condition(1, 3, sizes["hidden_size"], seed=9).repeat_interleave(len(condition))
    scale = 1.0 if seed % 2 else 3.0
    sampled = Sampler(lm).sample(condition, frames, greedy=True, guidance_scale=scale, negative=negative)
    compiled = sizes["activation_function"] == "gelu" and load_library() is not None
    assert used == ["draw_compiled" if compiled else "draw_stepwise"]
    assert torch.equal(sampled.codes, naive_greedy(lm, condition, frames, scale, negative))
    delayed, mask = delay(sampled.codes, lm.pad, lm.channels)
    scores = guided_logits(lm, delayed, condition, scale, negative).log_softmax(dim=-1)
    picked = scores.gather(-1, delayed.clamp_max(lm.pad - 1)[..., None])[..., 0] * mask
    torch.testing.assert_close(sampled.log_probs, picked, atol=1e-4, rtol=0)
    decoder = CachedDecoder(lm, condition, mask.shape[1])
    tokens, logits = torch.full_like(delayed[..., 0], lm.pad), []
    for step in range(mask.shape[1]):
        logits.append(decoder.heads(decoder.advance(tokens)))
        tokens = delayed[..., step]
    torch.testing.assert_close(torch.stack(logits, dim=2), naive_logits(lm, delayed, condition), atol=1e-4, rtol=0)


def test_rows_that_share_a_prompt_are_found(make_condition):
    five, same = make_condition(5, 4, 8), make_condition(1, 4, 8).repeat_interleave(6)
    assert shared_rows(five) == 1 and shared_rows(five.repeat_interleave(3)) == 3 and shared_rows(same) == 6
    assert shared_rows(five.repeat_interleave(4).cat(same)) == 2
    other_mask = Condition(same.states, same.mask.clone())
    other_mask.mask[3:, -1] = False
    assert shared_rows(other_mask) == 3


@torch.no_grad()
def test_each_row_has_its_own_temperature(make_lm, make_condition):
    lm, condition = make_lm(seed=2), make_condition(3, 5, 32)
    uniforms = counter_uniforms(3, 7, range(3), 4, 20)
    temperatures = torch.tensor([0.7, 1.0, 1.5])
    together = Sampler(lm).sample(condition, 12, temperature=temperatures, uniforms=lambda step: uniforms[..., step])
    for row, temperature in enumerate(temperatures.tolist()):
        alone = Sampler(lm).sample(condition, 12, temperature=temperature, uniforms=lambda step: uniforms[..., step])
        assert torch.equal(together.codes[row], alone.codes[row])
        torch.testing.assert_close(together.log_probs[row], alone.log_probs[row])
    with pytest.raises(ValueError, match="temperature .*3 rows, got 2"):
        Sampler(lm).sample(condition, 12, temperature=temperatures[:2], greedy=True)


@pytest.mark.parametrize("scale", [None, 3.0])
@pytest.mark.parametrize("channels", [1, 2])
@torch.no_grad()
def test_greedy_codes_equal_the_librarys_generate(channels, scale, make_library_model, monkeypatch):
    """``generate`` only returns audio, so the test intercepts the codes that it passes to the codec."""
    model, decoded = make_library_model(channels), []
    decode = model.audio_encoder.decode

    def spy(codes, **keywords):
        decoded.append(codes[0])
        return decode(codes, **keywords)

    monkeypatch.setattr(model.audio_encoder, "decode", spy)
    ids, mask = torch.tensor([[3, 5, 1, 0], [4, 9, 7, 1]]), torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]])
    model.generate(
        ids, attention_mask=mask, do_sample=False, max_length=13, guidance_scale=scale, num_return_sequences=1
    )
    expected = torch.stack(decoded, dim=2).flatten(1, 2)
    lm = LanguageModel(model.decoder, model.enc_to_dec_proj)
    condition = Condition(model.text_encoder(ids, attention_mask=mask).last_hidden_state, mask.bool())
    sampled = Sampler(lm).sample(condition, 13 - 4, greedy=True, guidance_scale=scale or 1.0)
    assert torch.equal(sampled.codes, expected)


@pytest.mark.parametrize(
    ("scale", "negative_rows", "temperature"), [(1.0, 0, 0.99), (3.0, 3, 0.99), (3.0, 1, 0.99), (3.0, 0, 1.3)]
)
@pytest.mark.parametrize("index", range(len(CONFIGS)))
@torch.no_grad()
def test_sampled_log_probs_and_entropy_equal_rescored_ones(
    index, scale, negative_rows, temperature, make_lm, make_condition
):
    lm = make_lm(seed=index, **CONFIGS[index])
    width, frames = CONFIGS[index]["hidden_size"], 9
    condition = make_condition(3, 5, width)
    negative = make_condition(negative_rows, 7, width, seed=9) if negative_rows else None
    uniforms = counter_uniforms(0, 1, range(3), lm.codebooks, frames + lm.codebooks)
    sampled = Sampler(lm).sample(
        condition, frames, temperature=temperature, uniforms=lambda step: uniforms[:, :, step],
        guidance_scale=scale, negative=negative,
    )  # fmt: skip
    delayed, mask = delay(sampled.codes, lm.pad, lm.channels)
    if negative is None:
        negative = Condition(torch.zeros(3, 4, width), torch.zeros(3, 4, dtype=torch.bool))
    elif negative_rows == 1:
        negative = negative.repeat_interleave(3)
    scores = (guided_logits(lm, delayed, condition, scale, negative) / temperature).log_softmax(dim=-1)
    picked = scores.gather(-1, delayed.clamp_max(lm.pad - 1)[..., None])[..., 0] * mask
    rounding = 1e-4 * (2 * scale - 1)  # guidance multiplies the rounding errors by γ and γ − 1
    torch.testing.assert_close(sampled.log_probs, picked, atol=rounding, rtol=0)
    entropy = -(scores.exp() * scores).sum(dim=-1)[:, mask].mean(dim=-1)
    torch.testing.assert_close(sampled.entropy, entropy, atol=rounding, rtol=0)


@torch.no_grad()
def test_under_autocast_the_plain_loop_is_the_policy_that_is_scored(make_lm, make_condition, monkeypatch):
    monkeypatch.setattr("qd.models.sampling.sampler.runs_compiled", lambda lm: False)
    lm, condition = make_lm(seed=1), make_condition(4, 5, 32)
    uniforms = counter_uniforms(0, 1, range(4), lm.codebooks, 20)
    with torch.autocast("cpu", torch.bfloat16):
        sampled = Sampler(lm).sample(condition, 12, uniforms=lambda step: uniforms[..., step])
        delayed, mask = delay(sampled.codes, lm.pad, lm.channels)
        rounded = lm.logits(delayed, condition).float()
    exact = naive_logits(lm, delayed, condition)

    def log_probs(logits):
        return logits.log_softmax(dim=-1).gather(-1, delayed.clamp_max(lm.pad - 1)[..., None])[..., 0] * mask

    # bfloat16 has 8 bits: sampling and scoring both round the logits by about 2^-8 of their size.
    tolerance = 2**-5 * float(exact.abs().max())
    torch.testing.assert_close(sampled.log_probs, log_probs(rounded), atol=tolerance, rtol=0)
    torch.testing.assert_close(sampled.log_probs, log_probs(exact), atol=tolerance, rtol=0)
    assert (sampled.log_probs - log_probs(exact)).abs().max() > 1e-3  # sampling did use bfloat16


@torch.no_grad()
def test_a_row_does_not_depend_on_the_batch(make_lm, make_condition):
    lm = make_lm(seed=2)
    condition = make_condition(4, 5, 32)
    uniforms = counter_uniforms(3, 7, range(4), 4, 20)
    together = Sampler(lm).sample(condition, 12, uniforms=lambda step: uniforms[:, :, step])
    row = Condition(condition.states[2:3], condition.mask[2:3])
    alone = Sampler(lm).sample(row, 12, uniforms=lambda step: uniforms[2:3, :, step])
    assert torch.equal(together.codes[2:3], alone.codes)


@torch.no_grad()
def test_weights_are_read_at_every_call(make_lm, make_condition):
    lm = make_lm(seed=0)
    condition, sampler = make_condition(2, 3, 32), Sampler(lm)
    before = sampler.sample(condition, 6, greedy=True).codes
    lm.load_state_dict(make_lm(seed=1).state_dict())
    after = sampler.sample(condition, 6, greedy=True).codes
    assert not torch.equal(before, after)
    assert torch.equal(after, Sampler(lm).sample(condition, 6, greedy=True).codes)
