"""The base model's loss equals a loop over tokens; its size, data, training and resume."""

from __future__ import annotations

import copy
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

from qd.builtin.captioned_codes import Batch, CaptionedCodes, with_wrong_captions, without_captions
from qd.builtin.captioned_language_model import CaptionedLanguageModel, ModelSize, held_out_losses
from qd.builtin.language_model import LanguageModelPretraining, LanguageModelStageConfig, run
from qd.builtin.stage import CountFrom, IndexedStream, fit_stage
from qd.builtin.tokenizer import MAX_VOCABULARY, train_tokenizer
from qd.builtin.tokens import TokensStageConfig
from qd.builtin.tokens import run as run_tokens
from qd.models.codecs.codec import CodecConfig, FrameCodec
from qd.models.musicgen import MusicGen

TINY = ModelSize(hidden_size=16, layers=1, heads=2, ffn_size=32, text_heads=2, text_head_size=8, text_ffn_size=16)
CAPTIONS = ["A slow waltz.", "Fast techno with drums.", "Bad audio quality.", "", "Ünïcödé 🎹"]
CODEBOOKS, CODEBOOK_SIZE = 3, 7
PARTS_ALONE = """
import sys, torch
from transformers import AutoTokenizer, MusicgenForCausalLM, T5EncoderModel
folder = sys.argv[1]
tokens = AutoTokenizer.from_pretrained(folder + "/text_encoder")(["A slow waltz."], return_tensors="pt")
states = T5EncoderModel.from_pretrained(folder + "/text_encoder", dtype="float32")(**tokens).last_hidden_state
decoder = MusicgenForCausalLM.from_pretrained(folder + "/decoder", dtype="float32")
start = torch.full((decoder.config.num_codebooks, 1), decoder.config.pad_token_id)
logits = decoder(start, encoder_hidden_states=states, encoder_attention_mask=tokens.attention_mask).logits
torch.save(logits.detach(), sys.argv[2])
"""


@pytest.fixture
def tokenizer():
    return train_tokenizer(CAPTIONS, 270)


@pytest.fixture
def model(tokenizer):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = CaptionedLanguageModel(TINY, len(tokenizer), CODEBOOKS, CODEBOOK_SIZE)
        for weight in model.parameters():  # large enough for captions and positions to matter
            if weight.ndim == 2:
                torch.nn.init.normal_(weight, std=weight.shape[1] ** -0.5)
    return model


def random_clips(tokenizer, clips: int = 5, frames: int = 6) -> CaptionedCodes:
    codes = torch.randint(CODEBOOK_SIZE, (clips, CODEBOOKS, frames), generator=torch.Generator().manual_seed(1))
    return CaptionedCodes(codes.to(torch.int16), (CAPTIONS * clips)[:clips], tokenizer)


def test_at_most_six_million_parameters():
    size = ModelSize()
    width, inner = size.hidden_size, size.text_heads * size.text_head_size
    decoder_layer = 2 * 4 * width**2 + 2 * width * size.ffn_size + 3 * 2 * width  # two attentions, MLP, three norms
    decoder = size.layers * decoder_layer + 2 * width + 4 * 513 * width + 4 * width * 512
    text_layer = 4 * width * inner + 2 * width * size.text_ffn_size + 2 * width
    text = MAX_VOCABULARY * width + size.text_layers * text_layer + width + 32 * size.text_heads  # position biases
    model = CaptionedLanguageModel(size, MAX_VOCABULARY, codebooks=4, codebook_size=512)
    assert sum(parameter.numel() for parameter in model.parameters()) == decoder + text <= 6_000_000


def test_loss_is_the_mean_over_delayed_tokens(model, tokenizer):
    batch = random_clips(tokenizer).take([0, 1, 4])
    rows, _, frames = batch.codes.shape
    total = torch.zeros(CODEBOOKS)
    for row in range(rows):
        states = model.text_encoder(input_ids=batch.ids[row : row + 1, : batch.mask[row].sum()]).last_hidden_state
        for step in range(frames + CODEBOOKS - 1):
            history = torch.full((CODEBOOKS, step + 1), CODEBOOK_SIZE)
            for q in range(CODEBOOKS):
                for s in range(step):
                    if 0 <= s - q < frames:
                        history[q, s + 1] = batch.codes[row, q, s - q]
            logits = model.lm.decoder(history, encoder_hidden_states=states).logits[:, -1]
            for q in range(CODEBOOKS):
                if 0 <= step - q < frames:
                    total[q] -= logits[q].log_softmax(-1)[batch.codes[row, q, step - q]]
    torch.testing.assert_close(model(batch), total / (rows * frames))


