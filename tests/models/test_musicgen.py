from __future__ import annotations

import copy
import json

import pytest
import torch
from torch import nn
from transformers import AutoProcessor, AutoTokenizer, MusicgenForCausalLM, T5EncoderModel

from qd.models.condition import Condition
from qd.models.delay import delay
from qd.models.language_model import LanguageModel
from qd.models.musicgen import MusicGen
from qd.models.sampling.sampler import Sampler, counter_uniforms

PROMPTS = ["a calm piano", "rock with bright jazz piano", ""]


def random_codes(lm: LanguageModel, batch: int, frames: int) -> torch.Tensor:
    return torch.randint(lm.codebook_size, (batch, lm.codebooks, frames), generator=torch.Generator().manual_seed(0))


def library_logits(model, delayed, condition):
    """Logits of the library's complete model from text-encoder states; its decoder input starts with a pad."""
    inputs = torch.cat([torch.full_like(delayed[..., :1], 16), delayed[..., :-1]], dim=-1)
    outputs = model(
        encoder_outputs=(condition.states,),
        attention_mask=condition.mask.long(),
        decoder_input_ids=inputs.flatten(0, 1),
    )
    return outputs.logits.reshape(*delayed.shape, -1)


def equal_weights(first: nn.Module, second: nn.Module) -> bool:
    left, right = first.state_dict(), second.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


@pytest.mark.parametrize("text_width", [24, 32])
@pytest.mark.parametrize("channels", [1, 2])
@torch.no_grad()
def test_logits_equal_the_librarys_forward(channels, text_width, make_library_model, make_condition):
    model = make_library_model(channels, text_width)
    lm = LanguageModel(model.decoder, model.enc_to_dec_proj if text_width != 32 else None)
    condition = make_condition(3, 5, text_width)
    condition.mask[2] = False
    delayed, _ = delay(random_codes(lm, 3, 6), lm.pad, channels)
    logits = lm.logits(delayed, condition)
    torch.testing.assert_close(logits, library_logits(model, delayed, condition), atol=1e-4, rtol=1e-5)
    assert (logits[0] - logits[1]).abs().max() > 0.1


@torch.no_grad()
def test_null_condition_equals_the_librarys_unconditional_inputs(make_library_model):
    model = make_library_model()
    lm = LanguageModel(model.decoder, model.enc_to_dec_proj)
    delayed, _ = delay(random_codes(lm, 2, 5), lm.pad)
    inputs = model.get_unconditional_inputs(2)
    expected = library_logits(model, delayed, Condition(inputs.encoder_outputs[0], inputs.attention_mask.bool()))
    torch.testing.assert_close(lm.logits(delayed, Condition.null(2, 24)), expected, atol=1e-4, rtol=1e-5)
    with_padding = Condition.null(2, 24).cat(Condition(torch.randn(1, 6, 24), torch.ones(1, 6, dtype=torch.bool)))
    padded = lm.logits(delayed, Condition(with_padding.states[:2], with_padding.mask[:2]))
    torch.testing.assert_close(padded, expected, atol=1e-4, rtol=1e-5)


def test_gradients_are_finite_and_reach_every_weight(make_lm, make_condition):
    lm = make_lm(text_width=10)
    condition = make_condition(2, 4, 10).cat(Condition.null(1, 10))
    delayed, _ = delay(random_codes(lm, 3, 6), lm.pad)
    lm.logits(delayed, condition).square().mean().backward()
    gradients = {name: weight.grad for name, weight in lm.named_parameters()}
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients.values())
    assert all(gradient.abs().max() > 0 for gradient in gradients.values())


def test_stays_in_eval_mode_inside_any_module(make_lm, make_condition):
    lm = make_lm()
    assert lm.decoder.config.dropout == 0.1
    wrapper = nn.ModuleDict({"student": lm}).train()
    assert wrapper.training and not any(module.training for module in lm.modules())
    delayed, _ = delay(random_codes(lm, 2, 5), lm.pad)
    condition = make_condition(2, 3, 32)
    assert torch.equal(lm.logits(delayed, condition), lm.logits(delayed, condition))


def test_a_copy_is_independent(make_lm, make_condition):
    student = make_lm(text_width=10)
    teacher = copy.deepcopy(student).requires_grad_(False)
    delayed, _ = delay(random_codes(student, 2, 5), student.pad)
    condition = make_condition(2, 3, 10)
    before = teacher.logits(delayed, condition)
    with torch.no_grad():
        for weight in student.parameters():
            weight += 0.1
    assert torch.equal(teacher.logits(delayed, condition), before)
    assert not torch.equal(student.logits(delayed, condition), before)
    student.load_state_dict(teacher.state_dict())
    assert torch.equal(student.logits(delayed, condition), before)


def test_wrong_pad_token_is_refused(make_lm):
    decoder = make_lm().decoder
    decoder.config.pad_token_id = 0
    with pytest.raises(ValueError, match="pad_token_id.*vocab_size=16.*got 0"):
        LanguageModel(decoder)