def test_null_condition_ignores_the_caption(model, tokenizer):
    batch = random_clips(tokenizer).take([0, 1, 4])
    other = batch._replace(ids=batch.ids.flip(0))
    assert not torch.allclose(model(batch), model(other))
    assert torch.equal(model(without_captions(batch)), model(without_captions(other)))
    null = batch._replace(ids=batch.ids[:, :1], mask=torch.zeros(3, 1, dtype=torch.bool))
    torch.testing.assert_close(model(without_captions(batch)), model(null))


def test_condition_equals_the_condition_in_sampling(model, tokenizer):
    captions = [CAPTIONS[0], CAPTIONS[4]]
    batch = CaptionedCodes(torch.zeros(2, CODEBOOKS, 1, dtype=torch.int16), captions, tokenizer).take([0, 1])
    condition = model.condition(batch)
    music = MusicGen(
        model.lm,
        copy.deepcopy(model.text_encoder),
        tokenizer,
        FrameCodec(CodecConfig(n_mels=20, width=16, codebooks=CODEBOOKS, codebook_size=CODEBOOK_SIZE)),
    )
    expected = music.condition(captions)
    assert torch.equal(condition.mask, expected.mask)
    torch.testing.assert_close(model.lm.project(condition)[0], model.lm.project(expected)[0])


def test_epochs_visit_every_clip_once_and_drop_captions(tokenizer):
    codes = torch.arange(40, dtype=torch.int16).view(40, 1, 1)
    clips = CaptionedCodes(codes, ["x"] * 40, tokenizer)
    batch_of = partial(clips.training_batch, size=8, condition_dropout=0.25, seed=3)
    epochs = [torch.cat([batch_of(step).codes.flatten() for step in range(5 * e, 5 * e + 5)]) for e in range(2)]
    assert all(epoch.sort().values.tolist() == list(range(40)) for epoch in epochs)
    assert epochs[0].tolist() != epochs[1].tolist()
    assert torch.equal(batch_of(7).mask, batch_of(7).mask)
    dropped = torch.cat([~batch_of(step).mask.any(1) for step in range(250)]).float().mean()
    assert abs(dropped - 0.25) < 0.04  # 4 standard deviations of 2,000 draws
    assert (
        batch_of(0).codes.flatten().tolist()
        != clips.training_batch(0, size=8, condition_dropout=0, seed=4).codes.flatten().tolist()
    )


def test_captions_stay_with_their_clips(tokenizer):
    clips = random_clips(tokenizer)
    batch = clips.take([4, 0])
    texts = [
        tokenizer.decode(ids[mask], skip_special_tokens=True) for ids, mask in zip(batch.ids, batch.mask, strict=True)
    ]
    assert texts == [CAPTIONS[4], CAPTIONS[0]]
    wrong = with_wrong_captions(batch)
    assert torch.equal(wrong.codes, batch.codes) and torch.equal(wrong.ids, batch.ids.flip(0))
    with pytest.raises(ValueError, match="5 clips have 4 captions"):
        CaptionedCodes(clips.codes, CAPTIONS[:4], tokenizer)
    with pytest.raises(ValueError, match="5 clips .*base.batch_size=6.*tokens.clips"):
        clips.training_batch(0, size=6, condition_dropout=0.0, seed=0)


def fit(
    model, clips, folder: Path, config: LanguageModelStageConfig, stop: int | None = None
) -> LanguageModelPretraining:
    module = LanguageModelPretraining(config, copy.deepcopy(model), [clips.take(range(4))])
    batch_of = partial(clips.training_batch, size=config.batch_size, condition_dropout=0.15, seed=0)

    def make_loader(first_step: int) -> DataLoader:
        return DataLoader(IndexedStream(batch_of), batch_size=None, sampler=CountFrom(first_step))

    fit_stage(module, make_loader, folder, stop or config.max_steps, 3, "32-true", "cpu")
    return module


def test_a_few_steps_lower_the_loss_and_a_resumed_run_ends_equal(model, tokenizer, tmp_path):
    config = LanguageModelStageConfig(batch_size=4, max_steps=12, warmup_steps=2, learning_rate=1e-2, validate_every=4)
    clips = random_clips(tokenizer, clips=8)
    before = held_out_losses(model, [clips.take(range(4))])["loss"]
    whole = fit(model, clips, tmp_path / "whole", config)
    assert held_out_losses(whole.model, [clips.take(range(4))])["loss"] < before - 0.1
    assert whole.average.n_averaged == 12

    fit(model, clips, tmp_path / "stopped", config, stop=6)
    resumed = fit(model, clips, tmp_path / "stopped", config)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


def test_held_out_losses_do_not_depend_on_the_batches(model, tokenizer):
    clips = random_clips(tokenizer)
    whole = held_out_losses(model, [clips.take(range(5))])
    split = held_out_losses(model, [clips.take(range(2)), clips.take(range(2, 5))])
    same = [
        name for name in whole if name not in ("loss_wrong_caption", "caption_gain")
    ]  # a wrong caption is the neighbour's
    assert [whole[name] for name in same] == pytest.approx([split[name] for name in same], abs=1e-5)
    assert whole["caption_gain"] == pytest.approx(whole["loss_wrong_caption"] - whole["loss"])
    mean = sum(whole[f"loss_codebook_{q}"] for q in range(CODEBOOKS)) / CODEBOOKS
    assert whole["loss"] == pytest.approx(mean)


def test_stage_writes_a_checkpoint_that_loads_completely_and_in_parts(tmp_path):
    FrameCodec(CodecConfig(n_mels=20, width=16, latent_width=8, codebook_size=16)).save_pretrained(tmp_path / "codec")
    tokens = TokensStageConfig(clips=8, validation_clips=4, seconds=0.4, shard_size=8, batch_size=8, workers=0)
    run_tokens(tokens, tmp_path / "tokens", tmp_path / "codec")
    config = LanguageModelStageConfig(
        vocabulary=300, batch_size=4, max_steps=2, warmup_steps=1, precision="32-true", device="cpu", model=TINY
    )
    asset = run(config, tmp_path / "base", tmp_path / "tokens", tmp_path / "codec")
    assert "| caption_gain |" in (asset / "README.md").read_text()
    music = MusicGen.load(asset)
    first = torch.full((1, 4, 1), music.lm.pad)
    expected = music.lm.logits(first, music.condition(["A slow waltz."]))[0, :, 0]

    command = [sys.executable, "-c", PARTS_ALONE, str(asset), str(tmp_path / "logits.pt")]
    subprocess.run(command, check=True, capture_output=True)
    alone = torch.load(tmp_path / "logits.pt", weights_only=True)[:, 0]
    torch.testing.assert_close(alone, expected)


def test_tokens_of_another_codec_are_refused_before_any_work(tmp_path):
    for name in ("codec", "rebuilt"):
        FrameCodec(CodecConfig(n_mels=20, width=16, latent_width=8, codebook_size=16)).save_pretrained(tmp_path / name)
    tokens = TokensStageConfig(clips=2, validation_clips=1, seconds=0.4, shard_size=8, batch_size=8, workers=0)
    run_tokens(tokens, tmp_path / "tokens", tmp_path / "codec")
    with pytest.raises(ValueError, match="the tokens in .* codec .*remove"):
        run(LanguageModelStageConfig(), tmp_path / "base", tmp_path / "tokens", tmp_path / "rebuilt")
    assert not (tmp_path / "base").exists()


def test_all_bad_settings_are_listed():
    config = LanguageModelStageConfig(batch_size=0, condition_dropout=1.0, warmup_steps=9, max_steps=9)
    problems = "\n".join(config.problems())
    assert all(name in problems for name in ("batch_size is 0", "condition_dropout is 1.0", "warmup_steps is 9"))
    assert LanguageModelStageConfig().problems() == []


def test_batches_reach_the_model_unchanged(tokenizer):
    clips = random_clips(tokenizer)
    batch_of = partial(clips.training_batch, size=2, condition_dropout=0.0, seed=0)
    loader = iter(DataLoader(IndexedStream(batch_of), batch_size=None, sampler=CountFrom(1)))
    batch = next(loader)
    assert isinstance(batch, Batch)
    assert all(torch.equal(a, b) for a, b in zip(batch, batch_of(1), strict=True))