def test_condition_rows(make_condition):
    first, second = make_condition(2, 5, 4, seed=1), make_condition(1, 3, 4, seed=2)
    repeated = first.repeat_interleave(3)
    assert len(repeated) == 6
    assert all(torch.equal(repeated.states[row], first.states[row // 3]) for row in range(6))
    both = first.cat(second)
    assert both.states.shape == (3, 5, 4) and torch.equal(both.mask[:2], first.mask)
    assert torch.equal(both.states[2, :3], second.states[0]) and not both.states[2, 3:].any()
    assert torch.equal(both.mask[2, :3], second.mask[0]) and not both.mask[2, 3:].any()
    assert torch.equal(second.cat(first).states[1:], first.states)
    assert first.to("cpu").states.device.type == "cpu"


@pytest.fixture(scope="module", params=["tiny_model", "encodec_checkpoint"])
def folder(request):
    """A checkpoint in each layout."""
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def model(folder):
    return MusicGen.load(folder)


def test_only_the_language_model_is_trained(model):
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert trained == {f"lm.{name}" for name, _ in model.lm.named_parameters()}
    assert "lm.projection.weight" in trained
    assert not any(module.training for module in model.train().modules())


@torch.no_grad()
def test_generates_and_scores(model):
    condition = model.condition(PROMPTS).repeat_interleave(2)
    frames = model.frames(8 / model.codec.frame_rate)
    assert frames == 8
    uniforms = counter_uniforms(0, 0, range(6), model.lm.codebooks, frames + 3)
    sampled = Sampler(model.lm).sample(
        condition, frames, temperature=0.99, uniforms=lambda step: uniforms[:, :, step],
        guidance_scale=3.0, negative=model.condition(["bad quality"]),
    )  # fmt: skip
    assert sampled.codes.shape == (6, model.lm.codebooks, frames)
    delayed, mask = delay(sampled.codes, model.lm.pad)
    negative = model.lm.logits(delayed, model.condition(["bad quality"]).repeat_interleave(6))
    logits = 3.0 * model.lm.logits(delayed, condition) - 2.0 * negative
    scores = (logits / 0.99).log_softmax(dim=-1).gather(-1, delayed.clamp_max(model.lm.pad - 1)[..., None])[..., 0]
    torch.testing.assert_close(sampled.log_probs[:, mask], scores[:, mask], atol=1e-4, rtol=0)
    audio = model.decode(sampled.codes)
    assert audio.shape == (6, frames * model.codec.samples_per_frame) and audio.dtype == torch.float32
    assert audio.isfinite().all() and not torch.equal(audio[0], audio[1])
    assert model.codec.encode(audio).shape == sampled.codes.shape


def test_condition_does_not_depend_on_the_other_prompts(model):
    together, alone = model.condition(PROMPTS), model.condition(PROMPTS[:1])
    length = alone.states.shape[1]
    assert torch.equal(together.mask[0, :length], alone.mask[0]) and not together.mask[0, length:].any()
    torch.testing.assert_close(together.states[0, :length], alone.states[0], atol=1e-5, rtol=1e-4)
    null = model.null_condition(2)
    assert null.states.shape[-1] == alone.states.shape[-1] and not null.states.any() and not null.mask.any()


def test_saves_and_reloads_equal(model, tmp_path):
    changed = copy.deepcopy(model)
    with torch.no_grad():
        for weight in changed.lm.parameters():
            weight += 0.01
    changed.save(tmp_path / "step")
    again = MusicGen.load(tmp_path / "step")
    assert equal_weights(again, changed) and not equal_weights(again.lm, model.lm)
    assert torch.equal(again.condition(PROMPTS).states, changed.condition(PROMPTS).states)
    codes = random_codes(model.lm, 2, 8)
    assert torch.equal(again.decode(codes), changed.decode(codes))


def test_half_precision_is_half_the_size_and_close(model, tmp_path):
    model.save(tmp_path / "half", half=True)
    model.save(tmp_path / "full")
    sizes = [sum(file.stat().st_size for file in (tmp_path / kind).rglob("*.safetensors")) for kind in ("half", "full")]
    assert sizes[0] < 0.7 * sizes[1]
    again = MusicGen.load(tmp_path / "half")
    assert next(model.lm.parameters()).dtype == torch.float32
    for name, weight in again.lm.state_dict().items():
        assert weight.dtype == torch.float32
        torch.testing.assert_close(weight, model.lm.state_dict()[name], atol=1e-3, rtol=1e-3)


def test_built_in_parts_load_with_the_library_alone(tiny_model):
    model = MusicGen.load(tiny_model)
    assert equal_weights(MusicgenForCausalLM.from_pretrained(tiny_model / "decoder"), model.lm.decoder)
    assert equal_weights(T5EncoderModel.from_pretrained(tiny_model / "text_encoder"), model.text_encoder)
    assert AutoTokenizer.from_pretrained(tiny_model / "text_encoder")("fast")["input_ids"]


def test_equal_widths_need_no_projection(tiny_model, make_lm, tmp_path):
    model = MusicGen.load(tiny_model)
    plain = MusicGen(make_lm(hidden_size=24), model.text_encoder, model.tokenizer, model.codec)
    plain.save(tmp_path)
    assert not (tmp_path / "projection.safetensors").exists()
    again = MusicGen.load(tmp_path)
    assert isinstance(again.lm.projection, nn.Identity) and equal_weights(again, plain)


def test_a_saved_library_folder_loads_with_the_library(encodec_checkpoint, tmp_path):
    MusicGen.load(encodec_checkpoint).save(tmp_path)
    saved, original = (json.loads((path / "config.json").read_text()) for path in (tmp_path, encodec_checkpoint))
    assert saved["model_type"] == "musicgen" and saved["decoder"].items() >= original["decoder"].items()
    assert AutoProcessor.from_pretrained(tmp_path).feature_extractor.sampling_rate == 4_000


def test_a_codec_with_other_codebooks_is_refused(model, make_lm):
    with pytest.raises(ValueError, match="codec has 4 codebooks of 16, the decoder 2 of 16"):
        MusicGen(make_lm(num_codebooks=2), model.text_encoder, model.tokenizer, model.codec)


def test_bad_input_is_named(model):
    with pytest.raises(ValueError, match=r"prompts .*got \[\]"):
        model.condition([])
    with pytest.raises(ValueError, match="got 'one text'"):
        model.condition("one text")
    for seconds in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=f"seconds .*got {seconds}"):
            model.frames(seconds)
